// SPDX-License-Identifier: Apache-2.0
/**
 * Block: one layer of a stack, pre-norm residual sub-layers one after another:
 * self-attention, cross-attention (decoder), MLP.
 *
 * Recomputation lives here alone. A block that keeps all saves what its sub-layers' backward needs. A block
 * that recomputes shares that room with all others: forward leaves only the block's input, and backward first
 * runs forward again. Dropout masks are functions of a key, so that both ways give the same bits.
 */
#ifndef SAGO_BLOCK_H
#define SAGO_BLOCK_H

#include "attention.h"
#include "mlp.h"

typedef struct sago_block {
    bool has_cross;
    sago_attention self, cross;
    sago_mlp mlp;
} sago_block;

typedef struct sago_block_saved {
    bool recompute; /* the rest is shared: fill it again in backward */
    sago_attention_saved self, cross;
    sago_mlp_saved mlp;
    void *after_self, *after_cross; /* [N, D]: the inputs of the sub-layers after the first */
} sago_block_saved;

typedef struct sago_block_work {
    sago_attention_work self, cross;
    sago_mlp_work mlp;
} sago_block_work;

/** What a block reads beside its input; memory.data is NULL in the encoder. */
typedef struct sago_block_inputs {
    sago_tensor memory; /* the encoder's output [B, Si, D] */
    sago_ranges self, cross;
} sago_block_inputs;

void sago_block_plan(const sago_block *block, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_block_saved *saved);
/** The sub-layers' room overlaps: they run one after another. */
void sago_block_plan_work(const sago_block *block, const sago_plan *plan, int64_t tokens,
                          int64_t memory_tokens, sago_block_work *work);
/** out = block(x), both [B, S, D]. */
sago_status sago_block_forward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                               sago_tensor out, sago_tensor x,
                               const sago_block_inputs *inputs) SAGO_MUST_CHECK;
/** d_x holds the gradient of the block's output and becomes that of its input; d_memory += (decoder). */
sago_status sago_block_backward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                                const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory,
                                sago_tensor x, const sago_block_inputs *inputs) SAGO_MUST_CHECK;

#endif
