// SPDX-License-Identifier: Apache-2.0
/**
 * Fill: which of the waiting examples make one row. Integers in, integers out: no state between rows but
 * memory.
 */
#ifndef SAGO_PACK_FILL_H
#define SAGO_PACK_FILL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sago_fill_item {
    int32_t inputs, targets; /* tokens */
} sago_fill_item;

typedef struct sago_fill sago_fill;
sago_fill *sago_fill_open(int64_t input_length, int64_t target_length);
void sago_fill_close(sago_fill *fill);

/**
 * Chooses a row out of n >= 1 items, each of which fits a row alone. It holds item 0, and those of the others
 * whose inputs add up to the most that fits while their targets fit; among such subsets, one that was found
 * with the hardest items, of the largest max(inputs / input_length, targets / target_length). chosen[] gets
 * the indices in ascending order; returns how many.
 */
int64_t sago_fill_row(sago_fill *fill, const sago_fill_item items[], int64_t n, int64_t chosen[]);

#endif
