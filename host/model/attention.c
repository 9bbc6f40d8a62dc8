// SPDX-License-Identifier: Apache-2.0
#include "attention.h"

#include <math.h>

sago_status sago_attention_declare(sago_attention *layer, const sago_declaration *into, const char *prefix,
                                   int bias, bool bidirectional, bool cross) {
    const sago_model_shape *shape = into->shape;
    sago_registry *registry = into->registry;
    int block = into->block, ranks = into->model_size;
    int64_t width = shape->n_heads * shape->head_dim, kv_width = shape->kv_heads * shape->head_dim,
            d_model = shape->d_model;
    double d = (double)d_model, by_width = 1 / sqrt((double)shape->head_dim);
    bool scaled = sago_model_decoder_only(shape), one_kv = shape->kv_heads == 1 && shape->n_heads > 1;
    *layer = (sago_attention){.bias = bias,
                              .bias_bidirectional = bidirectional,
                              .bias_max_distance = (int)shape->relative_max_distance,
                              .scale = scaled ? (float)by_width : 1,
                              .rope_theta = shape->rope_theta,
                              .rope_interleaved = shape->rope_interleaved,
                              .heads = shape->n_heads / ranks,
                              .kv_heads = one_kv ? 1 : shape->kv_heads / ranks,
                              .head_dim = shape->head_dim,
                              .first_head = shape->n_heads / ranks * into->model_rank,
                              .all_heads = shape->n_heads,
                              .probabilities_site =
                                  SAGO_SITES_PER_BLOCK * block +
                                  (cross ? SAGO_SITE_CROSS_PROBABILITIES : SAGO_SITE_PROBABILITIES)};
    /* A single key/value head belongs to every query head, so it is never cut: its
       gradient is summed over the ranks, of which each sees its own heads' part. */
    sago_axis kv_axis = one_kv ? SAGO_AXIS_NONE : SAGO_AXIS_KV;
    const int64_t in[] = {width, d_model}, kv[] = {kv_width, d_model}, out[] = {d_model, width};
    const sago_axis in_axes[] = {SAGO_AXIS_HEADS, SAGO_AXIS_EMBED}, kv_axes[] = {kv_axis, SAGO_AXIS_EMBED},
                    out_axes[] = {SAGO_AXIS_EMBED, SAGO_AXIS_HEADS};
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "query", 2, in, in_axes, SAGO_INIT_NORMAL,
                                (scaled ? 1 : by_width) / sqrt(d), &layer->query));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "key", 2, kv, kv_axes, SAGO_INIT_NORMAL, 1 / sqrt(d),
                                &layer->key));
    SAGO_TRY(sago_layer_declare(registry, block, prefix, "value", 2, kv, kv_axes, SAGO_INIT_NORMAL,
                                1 / sqrt(d), &layer->value));
    return sago_layer_declare(registry, block, prefix, "output", 2, out, out_axes, SAGO_INIT_NORMAL,
                              1 / sqrt((double)width), &layer->output);
}

void sago_attention_plan(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                         int64_t key_tokens, sago_attention_saved *saved) {
    int64_t width = layer->heads * layer->head_dim, kv_width = layer->kv_heads * layer->head_dim;
    saved->q = sago_plan_take(plan, tokens * width);
    saved->k = sago_plan_take(plan, key_tokens * kv_width);
    saved->v = sago_plan_take(plan, key_tokens * kv_width);
    saved->o = sago_plan_take(plan, tokens * width);
    saved->lse = sago_plan_floats(plan, tokens * layer->heads);
}

void sago_attention_plan_work(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                              int64_t key_tokens, sago_attention_work *work) {
    int64_t width = layer->heads * layer->head_dim, kv_width = layer->kv_heads * layer->head_dim;
    work->d_o = sago_plan_take(plan, tokens * width);
    work->d_q = sago_plan_take(plan, tokens * width);
    work->d_k = sago_plan_take(plan, key_tokens * kv_width);
    work->d_v = sago_plan_take(plan, key_tokens * kv_width);
}

sago_attention_args sago_attention_arguments(const sago_attention *layer, const sago_pass *pass,
                                             const sago_ranges *ranges, int64_t tokens, int64_t key_tokens) {
    sago_dropout dropout = sago_pass_dropout(pass, layer->probabilities_site, layer->all_heads * tokens);
    dropout.first = layer->first_head * tokens * key_tokens;
    return (sago_attention_args){.scale = layer->scale,
                                 .lo = ranges->lo,
                                 .hi = ranges->hi,
                                 .bias =
                                     layer->bias < 0 ? (sago_tensor){0} : sago_pass_value(pass, layer->bias),
                                 .bias_bidirectional = layer->bias_bidirectional,
                                 .bias_max_distance = layer->bias_max_distance,
                                 .dropout = dropout};
}

/* The two views of queries, keys, values and outputs: [B, S, heads*E] for products, [B, S, heads, E] for
 * attention.
 */
static sago_tensor wide(const sago_attention *layer, const sago_pass *pass, void *data, sago_tensor like,
                        int64_t heads) {
    return sago_tokens(pass, data, like.shape[0], like.shape[1], heads * layer->head_dim);
}

