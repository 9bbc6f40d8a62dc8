// SPDX-License-Identifier: Apache-2.0
/**
 * Attention, self or cross, between the norm before it and the output product after it, which its block does:
 *
 *     q = n Wq^T,  k = m Wk^T,  v = m Wv^T;  m = n (self) or the encoder's output (cross)
 *     o = softmax(scale * rope(q) rope(k)^T + bias) v, a head at a time, within the ranges of allowed keys
 *
 * T5: no biases in the products, scale 1 (its initial query weights are head_dim^-1/2 smaller), the stack's
 * relative position table in self-attention, nothing in cross-attention. PaLM: scale head_dim^-1/2, rotary
 * positions (Su et al. 2021), and key/value heads that groups of query heads share (Shazeer 2019; Ainslie et
 * al. 2023).
 */
#ifndef SAGO_MODEL_ATTENTION_H
#define SAGO_MODEL_ATTENTION_H

#include "layer.h"

typedef struct sago_attention {
    int query;      /* [H*E, D] */
    int key, value; /* [G*E, D] */
    int output;     /* [D, H*E] */
    int bias;       /* the stack's table [buckets, H], -1 for none */
    bool bias_bidirectional;
    int bias_max_distance;
    float scale;
    double rope_theta; /* 0: no rotary positions */
    bool rope_interleaved;
    int64_t heads, kv_heads, head_dim; /* of this rank */
    int64_t first_head, all_heads;     /* of those of all ranks that share the model */
    int probabilities_site;
} sago_attention;

typedef struct sago_attention_saved {
    void *q, *o; /* [N, H*E]; q after rope */
    void *k, *v; /* [Nk, G*E]; k after rope */
    float *lse;  /* [B, H, S] */
} sago_attention_saved;

/** Room for gradients inside one backward; shared by all layers. */
typedef struct sago_attention_work {
    void *d_o, *d_q; /* [N, H*E] */
    void *d_k, *d_v; /* [Nk, G*E] */
} sago_attention_work;

/** Allowed keys of every query: i32[B, Sq] each. */
typedef struct sago_ranges {
    sago_tensor lo, hi;
} sago_ranges;

/** What a layer attends, beside its own input. */
typedef struct sago_attention_inputs {
    sago_tensor
        memory; /* the encoder's output [B, Sk, D] for cross-attention, data NULL for self-attention */
    sago_ranges ranges;
    sago_tensor positions; /* i32[B, S]; rotary ones */
} sago_attention_inputs;

/** Declares PREFIX.query, .key, .value, .output. bias: row of the table, -1 for none. */
sago_status sago_attention_declare(sago_attention *layer, const sago_declaration *into, const char *prefix,
                                   int bias, bool bidirectional, bool cross) SAGO_MUST_CHECK;
/** key_tokens: of the encoder's output for cross-attention, else tokens. */
void sago_attention_plan(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                         int64_t key_tokens, sago_attention_saved *saved);
void sago_attention_plan_work(const sago_attention *layer, const sago_plan *plan, int64_t tokens,
                              int64_t key_tokens, sago_attention_work *work);
/** Fills saved from n [B, S, D]; the output product is over sago_attention_output(). */
sago_status sago_attention_forward(const sago_attention *layer, const sago_pass *pass,
                                   const sago_attention_saved *saved, sago_tensor n,
                                   const sago_attention_inputs *inputs) SAGO_MUST_CHECK;
/** o as [B, S, H*E]. */
sago_tensor sago_attention_output(const sago_attention *layer, const sago_pass *pass,
                                  const sago_attention_saved *saved, sago_tensor n);
/** d_out [B, S, D]: gradient of o Wo^T. d_n = where beta is 0, += where it is 1; d_memory += (cross). d_n may
 * be d_out where beta is 0. */
sago_status sago_attention_backward(const sago_attention *layer, const sago_pass *pass,
                                    const sago_attention_saved *saved, const sago_attention_work *work,
                                    sago_tensor d_n, float beta, sago_tensor d_memory, sago_tensor d_out,
                                    sago_tensor n, const sago_attention_inputs *inputs) SAGO_MUST_CHECK;

/** Projects n to keys and values [.., G*E] and turns the keys; positions as of inputs. */
sago_status sago_attention_keys(const sago_attention *layer, const sago_pass *pass, sago_tensor k,
                                sago_tensor v, sago_tensor n, sago_tensor positions) SAGO_MUST_CHECK;
/** Projects n to queries [.., H*E] and turns them. */
sago_status sago_attention_queries(const sago_attention *layer, const sago_pass *pass, sago_tensor q,
                                   sago_tensor n, sago_tensor positions) SAGO_MUST_CHECK;

/** The arguments of the attention operation; tokens and key_tokens of a row. */
sago_attention_args sago_attention_arguments(const sago_attention *layer, const sago_pass *pass,
                                             const sago_ranges *ranges, int64_t tokens, int64_t key_tokens);

#endif
