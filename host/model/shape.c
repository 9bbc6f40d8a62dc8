// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include <stdio.h>
#include <string.h>

/* The integer sizes of a shape, under their keys of the configuration, with the largest value that makes
 * sense. */
static const struct {
    const char *key;
    size_t place;
    int64_t most;
} sizes[] = {
    {"vocab_size", offsetof(sago_model_shape, vocab_size), 1 << 24},
    {"d_model", offsetof(sago_model_shape, d_model), 1 << 20},
    {"n_heads", offsetof(sago_model_shape, n_heads), 1 << 14},
    {"head_dim", offsetof(sago_model_shape, head_dim), 1 << 14},
    {"d_ff", offsetof(sago_model_shape, d_ff), 1 << 22},
    {"encoder_layers", offsetof(sago_model_shape, encoder_layers), 1 << 12},
    {"decoder_layers", offsetof(sago_model_shape, decoder_layers), 1 << 12},
    {"relative_buckets", offsetof(sago_model_shape, relative_buckets), 1 << 16},
    {"relative_max_distance", offsetof(sago_model_shape, relative_max_distance), 1 << 24},
};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

static int64_t size_of(const sago_model_shape *shape, int i) {
    int64_t value;
    memcpy(&value, (const char *)shape + sizes[i].place, sizeof value);
    return value;
}

json_t *sago_model_shape_to_json(const sago_model_shape *shape) {
    json_t *json = json_object();
    json_object_set_new(json, "family", json_string(shape->family));
    for (int i = 0; i < N_SIZES; i++)
        json_object_set_new(json, sizes[i].key, json_integer(size_of(shape, i)));
    json_object_set_new(json, "activation", json_string(shape->gated_gelu ? "gated-gelu" : "relu"));
    json_object_set_new(json, "tied_embeddings", json_boolean(shape->tied_embeddings));
    json_object_set_new(json, "norm_epsilon", json_real((double)shape->norm_epsilon));
    return json;
}

sago_status sago_model_shape_from_json(const json_t *json, sago_model_shape *out) {
    *out = (sago_model_shape){0};
    const char *family = json_string_value(json_object_get(json, "family"));
    if (!family || strlen(family) >= sizeof out->family)
        return sago_fail(SAGO_E_INPUT, "model: \"family\" is missing, or is no name of a model family");
    snprintf(out->family, sizeof out->family, "%s", family);
    for (int i = 0; i < N_SIZES; i++) {
        const json_t *value = json_object_get(json, sizes[i].key);
        if (!json_is_integer(value))
            return sago_fail(SAGO_E_INPUT, "model: \"%s\" is missing, or is no integer", sizes[i].key);
        int64_t number = json_integer_value(value);
        memcpy((char *)out + sizes[i].place, &number, sizeof number);
    }
    const char *activation = json_string_value(json_object_get(json, "activation"));
    if (!activation || (strcmp(activation, "gated-gelu") != 0 && strcmp(activation, "relu") != 0))
        return sago_fail(SAGO_E_INPUT, "model: \"activation\" is missing, or is neither gated-gelu nor relu");
    out->gated_gelu = strcmp(activation, "gated-gelu") == 0;
    const json_t *tied = json_object_get(json, "tied_embeddings");
    if (!json_is_boolean(tied))
        return sago_fail(SAGO_E_INPUT, "model: \"tied_embeddings\" is missing, or is neither true nor false");
    out->tied_embeddings = json_is_true(tied);
    const json_t *epsilon = json_object_get(json, "norm_epsilon");
    if (!json_is_number(epsilon))
        return sago_fail(SAGO_E_INPUT, "model: \"norm_epsilon\" is missing, or is no number");
    out->norm_epsilon = (float)json_number_value(epsilon);
    return SAGO_OK;
}

sago_status sago_model_shape_check(const sago_model_shape *shape, int model_axis) {
    if (strcmp(shape->family, "t5") != 0)
        return sago_fail(SAGO_E_CONFIG, "model.family: \"%s\" is not known; it must be t5", shape->family);
    for (int i = 0; i < N_SIZES; i++) {
        int64_t value = size_of(shape, i);
        if (value < 1 || value > sizes[i].most)
            return sago_fail(SAGO_E_SHAPE, "model.%s is %lld; it must be from 1 to %lld", sizes[i].key,
                             (long long)value, (long long)sizes[i].most);
    }
    if (shape->relative_buckets < 4 || shape->relative_buckets % 2 != 0)
        return sago_fail(SAGO_E_SHAPE, "model.relative_buckets is %lld; it must be even and at least 4",
                         (long long)shape->relative_buckets);
    if (shape->relative_max_distance <= shape->relative_buckets / 2)
        return sago_fail(
            SAGO_E_SHAPE,
            "model.relative_max_distance is %lld; it must be above relative_buckets / 2, which is %lld",
            (long long)shape->relative_max_distance, (long long)(shape->relative_buckets / 2));
    if (!(shape->norm_epsilon >= 0 && shape->norm_epsilon < 1))
        return sago_fail(SAGO_E_SHAPE, "model.norm_epsilon is %g; it must be from 0 to 1",
                         (double)shape->norm_epsilon);
    if (shape->n_heads % model_axis != 0)
        return sago_fail(SAGO_E_SHAPE, "model.n_heads: %lld heads do not divide by mesh.model=%d",
                         (long long)shape->n_heads, model_axis);
    if (shape->d_ff % model_axis != 0)
        return sago_fail(SAGO_E_SHAPE, "model.d_ff: %lld does not divide by mesh.model=%d",
                         (long long)shape->d_ff, model_axis);
    return SAGO_OK;
}
