// SPDX-License-Identifier: Apache-2.0
/**
 * T5 written out in float64, straight from its formulas: one row at a time, every query against every key,
 * all logits at once. What the model computes is compared with it.
 */
#ifndef SAGO_T5_REFERENCE_H
#define SAGO_T5_REFERENCE_H

#include "model.h"

typedef struct reference {
    sago_model_shape shape;
    const sago_registry *registry;
    double *values; /* the flat buffer in float64 */
    double dropout;
    uint64_t dropout_key;
    double z_loss, label_smoothing;
} reference;

/** Log-probabilities of the whole vocabulary at every target position of a row: out[target_length, V]. */
void reference_logprobs(const reference *r, const sago_batch *batch, int64_t row, double *out);

/** Sum over weighted targets of CE + z_loss * lse^2, over all rows. */
double reference_objective(const reference *r, const sago_batch *batch);

#endif
