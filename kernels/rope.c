// SPDX-License-Identifier: Apache-2.0
#include "rope.h"

#include <math.h>

void sago_rope_table_fill(sago_rope_table *out, int64_t pairs, double theta) {
    const double turns_a_radian = 0.15915494309189533577, unit = 18446744073709551616.0; /* 2^64 */
    for (int64_t i = 0; i < pairs; i++)
        out->turns[i] = (uint64_t)(pow(theta, -(double)i / (double)pairs) * turns_a_radian * unit + 0.5);
}
