// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include "str.h"

#include <math.h>
#include <stdlib.h>

static sago_status declare_stack(sago_stack *stack, const sago_model_shape *shape, sago_registry *registry,
                                 sago_block_kind kind, const char *name, int64_t n_layers, int first_block) {
    bool encoder = kind == SAGO_BLOCK_ENCODER;
    *stack = (sago_stack){.n_blocks = (int)n_layers,
                          .first_block = first_block,
                          .input_site = encoder ? SAGO_SITE_ENCODER_INPUT : SAGO_SITE_DECODER_INPUT,
                          .final_site = encoder ? SAGO_SITE_ENCODER_FINAL : SAGO_SITE_DECODER_FINAL};
    stack->blocks = sago_alloc_zero((size_t)n_layers, sizeof *stack->blocks);
    int bias = -1;
    if (kind != SAGO_BLOCK_PARALLEL)
        SAGO_TRY(sago_layer_declare(registry, first_block, name, "relative_bias", 2,
                                    (const int64_t[]){shape->relative_buckets, shape->n_heads},
                                    (const sago_axis[]){SAGO_AXIS_BUCKETS, SAGO_AXIS_HEADS}, SAGO_INIT_NORMAL,
                                    1 / sqrt((double)shape->d_model), &bias));
    for (int i = 0; i < stack->n_blocks; i++)
        SAGO_TRY(sago_block_declare(&stack->blocks[i], registry, kind, first_block + i, name, i, shape, bias));
    return sago_norm_declare(&stack->final_norm, registry, first_block + stack->n_blocks - 1, name,
                             "final_norm", shape);
}

sago_status sago_network_declare(sago_network *network, const sago_model_shape *shape, sago_registry *registry) {
    *network = (sago_network){.decoder_only = sago_model_decoder_only(shape), .logit_scale = shape->logit_scale};
    SAGO_TRY(sago_model_shape_check(shape, 1));
    SAGO_TRY(sago_embedding_declare(&network->embedding, registry, 0, "shared", shape->vocab_size, shape->d_model,
                                    1));
    int layers = (int)shape->encoder_layers;
    if (!network->decoder_only)
        SAGO_TRY(declare_stack(&network->encoder, shape, registry, SAGO_BLOCK_ENCODER, "encoder", layers, 1));
    SAGO_TRY(declare_stack(&network->decoder, shape, registry,
                           network->decoder_only ? SAGO_BLOCK_PARALLEL : SAGO_BLOCK_DECODER, "decoder",
                           shape->decoder_layers, 1 + layers));
    network->output = network->embedding.table;
    if (shape->tied_embeddings) return SAGO_OK;
    sago_embedding output;
    SAGO_TRY(sago_embedding_declare(&output, registry, 1 + layers + (int)shape->decoder_layers, "output",
                                    shape->vocab_size, shape->d_model, 1 / sqrt((double)shape->d_model)));
    network->output = output.table;
    return SAGO_OK;
}

void sago_network_free(sago_network *network) {
    free(network->encoder.blocks);
    free(network->decoder.blocks);
    *network = (sago_network){0};
}

sago_status sago_model_declare(const sago_model_shape *shape, sago_registry *registry) {
    sago_network network;
    sago_status status = sago_network_declare(&network, shape, registry);
    sago_network_free(&network);
    return status;
}
