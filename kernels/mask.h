// SPDX-License-Identifier: Apache-2.0
/**
 * A dropout mask ready for loops: what ops.h says of sago_dropout, worked out once for a tensor [rows,
 * tokens, width].
 */
#ifndef SAGO_MASK_H
#define SAGO_MASK_H

#include "ops.h"

typedef struct sago_mask {
    uint64_t key;
    int64_t first;      /* index of the tensor's first element in the global batch */
    int64_t row_count;  /* elements of one row here: tokens * width */
    int64_t row_stride; /* elements from one row to the next in the global batch: row_tokens * width */
    uint32_t threshold; /* words below it drop */
    float factor;       /* 1 / (1 - rate), of what is kept */
} sago_mask;

static inline sago_mask sago_mask_make(const sago_dropout *dropout, int64_t tokens, int64_t width) {
    sago_mask mask;
    /* A word w drops when w < rate * 2^32, which is exact in double; so the threshold is rounded up. */
    double limit = (double)dropout->rate * 4294967296.0;
    uint32_t whole = (uint32_t)limit;
    mask.key = dropout->key;
    mask.first = dropout->first_row * dropout->row_tokens * width;
    mask.row_count = tokens * width;
    mask.row_stride = dropout->row_tokens * width;
    mask.threshold = (double)whole < limit ? whole + 1 : whole;
    mask.factor = 1.0f / (1.0f - dropout->rate);
    return mask;
}

#endif
