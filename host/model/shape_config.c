// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sago_status sago_model_shape_from_config(const sago_config *config, sago_model_shape *shape) {
    *shape = (sago_model_shape){
        .vocab_size = config->model.vocab_size,
        .d_model = config->model.d_model,
        .n_heads = config->model.n_heads,
        .kv_heads = config->model.kv_heads,
        .head_dim = config->model.head_dim,
        .d_ff = config->model.d_ff,
        .encoder_layers = config->model.encoder_layers,
        .decoder_layers = config->model.decoder_layers,
        .tied_embeddings = config->model.tied_embeddings,
        .relative_buckets = config->model.relative_buckets,
        .relative_max_distance = config->model.relative_max_distance,
        .norm_epsilon = (float)config->model.norm_epsilon,
        .logit_scale = (float)config->model.logit_scale,
    };
    snprintf(shape->family, sizeof shape->family, "%s", config->model.family);
    if (!sago_activation_parse(config->model.activation, &shape->activation))
        return sago_fail(SAGO_E_CONFIG, "model.activation: %s is not known", config->model.activation);
    if (sago_model_decoder_only(shape)) {
        /* What only T5 has keeps its default in a configuration of PaLM, and what only PaLM has the other
         * way. */
        shape->relative_buckets = shape->relative_max_distance = 0;
        shape->rope_theta = config->model.rope_theta;
        shape->rope_interleaved = strcmp(config->model.rope, "interleaved") == 0;
        if (!sago_config_given(config, "model.activation")) shape->activation = SAGO_SWIGLU;
        if (!sago_config_given(config, "model.tied_embeddings")) shape->tied_embeddings = true;
    }
    sago_model_shape_complete(shape);
    return SAGO_OK;
}

static sago_status differs(const char *key, const char *stated, const char *found, const char *from) {
    return sago_fail(SAGO_E_CONFIG, "%s: %s in the configuration, %s in %s; leave the key out or correct it",
                     key, stated, found, from);
}

/* A number of the shape, and its key: stated or not, the configuration holds it afterwards. */
typedef struct size_pair {
    const char *key;
    int64_t *stated, found;
} size_pair;

typedef struct number_pair {
    const char *key;
    double *stated, found;
} number_pair;

typedef struct text_pair {
    const char *key;
    char **stated;
    const char *found;
} text_pair;

static sago_status adopt_size(const sago_config *config, size_pair p, const char *from) {
    char stated[32], found[32];
    snprintf(stated, sizeof stated, "%lld", (long long)*p.stated);
    snprintf(found, sizeof found, "%lld", (long long)p.found);
    if (sago_config_given(config, p.key) && *p.stated > 0 && *p.stated != p.found)
        return differs(p.key, stated, found, from);
    *p.stated = p.found;
    return SAGO_OK;
}

static sago_status adopt_number(const sago_config *config, number_pair p, const char *from) {
    char stated[32], found[32];
    snprintf(stated, sizeof stated, "%g", *p.stated);
    snprintf(found, sizeof found, "%g", p.found);
    bool same = (float)*p.stated == (float)p.found; /* shapes hold them as float */
    if (sago_config_given(config, p.key) && *p.stated > 0 && !same)
        return differs(p.key, stated, found, from);
    if (!same) *p.stated = p.found;
    return SAGO_OK;
}

static sago_status adopt_text(const sago_config *config, text_pair p, const char *from) {
    if (sago_config_given(config, p.key) && strcmp(*p.stated, p.found) != 0)
        return differs(p.key, *p.stated, p.found, from);
    free(*p.stated);
    *p.stated = sago_strdup(p.found);
    return SAGO_OK;
}

sago_status sago_model_shape_into_config(const sago_model_shape *shape, const char *from,
                                         sago_config *config) {
    bool palm = sago_model_decoder_only(shape);
    SAGO_TRY(adopt_text(config, (text_pair){"model.family", &config->model.family, shape->family}, from));
    const size_pair size[] = {
        {"model.vocab_size", &config->model.vocab_size, shape->vocab_size},
        {"model.d_model", &config->model.d_model, shape->d_model},
        {"model.n_heads", &config->model.n_heads, shape->n_heads},
        {"model.kv_heads", &config->model.kv_heads, shape->kv_heads},
        {"model.head_dim", &config->model.head_dim, shape->head_dim},
        {"model.d_ff", &config->model.d_ff, shape->d_ff},
        {"model.encoder_layers", &config->model.encoder_layers, shape->encoder_layers},
        {"model.decoder_layers", &config->model.decoder_layers, shape->decoder_layers},
        {"model.relative_buckets", &config->model.relative_buckets, shape->relative_buckets},
        {"model.relative_max_distance", &config->model.relative_max_distance, shape->relative_max_distance},
    };
    for (size_t i = 0; i < sizeof size / sizeof *size - (palm ? 2 : 0); i++)
        SAGO_TRY(adopt_size(config, size[i], from));
    const number_pair number[] = {
        {"model.norm_epsilon", &config->model.norm_epsilon, (double)shape->norm_epsilon},
        {"model.logit_scale", &config->model.logit_scale, (double)shape->logit_scale},
        {"model.rope_theta", &config->model.rope_theta, shape->rope_theta}};
    for (size_t i = 0; i < sizeof number / sizeof *number - (palm ? 0 : 1); i++)
        SAGO_TRY(adopt_number(config, number[i], from));
    SAGO_TRY(adopt_text(
        config,
        (text_pair){"model.activation", &config->model.activation, sago_activation_name(shape->activation)},
        from));
    if (palm)
        SAGO_TRY(adopt_text(
            config,
            (text_pair){"model.rope", &config->model.rope, shape->rope_interleaved ? "interleaved" : "half"},
            from));
    if (sago_config_given(config, "model.tied_embeddings") &&
        config->model.tied_embeddings != shape->tied_embeddings)
        return differs("model.tied_embeddings", config->model.tied_embeddings ? "true" : "false",
                       shape->tied_embeddings ? "true" : "false", from);
    config->model.tied_embeddings = shape->tied_embeddings;
    return SAGO_OK;
}
