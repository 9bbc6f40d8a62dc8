// SPDX-License-Identifier: Apache-2.0
#include "attention.h"

#include <math.h>

sago_status sago_attention_declare(sago_attention *layer, sago_registry *registry, int block,
                                   const char *prefix, const sago_model_shape *shape, int bias,
                                   bool bidirectional, bool cross) {
    int64_t width = shape->n_heads * shape->head_dim, d_model = shape->d_model;
    double d = (double)d_model;
    *layer = (sago_attention){
        .bias = bias,
        .bias_bidirectional = bidirectional,
        .bias_max_distance = (int)shape->relative_max_distance,
        .heads = shape->n_heads,
        .head_dim = shape->head_dim,
        .d_model = d_model,
        .probabilities_site =
            SAGO_SITES_PER_BLOCK * block + (cross ? SAGO_SITE_CROSS_PROBABILITIES : SAGO_SITE_PROBABILITIES),
        .output_site = SAGO_SITES_PER_BLOCK * block + (cross ? SAGO_SITE_CROSS_OUTPUT : SAGO_SITE_OUTPUT)};
    const int64_t in[] = {width, d_model}, out[] = {d_model, width};
    const sago_axis in_axes[] = {SAGO_AXIS_HEADS, SAGO_AXIS_EMBED},
                    out_axes[] = {SAGO_AXIS_EMBED, SAGO_AXIS_HEADS};
    SAGO_TRY(sago_norm_declare(&layer->norm, registry, block, prefix, "norm", d_model, shape->norm_epsilon));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "query", 2, in, in_axes, SAGO_INIT_NORMAL,
                                1 / sqrt(d * (double)shape->head_dim), &layer->query));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "key", 2, in, in_axes, SAGO_INIT_NORMAL, 1 / sqrt(d),
                                &layer->key));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "value", 2, in, in_axes, SAGO_INIT_NORMAL,
                                1 / sqrt(d), &layer->value));
    return sago_layer_declare(registry, block, prefix, "output", 2, out, out_axes, SAGO_INIT_NORMAL,
                              1 / sqrt((double)width), &layer->output);
}

void sago_attention_plan(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                         int64_t key_tokens, sago_attention_saved *saved) {
    int64_t width = layer->heads * layer->head_dim;
    sago_norm_plan(plan, tokens, &saved->norm);
    saved->normed = sago_plan_take(plan, tokens * layer->d_model);
    saved->q = sago_plan_take(plan, tokens * width);
    saved->k = sago_plan_take(plan, key_tokens * width);
    saved->v = sago_plan_take(plan, key_tokens * width);
    saved->o = sago_plan_take(plan, tokens * width);
    saved->lse = sago_plan_floats(plan, tokens * layer->heads);
}

void sago_attention_plan_work(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                              int64_t key_tokens, sago_attention_work *work) {
    int64_t width = layer->heads * layer->head_dim;
    work->d_normed = sago_plan_take(plan, tokens * layer->d_model);
    work->d_o = sago_plan_take(plan, tokens * width);
    work->d_q = sago_plan_take(plan, tokens * width);
    work->d_k = sago_plan_take(plan, key_tokens * width);
    work->d_v = sago_plan_take(plan, key_tokens * width);
}

sago_attention_args sago_attention_arguments(const sago_attention *layer, const sago_pass *pass,
                                             const sago_ranges *ranges, int64_t tokens) {
    return (sago_attention_args){
        .scale = 1,
        .lo = ranges->lo,
        .hi = ranges->hi,
        .bias = layer->bias < 0 ? (sago_tensor){0} : sago_pass_value(pass, layer->bias),
        .bias_bidirectional = layer->bias_bidirectional,
        .bias_max_distance = layer->bias_max_distance,
        .dropout = sago_pass_dropout(pass, layer->probabilities_site, layer->heads * tokens)};
}

/* The two views of queries, keys, values and outputs: [B, S, H*E] for products, [B, S, H, E] for attention.
 */
static sago_tensor wide(const sago_attention *layer, const sago_pass *pass, void *data, sago_tensor like) {
    return sago_tokens(pass, data, like.shape[0], like.shape[1], layer->heads * layer->head_dim);
}

