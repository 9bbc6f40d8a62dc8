// SPDX-License-Identifier: Apache-2.0
/**
 * Token embedding: y = dropout(table[ids]). One table for the inputs of both stacks and, when tied, for the
 * logits. Padding has id -1 and gives zeros, so that it costs and adds nothing on the way back.
 *
 * Where ranks share the model each holds some rows of the table, and ids count from its first one, -1 for
 * those of others: every rank looks up what it has, and the sum over ranks is the embedding.
 */
#ifndef SAGO_EMBEDDING_H
#define SAGO_EMBEDDING_H

#include "parallel.h"

typedef struct sago_embedding {
    int table; /* [V, D] */
} sago_embedding;

sago_status sago_embedding_declare(sago_embedding *layer, sago_registry *registry, int block,
                                   const char *prefix, int64_t vocab_size, int64_t d_model,
                                   double deviation) SAGO_MUST_CHECK;
/** y: of the residual stream; ids [rows * tokens] on the device. */
sago_status sago_embedding_forward(const sago_embedding *layer, const sago_pass *pass, sago_tensor y,
                                   int32_t *ids, int64_t rows, int64_t tokens, int site) SAGO_MUST_CHECK;
/** d_y is used up; ids of the forward pass. */
sago_status sago_embedding_backward(const sago_embedding *layer, const sago_pass *pass, sago_tensor d_y,
                                    int32_t *ids, int64_t rows, int64_t tokens, int site) SAGO_MUST_CHECK;

#endif
