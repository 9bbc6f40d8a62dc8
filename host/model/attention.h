// SPDX-License-Identifier: Apache-2.0
/**
 * Attention sub-layer, pre-norm and with its residual, self or cross:
 *
 *     n = norm(x);  m = n (self) or the encoder's output (cross)
 *     o = attention(n Wq^T, m Wk^T, m Wv^T);  out = x + dropout(o Wo^T)
 *
 * T5 has no biases in the products and does not scale scores by head_dim^-1/2 (its initial query weights are
 * that much smaller). Self-attention adds the relative position table of its stack; cross-attention adds
 * nothing.
 */
#ifndef SAGO_MODEL_ATTENTION_H
#define SAGO_MODEL_ATTENTION_H

#include "model.h"
#include "norm.h"

typedef struct sago_attention {
    sago_norm norm;
    int query, key, value; /* [H*E, D] */
    int output;            /* [D, H*E] */
    int bias;              /* the stack's table [buckets, H], -1 for cross-attention */
    bool bias_bidirectional;
    int bias_max_distance;
    int64_t heads, head_dim, d_model;
    int probabilities_site, output_site;
} sago_attention;

typedef struct sago_attention_saved {
    sago_norm_saved norm;
    void *normed; /* [N, D] */
    void *q, *o;  /* [N, H*E] */
    void *k, *v;  /* [Nk, H*E] */
    float *lse;   /* [B, H, S] */
} sago_attention_saved;

/** Room for gradients inside one backward; shared by all layers. */
typedef struct sago_attention_work {
    void *d_normed;  /* [N, D]; first the gradient that enters through dropout */
    void *d_o, *d_q; /* [N, H*E] */
    void *d_k, *d_v; /* [Nk, H*E] */
} sago_attention_work;

/** Allowed keys of every query: i32[B, Sq] each. */
typedef struct sago_ranges {
    sago_tensor lo, hi;
} sago_ranges;

/** Declares PREFIX.norm, .query, .key, .value, .output. bias: row of the table, -1 for cross-attention. */
sago_status sago_attention_declare(sago_attention *layer, sago_registry *registry, int block,
                                   const char *prefix, const sago_model_shape *shape, int bias,
                                   bool bidirectional, bool cross) SAGO_MUST_CHECK;
/** key_tokens: of the encoder's output for cross-attention, else tokens. */
void sago_attention_plan(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                         int64_t key_tokens, sago_attention_saved *saved);
void sago_attention_plan_work(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                              int64_t key_tokens, sago_attention_work *work);
/** memory: the encoder's output [B, Sk, D], data NULL for self-attention. out.data NULL: only fills saved. */
sago_status sago_attention_forward(const sago_attention *layer, const sago_pass *pass,
                                   const sago_attention_saved *saved, sago_tensor out, sago_tensor x,
                                   sago_tensor memory, const sago_ranges *ranges) SAGO_MUST_CHECK;
/** d_x holds the gradient of out and becomes that of x; d_memory += (cross). */
sago_status sago_attention_backward(const sago_attention *layer, const sago_pass *pass,
                                    const sago_attention_saved *saved, const sago_attention_work *work,
                                    sago_tensor d_x, sago_tensor d_memory, sago_tensor x, sago_tensor memory,
                                    const sago_ranges *ranges) SAGO_MUST_CHECK;

/** The arguments of the attention operation; tokens and key_tokens of a row. */
sago_attention_args sago_attention_arguments(const sago_attention *layer, const sago_pass *pass,
                                             const sago_ranges *ranges, int64_t tokens);

#endif
