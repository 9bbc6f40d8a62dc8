// SPDX-License-Identifier: Apache-2.0
#include "decode.h"

void sago_decode_plan(const sago_t5 *t5, const sago_plan *plan, int64_t rows, int64_t inputs, int64_t tokens,
                      int64_t vocab_size, sago_decode *decode) {
    const sago_attention *self = &t5->decoder.blocks[0].self;
    int64_t width = self->heads * self->head_dim;
    for (int i = 0; i < t5->decoder.n_blocks; i++) {
        sago_decode_cache *cache = &decode->caches[i];
        cache->self_k = sago_plan_take(plan, rows * tokens * width);
        cache->self_v = sago_plan_take(plan, rows * tokens * width);
        cache->cross_k = sago_plan_take(plan, rows * inputs * width);
        cache->cross_v = sago_plan_take(plan, rows * inputs * width);
    }
    sago_attention_plan(self, plan, rows, rows, &decode->attention);
    sago_mlp_plan(&t5->decoder.blocks[0].mlp, plan, rows, &decode->mlp);
    sago_norm_plan(plan, rows, &decode->final_norm);
    decode->x = sago_plan_take(plan, rows * self->d_model);
    decode->out = sago_plan_take(plan, rows * self->d_model);
    decode->logits = sago_plan_floats(plan, rows * vocab_size);
    decode->logprobs = sago_plan_floats(plan, rows);
    decode->chosen = sago_plan_ints(plan, rows);
    decode->step = sago_plan_ints(plan, rows * SAGO_STEP_COUNT);
}

void sago_decode_plan_host(const sago_plan *host, int64_t rows, sago_decode *decode) {
    decode->host_step = sago_plan_ints(host, rows * SAGO_STEP_COUNT);
    decode->host_chosen = sago_plan_ints(host, rows);
    decode->host_logprobs = sago_plan_floats(host, rows);
}

static void *element(const sago_pass *pass, void *data, int64_t i) {
    return (char *)data + (size_t)i * sago_dtype_bytes(pass->dtype);
}

static sago_tensor cache_tensor(const sago_attention *layer, const sago_pass *pass, void *data, int64_t rows,
                                int64_t tokens) {
    return sago_tensor_4d(data, pass->dtype, rows, tokens, layer->heads, layer->head_dim);
}

sago_status sago_decode_remember(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode,
                                 int64_t first_row, sago_tensor memory) {
    for (int i = 0; i < t5->decoder.n_blocks; i++) {
        const sago_attention *cross = &t5->decoder.blocks[i].cross;
        int64_t width = cross->heads * cross->head_dim, first = first_row * decode->inputs * width;
        const sago_decode_cache *cache = &decode->caches[i];
        sago_tensor k =
            sago_tokens(pass, element(pass, cache->cross_k, first), memory.shape[0], memory.shape[1], width);
        sago_tensor v =
            sago_tokens(pass, element(pass, cache->cross_v, first), memory.shape[0], memory.shape[1], width);
        SAGO_TRY(sago_linear_forward(pass, k, memory, cross->key, 0));
        SAGO_TRY(sago_linear_forward(pass, v, memory, cross->value, 0));
    }
    return SAGO_OK;
}

static sago_tensor step_part(const sago_decode *decode, int part, int n_dims) {
    int32_t *data = decode->step + part * decode->rows;
    return sago_tensor_view((sago_tensor){.data = data, .dtype = SAGO_I32}, n_dims,
                            (int64_t[]){decode->rows, 1});
}

