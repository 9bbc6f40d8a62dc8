// SPDX-License-Identifier: Apache-2.0
#include "hf_family.h"

#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what the families share --- */

sago_status sago_hf_read_sizes(const json_t *config, const char *path, const sago_hf_size sizes[], size_t n,
                               sago_model_shape *out) {
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(config, sizes[i].key);
        bool absent = !value || json_is_null(value);
        int64_t size = absent ? sizes[i].otherwise : json_integer_value(value);
        if (size < 0 && absent) return sago_fail(SAGO_E_INPUT, "%s: \"%s\" is missing", path, sizes[i].key);
        if (!absent && (!json_is_integer(value) || size < 1))
            return sago_fail(SAGO_E_INPUT, "%s: \"%s\" is no positive integer", path, sizes[i].key);
        memcpy((char *)out + sizes[i].offset, &size, sizeof size);
    }
    return SAGO_OK;
}

void sago_hf_write_sizes(const sago_model_shape *shape, const sago_hf_size sizes[], size_t n,
                         json_t *config) {
    for (size_t i = 0; i < n; i++) {
        int64_t size;
        memcpy(&size, (const char *)shape + sizes[i].offset, sizeof size);
        json_object_set_new(config, sizes[i].key, json_integer((json_int_t)size));
    }
}

sago_status sago_hf_read_number(const json_t *config, const char *path, const char *key, double otherwise,
                                double *out) {
    const json_t *value = json_object_get(config, key);
    *out = otherwise;
    if (!value) return SAGO_OK;
    if (!json_is_number(value)) return sago_fail(SAGO_E_INPUT, "%s: \"%s\" is no number", path, key);
    *out = json_number_value(value);
    return SAGO_OK;
}

void sago_hf_set_float(json_t *config, const char *key, float value) {
    const json_t *before = json_object_get(config, key);
    if (json_is_number(before) && (float)json_number_value(before) == value) return;
    char text[32];
    int digits = 1; /* nine are enough for every float */
    do snprintf(text, sizeof text, "%.*g", digits, (double)value);
    while ((float)strtod(text, NULL) != value && digits++ < 9);
    json_object_set_new(config, key, json_real(strtod(text, NULL)));
}

void sago_hf_set_default(json_t *config, const char *key, json_t *value) {
    if (json_object_get(config, key))
        json_decref(value);
    else
        json_object_set_new(config, key, value);
}

/* --- T5 --- */

static const sago_hf_size t5_sizes[] = {
    {"vocab_size", offsetof(sago_model_shape, vocab_size), -1},
    {"d_model", offsetof(sago_model_shape, d_model), -1},
    {"num_heads", offsetof(sago_model_shape, n_heads), -1},
    {"d_kv", offsetof(sago_model_shape, head_dim), 64},
    {"d_ff", offsetof(sago_model_shape, d_ff), -1},
    {"num_layers", offsetof(sago_model_shape, encoder_layers), -1},
    {"num_decoder_layers", offsetof(sago_model_shape, decoder_layers), 0},
    {"relative_attention_num_buckets", offsetof(sago_model_shape, relative_buckets), 32},
    {"relative_attention_max_distance", offsetof(sago_model_shape, relative_max_distance), 128},
};
enum { N_T5_SIZES = sizeof t5_sizes / sizeof t5_sizes[0] };

/* "feed_forward_proj" of a T5. */
static const char *const mlp_kinds[] = {
    [SAGO_RELU] = "relu", [SAGO_GATED_GELU] = "gated-gelu", [SAGO_SWIGLU] = "gated-silu"};
enum { N_MLP_KINDS = sizeof mlp_kinds / sizeof mlp_kinds[0] };

