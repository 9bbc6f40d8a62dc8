// SPDX-License-Identifier: Apache-2.0
/**
 * Batch rows: memory for a sago_batch, and how packed examples are laid into it (shift right inside each
 * segment; decoder-only: inputs and targets one behind the other).
 */
#ifndef SAGO_BATCH_ROWS_H
#define SAGO_BATCH_ROWS_H

#include "batch.h"
#include "tokenizer.h"

#include <stdbool.h>

/** Takes memory for most_rows rows; n_rows is 0 until rows are added. decoder_only: one sequence a row, of
 * input_length + target_length tokens. */
void sago_batch_open(sago_batch *batch, int64_t most_rows, int64_t input_length, int64_t target_length,
                     bool decoder_only);
void sago_batch_close(sago_batch *batch);

/** Empties the batch: n_rows rows of padding, all counts 0. */
void sago_batch_clear(sago_batch *batch, int64_t n_rows);

/** How many tokens of an example are given, the others are predicted: its inputs, or a decoder-only example's
 * first target where it has none. */
int64_t sago_batch_given(bool decoder_only, const sago_ids *inputs, const sago_ids *targets);

/**
 * Lays one example into row, behind what the row holds: inputs at *input_at, targets at *target_at, which
 * move on (decoder-only: inputs and targets at *target_at). segment is 1 for a row's first example, then 2,
 * ... The caller has checked that it fits.
 */
void sago_batch_add(sago_batch *batch, int64_t row, int32_t segment, const sago_ids *inputs,
                    const sago_ids *targets, int64_t *input_at, int64_t *target_at);

#endif
