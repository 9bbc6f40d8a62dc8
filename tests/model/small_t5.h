// SPDX-License-Identifier: Apache-2.0
/**
 * A small T5 with random weights and batches of random examples, for the tests of this folder.
 */
#ifndef SAGO_SMALL_T5_H
#define SAGO_SMALL_T5_H

#include "model.h"
#include "t5_reference.h"

/** Widths that are no powers of two, and stacks of different depth. */
sago_model_shape small_shape(bool version_1_1);

typedef struct small_t5 {
    sago_model_shape shape;
    sago_registry registry;
    sago_device *device;
    sago_model *model;
    float *values, *gradients;
} small_t5;

typedef struct small_options {
    int max_rows, chunk, threads, seed; /* 0: 4, 7, 2, 17 */
    bool inference, recompute;
} small_options;

enum { SMALL_INPUTS = 21, SMALL_TARGETS = 13, SMALL_GENERATE_ROWS = 6, SMALL_GENERATE_TOKENS = 12 };

void small_open(small_t5 *t5, bool version_1_1, small_options options);
void small_close(small_t5 *t5);
void small_clear_gradients(small_t5 *t5);

/** The same weights in float64. Free values afterwards. */
reference small_reference(const small_t5 *t5);

/** Rows of examples of given lengths: inputs[i], targets[i], a row per entry of rows: how many examples it
 * holds. */
sago_batch small_batch(int n_rows, const int rows[], const int inputs[], const int targets[], uint64_t seed);
void small_batch_free(sago_batch *batch);

/** Loss over rows [first, first + n) added to the gradients; fails the test on an error. */
sago_loss_sums small_loss(small_t5 *t5, const sago_batch *batch, int first, int n,
                          const sago_loss_args *args);

#endif
