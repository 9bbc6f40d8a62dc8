// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The integer sizes of a shape, under their keys of the configuration, with the range that makes sense. */
typedef struct size_key {
    const char *key;
    size_t place;
    int64_t least[2], most[2]; /* of T5, of PaLM */
} size_key;

static const size_key sizes[] = {
    {"vocab_size", offsetof(sago_model_shape, vocab_size), {1, 1}, {1 << 24, 1 << 24}},
    {"d_model", offsetof(sago_model_shape, d_model), {1, 1}, {1 << 20, 1 << 20}},
    {"n_heads", offsetof(sago_model_shape, n_heads), {1, 1}, {1 << 14, 1 << 14}},
    {"kv_heads", offsetof(sago_model_shape, kv_heads), {1, 1}, {1 << 14, 1 << 14}},
    {"head_dim", offsetof(sago_model_shape, head_dim), {1, 2}, {1 << 14, 1 << 14}},
    {"d_ff", offsetof(sago_model_shape, d_ff), {1, 1}, {1 << 22, 1 << 22}},
    {"encoder_layers", offsetof(sago_model_shape, encoder_layers), {1, 0}, {1 << 12, 0}},
    {"decoder_layers", offsetof(sago_model_shape, decoder_layers), {1, 1}, {1 << 12, 1 << 12}},
    {"relative_buckets", offsetof(sago_model_shape, relative_buckets), {4, 0}, {1 << 16, 0}},
    {"relative_max_distance", offsetof(sago_model_shape, relative_max_distance), {1, 0}, {1 << 24, 0}},
};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

static int64_t *size_of(sago_model_shape *shape, int i) {
    return (int64_t *)(void *)((char *)shape + sizes[i].place);
}

/* --- names
 * ------------------------------------------------------------------------------------------------------- */

static const char *const activations[] = {
    [SAGO_RELU] = "relu", [SAGO_GATED_GELU] = "gated-gelu", [SAGO_SWIGLU] = "swiglu"};

const char *sago_activation_name(sago_activation activation) {
    return activations[activation];
}

bool sago_activation_parse(const char *name, sago_activation *out) {
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++)
        if (strcmp(name, activations[i]) == 0) {
            *out = (sago_activation)i;
            return true;
        }
    return false;
}

bool sago_model_decoder_only(const sago_model_shape *shape) {
    return strcmp(shape->family, "palm") == 0;
}

/* --- defaults and checks
 * ----------------------------------------------------------------------------------------- */

void sago_model_shape_complete(sago_model_shape *shape) {
    bool palm = sago_model_decoder_only(shape);
    if (shape->kv_heads == 0) shape->kv_heads = palm ? 1 : shape->n_heads;
    if (shape->rope_theta == 0 && palm) shape->rope_theta = 10000;
    if (shape->logit_scale == 0)
        shape->logit_scale = shape->tied_embeddings ? (float)(1 / sqrt((double)shape->d_model)) : 1;
}

static sago_status check_heads(const sago_model_shape *shape, int model_axis) {
    int64_t heads = shape->n_heads, kv = shape->kv_heads;
    if (heads % kv != 0)
        return sago_fail(SAGO_E_SHAPE, "model.kv_heads: %lld key/value heads do not divide %lld heads",
                         (long long)kv, (long long)heads);
    if (heads % model_axis != 0)
        return sago_fail(SAGO_E_SHAPE, "model.n_heads: %lld heads do not divide by mesh.model=%d",
                         (long long)heads, model_axis);
    if (kv != 1 && kv % model_axis != 0)
        return sago_fail(SAGO_E_SHAPE,
                         "model.kv_heads: %lld key/value heads do not divide by mesh.model=%d (a single one "
                         "would be kept on every rank)",
                         (long long)kv, model_axis);
    if (shape->d_ff % model_axis != 0)
        return sago_fail(SAGO_E_SHAPE, "model.d_ff: %lld does not divide by mesh.model=%d",
                         (long long)shape->d_ff, model_axis);
    return SAGO_OK;
}

static sago_status check_t5(const sago_model_shape *shape) {
    if (shape->kv_heads != shape->n_heads)
        return sago_fail(SAGO_E_SHAPE, "model.kv_heads is %lld; t5 has as many as heads, %lld",
                         (long long)shape->kv_heads, (long long)shape->n_heads);
    if (shape->relative_buckets % 2 != 0)
        return sago_fail(SAGO_E_SHAPE, "model.relative_buckets is %lld; it must be even and at least 4",
                         (long long)shape->relative_buckets);
    if (shape->relative_max_distance <= shape->relative_buckets / 2)
        return sago_fail(
            SAGO_E_SHAPE,
            "model.relative_max_distance is %lld; it must be above relative_buckets / 2, which is %lld",
            (long long)shape->relative_max_distance, (long long)(shape->relative_buckets / 2));
    return SAGO_OK;
}

static sago_status check_palm(const sago_model_shape *shape) {
    if (shape->activation != SAGO_SWIGLU)
        return sago_fail(SAGO_E_CONFIG, "model.activation: palm takes swiglu, not %s",
                         sago_activation_name(shape->activation));
    if (!shape->tied_embeddings)
        return sago_fail(SAGO_E_CONFIG,
                         "model.tied_embeddings: palm has one matrix for both; set it to true");
    if (shape->head_dim % 2 != 0)
        return sago_fail(SAGO_E_SHAPE, "model.head_dim is %lld; rotary positions need an even one",
                         (long long)shape->head_dim);
    if (!(shape->rope_theta > 1 && shape->rope_theta < 1e12))
        return sago_fail(SAGO_E_SHAPE, "model.rope_theta is %g; it must be above 1 and below 1e12",
                         shape->rope_theta);
    return SAGO_OK;
}

