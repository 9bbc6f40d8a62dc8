// SPDX-License-Identifier: Apache-2.0
#include "loss.h"

#include <math.h>

enum { CHUNK_STEP = 32 }; /* chunks are filled up to a multiple, so that products see few different shapes */

static int64_t round_up(int64_t n) {
    return (n + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
}

void sago_loss_plan(const sago_loss_head *head, sago_arena *arena, bool training, sago_loss_work *work) {
    int64_t n = round_up(head->chunk);
    work->hidden = sago_arena_floats(arena, n * head->d_model);
    work->d_hidden = training ? sago_arena_floats(arena, n * head->d_model) : NULL;
    work->logits = sago_arena_floats(arena, n * head->vocab_size);
    work->stats = sago_arena_floats(arena, n * SAGO_CE_STATS);
    work->lse = sago_arena_floats(arena, n);
    work->weights = sago_arena_floats(arena, n);
    work->targets = sago_arena_ints(arena, n);
    work->places = sago_arena_ints(arena, n);
}

void sago_loss_plan_host(const sago_loss_head *head, sago_arena *host, sago_loss_work *work) {
    int64_t n = round_up(head->chunk);
    work->host_stats = sago_arena_floats(host, n * SAGO_CE_STATS);
    work->host_lse = sago_arena_floats(host, n);
    work->host_weights = sago_arena_floats(host, n);
    work->host_targets = sago_arena_ints(host, n);
    work->host_places = sago_arena_ints(host, n);
}

/* Even chunks rather than full ones and a rest: a product of few rows is a slow one. */
static int64_t chunk_of(const sago_loss_head *head, int64_t count) {
    int64_t chunks = (count + head->chunk - 1) / head->chunk;
    return round_up((count + chunks - 1) / chunks);
}

static sago_tensor matrix(float *data, int64_t rows, int64_t columns) {
    return sago_tensor_2d(data, SAGO_F32, rows, columns);
}

/* Logits of tokens [first, first + n): gather, product, statistics (on the host afterwards). The chunk is
   filled up to size with tokens of no weight at no place. */
static sago_status forward(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                           sago_tensor hidden, const sago_loss_tokens *tokens, int64_t first, int64_t n,
                           int64_t size, const sago_cross_entropy_args *ce) {
    sago_device *device = pass->device;
    const sago_ops *ops = device->ops;
    for (int64_t i = 0; i < size; i++) {
        bool real = i < n;
        work->host_places[i] = real ? tokens->places[first + i] : -1;
        work->host_targets[i] = real ? tokens->targets[first + i] : 0;
        work->host_weights[i] = real ? tokens->weights[first + i] : 0;
    }
    SAGO_TRY(ops->upload(device, work->places, work->host_places, (size_t)size * sizeof *work->places));
    SAGO_TRY(ops->upload(device, work->targets, work->host_targets, (size_t)size * sizeof *work->targets));
    SAGO_TRY(ops->upload(device, work->weights, work->host_weights, (size_t)size * sizeof *work->weights));
    sago_tensor chunk = matrix(work->hidden, size, head->d_model),
                logits = matrix(work->logits, size, head->vocab_size);
    sago_tensor stats = matrix(work->stats, size, SAGO_CE_STATS);
    /* A gather is an embedding whose table is the hidden states. */
    SAGO_TRY(ops->embedding_forward(device, chunk,
                                    matrix(hidden.data, hidden.shape[0] * hidden.shape[1], head->d_model),
                                    sago_tensor_1d(work->places, SAGO_I32, size), 1));
    const sago_matmul_args product = {.transpose_b = true, .alpha = head->logit_scale, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, logits, chunk, sago_pass_value(pass, head->output), &product));
    SAGO_TRY(
        ops->cross_entropy_forward(device, stats, logits, sago_tensor_1d(work->targets, SAGO_I32, size), ce));
    return ops->download(device, work->host_stats, work->stats, sago_tensor_bytes(stats));
}

static double lse_of(const float *stats) {
    return (double)stats[SAGO_CE_MAX] + log((double)stats[SAGO_CE_SUM_EXP]);
}

