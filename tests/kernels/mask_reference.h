// SPDX-License-Identifier: Apache-2.0
/**
 * The dropout mask by its definition in ops.h, an element at a time from rng.h.
 */
#ifndef SAGO_TESTS_MASK_REFERENCE_H
#define SAGO_TESTS_MASK_REFERENCE_H

#include "ops.h"
#include "rng.h"

#include <stdbool.h>

static inline bool mask_keeps(const sago_dropout *d, int64_t row, int64_t token, int64_t column,
                              int64_t width) {
    int64_t pitch = d->pitch ? d->pitch : width;
    uint64_t i = (uint64_t)(d->first + ((d->first_row + row) * d->row_tokens + token) * pitch + column);
    uint32_t word[4];
    sago_philox(d->key, i / 4, 0, word);
    return (double)word[i % 4] >= (double)d->rate * 4294967296.0;
}

/** Factors of a tensor [rows, tokens, width]: 0 or 1 / (1 - rate); all 1 without dropout. */
static inline void mask_fill(float *keep, const sago_dropout *d, int64_t rows, int64_t tokens,
                             int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t c = 0; c < width; c++)
                *keep++ = !d || d->rate == 0              ? 1.0f
                          : mask_keeps(d, r, t, c, width) ? 1.0f / (1.0f - d->rate)
                                                          : 0.0f;
}

#endif
