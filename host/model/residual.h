// SPDX-License-Identifier: Apache-2.0
/**
 * The end of every sub-layer: its output products are summed, over the ranks that share the model too, pass
 * through dropout and join the residual stream; and the way back.
 */
#ifndef SAGO_RESIDUAL_H
#define SAGO_RESIDUAL_H

#include "parallel.h"

/** x W^T, the output product of a sub-layer: x[B, S, in], W[D, in]. */
typedef struct sago_product {
    sago_tensor x;
    int weight;
} sago_product;

/** out = residual + dropout(sum of n products), both of the residual stream; out may be residual. */
sago_status sago_products_residual(const sago_pass *pass, sago_tensor out, sago_tensor residual,
                                   const sago_product products[], int n, int site) SAGO_MUST_CHECK;
/** The same of one product. */
sago_status sago_linear_residual(const sago_pass *pass, sago_tensor out, sago_tensor residual, sago_tensor x,
                                 int weight, int site) SAGO_MUST_CHECK;

/**
 * The way back: *d [rows, tokens, D], whole, = dropout(d_out). room holds own tokens where there is dropout;
 * *d lies in room, in d_out itself, or in the second room for gathered tokens.
 */
sago_status sago_residual_gradient(const sago_pass *pass, sago_tensor *d, sago_tensor d_out, int64_t rows,
                                   int64_t tokens, void *room, int site) SAGO_MUST_CHECK;

#endif