/* x += attention(norm(x)): one query a row against a cache of keys and values. */
static sago_status attend(const sago_attention *layer, const sago_pass *pass, const sago_decode *decode,
                          sago_tensor x, void *k_cache, void *v_cache, int64_t cache_tokens, bool append,
                          int64_t position, int hi_part) {
    const sago_ops *ops = pass->device->ops;
    const sago_attention_saved *saved = &decode->attention;
    int64_t rows = decode->rows, width = layer->heads * layer->head_dim;
    sago_tensor normed = sago_tokens(pass, saved->normed, rows, 1, layer->d_model);
    sago_tensor k = cache_tensor(layer, pass, k_cache, rows, cache_tokens),
                v = cache_tensor(layer, pass, v_cache, rows, cache_tokens);
    SAGO_TRY(sago_norm_forward(&layer->norm, pass, &saved->norm, normed, x));
    SAGO_TRY(sago_linear_forward(pass, sago_tokens(pass, saved->q, rows, 1, width), normed, layer->query, 0));
    if (append) {
        sago_tensor at = step_part(decode, SAGO_STEP_POSITION, 1);
        SAGO_TRY(
            sago_linear_forward(pass, sago_tokens(pass, saved->k, rows, 1, width), normed, layer->key, 0));
        SAGO_TRY(
            sago_linear_forward(pass, sago_tokens(pass, saved->v, rows, 1, width), normed, layer->value, 0));
        SAGO_TRY(ops->cache_append(pass->device, k, cache_tensor(layer, pass, saved->k, rows, 1), at));
        SAGO_TRY(ops->cache_append(pass->device, v, cache_tensor(layer, pass, saved->v, rows, 1), at));
    }
    const sago_ranges ranges = {step_part(decode, SAGO_STEP_LO, 2), step_part(decode, hi_part, 2)};
    sago_attention_args args = sago_attention_arguments(layer, pass, &ranges, 1);
    args.query_offset = position;
    SAGO_TRY(ops->attention_forward(pass->device, cache_tensor(layer, pass, saved->o, rows, 1),
                                    sago_tensor_3d(saved->lse, SAGO_F32, rows, layer->heads, 1),
                                    cache_tensor(layer, pass, saved->q, rows, 1), k, v, &args));
    return sago_linear_residual(pass, x, x, sago_tokens(pass, saved->o, rows, 1, width), layer->output,
                                layer->output_site);
}

sago_status sago_decode_step(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode,
                             int64_t position, sago_tensor *logits) {
    const sago_ops *ops = pass->device->ops;
    int64_t rows = decode->rows, d_model = t5->decoder.blocks[0].self.d_model;
    SAGO_TRY(ops->upload(pass->device, decode->step, decode->host_step,
                         (size_t)(rows * SAGO_STEP_COUNT) * sizeof *decode->step));
    sago_tensor x = sago_tokens(pass, decode->x, rows, 1, d_model),
                out = sago_tokens(pass, decode->out, rows, 1, d_model);
    sago_tensor table = sago_pass_value(pass, t5->output);
    SAGO_TRY(ops->embedding_forward(pass->device, sago_tensor_2d(decode->x, pass->dtype, rows, d_model),
                                    sago_pass_value(pass, t5->embedding.table),
                                    step_part(decode, SAGO_STEP_ID, 1), 1));
    for (int i = 0; i < t5->decoder.n_blocks; i++) {
        const sago_block *block = &t5->decoder.blocks[i];
        const sago_decode_cache *cache = &decode->caches[i];
        SAGO_TRY(attend(&block->self, pass, decode, x, cache->self_k, cache->self_v, decode->tokens, true,
                        position, SAGO_STEP_SELF_HI));
        SAGO_TRY(attend(&block->cross, pass, decode, x, cache->cross_k, cache->cross_v, decode->inputs, false,
                        0, SAGO_STEP_CROSS_HI));
        SAGO_TRY(sago_mlp_forward(&block->mlp, pass, &decode->mlp, x, x));
    }
    SAGO_TRY(sago_norm_forward(&t5->decoder.final_norm, pass, &decode->final_norm, out, x));
    *logits = sago_tensor_2d(decode->logits, SAGO_F32, rows, table.shape[0]);
    const sago_matmul_args product = {.transpose_b = true, .alpha = t5->logit_scale, .bf16 = pass->bf16};
    return ops->matmul(pass->device, *logits, out, table, &product);
}

static sago_status move_row(const sago_pass *pass, void *cache, int64_t row_elements, int64_t to,
                            int64_t from) {
    return pass->device->ops->copy(
        pass->device, sago_tensor_1d(element(pass, cache, to * row_elements), pass->dtype, row_elements),
        sago_tensor_1d(element(pass, cache, from * row_elements), pass->dtype, row_elements));
}

sago_status sago_decode_move(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode, int64_t to,
                             int64_t from) {
    const sago_attention *self = &t5->decoder.blocks[0].self;
    int64_t width = self->heads * self->head_dim;
    for (int i = 0; i < t5->decoder.n_blocks; i++) {
        const sago_decode_cache *cache = &decode->caches[i];
        SAGO_TRY(move_row(pass, cache->self_k, decode->tokens * width, to, from));
        SAGO_TRY(move_row(pass, cache->self_v, decode->tokens * width, to, from));
        SAGO_TRY(move_row(pass, cache->cross_k, decode->inputs * width, to, from));
        SAGO_TRY(move_row(pass, cache->cross_v, decode->inputs * width, to, from));
    }
    return SAGO_OK;
}
