// SPDX-License-Identifier: Apache-2.0
#include "hf_family.h"

#include <stdio.h>
#include <string.h>

/* sago's part of a layer -> Hugging Face's, after "encoder.block.N." or "decoder.block.N.". */
static const struct {
    const char *stack, *part, *hf;
} parts[] = {
    {"encoder", "attention.norm", "layer.0.layer_norm"},
    {"encoder", "attention.query", "layer.0.SelfAttention.q"},
    {"encoder", "attention.key", "layer.0.SelfAttention.k"},
    {"encoder", "attention.value", "layer.0.SelfAttention.v"},
    {"encoder", "attention.output", "layer.0.SelfAttention.o"},
    {"encoder", "mlp.norm", "layer.1.layer_norm"},
    {"encoder", "mlp.gate", "layer.1.DenseReluDense.wi_0"},
    {"encoder", "mlp.linear", "layer.1.DenseReluDense.wi_1"},
    {"encoder", "mlp.in", "layer.1.DenseReluDense.wi"},
    {"encoder", "mlp.out", "layer.1.DenseReluDense.wo"},
    {"decoder", "self_attention.norm", "layer.0.layer_norm"},
    {"decoder", "self_attention.query", "layer.0.SelfAttention.q"},
    {"decoder", "self_attention.key", "layer.0.SelfAttention.k"},
    {"decoder", "self_attention.value", "layer.0.SelfAttention.v"},
    {"decoder", "self_attention.output", "layer.0.SelfAttention.o"},
    {"decoder", "cross_attention.norm", "layer.1.layer_norm"},
    {"decoder", "cross_attention.query", "layer.1.EncDecAttention.q"},
    {"decoder", "cross_attention.key", "layer.1.EncDecAttention.k"},
    {"decoder", "cross_attention.value", "layer.1.EncDecAttention.v"},
    {"decoder", "cross_attention.output", "layer.1.EncDecAttention.o"},
    {"decoder", "mlp.norm", "layer.2.layer_norm"},
    {"decoder", "mlp.gate", "layer.2.DenseReluDense.wi_0"},
    {"decoder", "mlp.linear", "layer.2.DenseReluDense.wi_1"},
    {"decoder", "mlp.in", "layer.2.DenseReluDense.wi"},
    {"decoder", "mlp.out", "layer.2.DenseReluDense.wo"},
};

/* Those outside of the numbered layers. */
static const char *const fixed[][2] = {
    {"shared.embedding", "shared.weight"},
    {"output.embedding", "lm_head.weight"},
    {"encoder.relative_bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
    {"decoder.relative_bias", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
    {"encoder.final_norm", "encoder.final_layer_norm.weight"},
    {"decoder.final_norm", "decoder.final_layer_norm.weight"},
};

static bool t5_name(const char *param, char out[SAGO_HF_NAME_BYTES]) {
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(param, fixed[i][0]) == 0) {
            snprintf(out, SAGO_HF_NAME_BYTES, "%s", fixed[i][1]);
            return true;
        }
    char stack[8], part[40];
    int layer;
    if (sscanf(param, "%7[a-z].%d.%39s", stack, &layer, part) == 3)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            if (strcmp(stack, parts[i].stack) == 0 && strcmp(part, parts[i].part) == 0) {
                snprintf(out, SAGO_HF_NAME_BYTES, "%s.block.%d.%s.weight", stack, layer, parts[i].hf);
                return true;
            }
    return false;
}

sago_status sago_hf_name(const sago_model_shape *shape, const char *param, char out[SAGO_HF_NAME_BYTES]) {
    if (sago_model_decoder_only(shape) ? sago_hf_cohere_name(param, out) : t5_name(param, out)) return SAGO_OK;
    return sago_fail(SAGO_E_INTERNAL, "Hugging Face has no name for parameter %s", param);
}

const char *sago_hf_second_name_of(const sago_model_shape *shape, const char *name) {
    if (sago_model_decoder_only(shape)) return sago_hf_cohere_second_name_of(name);
    if (strcmp(name, "encoder.embed_tokens.weight") == 0 || strcmp(name, "decoder.embed_tokens.weight") == 0)
        return "shared.embedding";
    return shape->tied_embeddings && strcmp(name, "lm_head.weight") == 0 ? "shared.embedding" : NULL;
}

bool sago_hf_is_unread(const char *name) {
    return strcmp(name, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight") == 0;
}