sago_status sago_model_shape_check(const sago_model_shape *shape, int model_axis) {
    bool palm = sago_model_decoder_only(shape);
    if (!palm && strcmp(shape->family, "t5") != 0)
        return sago_fail(SAGO_E_CONFIG, "model.family: \"%s\" is not known; it must be t5 or palm",
                         shape->family);
    for (int i = 0; i < N_SIZES; i++) {
        int64_t value = *size_of((sago_model_shape *)(uintptr_t)shape, i);
        if (value < sizes[i].least[palm] || value > sizes[i].most[palm])
            return sago_fail(SAGO_E_SHAPE, "model.%s is %lld; it must be from %lld to %lld for %s",
                             sizes[i].key, (long long)value, (long long)sizes[i].least[palm],
                             (long long)sizes[i].most[palm], shape->family);
    }
    if (!(shape->norm_epsilon >= 0 && shape->norm_epsilon < 1))
        return sago_fail(SAGO_E_SHAPE, "model.norm_epsilon is %g; it must be from 0 to 1",
                         (double)shape->norm_epsilon);
    if (!(shape->logit_scale > 0 && shape->logit_scale < 1e6f))
        return sago_fail(SAGO_E_SHAPE, "model.logit_scale is %g; it must be above 0 and below 1e6",
                         (double)shape->logit_scale);
    SAGO_TRY(palm ? check_palm(shape) : check_t5(shape));
    return check_heads(shape, model_axis);
}

/* --- JSON
 * -------------------------------------------------------------------------------------------------------- */

json_t *sago_model_shape_to_json(const sago_model_shape *shape) {
    json_t *json = json_object();
    json_object_set_new(json, "family", json_string(shape->family));
    for (int i = 0; i < N_SIZES; i++)
        json_object_set_new(json, sizes[i].key,
                            json_integer(*size_of((sago_model_shape *)(uintptr_t)shape, i)));
    json_object_set_new(json, "activation", json_string(sago_activation_name(shape->activation)));
    json_object_set_new(json, "tied_embeddings", json_boolean(shape->tied_embeddings));
    json_object_set_new(json, "norm_epsilon", json_real((double)shape->norm_epsilon));
    json_object_set_new(json, "logit_scale", json_real((double)shape->logit_scale));
    if (!sago_model_decoder_only(shape)) return json;
    json_object_set_new(json, "rope_theta", json_real(shape->rope_theta));
    json_object_set_new(json, "rope", json_string(shape->rope_interleaved ? "interleaved" : "half"));
    return json;
}

static sago_status read_number(const json_t *json, const char *key, bool needed, double *out) {
    const json_t *value = json_object_get(json, key);
    if (!value && !needed) return SAGO_OK;
    if (!json_is_number(value))
        return sago_fail(SAGO_E_INPUT, "model: \"%s\" is missing, or is no number", key);
    *out = json_number_value(value);
    return SAGO_OK;
}

sago_status sago_model_shape_from_json(const json_t *json, sago_model_shape *out) {
    *out = (sago_model_shape){0};
    const char *family = json_string_value(json_object_get(json, "family"));
    if (!family || strlen(family) >= sizeof out->family)
        return sago_fail(SAGO_E_INPUT, "model: \"family\" is missing, or is no name of a model family");
    snprintf(out->family, sizeof out->family, "%s", family);
    bool palm = sago_model_decoder_only(out);
    for (int i = 0; i < N_SIZES; i++) {
        const json_t *value = json_object_get(json, sizes[i].key);
        /* T5s that were saved before there were other models have no such key. */
        if (!value && !palm && strcmp(sizes[i].key, "kv_heads") == 0) continue;
        if (!json_is_integer(value))
            return sago_fail(SAGO_E_INPUT, "model: \"%s\" is missing, or is no integer", sizes[i].key);
        *size_of(out, i) = json_integer_value(value);
    }
    const char *activation = json_string_value(json_object_get(json, "activation"));
    if (!activation || !sago_activation_parse(activation, &out->activation))
        return sago_fail(SAGO_E_INPUT,
                         "model: \"activation\" is missing, or is neither gated-gelu, relu nor swiglu");
    const json_t *tied = json_object_get(json, "tied_embeddings");
    if (!json_is_boolean(tied))
        return sago_fail(SAGO_E_INPUT, "model: \"tied_embeddings\" is missing, or is neither true nor false");
    out->tied_embeddings = json_is_true(tied);
    double epsilon = 0, logit_scale = 0;
    SAGO_TRY(read_number(json, "norm_epsilon", true, &epsilon));
    SAGO_TRY(read_number(json, "logit_scale", palm, &logit_scale));
    SAGO_TRY(read_number(json, "rope_theta", palm, &out->rope_theta));
    out->norm_epsilon = (float)epsilon;
    out->logit_scale = (float)logit_scale;
    if (palm) {
        const char *rope = json_string_value(json_object_get(json, "rope"));
        if (!rope || (strcmp(rope, "interleaved") != 0 && strcmp(rope, "half") != 0))
            return sago_fail(SAGO_E_INPUT, "model: \"rope\" is missing, or is neither interleaved nor half");
        out->rope_interleaved = strcmp(rope, "interleaved") == 0;
    }
    sago_model_shape_complete(out);
    return SAGO_OK;
}