/* Gradient of the chunk's hidden states and of the output matrix, from its logits. */
static sago_status backward(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                            sago_tensor d_hidden, int64_t size, const sago_cross_entropy_args *ce) {
    sago_device *device = pass->device;
    const sago_ops *ops = device->ops;
    SAGO_TRY(ops->upload(device, work->lse, work->host_lse, (size_t)size * sizeof *work->lse));
    sago_tensor logits = matrix(work->logits, size, head->vocab_size);
    sago_tensor chunk = matrix(work->hidden, size, head->d_model),
                d_chunk = matrix(work->d_hidden, size, head->d_model);
    SAGO_TRY(ops->cross_entropy_backward(device, logits, logits, sago_tensor_1d(work->lse, SAGO_F32, size),
                                         sago_tensor_1d(work->targets, SAGO_I32, size),
                                         sago_tensor_1d(work->weights, SAGO_F32, size), ce));
    const sago_matmul_args to_hidden = {.alpha = head->logit_scale, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, d_chunk, logits, sago_pass_value(pass, head->output), &to_hidden));
    const sago_matmul_args to_output = {
        .transpose_a = true, .alpha = head->logit_scale, .beta = 1, .bf16 = pass->bf16};
    SAGO_TRY(ops->matmul(device, sago_pass_gradient(pass, head->output), logits, chunk, &to_output));
    return ops->embedding_backward(
        device, matrix(d_hidden.data, d_hidden.shape[0] * d_hidden.shape[1], head->d_model), d_chunk,
        sago_tensor_1d(work->places, SAGO_I32, size), 1);
}

sago_status sago_loss_run(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                          sago_tensor d_hidden, sago_tensor hidden, const sago_loss_tokens *tokens,
                          const sago_loss_args *args, sago_loss *out) {
    const sago_cross_entropy_args ce = {.vocabulary = head->vocab_size,
                                        .z_loss = args->z_loss,
                                        .label_smoothing = args->label_smoothing,
                                        .scale = (float)args->scale};
    SAGO_TRY(pass->device->ops->fill(pass->device, d_hidden, 0));
    if (tokens->count == 0) return SAGO_OK;
    int64_t size = chunk_of(head, tokens->count);
    double smoothing = (double)args->label_smoothing;
    for (int64_t first = 0; first < tokens->count; first += size) {
        int64_t n = tokens->count - first < size ? tokens->count - first : size;
        int64_t padded = n < size ? round_up(n) : size;
        SAGO_TRY(forward(head, pass, work, hidden, tokens, first, n, padded, &ce));
        for (int64_t i = 0; i < padded; i++) {
            const float *stats = work->host_stats + i * SAGO_CE_STATS;
            double lse = lse_of(stats), weight = (double)work->host_weights[i],
                   target = (double)stats[SAGO_CE_TARGET];
            work->host_lse[i] = (float)lse;
            if (weight == 0) continue;
            double mean = (double)stats[SAGO_CE_SUM] / (double)head->vocab_size;
            double z = (double)args->z_loss * lse * lse;
            out->nll += weight * (lse - target);
            out->z += weight * z;
            out->objective += weight * (lse - (1 - smoothing) * target - smoothing * mean + z);
            out->correct += stats[SAGO_CE_TARGET] >= stats[SAGO_CE_MAX];
            out->tokens++;
        }
        SAGO_TRY(backward(head, pass, work, d_hidden, padded, &ce));
    }
    return SAGO_OK;
}

sago_status sago_loss_score(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                            sago_tensor hidden, const sago_loss_tokens *tokens, float *logprobs) {
    const sago_cross_entropy_args ce = {.vocabulary = head->vocab_size};
    if (tokens->count == 0) return SAGO_OK;
    int64_t size = chunk_of(head, tokens->count);
    for (int64_t first = 0; first < tokens->count; first += size) {
        int64_t n = tokens->count - first < size ? tokens->count - first : size;
        SAGO_TRY(forward(head, pass, work, hidden, tokens, first, n, n < size ? round_up(n) : size, &ce));
        for (int64_t i = 0; i < n; i++) {
            const float *stats = work->host_stats + i * SAGO_CE_STATS;
            logprobs[first + i] = (float)((double)stats[SAGO_CE_TARGET] - lse_of(stats));
        }
    }
    return SAGO_OK;
}
