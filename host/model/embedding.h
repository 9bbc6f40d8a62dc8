// SPDX-License-Identifier: Apache-2.0
/**
 * Token embedding: y = dropout(table[ids]). One table for the inputs of both stacks and, when tied, for the
 * logits. Padding has id -1 and gives zeros, so that it costs and adds nothing on the way back.
 */
#ifndef SAGO_EMBEDDING_H
#define SAGO_EMBEDDING_H

#include "layer.h"

typedef struct sago_embedding {
    int table; /* [V, D] */
} sago_embedding;

typedef struct sago_embedding_saved {
    int32_t *ids; /* [N], on the device */
} sago_embedding_saved;

sago_status sago_embedding_declare(sago_embedding *layer, sago_registry *registry, int block,
                                   const char *prefix, int64_t vocab_size, int64_t d_model,
                                   double deviation) SAGO_MUST_CHECK;
void sago_embedding_plan(sago_arena *arena, int64_t tokens, sago_embedding_saved *saved);
/** Uploads ids [B * S] from the host; y[B, S, D]. */
sago_status sago_embedding_forward(const sago_embedding *layer, const sago_pass *pass,
                                   const sago_embedding_saved *saved, sago_tensor y, const int32_t *ids,
                                   int site) SAGO_MUST_CHECK;
/** d_y is used up. */
sago_status sago_embedding_backward(const sago_embedding *layer, const sago_pass *pass,
                                    const sago_embedding_saved *saved, sago_tensor d_y,
                                    int site) SAGO_MUST_CHECK;

#endif
