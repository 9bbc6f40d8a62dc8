// SPDX-License-Identifier: Apache-2.0
/**
 * The models written out in float64, straight from their formulas: one row at a time, every query against
 * every key, all logits at once. What sago computes is compared with it. reference.c: what all have;
 * t5_reference.c and palm_reference.c: hidden states.
 */
#ifndef SAGO_REFERENCE_H
#define SAGO_REFERENCE_H

#include "model.h"

typedef struct reference {
    sago_model_shape shape;
    const sago_registry *registry;
    double *values; /* the flat buffer in float64 */
    double dropout;
    uint64_t dropout_key;
    double z_loss, label_smoothing;
    bool prefix; /* PaLM: inputs of an example attend to one another */
} reference;

/** Log-probabilities of the whole vocabulary at every target position of a row: out[target_length, V]. */
void reference_logprobs(const reference *r, const sago_batch *batch, int64_t row, double *out);

/** Sum over weighted targets of CE + z_loss * lse^2, over all rows. */
double reference_objective(const reference *r, const sago_batch *batch);

/* --- a family's own file fills h[target_length, D], what the logits are taken from
 * ----------------------------- */

void reference_t5_hidden(const reference *r, const sago_batch *batch, int64_t row, double *h);
void reference_palm_hidden(const reference *r, const sago_batch *batch, int64_t row, double *h);

/* --- what they share
 * ------------------------------------------------------------------------------------------- */

/** Zeros, to be freed. */
double *reference_room(int64_t count);
/** The values of STACK.LAYER.NAME, or of STACK.NAME where layer is negative. */
const double *reference_named(const reference *r, const char *stack, int layer, const char *name);
/** 0 where dropout takes element (row, token, column) of a tensor of row_tokens tokens of this width, as
 * ops.h has it; else what it multiplies by. */
double reference_keep(const reference *r, int site, int64_t row, int64_t row_tokens, int64_t token,
                      int64_t width, int64_t column);
/** y[n, out] = x[n, in] W[out, in]^T */
void reference_linear(double *y, const double *x, const double *w, int64_t n, int64_t in, int64_t out);

#endif