static sago_tensor by_head(const sago_attention *layer, const sago_pass *pass, void *data, sago_tensor like) {
    return sago_tensor_4d(data, pass->dtype, like.shape[0], like.shape[1], layer->heads, layer->head_dim);
}

static sago_tensor lse_of(const sago_attention *layer, const sago_attention_saved *saved, sago_tensor x) {
    return sago_tensor_3d(saved->lse, SAGO_F32, x.shape[0], layer->heads, x.shape[1]);
}

sago_status sago_attention_forward(const sago_attention *layer, const sago_pass *pass,
                                   const sago_attention_saved *saved, sago_tensor out, sago_tensor x,
                                   sago_tensor memory, const sago_ranges *ranges) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor normed = sago_tokens(pass, saved->normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor source = memory.data ? memory : normed;
    SAGO_TRY(sago_norm_forward(&layer->norm, pass, &saved->norm, normed, x));
    SAGO_TRY(sago_linear_forward(pass, wide(layer, pass, saved->q, x), normed, layer->query, 0));
    SAGO_TRY(sago_linear_forward(pass, wide(layer, pass, saved->k, source), source, layer->key, 0));
    SAGO_TRY(sago_linear_forward(pass, wide(layer, pass, saved->v, source), source, layer->value, 0));
    const sago_attention_args args = sago_attention_arguments(layer, pass, ranges, x.shape[1]);
    SAGO_TRY(ops->attention_forward(pass->device, by_head(layer, pass, saved->o, x), lse_of(layer, saved, x),
                                    by_head(layer, pass, saved->q, x), by_head(layer, pass, saved->k, source),
                                    by_head(layer, pass, saved->v, source), &args));
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, x, wide(layer, pass, saved->o, x), layer->output,
                                layer->output_site);
}

sago_status sago_attention_backward(const sago_attention *layer, const sago_pass *pass,
                                    const sago_attention_saved *saved, const sago_attention_work *work,
                                    sago_tensor d_x, sago_tensor d_memory, sago_tensor x, sago_tensor memory,
                                    const sago_ranges *ranges) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor normed = sago_tokens(pass, saved->normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor source = memory.data ? memory : normed;
    sago_tensor d_sum;
    SAGO_TRY(sago_residual_gradient(pass, &d_sum, d_x, work->d_normed, layer->output_site));
    SAGO_TRY(sago_linear_backward(pass, wide(layer, pass, work->d_o, x), 0, d_sum,
                                  wide(layer, pass, saved->o, x), layer->output));
    const sago_attention_args args = sago_attention_arguments(layer, pass, ranges, x.shape[1]);
    sago_tensor d_bias = layer->bias < 0 ? (sago_tensor){0} : sago_pass_gradient(pass, layer->bias);
    SAGO_TRY(ops->attention_backward(
        pass->device, by_head(layer, pass, work->d_q, x), by_head(layer, pass, work->d_k, source),
        by_head(layer, pass, work->d_v, source), d_bias, by_head(layer, pass, work->d_o, x),
        by_head(layer, pass, saved->o, x), lse_of(layer, saved, x), by_head(layer, pass, saved->q, x),
        by_head(layer, pass, saved->k, source), by_head(layer, pass, saved->v, source), &args));
    sago_tensor d_normed = sago_tokens(pass, work->d_normed, x.shape[0], x.shape[1], layer->d_model);
    sago_tensor d_source = memory.data ? d_memory : d_normed;
    SAGO_TRY(sago_linear_backward(pass, d_normed, 0, wide(layer, pass, work->d_q, x), normed, layer->query));
    SAGO_TRY(
        sago_linear_backward(pass, d_source, 1, wide(layer, pass, work->d_k, source), source, layer->key));
    SAGO_TRY(
        sago_linear_backward(pass, d_source, 1, wide(layer, pass, work->d_v, source), source, layer->value));
    return sago_norm_backward(&layer->norm, pass, &saved->norm, d_x, d_normed, x);
}
