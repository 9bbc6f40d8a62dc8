// SPDX-License-Identifier: Apache-2.0
#include "layer.h"

#include "rng.h"

#include <stdio.h>

sago_dropout sago_pass_dropout(const sago_pass *pass, int site, int64_t row_tokens) {
    return (sago_dropout){.rate = pass->dropout_rate,
                          .key = sago_mix(pass->dropout_key, (uint64_t)site),
                          .first_row = pass->first_row,
                          .row_tokens = row_tokens};
}

sago_status sago_pass_enter(const sago_pass *pass, int block, sago_direction direction) {
    return pass->fsdp ? sago_fsdp_enter(pass->fsdp, block, direction) : SAGO_OK;
}

sago_tensor sago_pass_value(const sago_pass *pass, int param) {
    if (pass->fsdp) return sago_fsdp_value(pass->fsdp, param);
    /* Tensors have no const data pointer; operations only write their outputs, and values never are one. */
    return sago_param_tensor(&pass->registry->params[param], pass->dtype, (void *)(uintptr_t)pass->values);
}

sago_tensor sago_pass_gradient(const sago_pass *pass, int param) {
    if (pass->fsdp) return sago_fsdp_gradient(pass->fsdp, param);
    return sago_param_tensor(&pass->registry->params[param], SAGO_F32, pass->gradients);
}

sago_status sago_linear_forward(const sago_pass *pass, sago_tensor y, sago_tensor x, int weight, float beta) {
    const sago_matmul_args args = {.transpose_b = true, .alpha = 1, .beta = beta, .bf16 = pass->bf16};
    return pass->device->ops->matmul(pass->device, y, x, sago_pass_value(pass, weight), &args);
}

sago_status sago_linear_backward(const sago_pass *pass, sago_tensor d_x, float beta, sago_tensor d_y,
                                 sago_tensor x, int weight) {
    const sago_ops *ops = pass->device->ops;
    const sago_matmul_args to_x = {.alpha = 1, .beta = beta, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(pass->device, d_x, d_y, sago_pass_value(pass, weight), &to_x));
    const sago_matmul_args to_weight = {.transpose_a = true, .alpha = 1, .beta = 1, .bf16 = pass->bf16};
    return ops->matmul(pass->device, sago_pass_gradient(pass, weight), d_y, x, &to_weight);
}

sago_status sago_layer_declare(sago_registry *registry, int block, const char *prefix, const char *name,
                               int n_dims, const int64_t shape[], const sago_axis axes[], sago_init_kind init,
                               double deviation, int *index) {
    char full[SAGO_PARAM_NAME_BYTES];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    *index = sago_registry_declare(registry, block, full, n_dims, shape, axes, init, (float)deviation);
    return *index < 0 ? SAGO_E_SHAPE : SAGO_OK;
}

int64_t sago_plan_own(const sago_plan *plan, int64_t tokens) {
    int size = plan->cut_tokens && plan->model_size > 1 ? plan->model_size : 1;
    return (tokens + size - 1) / size;
}

void *sago_plan_partial(const sago_plan *plan, int64_t count) {
    return plan->model_size > 1 ? sago_plan_floats(plan, count) : sago_plan_take(plan, count);
}

void *sago_plan_take(const sago_plan *plan, int64_t count) {
    return sago_arena_take(plan->arena, (size_t)count * sago_dtype_bytes(plan->dtype));
}

float *sago_plan_floats(const sago_plan *plan, int64_t count) {
    return sago_arena_take(plan->arena, (size_t)count * sizeof(float));
}

int32_t *sago_plan_ints(const sago_plan *plan, int64_t count) {
    return sago_arena_take(plan->arena, (size_t)count * sizeof(int32_t));
}

sago_overlap sago_overlap_begin(const sago_arena *arena) {
    return (sago_overlap){sago_arena_mark(arena), sago_arena_mark(arena)};
}

void sago_overlap_next(sago_overlap *overlap, sago_arena *arena) {
    size_t at = sago_arena_mark(arena);
    if (at > overlap->end) overlap->end = at;
    sago_arena_release(arena, overlap->start);
}

void sago_overlap_end(sago_overlap *overlap, sago_arena *arena) {
    sago_overlap_next(overlap, arena);
    sago_arena_release(arena, overlap->end);
}
