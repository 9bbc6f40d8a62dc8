// SPDX-License-Identifier: Apache-2.0
/**
 * A model loaded from a checkpoint for reading: weights, tokenizer and device, with room for scoring or
 * generation taken when the sizes of the work are known. What score, generate and eval start from.
 */
#ifndef SAGO_LOADED_MODEL_H
#define SAGO_LOADED_MODEL_H

#include "config.h"
#include "mesh.h"
#include "model.h"
#include "tokenizer.h"
#include "weights.h"

typedef struct sago_loaded_model {
    sago_device *device;
    sago_mesh *mesh;       /* the caller's */
    sago_mesh *model_mesh; /* its view for the model */
    sago_model_shape shape;
    sago_registry registry;
    sago_tokenizer *tokenizer; /* NULL when the checkpoint has none */
    sago_weights weights;
    sago_model *model; /* NULL until sago_loaded_model_room */
    bool bf16;
    bool prefix; /* model.attention */
    int64_t loss_chunk_tokens;
    int64_t step;   /* of the checkpoint */
    char *step_dir; /* the checkpoint's folder */
} sago_loaded_model;

/** Opens a checkpoint (step, run or imported folder); device, threads and train.precision come from the
 * config. */
sago_status sago_loaded_model_open(const char *path, const sago_config *config, sago_mesh *mesh,
                                   sago_loaded_model *out) SAGO_MUST_CHECK;

/** Takes memory for scoring rows x (inputs, targets) and, with new_tokens > 0, generation; replaces earlier
 * room. */
sago_status sago_loaded_model_room(sago_loaded_model *loaded, int64_t rows, int64_t inputs, int64_t targets,
                                   int64_t new_tokens) SAGO_MUST_CHECK;

void sago_loaded_model_close(sago_loaded_model *loaded);

#endif
