// SPDX-License-Identifier: Apache-2.0
#include "spike.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void sago_spike_accept(sago_spike_detector *d, double loss) {
    if (isfinite(loss)) d->losses[d->seen++ % SAGO_SPIKE_WINDOW] = loss;
}

bool sago_spike_check(sago_spike_detector *d, double loss, double threshold) {
    int n = d->seen < SAGO_SPIKE_WINDOW ? (int)d->seen : SAGO_SPIKE_WINDOW;
    if (threshold > 0 && n >= SAGO_SPIKE_WINDOW / 2) {
        double sorted[SAGO_SPIKE_WINDOW];
        memcpy(sorted, d->losses, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, by_value);
        if (!(loss <= threshold * sorted[n / 2])) return true;
    }
    sago_spike_accept(d, loss);
    return false;
}
