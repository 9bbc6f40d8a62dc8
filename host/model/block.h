// SPDX-License-Identifier: Apache-2.0
/**
 * Block: one layer of a stack, pre-norm, with its residual.
 *
 * T5, one sub-layer after another: self-attention, cross-attention (decoder), MLP, each
 *     x <- x + dropout(sub-layer(norm(x)))
 * PaLM, both at once (Chowdhery et al. 2022, section 2): one norm, and one sum of two products that dropout
 * sees: x <- x + dropout(attention(norm(x)) + MLP(norm(x)))
 *
 * Recomputation lives here alone. A block that keeps all saves what its sub-layers' backward needs. A block
 * that recomputes shares that room with all others: forward leaves only the block's input, and backward first
 * runs forward again. Dropout masks are functions of a key, so that both ways give the same bits.
 */
#ifndef SAGO_BLOCK_H
#define SAGO_BLOCK_H

#include "attention.h"
#include "mlp.h"
#include "norm.h"
#include "residual.h"

typedef enum sago_block_kind {
    SAGO_BLOCK_ENCODER,  /* T5: self-attention, MLP */
    SAGO_BLOCK_DECODER,  /* T5: and cross-attention between them */
    SAGO_BLOCK_PARALLEL, /* PaLM */
} sago_block_kind;

typedef struct sago_block {
    sago_block_kind kind;
    int number; /* of the registry */
    int64_t d_model;
    sago_norm self_norm, cross_norm, mlp_norm; /* PaLM: self_norm is the one */
    sago_attention self, cross;
    sago_mlp mlp;
} sago_block;

typedef struct sago_block_saved {
    bool recompute; /* the rest is shared: fill it again in backward */
    sago_norm_saved self_norm, cross_norm, mlp_norm;
    void *self_normed, *cross_normed, *mlp_normed; /* [own N, D] */
    sago_attention_saved self, cross;
    sago_mlp_saved mlp;
    void *after_self, *after_cross; /* [own N, D]: the inputs of the sub-layers after the first; T5 */
} sago_block_saved;

typedef struct sago_block_work {
    void *d_normed; /* [N, D], a partial sum; T5: first the gradient that enters through dropout */
    void *d_sum;    /* [own N, D]; PaLM: the gradient that enters through dropout */
    sago_attention_work self, cross;
    sago_mlp_work mlp;
} sago_block_work;

/** What a block reads beside its input. */
typedef struct sago_block_inputs {
    int64_t rows, tokens;              /* of the whole pass, on all ranks that share the model */
    sago_attention_inputs self, cross; /* cross.memory: the encoder's output; decoders of T5 */
} sago_block_inputs;

/** Declares the rows of layer `layer` of a stack called name ("encoder", "decoder"); bias: the stack's table,
 * or -1. */
sago_status sago_block_declare(sago_block *block, const sago_declaration *into, sago_block_kind kind,
                               const char *name, int layer, int bias) SAGO_MUST_CHECK;
void sago_block_plan(const sago_block *block, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_block_saved *saved);
/** The sub-layers' room overlaps: they run one after another. */
void sago_block_plan_work(const sago_block *block, const sago_plan *plan, int64_t tokens,
                          int64_t memory_tokens, sago_block_work *work);
/** out = block(x), both of the residual stream (parallel.h). */
sago_status sago_block_forward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                               sago_tensor out, sago_tensor x,
                               const sago_block_inputs *inputs) SAGO_MUST_CHECK;
/** d_x holds the gradient of the block's output and becomes that of its input; d_memory += (decoder). */
sago_status sago_block_backward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                                const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory,
                                sago_tensor x, const sago_block_inputs *inputs) SAGO_MUST_CHECK;

/** The site of this block's dropout, SAGO_SITE_OUTPUT and so on. */
static inline int sago_block_site(const sago_block *block, int site) {
    return SAGO_SITES_PER_BLOCK * block->number + site;
}

#endif