static sago_status read_kind(const json_t *config, const char *path, sago_model_shape *shape) {
    const json_t *mlp = json_object_get(config, "feed_forward_proj");
    const char *mlp_text = mlp ? json_string_value(mlp) : "relu";
    int kind = 0;
    while (kind < N_MLP_KINDS && (!mlp_text || strcmp(mlp_text, mlp_kinds[kind]) != 0)) kind++;
    if (kind == N_MLP_KINDS)
        return sago_fail(SAGO_E_INPUT,
                         "%s: \"feed_forward_proj\" is %s%s%s; sago knows relu, gated-gelu and gated-silu", path,
                         mlp_text ? "\"" : "", mlp_text ? mlp_text : "no text", mlp_text ? "\"" : "");
    const json_t *tied = json_object_get(config, "tie_word_embeddings");
    if (tied && !json_is_boolean(tied))
        return sago_fail(SAGO_E_INPUT, "%s: \"tie_word_embeddings\" is neither true nor false", path);
    snprintf(shape->family, sizeof shape->family, "t5");
    shape->activation = (sago_activation)kind;
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

static sago_status read_t5(const json_t *config, const char *path, sago_model_shape *out) {
    SAGO_TRY(read_kind(config, path, out));
    SAGO_TRY(check_ids(config, path));
    SAGO_TRY(sago_hf_read_sizes(config, path, t5_sizes, N_T5_SIZES, out));
    if (out->decoder_layers == 0) out->decoder_layers = out->encoder_layers;
    double epsilon;
    SAGO_TRY(sago_hf_read_number(config, path, "layer_norm_epsilon", 1e-6, &epsilon));
    out->norm_epsilon = (float)epsilon;
    return SAGO_OK;
}

sago_status sago_hf_read_config(const json_t *config, const char *path, sago_model_shape *out) {
    *out = (sago_model_shape){0};
    if (!json_is_object(config)) return sago_fail(SAGO_E_INPUT, "%s: is no JSON object", path);
    const char *type = json_string_value(json_object_get(config, "model_type"));
    bool t5 = type && (strcmp(type, "t5") == 0 || strcmp(type, "mt5") == 0);
    if (!t5 && (!type || strcmp(type, "cohere") != 0))
        return sago_fail(SAGO_E_INPUT, "%s: \"model_type\" is %s%s%s; sago imports t5, mt5 and cohere", path,
                         type ? "\"" : "", type ? type : "missing", type ? "\"" : "");
    SAGO_TRY(t5 ? read_t5(config, path, out) : sago_hf_cohere_read(config, path, out));
    sago_model_shape_complete(out);
    return sago_wrap(sago_model_shape_check(out, 1), "%s", path);
}

static void write_t5(const sago_model_shape *shape, json_t *config) {
    sago_hf_set_default(config, "architectures", json_pack("[s]", "T5ForConditionalGeneration"));
    sago_hf_set_default(config, "model_type", json_string("t5"));
    sago_hf_set_default(config, "is_encoder_decoder", json_true());
    sago_hf_set_default(config, "dropout_rate", json_real(0.1));
    sago_hf_set_default(config, "initializer_factor", json_real(1.0));
    sago_hf_set_default(config, "use_cache", json_true());
    sago_hf_set_default(config, "pad_token_id", json_integer(0));
    sago_hf_set_default(config, "eos_token_id", json_integer(1));
    sago_hf_set_default(config, "decoder_start_token_id", json_integer(0));
    sago_hf_write_sizes(shape, t5_sizes, N_T5_SIZES, config);
    sago_hf_set_float(config, "layer_norm_epsilon", shape->norm_epsilon);
    json_object_set_new(config, "feed_forward_proj", json_string(mlp_kinds[shape->activation]));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(shape->tied_embeddings));
}

json_t *sago_hf_write_config(const sago_model_shape *shape, const json_t *before) {
    json_t *config = before ? json_deep_copy(before) : json_object();
    (sago_model_decoder_only(shape) ? sago_hf_cohere_write : write_t5)(shape, config);
    /* Weights are exported in fp32 whatever they were before. Two keys: transformers renamed it in
     * version 4.56. */
    if (json_object_get(config, "dtype")) json_object_set_new(config, "dtype", json_string("float32"));
    if (json_object_get(config, "torch_dtype") || !json_object_get(config, "dtype"))
        json_object_set_new(config, "torch_dtype", json_string("float32"));
    return config;
}
