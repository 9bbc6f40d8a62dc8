// SPDX-License-Identifier: Apache-2.0
/**
 * Small models with random weights and batches of random examples, for the tests of this folder.
 */
#ifndef SAGO_SMALL_MODEL_H
#define SAGO_SMALL_MODEL_H

#include "model.h"
#include "reference.h"

/** Widths that are no powers of two, and stacks of different depth. */
typedef enum small_kind {
    SMALL_T5_1_0,       /* one encoder layer, two of the decoder, tied */
    SMALL_T5_1_1,       /* two and one */
    SMALL_T5_UL2,       /* the same with SwiGLU, tied */
    SMALL_PALM,         /* multi-query, rotary pairs of neighbours; causal */
    SMALL_PALM_GROUPED, /* two query heads a key/value head, rotary halves; inputs attend to one another */
    SMALL_KINDS
} small_kind;
sago_model_shape small_shape(small_kind kind);

typedef struct small_model {
    sago_model_shape shape;
    sago_registry registry;
    sago_device *device;
    sago_model *model;
    bool prefix; /* inputs attend to one another, in PaLM */
    float *values, *gradients;
} small_model;

typedef struct small_options {
    int max_rows, chunk, threads, seed; /* 0: 4, 7, 2, 17 */
    bool inference, recompute;
} small_options;

enum {
    SMALL_VOCABULARY = 53,
    SMALL_INPUTS = 21,
    SMALL_TARGETS = 13,
    SMALL_LENGTH = SMALL_INPUTS + SMALL_TARGETS, /* of PaLM's rows */
    SMALL_GENERATE_ROWS = 6,
    SMALL_GENERATE_TOKENS = 12
};

void small_open(small_model *small, small_kind kind, small_options options);
void small_close(small_model *small);
void small_clear_gradients(small_model *small);

/** The same weights in float64. Free values afterwards. */
reference small_reference(const small_model *small);

/** Rows of examples of given lengths: inputs[i], targets[i], a row per entry of rows: how many examples it
 * holds. The same examples for every model, in rows as it reads them. */
sago_batch small_batch(const sago_model_shape *shape, int n_rows, const int rows[], const int inputs[],
                       const int targets[], uint64_t seed);
void small_batch_free(sago_batch *batch);

/** Loss over rows [first, first + n) added to the gradients; fails the test on an error. */
sago_loss_sums small_loss(small_model *small, const sago_batch *batch, int first, int n,
                          const sago_loss_args *args);

#endif
