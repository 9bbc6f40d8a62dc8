// SPDX-License-Identifier: Apache-2.0
/**
 * What hf_config.c and hf_names.c need of each family of models; T5's part is in those files.
 */
#ifndef SAGO_HF_FAMILY_H
#define SAGO_HF_FAMILY_H

#include "hf.h"

#include <stddef.h>

/** "decoder.0.mlp.gate" -> "model.layers.0.mlp.gate_proj.weight"; false when there is no such parameter. */
bool sago_hf_cohere_name(const char *param, char out[SAGO_HF_NAME_BYTES]);
/** "lm_head.weight" is "shared.embedding"; NULL for others. */
const char *sago_hf_cohere_second_name_of(const char *name);
sago_status sago_hf_cohere_read(const json_t *config, const char *path,
                                sago_model_shape *out) SAGO_MUST_CHECK;
void sago_hf_cohere_write(const sago_model_shape *shape, json_t *config);

/** A size of config.json and its place in sago_model_shape. */
typedef struct sago_hf_size {
    const char *key;
    size_t offset;
    int64_t otherwise; /* where the key is absent; 0: the caller says; -1: it must be there */
} sago_hf_size;
sago_status sago_hf_read_sizes(const json_t *config, const char *path, const sago_hf_size sizes[], size_t n,
                               sago_model_shape *out) SAGO_MUST_CHECK;
void sago_hf_write_sizes(const sago_model_shape *shape, const sago_hf_size sizes[], size_t n, json_t *config);

/** A number of config.json, `otherwise` where the key is absent. */
sago_status sago_hf_read_number(const json_t *config, const char *path, const char *key, double otherwise,
                                double *out) SAGO_MUST_CHECK;
/** Sets the double that the model had: the float's shortest decimal form, so that 1e-6 does not become
 * 9.999999974752427e-07, unless what was imported is that float already. */
void sago_hf_set_float(json_t *config, const char *key, float value);
/** Takes value, and sets it where the key is absent. */
void sago_hf_set_default(json_t *config, const char *key, json_t *value);

#endif
