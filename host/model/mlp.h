// SPDX-License-Identifier: Apache-2.0
/**
 * MLP sub-layer, pre-norm and with its residual:
 *
 *     n = norm(x);  out = x + dropout(product Wout^T)
 *     T5 v1.1: product = dropout(gelu(n Wgate^T) * (n Wlinear^T)), gelu in its tanh form
 *     T5 1.0:  product = dropout(relu(n Win^T))
 */
#ifndef SAGO_MLP_H
#define SAGO_MLP_H

#include "model.h"
#include "norm.h"

typedef struct sago_mlp {
    sago_norm norm;
    int in;     /* [F, D]: the gate of v1.1, the only one of 1.0 */
    int linear; /* [F, D], -1 in 1.0 */
    int out;    /* [D, F] */
    int64_t d_model, d_ff;
    int inner_site, output_site;
} sago_mlp;

typedef struct sago_mlp_saved {
    sago_norm_saved norm;
    void *normed;  /* [N, D] */
    void *in;      /* [N, F] before the activation */
    void *linear;  /* [N, F]; v1.1 */
    void *product; /* [N, F] */
} sago_mlp_saved;

typedef struct sago_mlp_work {
    void *d_normed; /* [N, D] */
    void *d_linear; /* [N, F]; first the gradient of the product */
    void *d_in;     /* [N, F]; v1.1 */
} sago_mlp_work;

/** Declares PREFIX.norm; .gate and .linear, or .in; .out. */
sago_status sago_mlp_declare(sago_mlp *layer, sago_registry *registry, int block, const char *prefix,
                             const sago_model_shape *shape) SAGO_MUST_CHECK;
void sago_mlp_plan(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_saved *saved);
void sago_mlp_plan_work(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_work *work);
/** out.data NULL: only fills saved. */
sago_status sago_mlp_forward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                             sago_tensor out, sago_tensor x) SAGO_MUST_CHECK;
/** d_x holds the gradient of out and becomes that of x. */
sago_status sago_mlp_backward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                              const sago_mlp_work *work, sago_tensor d_x, sago_tensor x) SAGO_MUST_CHECK;

#endif
