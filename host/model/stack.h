// SPDX-License-Identifier: Apache-2.0
/**
 * Stack: embedding, blocks, final norm, with dropout at both ends. An encoder-decoder model has two,
 * a decoder-only model one.
 */
#ifndef SAGO_STACK_H
#define SAGO_STACK_H

#include "block.h"
#include "embedding.h"

typedef struct sago_stack {
    int n_blocks, first_block; /* number of the first layer's block in the registry */
    sago_block *blocks;
    sago_norm final_norm;
    int input_site, final_site;
} sago_stack;

/** What forward leaves behind: how much of it has memory of its own is the plan's choice. */
typedef enum sago_keep {
    SAGO_KEEP_ALL,    /* backward reads what forward saved */
    SAGO_KEEP_INPUTS, /* blocks keep their input and run forward again in backward */
    SAGO_KEEP_NONE,   /* no backward */
} sago_keep;

typedef struct sago_stack_saved {
    void **x;                 /* n_blocks + 1: input of each block, and of the final norm; [N, D] each */
    sago_block_saved *blocks; /* n_blocks */
    sago_norm_saved final_norm;
    void *out; /* [N, D] */
} sago_stack_saved;

/** Called when the gradients of a block of the registry are final. */
typedef struct sago_block_done {
    sago_status (*call)(void *context, int block); /* may be NULL */
    void *context;
} sago_block_done;

/** Pointer tables on the host, before the plan. */
void sago_stack_saved_open(const sago_stack *stack, sago_stack_saved *saved);
void sago_stack_saved_close(sago_stack_saved *saved);

/** common: room that all blocks share unless keep is SAGO_KEEP_ALL. */
void sago_stack_plan(const sago_stack *stack, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_keep keep, const sago_block_saved *common, sago_stack_saved *saved);

/** *out, of the residual stream (parallel.h), = the stack over ids [rows * tokens] of inputs (on the device,
 * -1 where padding, or the id lies in another rank's slice of the vocabulary). */
sago_status sago_stack_forward(const sago_stack *stack, const sago_embedding *embedding,
                               const sago_pass *pass, const sago_stack_saved *saved, int32_t *ids,
                               const sago_block_inputs *inputs, sago_tensor *out) SAGO_MUST_CHECK;

/** d_out: gradient of out, used up. d_x: room for the residual's gradient, like d_out. d_memory +=. ids of
 * the forward pass. */
sago_status sago_stack_backward(const sago_stack *stack, const sago_embedding *embedding,
                                const sago_pass *pass, const sago_stack_saved *saved,
                                const sago_block_work *work, sago_tensor d_out, sago_tensor d_x,
                                sago_tensor d_memory, int32_t *ids, const sago_block_inputs *inputs,
                                const sago_block_done *done) SAGO_MUST_CHECK;

#endif
