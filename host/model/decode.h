// SPDX-License-Identifier: Apache-2.0
/**
 * Decoding with a KV cache: keys and values of the encoder's output are computed once, those of the tokens so
 * far are kept, and each step runs the decoder over one token of every row.
 */
#ifndef SAGO_DECODE_H
#define SAGO_DECODE_H

#include "t5.h"

typedef struct sago_decode_cache {
    void *self_k, *self_v;   /* [rows, tokens, H*E] */
    void *cross_k, *cross_v; /* [rows, inputs, H*E] */
} sago_decode_cache;

typedef struct sago_decode {
    int64_t rows, inputs, tokens; /* of the present call; buffers hold the most that was planned */
    sago_decode_cache *caches;    /* one a decoder block */
    sago_attention_saved attention;
    sago_mlp_saved mlp;
    sago_norm_saved final_norm;
    void *x, *out;            /* [rows, D] */
    float *logits, *logprobs; /* [rows, V], [rows] */
    int32_t *chosen;          /* [rows] */
    /* What the host tells the device before each step, one upload: [STEP_COUNT][rows]. */
    int32_t *step, *host_step;
    int32_t *host_chosen;
    float *host_logprobs;
} sago_decode;

/** Parts of sago_decode.step. */
enum {
    SAGO_STEP_ID,       /* the token to read, -1 for a row that has ended */
    SAGO_STEP_POSITION, /* where its keys and values go */
    SAGO_STEP_LO,       /* keys start at 0 */
    SAGO_STEP_SELF_HI,  /* position + 1, 0 for a row that has ended */
    SAGO_STEP_CROSS_HI, /* input length, 0 for a row that has ended */
    SAGO_STEP_COUNT
};

void sago_decode_plan(const sago_t5 *t5, const sago_plan *plan, int64_t rows, int64_t inputs, int64_t tokens,
                      int64_t vocab_size, sago_decode *decode);
void sago_decode_plan_host(const sago_plan *host, int64_t rows, sago_decode *decode);

/** Fills the cross caches of rows [first_row, first_row + B) from the encoder's output memory[B, inputs, D].
 */
sago_status sago_decode_remember(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode,
                                 int64_t first_row, sago_tensor memory) SAGO_MUST_CHECK;

/** One step of all rows from host_step: uploads it, runs the decoder, and leaves the logits [rows, V]. */
sago_status sago_decode_step(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode,
                             int64_t position, sago_tensor *logits) SAGO_MUST_CHECK;

/** Moves row from to row to (to < from) in every cache. */
sago_status sago_decode_move(const sago_t5 *t5, const sago_pass *pass, const sago_decode *decode, int64_t to,
                             int64_t from) SAGO_MUST_CHECK;

#endif
