// SPDX-License-Identifier: Apache-2.0
/** How the backward pass of the embedding sorts tokens by id: what follows from the sizes alone. */
#ifndef SAGO_EMBEDDING_SORT_H
#define SAGO_EMBEDDING_SORT_H

#include <stdint.h>

enum {
    SAGO_SORT_DIGIT_BITS = 8, /* of a pass of the radix sort */
    SAGO_SORT_ID_BITS = 32,
};

/** Passes that order ids up to `rows`, the last of which stands for none: a digit each, and one at least. */
static inline int sago_sort_passes(uint32_t rows) {
    int passes = 1;
    while (passes * SAGO_SORT_DIGIT_BITS < SAGO_SORT_ID_BITS && rows >> (passes * SAGO_SORT_DIGIT_BITS))
        passes++;
    return passes;
}

#endif
