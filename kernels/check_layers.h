// SPDX-License-Identifier: Apache-2.0
/**
 * What the tensors of elementwise operations, dropout, activations, rotations, embeddings and norms must look
 * like, on every device: each takes an operation's own arguments and returns SAGO_OK or a line that names it
 * (check.h).
 */
#ifndef SAGO_CHECK_LAYERS_H
#define SAGO_CHECK_LAYERS_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops.h"

sago_status sago_fits_fill(const sago_device *device, sago_tensor out) SAGO_MUST_CHECK;
sago_status sago_fits_copy(sago_tensor out, sago_tensor in) SAGO_MUST_CHECK;
sago_status sago_fits_add_scaled(const sago_device *device, sago_tensor out, sago_tensor in) SAGO_MUST_CHECK;
sago_status sago_fits_scale(const sago_device *device, sago_tensor out) SAGO_MUST_CHECK;
sago_status sago_fits_sum_squares(const sago_device *device, const sago_tensor in[], int n) SAGO_MUST_CHECK;

sago_status sago_fits_dropout(const sago_device *device, sago_tensor out, sago_tensor in,
                              const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_residual(const sago_device *device, sago_tensor out, sago_tensor residual,
                               sago_tensor in, const sago_dropout *dropout) SAGO_MUST_CHECK;

sago_status sago_fits_relu_forward(const sago_device *device, sago_tensor y, sago_tensor x,
                                   const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_relu_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_y,
                                    sago_tensor x, const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_geglu_forward(const sago_device *device, sago_tensor y, sago_tensor gate,
                                    sago_tensor linear, const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_geglu_backward(const sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_swiglu_forward(const sago_device *device, sago_tensor y, sago_tensor gate,
                                     sago_tensor linear, const sago_dropout *dropout) SAGO_MUST_CHECK;
sago_status sago_fits_swiglu_backward(const sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *dropout) SAGO_MUST_CHECK;

/** And theta, which is SAGO_E_INTERNAL. */
sago_status sago_fits_rope(const sago_device *device, sago_tensor out, sago_tensor x, sago_tensor positions,
                           const sago_rope_args *args) SAGO_MUST_CHECK;

/** Shapes alone: what the ids say is for sago_check_ids, where the host can read them. */
sago_status sago_fits_embedding_forward(const sago_device *device, sago_tensor y, sago_tensor table,
                                        sago_tensor ids) SAGO_MUST_CHECK;
sago_status sago_fits_embedding_backward(const sago_device *device, sago_tensor d_table, sago_tensor d_y,
                                         sago_tensor ids) SAGO_MUST_CHECK;

sago_status sago_fits_rmsnorm_forward(const sago_device *device, sago_tensor y, sago_tensor rstd,
                                      sago_tensor x, sago_tensor scale) SAGO_MUST_CHECK;
sago_status sago_fits_rmsnorm_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale,
                                       sago_tensor rstd) SAGO_MUST_CHECK;
sago_status sago_fits_layernorm_forward(const sago_device *device, sago_tensor y, sago_tensor mean,
                                        sago_tensor rstd, sago_tensor x, sago_tensor scale) SAGO_MUST_CHECK;
sago_status sago_fits_layernorm_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                         sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor mean,
                                         sago_tensor rstd) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
