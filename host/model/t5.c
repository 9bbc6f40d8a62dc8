// SPDX-License-Identifier: Apache-2.0
#include "t5.h"

#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static sago_status declare_stack(sago_stack *stack, const sago_model_shape *shape, sago_registry *registry,
                                 const char *name, int64_t n_layers, int first_block, bool decoder) {
    *stack = (sago_stack){.n_blocks = (int)n_layers,
                          .first_block = first_block,
                          .input_site = decoder ? SAGO_SITE_DECODER_INPUT : SAGO_SITE_ENCODER_INPUT,
                          .final_site = decoder ? SAGO_SITE_DECODER_FINAL : SAGO_SITE_ENCODER_FINAL};
    stack->blocks = sago_alloc_zero((size_t)n_layers, sizeof *stack->blocks);
    int bias;
    SAGO_TRY(sago_layer_declare(registry, first_block, name, "relative_bias", 2,
                                (const int64_t[]){shape->relative_buckets, shape->n_heads},
                                (const sago_axis[]){SAGO_AXIS_BUCKETS, SAGO_AXIS_HEADS}, SAGO_INIT_NORMAL,
                                1 / sqrt((double)shape->d_model), &bias));
    for (int i = 0; i < stack->n_blocks; i++) {
        sago_block *block = &stack->blocks[i];
        char prefix[64];
        int number = first_block + i;
        block->has_cross = decoder;
        snprintf(prefix, sizeof prefix, "%s.%d.%s", name, i, decoder ? "self_attention" : "attention");
        SAGO_TRY(
            sago_attention_declare(&block->self, registry, number, prefix, shape, bias, !decoder, false));
        if (decoder) {
            snprintf(prefix, sizeof prefix, "%s.%d.cross_attention", name, i);
            SAGO_TRY(sago_attention_declare(&block->cross, registry, number, prefix, shape, -1, true, true));
        }
        snprintf(prefix, sizeof prefix, "%s.%d.mlp", name, i);
        SAGO_TRY(sago_mlp_declare(&block->mlp, registry, number, prefix, shape));
    }
    return sago_norm_declare(&stack->final_norm, registry, first_block + stack->n_blocks - 1, name,
                             "final_norm", shape->d_model, shape->norm_epsilon);
}

sago_status sago_t5_declare(sago_t5 *t5, const sago_model_shape *shape, sago_registry *registry) {
    *t5 = (sago_t5){0};
    SAGO_TRY(sago_model_shape_check(shape, 1));
    SAGO_TRY(
        sago_embedding_declare(&t5->embedding, registry, 0, "shared", shape->vocab_size, shape->d_model, 1));
    SAGO_TRY(declare_stack(&t5->encoder, shape, registry, "encoder", shape->encoder_layers, 1, false));
    SAGO_TRY(declare_stack(&t5->decoder, shape, registry, "decoder", shape->decoder_layers,
                           1 + (int)shape->encoder_layers, true));
    double deviation = 1 / sqrt((double)shape->d_model);
    t5->output = t5->embedding.table;
    t5->logit_scale = shape->logit_scale;
    if (shape->tied_embeddings) return SAGO_OK;
    sago_embedding output;
    SAGO_TRY(sago_embedding_declare(&output, registry,
                                    1 + (int)(shape->encoder_layers + shape->decoder_layers), "output",
                                    shape->vocab_size, shape->d_model, deviation));
    t5->output = output.table;
    return SAGO_OK;
}

void sago_t5_free(sago_t5 *t5) {
    free(t5->encoder.blocks);
    free(t5->decoder.blocks);
    *t5 = (sago_t5){0};
}

sago_status sago_model_declare(const sago_model_shape *shape, sago_registry *registry) {
    sago_t5 t5;
    sago_status status = sago_t5_declare(&t5, shape, registry);
    sago_t5_free(&t5);
    return status;
}
