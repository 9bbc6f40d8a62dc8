// SPDX-License-Identifier: Apache-2.0
/**
 * What hf_config.c and hf_names.c need of each family of models; T5's part is in those files.
 */
#ifndef SAGO_HF_FAMILY_H
#define SAGO_HF_FAMILY_H

#include "hf.h"

/** "decoder.0.mlp.gate" -> "model.layers.0.mlp.gate_proj.weight"; false when there is no such parameter. */
bool sago_hf_cohere_name(const char *param, char out[SAGO_HF_NAME_BYTES]);
/** "lm_head.weight" is "shared.embedding"; NULL for others. */
const char *sago_hf_cohere_second_name_of(const char *name);
sago_status sago_hf_cohere_read(const json_t *config, const char *path,
                                sago_model_shape *out) SAGO_MUST_CHECK;
void sago_hf_cohere_write(const sago_model_shape *shape, json_t *config);

/** A size of config.json; `otherwise` is what transformers takes where the key is absent, -1 where it must be
 * there. */
sago_status sago_hf_read_size(const json_t *config, const char *path, const char *key, int64_t otherwise,
                              int64_t *out) SAGO_MUST_CHECK;
void sago_hf_set_size(json_t *config, const char *key, int64_t value);
/** Takes value, and sets it where the key is absent. */
void sago_hf_set_default(json_t *config, const char *key, json_t *value);

#endif
