// SPDX-License-Identifier: Apache-2.0
#include "norm.h"

sago_status sago_norm_declare(sago_norm *norm, sago_registry *registry, int block, const char *prefix,
                              const char *name, const sago_model_shape *shape) {
    norm->epsilon = shape->norm_epsilon;
    norm->centered = sago_model_decoder_only(shape);
    return sago_layer_declare(registry, block, prefix, name, 1, &shape->d_model,
                              (const sago_axis[]){SAGO_AXIS_EMBED}, SAGO_INIT_ONE, 0, &norm->scale);
}

void sago_norm_plan(const sago_norm *norm, const sago_plan *plan, int64_t tokens, sago_norm_saved *saved) {
    saved->mean = norm->centered ? sago_plan_floats(plan, tokens) : NULL;
    saved->rstd = sago_plan_floats(plan, tokens);
}

/* The operation sees tokens, not rows: [B, S, D] as [B*S, D]. */
static sago_tensor flat(sago_tensor t) {
    return sago_tensor_2d(t.data, t.dtype, t.shape[0] * t.shape[1], t.shape[2]);
}

static sago_tensor statistic(float *data, sago_tensor x) {
    return sago_tensor_1d(data, SAGO_F32, x.shape[0] * x.shape[1]);
}

sago_status sago_norm_forward(const sago_norm *norm, const sago_pass *pass, const sago_norm_saved *saved,
                              sago_tensor y, sago_tensor x) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor scale = sago_pass_value(pass, norm->scale), rstd = statistic(saved->rstd, x);
    if (norm->centered)
        return ops->layernorm_forward(pass->device, flat(y), statistic(saved->mean, x), rstd, flat(x), scale,
                                      norm->epsilon);
    return ops->rmsnorm_forward(pass->device, flat(y), rstd, flat(x), scale, norm->epsilon);
}

sago_status sago_norm_backward(const sago_norm *norm, const sago_pass *pass, const sago_norm_saved *saved,
                               sago_tensor d_x, sago_tensor d_y, sago_tensor x) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor scale = sago_pass_value(pass, norm->scale), d_scale = sago_pass_gradient(pass, norm->scale);
    sago_tensor rstd = statistic(saved->rstd, x);
    if (norm->centered)
        return ops->layernorm_backward(pass->device, flat(d_x), d_scale, flat(d_y), flat(x), scale,
                                       statistic(saved->mean, x), rstd);
    return ops->rmsnorm_backward(pass->device, flat(d_x), d_scale, flat(d_y), flat(x), scale, rstd);
}
