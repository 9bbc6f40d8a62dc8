// SPDX-License-Identifier: Apache-2.0
/**
 * Norm layer over the last dim, with a scale and no offset:
 *
 *     T5:   y = x / sqrt(mean(x^2) + epsilon) * scale                          (Zhang and Sennrich 2019)
 *     PaLM: y = (x - mean(x)) / sqrt(variance(x) + epsilon) * scale            (Ba et al. 2016)
 */
#ifndef SAGO_NORM_H
#define SAGO_NORM_H

#include "layer.h"

typedef struct sago_norm {
    int scale; /* [D] */
    float epsilon;
    bool centered; /* PaLM's */
} sago_norm;

typedef struct sago_norm_saved {
    float *mean, *rstd; /* [N]; mean where centered */
} sago_norm_saved;

sago_status sago_norm_declare(sago_norm *norm, sago_registry *registry, int block, const char *prefix,
                              const char *name, const sago_model_shape *shape) SAGO_MUST_CHECK;
void sago_norm_plan(const sago_norm *norm, const sago_plan *plan, int64_t tokens, sago_norm_saved *saved);
/** y = norm(x), both [B, S, D]. */
sago_status sago_norm_forward(const sago_norm *norm, const sago_pass *pass, const sago_norm_saved *saved,
                              sago_tensor y, sago_tensor x) SAGO_MUST_CHECK;
/** d_x += ; x of the forward pass. */
sago_status sago_norm_backward(const sago_norm *norm, const sago_pass *pass, const sago_norm_saved *saved,
                               sago_tensor d_x, sago_tensor d_y, sago_tensor x) SAGO_MUST_CHECK;

#endif
