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
 * Where ranks share the model each makes the logits of its slice of the vocabulary; one small all-gather of
 * their statistics a chunk gives every rank those of the whole, and the gradient of h is a partial sum.
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
    int64_t vocab_size;        /* of the whole model */
    int64_t first_id, own_ids; /* the slice of the vocabulary whose logits this rank makes */
    int64_t d_model;
    int64_t chunk; /* most tokens whose logits exist at once */
} sago_loss_head;

/** Room of one chunk on the device, and for its statistics on the host. */
typedef struct sago_loss_work {
    void *hidden, *d_hidden; /* [chunk, D] */
    float *logits;           /* [chunk, own V] */
    void *d_logits;          /* [chunk, own V]; the logits' own room where activations are f32 too */
    float *stats, *lse;
    float *parts; /* stats of all ranks that share the model */
    float *host_stats;
} sago_loss_work;

/**
 * The tokens that count, on the device: token i stands at row places[i] of the hidden states. Behind the last
 * one the arrays go on to a multiple of SAGO_LOSS_STEP, with place -1 and weight 0, so that products see few
 * different shapes.
 */
enum { SAGO_LOSS_STEP = 32 };
typedef struct sago_loss_tokens {
    int64_t count;
    int32_t *places, *targets;
    float *weights;
} sago_loss_tokens;

/** count, rounded up to whole steps. */
int64_t sago_loss_round_up(int64_t count);

void sago_loss_plan(const sago_loss_head *head, const sago_plan *plan, bool training, sago_loss_work *work);
void sago_loss_plan_host(const sago_loss_head *head, const sago_plan *host, sago_loss_work *work);

/** Adds to *sums (on the device) and to the gradient of the output matrix; d_hidden[N, D] = gradient of
 * hidden. */
sago_status sago_loss_run(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                          sago_tensor d_hidden, sago_tensor hidden, const sago_loss_tokens *tokens,
                          const sago_loss_args *args, sago_loss_sums *sums) SAGO_MUST_CHECK;

/** logprobs[i] (host) = log p(target of token i). */
sago_status sago_loss_score(const sago_loss_head *head, const sago_pass *pass, const sago_loss_work *work,
                            sago_tensor hidden, const sago_loss_tokens *tokens,
                            float *logprobs) SAGO_MUST_CHECK;

#endif
