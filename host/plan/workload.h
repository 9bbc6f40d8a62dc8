// SPDX-License-Identifier: Apache-2.0
/**
 * Workload: what a configuration asks of one step, and a layout: how it is laid over devices.
 */
#ifndef SAGO_WORKLOAD_H
#define SAGO_WORKLOAD_H

#include "config.h"
#include "hardware.h"
#include "model.h"
#include "registry.h"

typedef struct sago_workload {
    const sago_config *config; /* the caller's */
    sago_model_shape shape;
    int64_t n_parameters;
    int64_t n_multiplied;    /* less an embedding that rows are only looked up in */
    int64_t rows;            /* of a step */
    int64_t inputs, targets; /* tokens of a row; a decoder alone has 0 and all of the row */
    int64_t loss_tokens;     /* of a row: those whose logits are taken */
    sago_dtype dtype;        /* of values and activations */
    bool bf16;               /* products are of bf16 */
} sago_workload;

/** What a rank of the data axis holds (mesh.data_axis, mesh.gathered): copies, or shares whose blocks are
 * gathered for each pass over them or once a step. */
typedef enum sago_sharing {
    SAGO_REPLICATED,
    SAGO_SHARDED_DROP,
    SAGO_SHARDED_KEEP,
    SAGO_SHARINGS
} sago_sharing;

typedef struct sago_layout {
    int64_t data, model;  /* ranks of the two axes */
    sago_sharing sharing; /* SAGO_REPLICATED where the data axis is one rank */
    int64_t micro_batch;  /* rows that a rank computes at once; never 0, never more than its rows */
    bool recompute;
} sago_layout;

/** The shape is that of the configuration's model section. Errors: SAGO_E_CONFIG, SAGO_E_SHAPE. */
sago_status sago_workload_open(const sago_config *config, const sago_hardware *hardware,
                               sago_workload *out) SAGO_MUST_CHECK;

/** What the configuration says of a data axis of so many ranks. */
sago_sharing sago_config_sharing(const sago_config *config, int64_t data);

/** Rows of the rank that has most of them. */
int64_t sago_layout_rows(const sago_workload *work, const sago_layout *layout);

/** Can the shape be cut over so many ranks of the model axis? */
bool sago_workload_can_cut(const sago_workload *work, int64_t model);

/** Fills an empty registry with the shape's parameters, cut over the model axis as `sago train` does. */
sago_status sago_workload_registry(const sago_workload *work, int64_t model,
                                   sago_registry *out) SAGO_MUST_CHECK;

#endif
