// SPDX-License-Identifier: Apache-2.0
/**
 * T5's layers and the names of its parameters:
 *
 *     shared.embedding                                                    block 0
 *     encoder.relative_bias                                               block 1, with the first layer
 *     encoder.N.attention.{norm,query,key,value,output}                   block 1 + N
 *     encoder.N.mlp.{norm,gate,linear,out} (v1.1) or {norm,in,out} (1.0)
 *     encoder.final_norm                                                  with the last layer
 *     decoder.relative_bias, decoder.N.self_attention..., decoder.N.cross_attention..., decoder.N.mlp...,
 *     decoder.final_norm                                                  the same, after the encoder's
 *     output.embedding                                                    the last block; only when untied
 *
 * Blocks number forward order, and backward finishes them in reverse: a relative table is final once the
 * first layer of its stack is done, the shared embedding once everything is.
 */
#ifndef SAGO_T5_H
#define SAGO_T5_H

#include "embedding.h"
#include "model.h"
#include "stack.h"

typedef struct sago_t5 {
    sago_embedding embedding;
    sago_stack encoder, decoder;
    int output;        /* matrix of the logits [V, D]; the embedding when tied */
    float logit_scale; /* d_model^-1/2 when tied, else 1 */
} sago_t5;

/** Declares all rows; the layers know their indices afterwards. Free with sago_t5_free, also after a failure.
 */
sago_status sago_t5_declare(sago_t5 *t5, const sago_model_shape *shape,
                            sago_registry *registry) SAGO_MUST_CHECK;
void sago_t5_free(sago_t5 *t5);

#endif
