// SPDX-License-Identifier: Apache-2.0
/**
 * The checks of the loss's operations, the same for every device; their shapes stand in ops.h.
 */
#ifndef SAGO_CHECK_LOSS_H
#define SAGO_CHECK_LOSS_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops.h"

sago_status sago_check_cross_entropy_forward(sago_tensor stats, sago_tensor logits,
                                             sago_tensor targets) SAGO_MUST_CHECK;
sago_status sago_check_cross_entropy_combine(sago_tensor stats, sago_tensor parts) SAGO_MUST_CHECK;
sago_status sago_check_loss_finish(sago_tensor lse, const sago_loss_sums *sums, sago_tensor stats,
                                   sago_tensor weights, const sago_cross_entropy_args *args) SAGO_MUST_CHECK;
sago_status sago_check_cross_entropy_backward(const sago_device *device, sago_tensor d_logits,
                                              sago_tensor logits, sago_tensor lse, sago_tensor targets,
                                              sago_tensor weights,
                                              const sago_cross_entropy_args *args) SAGO_MUST_CHECK;
sago_status sago_check_carry_nonfinite(sago_tensor gradient, const sago_loss_sums *sums) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
