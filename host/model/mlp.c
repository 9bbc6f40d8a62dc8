// SPDX-License-Identifier: Apache-2.0
#include "mlp.h"

#include <math.h>

sago_status sago_mlp_declare(sago_mlp *layer, sago_registry *registry, int block, const char *prefix,
                             const sago_model_shape *shape) {
    *layer = (sago_mlp){.linear = -1,
                        .d_model = shape->d_model,
                        .d_ff = shape->d_ff,
                        .inner_site = SAGO_SITES_PER_BLOCK * block + SAGO_SITE_MLP_INNER,
                        .output_site = SAGO_SITES_PER_BLOCK * block + SAGO_SITE_MLP_OUTPUT};
    const int64_t in[] = {shape->d_ff, shape->d_model}, out[] = {shape->d_model, shape->d_ff};
    const sago_axis in_axes[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED},
                    out_axes[] = {SAGO_AXIS_EMBED, SAGO_AXIS_MLP};
    double in_deviation = 1 / sqrt((double)shape->d_model), out_deviation = 1 / sqrt((double)shape->d_ff);
    SAGO_TRY(sago_norm_declare(&layer->norm, registry, block, prefix, "norm", shape->d_model,
                               shape->norm_epsilon));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, shape->activation == SAGO_RELU ? "in" : "gate", 2, in, in_axes,
                                SAGO_INIT_NORMAL, in_deviation, &layer->in));
    if (shape->activation != SAGO_RELU)
        SAGO_TRY(sago_layer_declare(registry, block, prefix, "linear", 2, in, in_axes, SAGO_INIT_NORMAL,
                                    in_deviation, &layer->linear));
    return sago_layer_declare(registry, block, prefix, "out", 2, out, out_axes, SAGO_INIT_NORMAL,
                              out_deviation, &layer->out);
}

void sago_mlp_plan(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_saved *saved) {
    sago_norm_plan(plan, tokens, &saved->norm);
    saved->normed = sago_plan_take(plan, tokens * layer->d_model);
    saved->in = sago_plan_take(plan, tokens * layer->d_ff);
    saved->linear = layer->linear < 0 ? NULL : sago_plan_take(plan, tokens * layer->d_ff);
    saved->product = sago_plan_take(plan, tokens * layer->d_ff);
}

void sago_mlp_plan_work(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_work *work) {
    work->d_normed = sago_plan_take(plan, tokens * layer->d_model);
    work->d_linear = sago_plan_take(plan, tokens * layer->d_ff);
    work->d_in = layer->linear < 0 ? NULL : sago_plan_take(plan, tokens * layer->d_ff);
}

static sago_tensor hidden(const sago_mlp *layer, const sago_pass *pass, void *data, sago_tensor x) {
    return sago_tokens(pass, data, x.shape[0], x.shape[1], layer->d_ff);
}

sago_status sago_mlp_forward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                             sago_tensor out, sago_tensor x) {
    const sago_ops *ops = pass->device->ops;
    const sago_dropout dropout = sago_pass_dropout(pass, layer->inner_site, x.shape[1]);
    sago_tensor normed = sago_tokens(pass, saved->normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor in = hidden(layer, pass, saved->in, x), product = hidden(layer, pass, saved->product, x);
    SAGO_TRY(sago_norm_forward(&layer->norm, pass, &saved->norm, normed, x));
    SAGO_TRY(sago_linear_forward(pass, in, normed, layer->in, 0));
    if (layer->linear < 0) {
        SAGO_TRY(ops->relu_forward(pass->device, product, in, &dropout));
    } else {
        sago_tensor linear = hidden(layer, pass, saved->linear, x);
        SAGO_TRY(sago_linear_forward(pass, linear, normed, layer->linear, 0));
        SAGO_TRY(ops->geglu_forward(pass->device, product, in, linear, &dropout));
    }
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, x, product, layer->out, layer->output_site);
}

sago_status sago_mlp_backward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                              const sago_mlp_work *work, sago_tensor d_x, sago_tensor x) {
    const sago_ops *ops = pass->device->ops;
    const sago_dropout dropout = sago_pass_dropout(pass, layer->inner_site, x.shape[1]);
    sago_tensor normed = sago_tokens(pass, saved->normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor in = hidden(layer, pass, saved->in, x), product = hidden(layer, pass, saved->product, x);
    sago_tensor d_product = hidden(layer, pass, work->d_linear, x);
    sago_tensor d_normed = sago_tokens(pass, work->d_normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor d_sum;
    SAGO_TRY(sago_residual_gradient(pass, &d_sum, d_x, work->d_normed, layer->output_site));
    SAGO_TRY(sago_linear_backward(pass, d_product, 0, d_sum, product, layer->out));
    if (layer->linear < 0) {
        SAGO_TRY(ops->relu_backward(pass->device, d_product, d_product, in, &dropout));
        SAGO_TRY(sago_linear_backward(pass, d_normed, 0, d_product, normed, layer->in));
    } else {
        sago_tensor d_in = hidden(layer, pass, work->d_in, x), linear = hidden(layer, pass, saved->linear, x);
        SAGO_TRY(ops->geglu_backward(pass->device, d_in, d_product, d_product, in, linear, &dropout));
        SAGO_TRY(sago_linear_backward(pass, d_normed, 0, d_in, normed, layer->in));
        SAGO_TRY(sago_linear_backward(pass, d_normed, 1, d_product, normed, layer->linear));
    }
    return sago_norm_backward(&layer->norm, pass, &saved->norm, d_x, d_normed, x);
}
