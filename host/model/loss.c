// SPDX-License-Identifier: Apache-2.0
#include "loss.h"

#include "parallel.h"

#include <math.h>

int64_t sago_loss_round_up(int64_t n) {
    return (n + SAGO_LOSS_STEP - 1) / SAGO_LOSS_STEP * SAGO_LOSS_STEP;
}

void sago_loss_plan(const sago_loss_head *head, const sago_plan *plan, bool training, sago_loss_work *work) {
    int64_t n = sago_loss_round_up(head->chunk);
    work->hidden = sago_plan_take(plan, n * head->d_model);
    work->d_hidden = training ? sago_plan_take(plan, n * head->d_model) : NULL;
    work->logits = sago_plan_floats(plan, n * head->own_ids);
    work->d_logits =
        training && plan->dtype != SAGO_F32 ? sago_plan_take(plan, n * head->own_ids) : work->logits;
    work->stats = sago_plan_floats(plan, n * SAGO_CE_STATS);
    work->parts = plan->model_size > 1 ? sago_plan_floats(plan, plan->model_size * n * SAGO_CE_STATS) : NULL;
    work->lse = sago_plan_floats(plan, n);
}

void sago_loss_plan_host(const sago_loss_head *head, const sago_plan *host, sago_loss_work *work) {
    work->host_stats = sago_plan_floats(host, sago_loss_round_up(head->chunk) * SAGO_CE_STATS);
}

/* Even chunks rather than full ones and a rest: a product of few rows is a slow one. */
static int64_t chunk_of(const sago_loss_head *head, int64_t count) {
    int64_t chunks = (count + head->chunk - 1) / head->chunk;
    return sago_loss_round_up((count + chunks - 1) / chunks);
}

/* Tokens [first, first + n) of a micro-batch. */
typedef struct chunk {
    int64_t first, n;
    sago_tensor places, targets, weights;
    sago_tensor hidden, d_hidden, logits, d_logits, stats, lse;
} chunk;

static chunk make_chunk(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                        const sago_loss_tokens *tokens, int64_t first, int64_t n) {
    return (chunk){.first = first,
                   .n = n,
                   .places = sago_tensor_1d(tokens->places + first, SAGO_I32, n),
                   .targets = sago_tensor_1d(tokens->targets + first, SAGO_I32, n),
                   .weights = sago_tensor_1d(tokens->weights + first, SAGO_F32, n),
                   .hidden = sago_tensor_2d(work->hidden, pass->dtype, n, head->d_model),
                   .d_hidden = sago_tensor_2d(work->d_hidden, pass->dtype, n, head->d_model),
                   .logits = sago_tensor_2d(work->logits, SAGO_F32, n, head->own_ids),
                   .d_logits = sago_tensor_2d(work->d_logits, pass->dtype, n, head->own_ids),
                   .stats = sago_tensor_2d(work->stats, SAGO_F32, n, SAGO_CE_STATS),
                   .lse = sago_tensor_1d(work->lse, SAGO_F32, n)};
}

static sago_tensor flat(sago_tensor t) {
    return sago_tensor_2d(t.data, t.dtype, t.shape[0] * t.shape[1], t.shape[2]);
}

/* Gather, product, statistics. */
static sago_status forward(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                           const chunk *c, sago_tensor hidden, const sago_cross_entropy_args *ce) {
    sago_device *device = pass->device;
    const sago_ops *ops = device->ops;
    /* A gather is an embedding whose table is the hidden states. */
    SAGO_TRY(ops->embedding_forward(device, c->hidden, flat(hidden), c->places, 1));
    const sago_matmul_args product = {.transpose_b = true, .alpha = head->logit_scale, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, c->logits, c->hidden, sago_pass_value(pass, head->output), &product));
    SAGO_TRY(ops->cross_entropy_forward(device, c->stats, c->logits, c->targets, ce));
    return sago_combine_slices(pass, c->stats, work->parts);
}

/* Gradient of the chunk's hidden states and of the output matrix, from its logits. */
static sago_status backward(const sago_loss_head *head, const sago_pass *pass, const chunk *c,
                            sago_tensor d_hidden, const sago_cross_entropy_args *ce) {
    sago_device *device = pass->device;
    const sago_ops *ops = device->ops;
    SAGO_TRY(ops->cross_entropy_backward(device, c->d_logits, c->logits, c->lse, c->targets, c->weights, ce));
    const sago_matmul_args to_hidden = {.alpha = head->logit_scale, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, c->d_hidden, c->d_logits, sago_pass_value(pass, head->output), &to_hidden));
    const sago_matmul_args to_output = {
        .transpose_a = true, .alpha = head->logit_scale, .beta = 1, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, sago_pass_gradient(pass, head->output), c->d_logits, c->hidden, &to_output));
    return ops->embedding_backward(device, flat(d_hidden), c->d_hidden, c->places, 1);
}

sago_status sago_loss_run(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                          sago_tensor d_hidden, sago_tensor hidden, const sago_loss_tokens *tokens,
                          const sago_loss_args *args, sago_loss_sums *sums) {
    const sago_ops *ops = pass->device->ops;
    const sago_cross_entropy_args ce = {.first_id = head->first_id,
                                        .vocabulary = head->vocab_size,
                                        .z_loss = args->z_loss,
                                        .label_smoothing = args->label_smoothing,
                                        .scale = (float)args->scale};
    SAGO_TRY(ops->fill(pass->device, d_hidden, 0));
    int64_t total = sago_loss_round_up(tokens->count), size = total ? chunk_of(head, tokens->count) : 1;
    for (int64_t first = 0; first < total; first += size) {
        const chunk c =
            make_chunk(head, pass, work, tokens, first, total - first < size ? total - first : size);
        SAGO_TRY(forward(head, pass, work, &c, hidden, &ce));
        SAGO_TRY(ops->loss_finish(pass->device, c.lse, sums, c.stats, c.weights, &ce));
        SAGO_TRY(backward(head, pass, &c, d_hidden, &ce));
    }
    return SAGO_OK;
}

sago_status sago_loss_score(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                            sago_tensor hidden, const sago_loss_tokens *tokens, float *logprobs) {
    sago_device *device = pass->device;
    const sago_cross_entropy_args ce = {.first_id = head->first_id, .vocabulary = head->vocab_size};
    int64_t total = sago_loss_round_up(tokens->count), size = total ? chunk_of(head, tokens->count) : 1;
    for (int64_t first = 0; first < total; first += size) {
        const chunk c =
            make_chunk(head, pass, work, tokens, first, total - first < size ? total - first : size);
        SAGO_TRY(forward(head, pass, work, &c, hidden, &ce));
        SAGO_TRY(device->ops->download(device, work->host_stats, work->stats, sago_tensor_bytes(c.stats)));
        for (int64_t i = 0; i < c.n && first + i < tokens->count; i++) {
            const float *stats = work->host_stats + i * SAGO_CE_STATS;
            double lse = (double)stats[SAGO_CE_MAX] + log((double)stats[SAGO_CE_SUM_EXP]);
            logprobs[first + i] = (float)((double)stats[SAGO_CE_TARGET] - lse);
        }
    }
    return SAGO_OK;
}
