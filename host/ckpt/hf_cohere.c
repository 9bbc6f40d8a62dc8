// SPDX-License-Identifier: Apache-2.0
/*
 * PaLM's shape as the Cohere models (Command-R, Aya) have it: parallel block, LayerNorm without an offset,
 * SwiGLU, rotary positions of neighbouring pairs, grouped key/value heads, one matrix for embedding and
 * output, a logit scale.
 */
#include "hf_family.h"

#include "log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* sago's part of a layer -> Hugging Face's, after "model.layers.N.". */
static const char *const parts[][2] = {
    {"norm", "input_layernorm"},
    {"attention.query", "self_attn.q_proj"},
    {"attention.key", "self_attn.k_proj"},
    {"attention.value", "self_attn.v_proj"},
    {"attention.output", "self_attn.o_proj"},
    {"mlp.gate", "mlp.gate_proj"},
    {"mlp.linear", "mlp.up_proj"},
    {"mlp.out", "mlp.down_proj"},
};

static const char *const fixed[][2] = {
    {"shared.embedding", "model.embed_tokens.weight"},
    {"decoder.final_norm", "model.norm.weight"},
};

static const sago_hf_size sizes[] = {
    {"vocab_size", offsetof(sago_model_shape, vocab_size), -1},
    {"hidden_size", offsetof(sago_model_shape, d_model), -1},
    {"num_attention_heads", offsetof(sago_model_shape, n_heads), -1},
    {"num_key_value_heads", offsetof(sago_model_shape, kv_heads), 0},
    {"head_dim", offsetof(sago_model_shape, head_dim), 0},
    {"intermediate_size", offsetof(sago_model_shape, d_ff), -1},
    {"num_hidden_layers", offsetof(sago_model_shape, decoder_layers), -1},
};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

bool sago_hf_cohere_name(const char *param, char out[SAGO_HF_NAME_BYTES]) {
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(param, fixed[i][0]) == 0) {
            snprintf(out, SAGO_HF_NAME_BYTES, "%s", fixed[i][1]);
            return true;
        }
    char part[40];
    int layer;
    if (sscanf(param, "decoder.%d.%39s", &layer, part) != 2) return false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strcmp(part, parts[i][0]) == 0) {
            snprintf(out, SAGO_HF_NAME_BYTES, "model.layers.%d.%s.weight", layer, parts[i][1]);
            return true;
        }
    return false;
}

const char *sago_hf_cohere_second_name_of(const char *name) {
    return strcmp(name, "lm_head.weight") == 0 ? "shared.embedding" : NULL;
}

/* --- config.json in
 * --------------------------------------------------------------------------------------------- */

/* What a model of this family may not have, because its layers here do not. */
static sago_status refuse_variants(const json_t *config, const char *path) {
    static const struct {
        const char *key;
        bool is;
    } flags[] = {{"use_qk_norm", false}, {"attention_bias", false}, {"tie_word_embeddings", true}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const json_t *value = json_object_get(config, flags[i].key);
        if (value && !(flags[i].is ? json_is_true(value) : json_is_false(value)))
            return sago_fail(SAGO_E_INPUT, "%s: \"%s\" must be %s; sago has no such layers", path,
                             flags[i].key, flags[i].is ? "true" : "false");
    }
    const json_t *act = json_object_get(config, "hidden_act"),
                 *scaling = json_object_get(config, "rope_scaling");
    if (act && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
        return sago_fail(SAGO_E_INPUT, "%s: \"hidden_act\" is not \"silu\"; sago has no such layers", path);
    if (scaling && !json_is_null(scaling))
        return sago_fail(SAGO_E_INPUT, "%s: \"rope_scaling\" is set; sago reads models without it", path);
    return SAGO_OK;
}

/* rope_theta moved into a dictionary in later versions of transformers. */
static sago_status read_rope(const json_t *config, const char *path, double *theta) {
    const json_t *parameters = json_object_get(config, "rope_parameters");
    const char *type = json_string_value(json_object_get(parameters, "rope_type"));
    if (type && strcmp(type, "default") != 0)
        return sago_fail(SAGO_E_INPUT, "%s: \"rope_type\" is \"%s\"; sago reads models of type \"default\"",
                         path, type);
    return sago_hf_read_number(json_object_get(parameters, "rope_theta") ? parameters : config, path,
                               "rope_theta", 10000, theta);
}

sago_status sago_hf_cohere_read(const json_t *config, const char *path, sago_model_shape *out) {
    double epsilon, logit_scale;
    SAGO_TRY(refuse_variants(config, path));
    snprintf(out->family, sizeof out->family, "palm");
    out->activation = SAGO_SWIGLU;
    out->tied_embeddings = true;
    out->rope_interleaved = true;
    SAGO_TRY(sago_hf_read_sizes(config, path, sizes, N_SIZES, out));
    if (out->kv_heads == 0) out->kv_heads = out->n_heads;
    if (out->head_dim == 0) out->head_dim = out->d_model / out->n_heads;
    SAGO_TRY(sago_hf_read_number(config, path, "layer_norm_eps", 1e-5, &epsilon));
    SAGO_TRY(sago_hf_read_number(config, path, "logit_scale", 0.0625, &logit_scale));
    SAGO_TRY(read_rope(config, path, &out->rope_theta));
    out->norm_epsilon = (float)epsilon;
    out->logit_scale = (float)logit_scale;
    const json_t *eos = json_object_get(config, "eos_token_id");
    if (json_is_integer(eos) && json_integer_value(eos) != 1)
        sago_info("%s: \"eos_token_id\" is %lld; sago ends answers with id 1, which suits a model that it "
                  "finetunes",
                  path, (long long)json_integer_value(eos));
    return SAGO_OK;
}

/* --- config.json out
 * -------------------------------------------------------------------------------------------- */

void sago_hf_cohere_write(const sago_model_shape *shape, json_t *config) {
    sago_hf_set_default(config, "architectures", json_pack("[s]", "CohereForCausalLM"));
    sago_hf_set_default(config, "model_type", json_string("cohere"));
    sago_hf_set_default(config, "hidden_act", json_string("silu"));
    sago_hf_set_default(config, "attention_bias", json_false());
    sago_hf_set_default(config, "attention_dropout", json_real(0));
    sago_hf_set_default(config, "use_qk_norm", json_false());
    sago_hf_set_default(config, "use_cache", json_true());
    sago_hf_set_default(config, "max_position_embeddings", json_integer(8192));
    sago_hf_set_default(config, "pad_token_id", json_integer(0));
    sago_hf_set_default(config, "bos_token_id", json_null());
    sago_hf_set_default(config, "eos_token_id", json_integer(1));
    sago_hf_write_sizes(shape, sizes, N_SIZES, config);
    sago_hf_set_float(config, "layer_norm_eps", shape->norm_epsilon);
    sago_hf_set_float(config, "logit_scale", shape->logit_scale);
    if (!json_object_get(config, "rope_parameters"))
        json_object_set_new(config, "rope_theta", json_real(shape->rope_theta));
}
