// SPDX-License-Identifier: Apache-2.0
#include "decode.h"

static int64_t self_width(const sago_network *network) {
    const sago_attention *self = &network->decoder.blocks[0].self;
    return self->kv_heads * self->head_dim;
}

static int64_t cross_width(const sago_network *network) {
    const sago_attention *cross = &network->decoder.blocks[0].cross;
    return cross->kv_heads * cross->head_dim; /* 0 where there is none */
}

void sago_decode_plan(const sago_network *network, const sago_plan *plan, int64_t rows, int64_t inputs,
                      int64_t tokens, const sago_loss_head *head, sago_decode *decode) {
    const sago_block *first = &network->decoder.blocks[0];
    int64_t places = network->decoder_only ? inputs + tokens : tokens;
    for (int i = 0; i < network->decoder.n_blocks; i++) {
        sago_decode_cache *cache = &decode->caches[i];
        cache->self_k = sago_plan_take(plan, rows * places * self_width(network));
        cache->self_v = sago_plan_take(plan, rows * places * self_width(network));
        cache->cross_k = sago_plan_take(plan, rows * inputs * cross_width(network));
        cache->cross_v = sago_plan_take(plan, rows * inputs * cross_width(network));
    }
    sago_block_plan(first, plan, rows, 0, &decode->block);
    sago_norm_plan(&network->decoder.final_norm, plan, rows, &decode->final_norm);
    decode->x = sago_plan_take(plan, rows * first->d_model);
    decode->out = sago_plan_take(plan, rows * first->d_model);
    decode->logits = sago_plan_floats(plan, rows * head->vocab_size);
    bool shared = plan->model_size > 1;
    decode->own_logits = shared ? sago_plan_floats(plan, rows * head->own_ids) : decode->logits;
    decode->slices = shared ? sago_plan_floats(plan, rows * head->vocab_size) : NULL;
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

static sago_tensor elements(const sago_pass *pass, void *data, int64_t first, int64_t count) {
    return sago_tensor_1d(element(pass, data, first), pass->dtype, count);
}

/* --- what stands before the first step
 * --------------------------------------------------------------------------- */

sago_status sago_decode_remember(const sago_network *network, const sago_pass *pass,
                                 const sago_decode *decode, int64_t first_row, sago_tensor memory) {
    const sago_tensor none = {0};
    for (int i = 0; i < network->decoder.n_blocks; i++) {
        const sago_attention *cross = &network->decoder.blocks[i].cross;
        int64_t width = cross_width(network), first = first_row * decode->inputs * width;
        const sago_decode_cache *cache = &decode->caches[i];
        sago_tensor k =
            sago_tokens(pass, element(pass, cache->cross_k, first), memory.shape[0], memory.shape[1], width);
        sago_tensor v =
            sago_tokens(pass, element(pass, cache->cross_v, first), memory.shape[0], memory.shape[1], width);
        SAGO_TRY(sago_attention_keys(cross, pass, k, v, memory, none));
    }
    return SAGO_OK;
}

static sago_tensor output(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                          int64_t rows) {
    return sago_tokens(pass, decode->out, rows, 1, network->decoder.blocks[0].d_model);
}

sago_tensor sago_decode_output(const sago_network *network, const sago_pass *pass,
                               const sago_decode *decode) {
    return output(network, pass, decode, decode->rows);
}

/* out = final norm of x[rows, D] */
static sago_status finish(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                          int64_t rows) {
    sago_tensor x = sago_tokens(pass, decode->x, rows, 1, network->decoder.blocks[0].d_model);
    return sago_norm_forward(&network->decoder.final_norm, pass, &decode->final_norm,
                             output(network, pass, decode, rows), x);
}

/* This rank's logits of out[rows, D], in rows from first_row on. */
static sago_status multiply(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                            int64_t first_row, int64_t rows) {
    sago_tensor table = sago_pass_value(pass, network->output);
    sago_tensor logits =
        sago_tensor_2d(decode->own_logits + first_row * table.shape[0], SAGO_F32, rows, table.shape[0]);
    const sago_matmul_args product = {.transpose_b = true, .alpha = network->logit_scale, .bf16 = pass->bf16};
    return pass->device->ops->matmul(pass->device, logits, output(network, pass, decode, rows), table,
                                     &product);
}

sago_status sago_decode_product(const sago_network *network, const sago_pass *pass,
                                const sago_decode *decode) {
    return multiply(network, pass, decode, 0, decode->rows);
}

/* Keys and values of B rows of `length` prompt tokens, from where attention left them. */
static sago_status keep_prompt(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                               int i, const sago_attention_saved *saved, int64_t first_row, int64_t rows,
                               int64_t length) {
    const sago_ops *ops = pass->device->ops;
    int64_t width = self_width(network), count = length * width;
    for (int64_t row = 0; row < rows; row++) {
        int64_t to = (first_row + row) * decode->tokens * width, from = row * count;
        const sago_decode_cache *cache = &decode->caches[i];
        SAGO_TRY(ops->copy(pass->device, elements(pass, cache->self_k, to, count),
                           elements(pass, saved->k, from, count)));
        SAGO_TRY(ops->copy(pass->device, elements(pass, cache->self_v, to, count),
                           elements(pass, saved->v, from, count)));
    }
    return SAGO_OK;
}

sago_status sago_decode_read(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                             const sago_stack_saved *saved, int64_t first_row, sago_tensor ids,
                             sago_tensor last, const sago_block_inputs *inputs) {
    const sago_stack *stack = &network->decoder;
    int64_t rows = ids.shape[0], length = ids.shape[1], d_model = stack->blocks[0].d_model;
    sago_tensor x = sago_tokens(pass, saved->x[0], rows, length, d_model);
    SAGO_TRY(sago_embedding_forward(&network->embedding, pass, x, ids.data, rows, length, stack->input_site));
    for (int i = 0; i < stack->n_blocks; i++) {
        sago_tensor next = sago_tokens(pass, saved->x[i + 1], rows, length, d_model);
        SAGO_TRY(sago_block_forward(&stack->blocks[i], pass, &saved->blocks[i], next, x, inputs));
        SAGO_TRY(keep_prompt(network, pass, decode, i, &saved->blocks[i].self, first_row, rows, length));
        x = next;
    }
    /* A gather is an embedding whose table is the hidden states. */
    SAGO_TRY(pass->device->ops->embedding_forward(
        pass->device, sago_tensor_2d(decode->x, pass->dtype, rows, d_model),
        sago_tensor_2d(x.data, pass->dtype, rows * length, d_model), last, 1));
    SAGO_TRY(finish(network, pass, decode, rows));
    return multiply(network, pass, decode, first_row, rows);
}

/* --- a step
 * ----------------------------------------------------------------------------------------------------- */

static sago_tensor step_part(const sago_decode *decode, int part, int n_dims) {
    int32_t *data = decode->step + part * decode->rows;
    return sago_tensor_view((sago_tensor){.data = data, .dtype = SAGO_I32}, n_dims,
                            (int64_t[]){decode->rows, 1});
}

/* The cache that a layer attends. */
typedef struct attended {
    void *k, *v;
    int64_t tokens;
    bool append; /* this token's keys and values first */
    int hi_part;
} attended;

/* saved->o = attention of one query a row against a cache of keys and values. */
static sago_status attend(const sago_attention *layer, const sago_pass *pass, const sago_decode *decode,
                          const sago_attention_saved *saved, sago_tensor n, const attended *cache) {
    const sago_ops *ops = pass->device->ops;
    int64_t rows = decode->rows, e = layer->head_dim, h = layer->heads, g = layer->kv_heads;
    sago_tensor k = sago_tensor_4d(cache->k, pass->dtype, rows, cache->tokens, g, e),
                v = sago_tensor_4d(cache->v, pass->dtype, rows, cache->tokens, g, e);
    sago_tensor at = step_part(decode, SAGO_STEP_POSITION, 2),
                place = step_part(decode, SAGO_STEP_POSITION, 1);
    SAGO_TRY(sago_attention_queries(layer, pass, sago_tokens(pass, saved->q, rows, 1, h * e), n, at));
    if (cache->append) {
        SAGO_TRY(sago_attention_keys(layer, pass, sago_tokens(pass, saved->k, rows, 1, g * e),
                                     sago_tokens(pass, saved->v, rows, 1, g * e), n, at));
        SAGO_TRY(
            ops->cache_append(pass->device, k, sago_tensor_4d(saved->k, pass->dtype, rows, 1, g, e), place));
        SAGO_TRY(
            ops->cache_append(pass->device, v, sago_tensor_4d(saved->v, pass->dtype, rows, 1, g, e), place));
    }
    const sago_ranges ranges = {step_part(decode, SAGO_STEP_LO, 2), step_part(decode, cache->hi_part, 2)};
    sago_attention_args args = sago_attention_arguments(layer, pass, &ranges, 1, cache->tokens);
    /* With a position bias all rows stand at one position. */
    if (cache->append) args.position = sago_tensor_1d(place.data, SAGO_I32, 1);
    return ops->attention_forward(pass->device, sago_tensor_4d(saved->o, pass->dtype, rows, 1, h, e),
                                  sago_tensor_3d(saved->lse, SAGO_F32, rows, h, 1),
                                  sago_tensor_4d(saved->q, pass->dtype, rows, 1, h, e), k, v, &args);
}

/* x += block's sub-layers, of one token a row. */
static sago_status step_block(const sago_block *block, const sago_pass *pass, const sago_decode *decode,
                              const sago_decode_cache *cache, sago_tensor x) {
    const sago_block_saved *saved = &decode->block;
    const attended self = {cache->self_k, cache->self_v, decode->tokens, true, SAGO_STEP_SELF_HI},
                   cross = {cache->cross_k, cache->cross_v, decode->inputs, false, SAGO_STEP_CROSS_HI};
    sago_tensor n = x;
    n.data = saved->self_normed;
    SAGO_TRY(sago_norm_forward(&block->self_norm, pass, &saved->self_norm, n, x));
    SAGO_TRY(attend(&block->self, pass, decode, &saved->self, n, &self));
    sago_product products[2] = {
        {sago_attention_output(&block->self, pass, &saved->self, n), block->self.output}};
    if (block->kind == SAGO_BLOCK_PARALLEL) {
        SAGO_TRY(sago_mlp_forward(&block->mlp, pass, &saved->mlp, n));
        products[1] = (sago_product){sago_mlp_output(&block->mlp, pass, &saved->mlp, n), block->mlp.out};
        return sago_products_residual(pass, x, x, products, 2, sago_block_site(block, SAGO_SITE_OUTPUT));
    }
    SAGO_TRY(sago_products_residual(pass, x, x, products, 1, sago_block_site(block, SAGO_SITE_OUTPUT)));
    n.data = saved->cross_normed;
    SAGO_TRY(sago_norm_forward(&block->cross_norm, pass, &saved->cross_norm, n, x));
    SAGO_TRY(attend(&block->cross, pass, decode, &saved->cross, n, &cross));
    SAGO_TRY(sago_linear_residual(pass, x, x, sago_attention_output(&block->cross, pass, &saved->cross, n),
                                  block->cross.output, sago_block_site(block, SAGO_SITE_CROSS_OUTPUT)));
    n.data = saved->mlp_normed;
    SAGO_TRY(sago_norm_forward(&block->mlp_norm, pass, &saved->mlp_norm, n, x));
    SAGO_TRY(sago_mlp_forward(&block->mlp, pass, &saved->mlp, n));
    return sago_linear_residual(pass, x, x, sago_mlp_output(&block->mlp, pass, &saved->mlp, n),
                                block->mlp.out, sago_block_site(block, SAGO_SITE_MLP_OUTPUT));
}

sago_status sago_decode_step(const sago_network *network, const sago_pass *pass, const sago_decode *decode) {
    const sago_ops *ops = pass->device->ops;
    int64_t rows = decode->rows, d_model = network->decoder.blocks[0].d_model;
    SAGO_TRY(ops->upload_async(pass->device, decode->step, decode->host_step,
                               (size_t)(rows * SAGO_STEP_COUNT) * sizeof *decode->step));
    sago_tensor x = sago_tokens(pass, decode->x, rows, 1, d_model);
    SAGO_TRY(sago_embedding_forward(&network->embedding, pass, x, step_part(decode, SAGO_STEP_ID, 1).data,
                                    rows, 1, network->decoder.input_site));
    for (int i = 0; i < network->decoder.n_blocks; i++)
        SAGO_TRY(step_block(&network->decoder.blocks[i], pass, decode, &decode->caches[i], x));
    return finish(network, pass, decode, rows);
}

sago_status sago_decode_logits(const sago_loss_head *head, const sago_pass *pass, const sago_decode *decode,
                               sago_tensor *logits) {
    const sago_ops *ops = pass->device->ops;
    int64_t rows = decode->rows, own = head->own_ids;
    *logits = sago_tensor_2d(decode->logits, SAGO_F32, rows, head->vocab_size);
    if (pass->model_size <= 1) return SAGO_OK;
    SAGO_TRY(
        sago_gather_equal(pass, sago_tensor_2d(decode->own_logits, SAGO_F32, rows, own), decode->slices));
    for (int rank = 0; rank < pass->model_size; rank++)
        for (int64_t row = 0; row < rows; row++)
            SAGO_TRY(
                ops->copy(pass->device,
                          sago_tensor_1d(decode->logits + row * head->vocab_size + rank * own, SAGO_F32, own),
                          sago_tensor_1d(decode->slices + (rank * rows + row) * own, SAGO_F32, own)));
    return SAGO_OK;
}

/* --- moving rows
 * ------------------------------------------------------------------------------------------------ */

static sago_status move_row(const sago_pass *pass, void *cache, int64_t row_elements, int64_t to,
                            int64_t from) {
    if (row_elements == 0) return SAGO_OK;
    return pass->device->ops->copy(pass->device, elements(pass, cache, to * row_elements, row_elements),
                                   elements(pass, cache, from * row_elements, row_elements));
}

sago_status sago_decode_move(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                             int64_t to, int64_t from) {
    int64_t self = decode->tokens * self_width(network), cross = decode->inputs * cross_width(network);
    for (int i = 0; i < network->decoder.n_blocks; i++) {
        const sago_decode_cache *cache = &decode->caches[i];
        SAGO_TRY(move_row(pass, cache->self_k, self, to, from));
        SAGO_TRY(move_row(pass, cache->self_v, self, to, from));
        SAGO_TRY(move_row(pass, cache->cross_k, cross, to, from));
        SAGO_TRY(move_row(pass, cache->cross_v, cross, to, from));
    }
    return SAGO_OK;
}
