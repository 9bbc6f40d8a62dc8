// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"

#include <string.h>

/* Sums of three and more go through a block that stays in the first-level cache, part after part, so that the
 * order of additions is that of the ranks and each part is read once. Elements do not depend on one another,
 * also where out is one of the parts. */
enum { BLOCK = 1024 };

size_t comm_dtype_bytes(comm_dtype dtype) {
    return dtype == COMM_F32 ? 4 : 8;
}

#define SUM_OF(name, type)                                                                                   \
    static void name(type *out, const void *const parts[], int n_parts, int64_t count) {                     \
        type total[BLOCK];                                                                                   \
        for (int64_t at = 0; at < count; at += BLOCK) {                                                      \
            int n = count - at < BLOCK ? (int)(count - at) : BLOCK;                                          \
            const type *first = (const type *)parts[0] + at, *last = (const type *)parts[n_parts - 1] + at;  \
            for (int p = 1; p < n_parts - 1; p++) {                                                          \
                const type *part = (const type *)parts[p] + at;                                              \
                for (int i = 0; i < n; i++) total[i] = first[i] + part[i];                                   \
                first = total;                                                                               \
            }                                                                                                \
            _Pragma("GCC ivdep") for (int i = 0; i < n; i++) out[at + i] = first[i] + last[i];               \
        }                                                                                                    \
    }

SUM_OF(sum_f32, float)
SUM_OF(sum_f64, double)
SUM_OF(sum_u64, uint64_t) /* of int64_t: the same bits, and an overflow wraps instead of being undefined */

void comm_sum(comm_dtype dtype, void *out, const void *const parts[], int n_parts, int64_t count) {
    switch (dtype) {
    case COMM_F32:
        sum_f32(out, parts, n_parts, count);
        break;
    case COMM_F64:
        sum_f64(out, parts, n_parts, count);
        break;
    case COMM_I64:
        sum_u64(out, parts, n_parts, count);
        break;
    }
}
