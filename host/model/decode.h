// SPDX-License-Identifier: Apache-2.0
/**
 * Decoding with a KV cache: keys and values of the tokens so far are kept, and each step runs the decoder
 * over one token of every row. T5 computes those of the encoder's output once, and starts from id 0; a
 * decoder alone reads its prompt in one pass first, which leaves their keys and values in the cache and the
 * first token's logits.
 */
#ifndef SAGO_DECODE_H
#define SAGO_DECODE_H

#include "loss.h"
#include "network.h"

typedef struct sago_decode_cache {
    void *self_k, *self_v;   /* [rows, tokens, G*E] */
    void *cross_k, *cross_v; /* [rows, inputs, H*E]; T5 */
} sago_decode_cache;

typedef struct sago_decode {
    int64_t rows, inputs, tokens; /* of the present call; buffers hold the most that was planned. tokens: with
                                     those of the prompt where the decoder reads it */
    sago_decode_cache *caches;    /* one a decoder block */
    sago_block_saved block;
    sago_norm_saved final_norm;
    void *x, *out;              /* [rows, D] */
    float *logits, *logprobs;   /* [rows, V], [rows] */
    float *own_logits, *slices; /* [rows, own V], [ranks, rows, own V]; where ranks share the model */
    int32_t *chosen;            /* [rows] */
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

void sago_decode_plan(const sago_network *network, const sago_plan *plan, int64_t rows, int64_t inputs,
                      int64_t tokens, const sago_loss_head *head, sago_decode *decode);
void sago_decode_plan_host(const sago_plan *host, int64_t rows, sago_decode *decode);

/** T5: fills the cross caches of rows [first_row, first_row + B) from the encoder's output memory[B, inputs,
 * D]. */
sago_status sago_decode_remember(const sago_network *network, const sago_pass *pass,
                                 const sago_decode *decode, int64_t first_row,
                                 sago_tensor memory) SAGO_MUST_CHECK;

/**
 * A decoder alone: reads the prompts ids[B, inputs] (device, -1 where padding) of rows [first_row, first_row
 * + B), whose last tokens stand at last[B] (device; places of the B * inputs), fills the caches and leaves
 * the logits of those rows.
 */
sago_status sago_decode_read(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                             const sago_stack_saved *saved, int64_t first_row, sago_tensor ids,
                             sago_tensor last, const sago_block_inputs *inputs) SAGO_MUST_CHECK;

/**
 * One step of all rows from host_step: uploads it, runs the decoder, and leaves its output [rows, D] after the
 * final norm. In T5's decoder all rows stand at one position. host_step must stay as it is until the device has
 * come to it. Nothing but host_step and the caches differs from step to step, so that a graph may hold it.
 */
sago_status sago_decode_step(const sago_network *network, const sago_pass *pass,
                             const sago_decode *decode) SAGO_MUST_CHECK;

/** The product of that output with the output matrix: this rank's logits of all rows. */
sago_status sago_decode_product(const sago_network *network, const sago_pass *pass,
                                const sago_decode *decode) SAGO_MUST_CHECK;

/** The output of a step [rows, D]. */
sago_tensor sago_decode_output(const sago_network *network, const sago_pass *pass, const sago_decode *decode);

/** *logits [rows, V] of all rows, on every rank, where they have been computed. */
sago_status sago_decode_logits(const sago_loss_head *head, const sago_pass *pass, const sago_decode *decode,
                               sago_tensor *logits) SAGO_MUST_CHECK;

/** Moves row from to row to (to < from) in every cache. */
sago_status sago_decode_move(const sago_network *network, const sago_pass *pass, const sago_decode *decode,
                             int64_t to, int64_t from) SAGO_MUST_CHECK;

#endif
