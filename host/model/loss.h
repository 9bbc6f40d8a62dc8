// SPDX-License-Identifier: Apache-2.0
/**
 * Loss: linear and cross-entropy with z-loss over the tokens that count, a chunk of them at a time, so that
 * logits [tokens, V] never exist for the whole batch. The gradient is taken while the chunk's logits are at
 * hand.
 *
 *     z = logit_scale * h W^T;  lse = log sum exp z
 *     objective = scale * sum over tokens of weight * (CE(z, target) + z_loss * lse^2)
 *     CE = lse - (1 - s) z_target - s mean(z), s the label smoothing
 *
 * Tokens without weight are left out before the product, so padding costs nothing here.
 */
#ifndef SAGO_LOSS_H
#define SAGO_LOSS_H

#include "layer.h"
#include "model.h"

typedef struct sago_loss_head {
    int output; /* [V, D] */
    float logit_scale;
    int64_t vocab_size, d_model;
    int64_t chunk; /* most tokens whose logits exist at once */
} sago_loss_head;

/** Room of one chunk, on the device and for staging on the host. */
typedef struct sago_loss_work {
    float *hidden, *d_hidden; /* [chunk, D] */
    float *logits;            /* [chunk, V] */
    float *stats, *lse, *weights;
    int32_t *targets, *places;
    float *host_stats, *host_lse, *host_weights;
    int32_t *host_targets, *host_places;
} sago_loss_work;

/** The tokens that count, on the host: token i stands at row places[i] of the hidden states. */
typedef struct sago_loss_tokens {
    int64_t count;
    int32_t *places, *targets;
    float *weights;
} sago_loss_tokens;

void sago_loss_plan(const sago_loss_head *head, sago_arena *arena, bool training, sago_loss_work *work);
void sago_loss_plan_host(const sago_loss_head *head, sago_arena *host, sago_loss_work *work);

/** Adds to *out and to the gradient of the output matrix; d_hidden[N, D] = gradient of hidden. */
sago_status sago_loss_run(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                          sago_tensor d_hidden, sago_tensor hidden, const sago_loss_tokens *tokens,
                          const sago_loss_args *args, sago_loss *out) SAGO_MUST_CHECK;

/** logprobs[i] = log p(target of token i). */
sago_status sago_loss_score(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                            sago_tensor hidden, const sago_loss_tokens *tokens,
                            float *logprobs) SAGO_MUST_CHECK;

#endif
