// SPDX-License-Identifier: Apache-2.0
/**
 * Network: the layers of a model and the names of their parameters.
 *
 * T5:
 *     shared.embedding, encoder.relative_bias, decoder.relative_bias      block 0: what all blocks of a stack read
 *     encoder.N.attention.{norm,query,key,value,output}                   block 1 + N
 *     encoder.N.mlp.{norm,gate,linear,out} (v1.1) or {norm,in,out} (1.0)
 *     encoder.final_norm                                                  with the last layer
 *     decoder.N.self_attention..., decoder.N.cross_attention..., decoder.N.mlp...,
 *     decoder.final_norm                                                  the same, after the encoder's
 *     output.embedding                                                    the last block; only when untied
 * PaLM:
 *     shared.embedding                                                    block 0
 *     decoder.N.norm, decoder.N.attention.{query,key,value,output}        block 1 + N
 *     decoder.N.mlp.{gate,linear,out}
 *     decoder.final_norm                                                  with the last layer
 *
 * Blocks number forward order, and backward finishes them in reverse: block 0 is final once everything is.
 */
#ifndef SAGO_NETWORK_H
#define SAGO_NETWORK_H

#include "embedding.h"
#include "model.h"
#include "stack.h"

typedef struct sago_network {
    bool decoder_only;
    sago_embedding embedding;
    sago_stack encoder, decoder; /* encoder: none where decoder_only */
    int output;                  /* matrix of the logits [V, D]; the embedding when tied */
    float logit_scale;
} sago_network;

/** Declares all rows; the layers know their indices afterwards, and what of them is this rank's of
 * model_size. Free with sago_network_free, also after a failure.
 */
sago_status sago_network_declare(sago_network *network, const sago_model_shape *shape, int model_rank,
                                 int model_size, sago_registry *registry) SAGO_MUST_CHECK;
void sago_network_free(sago_network *network);

#endif
