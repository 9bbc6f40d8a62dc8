// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A stack's table of position biases. All its layers read it, so it stands in block 0. */
static sago_status declare_bias(const sago_declaration *into, const char *name, int *index) {
    const sago_model_shape *shape = into->shape;
    return sago_layer_declare(into->registry, 0, name, "relative_bias", 2,
                              (const int64_t[]){shape->relative_buckets, shape->n_heads},
                              (const sago_axis[]){SAGO_AXIS_BUCKETS, SAGO_AXIS_HEADS}, SAGO_INIT_NORMAL,
                              1 / sqrt((double)shape->d_model), index);
}

static sago_status declare_stack(sago_stack *stack, sago_declaration into, sago_block_kind kind,
                                 const char *name, int64_t n_layers, int bias) {
    const sago_model_shape *shape = into.shape;
    bool encoder = kind == SAGO_BLOCK_ENCODER;
    *stack = (sago_stack){.n_blocks = (int)n_layers,
                          .first_block = into.block,
                          .input_site = encoder ? SAGO_SITE_ENCODER_INPUT : SAGO_SITE_DECODER_INPUT,
                          .final_site = encoder ? SAGO_SITE_ENCODER_FINAL : SAGO_SITE_DECODER_FINAL};
    stack->blocks = sago_alloc_zero((size_t)n_layers, sizeof *stack->blocks);
    for (int i = 0; i < stack->n_blocks; i++, into.block++)
        SAGO_TRY(sago_block_declare(&stack->blocks[i], &into, kind, name, i, bias));
    return sago_norm_declare(&stack->final_norm, into.registry, into.block - 1, name, "final_norm", shape);
}

sago_status sago_network_declare(sago_network *network, const sago_model_shape *shape, int model_rank,
                                 int model_size, sago_registry *registry) {
    *network =
        (sago_network){.decoder_only = sago_model_decoder_only(shape), .logit_scale = shape->logit_scale};
    SAGO_TRY(sago_model_shape_check(shape, model_size));
    sago_declaration into = {registry, shape, 1, model_rank, model_size};
    SAGO_TRY(sago_embedding_declare(&network->embedding, registry, 0, "shared", shape->vocab_size,
                                    shape->d_model, 1));
    int encoder_bias = -1, decoder_bias = -1;
    if (!network->decoder_only) {
        SAGO_TRY(declare_bias(&into, "encoder", &encoder_bias));
        SAGO_TRY(declare_bias(&into, "decoder", &decoder_bias));
        SAGO_TRY(declare_stack(&network->encoder, into, SAGO_BLOCK_ENCODER, "encoder", shape->encoder_layers,
                               encoder_bias));
    }
    into.block += (int)shape->encoder_layers;
    SAGO_TRY(declare_stack(&network->decoder, into,
                           network->decoder_only ? SAGO_BLOCK_PARALLEL : SAGO_BLOCK_DECODER, "decoder",
                           shape->decoder_layers, decoder_bias));
    into.block += (int)shape->decoder_layers;
    network->output = network->embedding.table;
    if (shape->tied_embeddings) return SAGO_OK;
    sago_embedding output;
    SAGO_TRY(sago_embedding_declare(&output, registry, into.block, "output", shape->vocab_size,
                                    shape->d_model, 1 / sqrt((double)shape->d_model)));
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
    sago_status status = sago_network_declare(&network, shape, 0, 1, registry);
    sago_network_free(&network);
    return status;
}

/* What the layers compute with: whoever cuts otherwise would give them other shapes. */
static const char *const own_rules[] = {"heads: model", "kv: model", "mlp: model", "vocab: model"};
enum { N_OWN_RULES = sizeof own_rules / sizeof own_rules[0] };

sago_status sago_model_shard(const sago_model_shape *shape, sago_registry *registry,
                             const char *const rules[], int n_rules, int model_rank, int model_size) {
    SAGO_TRY(sago_registry_shard(registry, own_rules, N_OWN_RULES, model_rank, model_size));
    if (n_rules == 0 || model_size == 1) return SAGO_OK;
    sago_registry asked = {0};
    sago_status status = sago_model_declare(shape, &asked);
    if (status == SAGO_OK) status = sago_registry_shard(&asked, rules, n_rules, model_rank, model_size);
    for (int i = 0; i < asked.n_params && status == SAGO_OK; i++) {
        const sago_param *wanted = &registry->params[i], *got = &asked.params[i];
        if (memcmp(wanted->local_shape, got->local_shape, sizeof got->local_shape) != 0)
            status =
                sago_fail(SAGO_E_CONFIG,
                          "mesh.rules: %s would be [%lld, %lld] on a rank; the layers cut heads, kv, mlp and "
                          "vocab over model, and nothing else: leave the rules out",
                          got->name, (long long)got->local_shape[0], (long long)got->local_shape[1]);
    }
    sago_registry_free(&asked);
    return status;
}
