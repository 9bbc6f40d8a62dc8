// SPDX-License-Identifier: Apache-2.0
#include "loaded_model.h"

#include "ckpt.h"
#include "ops.h"
#include "param_pieces.h"
#include "precision.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

static sago_status load_values(sago_loaded_model *m, sago_ckpt *ckpt) {
    sago_dtype dtype = m->bf16 && m->device->stores_bf16 ? SAGO_BF16 : SAGO_F32;
    SAGO_TRY(sago_weights_open(&m->registry, m->device, dtype, false, &m->weights));
    sago_param_pieces whole = sago_param_pieces_make(&m->weights, 0);
    sago_status status = sago_ckpt_load(ckpt, whole.pieces, whole.n);
    sago_param_pieces_free(&whole);
    return status;
}

static sago_status load_tokenizer(sago_loaded_model *m, sago_ckpt *ckpt) {
    if (!sago_ckpt_has_file(ckpt, SAGO_TOKENIZER_FILE)) return SAGO_OK;
    sago_str bytes = {0};
    sago_status status = sago_ckpt_read_file(ckpt, SAGO_TOKENIZER_FILE, &bytes);
    if (status == SAGO_OK)
        status = sago_tokenizer_from_bytes(sago_ckpt_dir(ckpt), bytes.data, bytes.length, &m->tokenizer);
    sago_str_free(&bytes);
    return status;
}

static sago_status open_from(sago_loaded_model *m, sago_ckpt *ckpt, const sago_config *config) {
    SAGO_TRY(sago_wrap(sago_model_shape_from_json(json_object_get(sago_ckpt_meta(ckpt), "model"), &m->shape),
                       "%s", sago_ckpt_dir(ckpt)));
    const char *trained = json_string_value(json_object_get(sago_ckpt_meta(ckpt), "attention"));
    if (trained && !sago_config_given(config, "model.attention")) m->prefix = strcmp(trained, "prefix") == 0;
    int model_rank = m->mesh->axis_rank[SAGO_MODEL_AXIS], model_size = m->mesh->axis_size[SAGO_MODEL_AXIS];
    SAGO_TRY(sago_model_shape_check(&m->shape, model_size));
    int threads = config->threads > 0 ? (int)config->threads : sago_mesh_cores(m->mesh);
    SAGO_TRY(sago_device_open_local(config->device, threads, m->mesh->local_rank, &m->device));
    if (!config->graphs) m->device->graphs = NULL;
    SAGO_TRY(sago_model_mesh_open(m->mesh, m->device, &m->model_mesh));
    SAGO_TRY(sago_precision_agree(config, m->device, m->mesh, &m->bf16));
    SAGO_TRY(sago_model_declare(&m->shape, &m->registry));
    SAGO_TRY(sago_model_shard(&m->shape, &m->registry, (const char *const *)config->mesh.rules.items,
                              config->mesh.rules.count, model_rank, model_size));
    SAGO_TRY(load_values(m, ckpt));
    return load_tokenizer(m, ckpt);
}

sago_status sago_loaded_model_open(const char *path, const sago_config *config, sago_mesh *mesh,
                                   sago_loaded_model *out) {
    *out = (sago_loaded_model){.mesh = mesh,
                               .prefix = strcmp(config->model.attention, "prefix") == 0,
                               .loss_chunk_tokens = config->train.loss_chunk};
    sago_ckpt *ckpt = NULL;
    SAGO_TRY(sago_ckpt_open(path, false, &ckpt));
    out->step = sago_ckpt_step(ckpt);
    out->step_dir = sago_strdup(sago_ckpt_dir(ckpt));
    sago_status status = open_from(out, ckpt, config);
    sago_ckpt_close(ckpt);
    if (status != SAGO_OK) sago_loaded_model_close(out);
    return status;
}

sago_status sago_loaded_model_room(sago_loaded_model *m, int64_t rows, int64_t inputs, int64_t targets,
                                   int64_t new_tokens) {
    sago_model_close(m->model);
    m->model = NULL;
    sago_model_options options = {
        .max_rows = rows,
        .input_length = inputs,
        .target_length = targets,
        .prefix = m->prefix,
        .dtype = m->weights.dtype,
        .bf16 = m->bf16 && m->device->has_bf16,
        .loss_chunk_tokens = m->loss_chunk_tokens,
        .generate_rows = new_tokens > 0 ? rows : 0,
        .generate_inputs = new_tokens > 0 ? inputs : 0,
        .generate_tokens = new_tokens,
    };
    return sago_model_open(&m->shape, &m->registry, m->device, m->model_mesh, &options, &m->model);
}

void sago_loaded_model_close(sago_loaded_model *m) {
    sago_model_close(m->model);
    /* What failed before this is what there is to tell. */
    sago_error failure;
    sago_error_take(SAGO_E_INTERNAL, &failure);
    if (sago_model_mesh_close(m->model_mesh) != SAGO_OK) (void)sago_error_give(&failure);
    sago_tokenizer_close(m->tokenizer);
    sago_weights_close(&m->weights);
    sago_registry_free(&m->registry);
    sago_device_close(m->device);
    free(m->step_dir);
    *m = (sago_loaded_model){0};
}
