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
    int64_t row_stride; /* elements from one row to the next there: row_tokens * pitch */
    int64_t pitch;      /* elements from one token to the next there */
    uint32_t threshold; /* words below it drop */
    float factor;       /* 1 / (1 - rate), of what is kept */
} sago_mask;

static inline sago_mask sago_mask_make(const sago_dropout *dropout, int64_t width) {
    sago_mask mask;
    /* A word w drops when w < rate * 2^32, which is exact in double; so the threshold is rounded up. */
    double limit = (double)dropout->rate * 4294967296.0;
    uint32_t whole = (uint32_t)limit;
    mask.key = dropout->key;
    mask.pitch = dropout->pitch ? dropout->pitch : width;
    mask.row_stride = dropout->row_tokens * mask.pitch;
    mask.first = dropout->first + dropout->first_row * mask.row_stride;
    mask.threshold = (double)whole < limit ? whole + 1 : whole;
    mask.factor = 1.0f / (1.0f - dropout->rate);
    return mask;
}

/**
 * The tensor as loops over flat elements see it: lines of elements that follow on each other in the global
 * batch too, as long as can be. Element `flat` is column flat % count of line n = flat / count, at
 *     first + n / per_row * row_stride + n % per_row * stride + column
 */
typedef struct sago_mask_lines {
    int64_t count;  /* elements of a line */
    int64_t stride; /* from one line to the next within a row */
    int64_t per_row;
} sago_mask_lines;

static inline sago_mask_lines sago_mask_lines_make(const sago_mask *mask, int64_t rows, int64_t tokens,
                                                   int64_t width) {
    sago_mask_lines lines = {width, mask->pitch, tokens};
    /* A row may be one line, and all lines may lie one step apart: then they count as lines of one row. */
    if (mask->pitch == width || tokens == 1)
        lines.count = tokens * width, lines.stride = mask->row_stride, lines.per_row = rows;
    else if (rows == 1 || mask->row_stride == tokens * mask->pitch)
        lines.per_row = rows * tokens;
    if (lines.stride == lines.count) lines.count *= lines.per_row;
    return lines;
}

#endif