static sago_tensor by_head(const sago_attention *layer, sago_tensor wide) {
    return sago_tensor_4d(wide.data, wide.dtype, wide.shape[0], wide.shape[1],
                          wide.shape[2] / layer->head_dim, layer->head_dim);
}

static sago_tensor lse_of(const sago_attention *layer, const sago_attention_saved *saved, sago_tensor n) {
    return sago_tensor_3d(saved->lse, SAGO_F32, n.shape[0], layer->heads, n.shape[1]);
}

static sago_status turn(const sago_attention *layer, const sago_pass *pass, sago_tensor t,
                        sago_tensor positions, bool inverse) {
    if (layer->rope_theta == 0) return SAGO_OK;
    const sago_rope_args args = {.theta = layer->rope_theta,
                                 .style = layer->rope_interleaved ? SAGO_ROPE_INTERLEAVED : SAGO_ROPE_HALVES,
                                 .inverse = inverse};
    return pass->device->ops->rope(pass->device, by_head(layer, t), by_head(layer, t), positions, &args);
}

sago_status sago_attention_queries(const sago_attention *layer, const sago_pass *pass, sago_tensor q,
                                   sago_tensor n, sago_tensor positions) {
    SAGO_TRY(sago_linear_forward(pass, q, n, layer->query, 0));
    return turn(layer, pass, q, positions, false);
}

sago_status sago_attention_keys(const sago_attention *layer, const sago_pass *pass, sago_tensor k,
                                sago_tensor v, sago_tensor n, sago_tensor positions) {
    SAGO_TRY(sago_linear_forward(pass, k, n, layer->key, 0));
    SAGO_TRY(sago_linear_forward(pass, v, n, layer->value, 0));
    return turn(layer, pass, k, positions, false);
}

sago_tensor sago_attention_output(const sago_attention *layer, const sago_pass *pass,
                                  const sago_attention_saved *saved, sago_tensor n) {
    return wide(layer, pass, saved->o, n, layer->heads);
}

sago_status sago_attention_forward(const sago_attention *layer, const sago_pass *pass,
                                   const sago_attention_saved *saved, sago_tensor n,
                                   const sago_attention_inputs *inputs) {
    sago_tensor source = inputs->memory.data ? inputs->memory : n;
    sago_tensor q = wide(layer, pass, saved->q, n, layer->heads),
                k = wide(layer, pass, saved->k, source, layer->kv_heads),
                v = wide(layer, pass, saved->v, source, layer->kv_heads);
    SAGO_TRY(sago_attention_queries(layer, pass, q, n, inputs->positions));
    SAGO_TRY(sago_attention_keys(layer, pass, k, v, source, inputs->positions));
    const sago_attention_args args =
        sago_attention_arguments(layer, pass, &inputs->ranges, n.shape[1], source.shape[1]);
    return pass->device->ops->attention_forward(
        pass->device, by_head(layer, sago_attention_output(layer, pass, saved, n)), lse_of(layer, saved, n),
        by_head(layer, q), by_head(layer, k), by_head(layer, v), &args);
}

sago_status sago_attention_backward(const sago_attention *layer, const sago_pass *pass,
                                    const sago_attention_saved *saved, const sago_attention_work *work,
                                    sago_tensor d_n, float beta, sago_tensor d_memory, sago_tensor d_out,
                                    sago_tensor n, const sago_attention_inputs *inputs) {
    sago_tensor source = inputs->memory.data ? inputs->memory : n;
    sago_tensor q = wide(layer, pass, saved->q, n, layer->heads), d_q = q, o = q, d_o = q;
    sago_tensor k = wide(layer, pass, saved->k, source, layer->kv_heads), d_k = k, v = k, d_v = k;
    o.data = saved->o, v.data = saved->v;
    d_o.data = work->d_o, d_q.data = work->d_q, d_k.data = work->d_k, d_v.data = work->d_v;
    SAGO_TRY(sago_linear_backward(pass, d_o, 0, d_out, o, layer->output));
    const sago_attention_args args =
        sago_attention_arguments(layer, pass, &inputs->ranges, n.shape[1], source.shape[1]);
    sago_tensor d_bias = layer->bias < 0 ? (sago_tensor){0} : sago_pass_gradient(pass, layer->bias);
    SAGO_TRY(pass->device->ops->attention_backward(
        pass->device, by_head(layer, d_q), by_head(layer, d_k), by_head(layer, d_v), d_bias,
        by_head(layer, d_o), by_head(layer, o), lse_of(layer, saved, n), by_head(layer, q), by_head(layer, k),
        by_head(layer, v), &args));
    SAGO_TRY(turn(layer, pass, d_q, inputs->positions, true));
    SAGO_TRY(turn(layer, pass, d_k, inputs->positions, true));
    sago_tensor d_source = inputs->memory.data ? d_memory : d_n;
    SAGO_TRY(sago_linear_backward(pass, d_n, beta, d_q, n, layer->query));
    SAGO_TRY(sago_linear_backward(pass, d_source, 1, d_k, source, layer->key));
    return sago_linear_backward(pass, d_source, 1, d_v, source, layer->value);
}
