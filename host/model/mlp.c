// SPDX-License-Identifier: Apache-2.0
#include "mlp.h"

#include <math.h>

sago_status sago_mlp_declare(sago_mlp *layer, const sago_declaration *into, const char *prefix) {
    const sago_model_shape *shape = into->shape;
    sago_registry *registry = into->registry;
    int block = into->block;
    bool gated = shape->activation != SAGO_RELU;
    *layer = (sago_mlp){.activation = shape->activation,
                        .linear = -1,
                        .d_ff = shape->d_ff / into->model_size,
                        .first_column = shape->d_ff / into->model_size * into->model_rank,
                        .all_columns = shape->d_ff,
                        .inner_site = SAGO_SITES_PER_BLOCK * block + SAGO_SITE_MLP_INNER};
    const int64_t in[] = {shape->d_ff, shape->d_model}, out[] = {shape->d_model, shape->d_ff};
    const sago_axis in_axes[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED},
                    out_axes[] = {SAGO_AXIS_EMBED, SAGO_AXIS_MLP};
    double in_deviation = 1 / sqrt((double)shape->d_model), out_deviation = 1 / sqrt((double)shape->d_ff);
    SAGO_TRY(sago_layer_declare(registry, block, prefix, gated ? "gate" : "in", 2, in, in_axes,
                                SAGO_INIT_NORMAL, in_deviation, &layer->in));
    if (gated)
        SAGO_TRY(sago_layer_declare(registry, block, prefix, "linear", 2, in, in_axes, SAGO_INIT_NORMAL,
                                    in_deviation, &layer->linear));
    return sago_layer_declare(registry, block, prefix, "out", 2, out, out_axes, SAGO_INIT_NORMAL,
                              out_deviation, &layer->out);
}

void sago_mlp_plan(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_saved *saved) {
    saved->in = sago_plan_take(plan, tokens * layer->d_ff);
    saved->linear = layer->linear < 0 ? NULL : sago_plan_take(plan, tokens * layer->d_ff);
    saved->product = sago_plan_take(plan, tokens * layer->d_ff);
}

void sago_mlp_plan_work(const sago_mlp *layer, const sago_plan *plan, int64_t tokens, sago_mlp_work *work) {
    work->d_linear = sago_plan_take(plan, tokens * layer->d_ff);
    work->d_in = layer->linear < 0 ? NULL : sago_plan_take(plan, tokens * layer->d_ff);
}

static sago_tensor hidden(const sago_mlp *layer, const sago_pass *pass, void *data, sago_tensor n) {
    return sago_tokens(pass, data, n.shape[0], n.shape[1], layer->d_ff);
}

sago_tensor sago_mlp_output(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                            sago_tensor n) {
    return hidden(layer, pass, saved->product, n);
}

/* Masks of this rank's columns are those of the whole. */
static sago_dropout inner_dropout(const sago_mlp *layer, const sago_pass *pass, sago_tensor n) {
    sago_dropout dropout = sago_pass_dropout(pass, layer->inner_site, n.shape[1]);
    dropout.first = layer->first_column;
    dropout.pitch = layer->all_columns;
    return dropout;
}

sago_status sago_mlp_forward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                             sago_tensor n) {
    const sago_ops *ops = pass->device->ops;
    const sago_dropout dropout = inner_dropout(layer, pass, n);
    sago_tensor in = hidden(layer, pass, saved->in, n), product = hidden(layer, pass, saved->product, n);
    SAGO_TRY(sago_linear_forward(pass, in, n, layer->in, 0));
    if (layer->activation == SAGO_RELU) return ops->relu_forward(pass->device, product, in, &dropout);
    sago_tensor linear = hidden(layer, pass, saved->linear, n);
    SAGO_TRY(sago_linear_forward(pass, linear, n, layer->linear, 0));
    return layer->activation == SAGO_GATED_GELU
               ? ops->geglu_forward(pass->device, product, in, linear, &dropout)
               : ops->swiglu_forward(pass->device, product, in, linear, &dropout);
}

sago_status sago_mlp_backward(const sago_mlp *layer, const sago_pass *pass, const sago_mlp_saved *saved,
                              const sago_mlp_work *work, sago_tensor d_n, float beta, sago_tensor d_out,
                              sago_tensor n) {
    const sago_ops *ops = pass->device->ops;
    const sago_dropout dropout = inner_dropout(layer, pass, n);
    sago_tensor in = hidden(layer, pass, saved->in, n), product = hidden(layer, pass, saved->product, n);
    sago_tensor d_product = hidden(layer, pass, work->d_linear, n);
    SAGO_TRY(sago_linear_backward(pass, d_product, 0, d_out, product, layer->out));
    if (layer->activation == SAGO_RELU) {
        SAGO_TRY(ops->relu_backward(pass->device, d_product, d_product, in, &dropout));
        return sago_linear_backward(pass, d_n, beta, d_product, n, layer->in);
    }
    sago_tensor d_in = hidden(layer, pass, work->d_in, n), linear = hidden(layer, pass, saved->linear, n);
    SAGO_TRY(layer->activation == SAGO_GATED_GELU
                 ? ops->geglu_backward(pass->device, d_in, d_product, d_product, in, linear, &dropout)
                 : ops->swiglu_backward(pass->device, d_in, d_product, d_product, in, linear, &dropout));
    SAGO_TRY(sago_linear_backward(pass, d_n, beta, d_in, n, layer->in));
    return sago_linear_backward(pass, d_n, 1, d_product, n, layer->linear);
}
