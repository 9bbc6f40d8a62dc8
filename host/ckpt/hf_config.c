// SPDX-License-Identifier: Apache-2.0
#include "hf.h"

#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A size of config.json; `otherwise` is what transformers takes where the key is absent, -1 where it must be
 * there. */
static sago_status read_size(const json_t *config, const char *path, const char *key, int64_t otherwise,
                             int64_t *out) {
    const json_t *value = json_object_get(config, key);
    *out = otherwise;
    if (!value || json_is_null(value))
        return otherwise >= 0 ? SAGO_OK : sago_fail(SAGO_E_INPUT, "%s: \"%s\" is missing", path, key);
    *out = json_integer_value(value);
    if (!json_is_integer(value) || *out < 1)
        return sago_fail(SAGO_E_INPUT, "%s: \"%s\" is no positive integer", path, key);
    return SAGO_OK;
}

static sago_status read_kind(const json_t *config, const char *path, sago_model_shape *shape) {
    const json_t *type = json_object_get(config, "model_type"),
                 *mlp = json_object_get(config, "feed_forward_proj");
    const char *type_text = json_string_value(type), *mlp_text = mlp ? json_string_value(mlp) : "relu";
    if (!type_text || (strcmp(type_text, "t5") != 0 && strcmp(type_text, "mt5") != 0))
        return sago_fail(SAGO_E_INPUT, "%s: \"model_type\" is %s%s%s; sago imports t5 and mt5", path,
                         type_text ? "\"" : "", type_text ? type_text : "missing", type_text ? "\"" : "");
    if (!mlp_text || (strcmp(mlp_text, "relu") != 0 && strcmp(mlp_text, "gated-gelu") != 0))
        return sago_fail(SAGO_E_INPUT, "%s: \"feed_forward_proj\" is %s%s%s; sago knows relu and gated-gelu",
                         path, mlp_text ? "\"" : "", mlp_text ? mlp_text : "no text", mlp_text ? "\"" : "");
    const json_t *tied = json_object_get(config, "tie_word_embeddings");
    if (tied && !json_is_boolean(tied))
        return sago_fail(SAGO_E_INPUT, "%s: \"tie_word_embeddings\" is neither true nor false", path);
    snprintf(shape->family, sizeof shape->family, "t5");
    shape->activation = strcmp(mlp_text, "gated-gelu") == 0 ? SAGO_GATED_GELU : SAGO_RELU;
    shape->tied_embeddings = !tied || json_is_true(tied);
    return SAGO_OK;
}

/* The ids that T5 has fixed meanings for, in this program as in the published models. */
static sago_status check_ids(const json_t *config, const char *path) {
    static const struct {
        const char *key;
        json_int_t id;
    } fixed[] = {{"pad_token_id", 0}, {"eos_token_id", 1}, {"decoder_start_token_id", 0}};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        const json_t *value = json_object_get(config, fixed[i].key);
        if (json_is_integer(value) && json_integer_value(value) != fixed[i].id)
            return sago_fail(SAGO_E_INPUT, "%s: \"%s\" is %lld; sago imports models where it is %d", path,
                             fixed[i].key, (long long)json_integer_value(value), (int)fixed[i].id);
    }
    return SAGO_OK;
}

sago_status sago_hf_read_config(const json_t *config, const char *path, sago_model_shape *out) {
    *out = (sago_model_shape){0};
    if (!json_is_object(config)) return sago_fail(SAGO_E_INPUT, "%s: is no JSON object", path);
    SAGO_TRY(read_kind(config, path, out));
    SAGO_TRY(check_ids(config, path));
    SAGO_TRY(read_size(config, path, "vocab_size", -1, &out->vocab_size));
    SAGO_TRY(read_size(config, path, "d_model", -1, &out->d_model));
    SAGO_TRY(read_size(config, path, "num_heads", -1, &out->n_heads));
    SAGO_TRY(read_size(config, path, "d_kv", 64, &out->head_dim));
    SAGO_TRY(read_size(config, path, "d_ff", -1, &out->d_ff));
    SAGO_TRY(read_size(config, path, "num_layers", -1, &out->encoder_layers));
    SAGO_TRY(read_size(config, path, "num_decoder_layers", out->encoder_layers, &out->decoder_layers));
    SAGO_TRY(read_size(config, path, "relative_attention_num_buckets", 32, &out->relative_buckets));
    SAGO_TRY(read_size(config, path, "relative_attention_max_distance", 128, &out->relative_max_distance));
    const json_t *epsilon = json_object_get(config, "layer_norm_epsilon");
    if (epsilon && !json_is_number(epsilon))
        return sago_fail(SAGO_E_INPUT, "%s: \"layer_norm_epsilon\" is no number", path);
    out->norm_epsilon = epsilon ? (float)json_number_value(epsilon) : 1e-6f;
    sago_model_shape_complete(out);
    return sago_wrap(sago_model_shape_check(out, 1), "%s", path);
}

static void set_int(json_t *config, const char *key, int64_t value) {
    json_object_set_new(config, key, json_integer((json_int_t)value));
}

static void set_default(json_t *config, const char *key, json_t *value) {
    if (json_object_get(config, key))
        json_decref(value);
    else
        json_object_set_new(config, key, value);
}

json_t *sago_hf_write_config(const sago_model_shape *shape, const json_t *before) {
    json_t *config = before ? json_deep_copy(before) : json_object();
    const char *mlp = sago_activation_name(shape->activation);
    set_default(config, "architectures", json_pack("[s]", "T5ForConditionalGeneration"));
    set_default(config, "model_type", json_string("t5"));
    set_default(config, "is_encoder_decoder", json_true());
    set_default(config, "dropout_rate", json_real(0.1));
    set_default(config, "initializer_factor", json_real(1.0));
    set_default(config, "use_cache", json_true());
    set_default(config, "pad_token_id", json_integer(0));
    set_default(config, "eos_token_id", json_integer(1));
    set_default(config, "decoder_start_token_id", json_integer(0));
    set_int(config, "vocab_size", shape->vocab_size);
    set_int(config, "d_model", shape->d_model);
    set_int(config, "num_heads", shape->n_heads);
    set_int(config, "d_kv", shape->head_dim);
    set_int(config, "d_ff", shape->d_ff);
    set_int(config, "num_layers", shape->encoder_layers);
    set_int(config, "num_decoder_layers", shape->decoder_layers);
    set_int(config, "relative_attention_num_buckets", shape->relative_buckets);
    set_int(config, "relative_attention_max_distance", shape->relative_max_distance);
    /* The float's shortest decimal form, so that 1e-6 does not become 9.999999974752427e-07. */
    char epsilon[32];
    snprintf(epsilon, sizeof epsilon, "%.8g", (double)shape->norm_epsilon);
    json_object_set_new(config, "layer_norm_epsilon", json_real(strtod(epsilon, NULL)));
    json_object_set_new(config, "feed_forward_proj", json_string(mlp));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(shape->tied_embeddings));
    /* Weights are exported in fp32 whatever they were before. Two keys: transformers renamed it in
     * version 4.56. */
    if (json_object_get(config, "dtype")) json_object_set_new(config, "dtype", json_string("float32"));
    if (json_object_get(config, "torch_dtype") || !json_object_get(config, "dtype"))
        json_object_set_new(config, "torch_dtype", json_string("float32"));
    return config;
}
