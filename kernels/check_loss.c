// SPDX-License-Identifier: Apache-2.0
#include "check_loss.h"

#include "check.h"

sago_status sago_check_cross_entropy_forward(sago_tensor stats, sago_tensor logits, sago_tensor targets) {
    int64_t rows = sago_rows(logits);
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(stats, logits)) &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(targets)) && sago_width(stats) == SAGO_CE_STATS &&
                sago_rows(stats) == rows && sago_tensor_count(targets) == rows;
    return sago_check_shapes(fits, "cross_entropy_forward", "f32 stats[n, 4], logits[n, V], i32 targets[n]",
                             SAGO_TENSORS(stats, logits, targets));
}

sago_status sago_check_cross_entropy_combine(sago_tensor stats, sago_tensor parts) {
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(stats, parts)) && parts.n_dims == 3 &&
                parts.shape[0] > 0 && parts.shape[1] == sago_rows(stats) && parts.shape[2] == SAGO_CE_STATS &&
                sago_width(stats) == SAGO_CE_STATS;
    return sago_check_shapes(fits, "cross_entropy_combine", "f32 stats[n, 4], parts[M, n, 4], M at least 1",
                             SAGO_TENSORS(stats, parts));
}

sago_status sago_check_loss_finish(sago_tensor lse, const sago_loss_sums *sums, sago_tensor stats,
                                   sago_tensor weights, const sago_cross_entropy_args *args) {
    int64_t rows = sago_rows(stats);
    bool fits = sums && sago_all_dtype(SAGO_F32, SAGO_TENSORS(lse, stats, weights)) &&
                sago_width(stats) == SAGO_CE_STATS && sago_tensor_count(lse) == rows &&
                sago_tensor_count(weights) == rows && args->vocabulary > 0;
    return sago_check_shapes(fits, "loss_finish", "f32 lse[n], stats[n, 4], weights[n]",
                             SAGO_TENSORS(lse, stats, weights));
}

sago_status sago_check_cross_entropy_backward(const sago_device *device, sago_tensor d_logits,
                                              sago_tensor logits, sago_tensor lse, sago_tensor targets,
                                              sago_tensor weights, const sago_cross_entropy_args *args) {
    int64_t rows = sago_rows(logits);
    bool half = device->stores_bf16 && d_logits.dtype == SAGO_BF16;
    bool fits = sago_all_dtype(half ? SAGO_BF16 : SAGO_F32, SAGO_TENSORS(d_logits)) &&
                sago_all_dtype(SAGO_F32, SAGO_TENSORS(logits, lse, weights)) &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(targets)) && sago_tensor_same_shape(d_logits, logits) &&
                sago_tensor_count(lse) == rows && sago_tensor_count(targets) == rows &&
                sago_tensor_count(weights) == rows && args->vocabulary > 0;
    return sago_check_shapes(
        fits, "cross_entropy_backward",
        device->stores_bf16
            ? "f32 or bf16 d_logits[n, V], f32 logits[n, V], lse[n], i32 targets[n], f32 weights[n]"
            : "f32 d_logits[n, V], logits[n, V], lse[n], i32 targets[n], f32 weights[n]",
        SAGO_TENSORS(d_logits, logits, lse, targets, weights));
}

sago_status sago_check_carry_nonfinite(sago_tensor gradient, const sago_loss_sums *sums) {
    bool fits = sums && sago_all_dtype(SAGO_F32, SAGO_TENSORS(gradient)) && sago_tensor_count(gradient) > 0;
    return sago_check_shapes(fits, "carry_nonfinite", "f32 gradient[n], n at least 1",
                             SAGO_TENSORS(gradient));
}
