// SPDX-License-Identifier: Apache-2.0
/**
 * MLP, between the norm before it and the output product after it, which its block does:
 *
 *     T5 v1.1: product = dropout(gelu(n Wgate^T) * (n Wlinear^T)), gelu in its tanh form
 *     T5 1.0:  product = dropout(relu(n Win^T))
 *     PaLM:    product = dropout(silu(n Wgate^T) * (n Wlinear^T))
 */
#ifndef SAGO_MLP_H
#define SAGO_MLP_H

#include "layer.h"

typedef struct sago_mlp {
    sago_activation activation;
    int in;                            /* [F, D]: the gate, or the only one of 1.0 */
    int linear;                        /* [F, D], -1 in 1.0 */
    int out;                           /* [D, F] */
    int64_t d_ff;                      /* columns of this rank */
    int64_t first_column, all_columns; /* of those of all ranks that share the model */
    int inner_site;
} sago_mlp;

typedef struct sago_mlp_saved {
    void *in;      /* [N, F] before the activation */
    void *linear;  /* [N, F]; gated */
    void *product; /* [N, F] */
} sago_mlp_saved;

typedef struct sago_mlp_work {
    void *d_linear; /* [N, F]; first the gradient of the product */
    void *d_in;     /* [N, F]; gated */
} sago_mlp_work;

/** Declares PREFIX.gate and .linear, or .in; .out. */
sago_status sago_mlp_declare(sago_mlp *layer, const sago_declaration *into,
                             const char *prefix) SAGO_MUST_CHECK;
void sago_mlp_plan(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_saved *saved);
void sago_mlp_plan_work(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_work *work);
/** Fills saved from n [B, S, D]; the output product is over sago_mlp_output(). */
sago_status sago_mlp_forward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                             sago_tensor n) SAGO_MUST_CHECK;
/** product as [B, S, F]. */
sago_tensor sago_mlp_output(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                            sago_tensor n);
/** d_out [B, S, D]: gradient of product Wout^T. d_n = where beta is 0, += where it is 1; d_n may be d_out
 * where beta is 0. */
sago_status sago_mlp_backward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                              const sago_mlp_work *work, sago_tensor d_n, float beta, sago_tensor d_out,
                              sago_tensor n) SAGO_MUST_CHECK;

#endif
