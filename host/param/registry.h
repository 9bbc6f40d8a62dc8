// SPDX-License-Identifier: Apache-2.0
/**
 * Registry: one row per parameter, the only source of truth about it. Five readers: initialisation, forward
 * and backward, gradient reduction, Adafactor, checkpoints.
 *
 * Layers declare rows; sago_registry_shard() then applies the mesh and the sharding rules and gives each row
 * its local shape and its place in the flat buffer. Values, gradients and optimizer state are flat buffers
 * that share these offsets. Rows keep the order in which they were declared: forward order, so that backward
 * finishes them in reverse.
 */
#ifndef SAGO_REGISTRY_H
#define SAGO_REGISTRY_H

#include "status.h"
#include "tensor.h"

typedef enum sago_init_kind { SAGO_INIT_NORMAL, SAGO_INIT_ONE, SAGO_INIT_ZERO } sago_init_kind;

typedef enum sago_axis {
    SAGO_AXIS_VOCAB,
    SAGO_AXIS_EMBED,
    SAGO_AXIS_HEADS, /* query heads x head_dim */
    SAGO_AXIS_KV,    /* key/value heads x head_dim */
    SAGO_AXIS_MLP,
    SAGO_AXIS_BUCKETS, /* relative position buckets */
    SAGO_AXIS_NONE
} sago_axis;

enum { SAGO_PARAM_NAME_BYTES = 96 };

typedef struct sago_param {
    char name[SAGO_PARAM_NAME_BYTES]; /* "encoder.0.attention.query" */
    int n_dims;                       /* 1 or 2 */
    sago_axis axes[2];
    int64_t global_shape[2], local_shape[2], global_offset[2]; /* entry 1 is 1, 1, 0 for vectors */
    int replicated_over; /* ranks of the model axis that hold the same piece */
    int model_dim;       /* the dim that is cut over the model axis, or -1 */
    bool rows_are_cut;   /* over the data axis: sago_registry_cut_rows */
    sago_init_kind init;
    float init_deviation; /* standard deviation of SAGO_INIT_NORMAL */
    int block;            /* blocks number forward order; a block's gradients are ready together */
    int64_t offset;       /* of the first local element in the flat buffer, in elements */
} sago_param;

typedef struct sago_registry {
    sago_param *params;
    int n_params, room;
    int n_blocks;
    int64_t n_elements;        /* length of the flat local buffer, alignment gaps included */
    int64_t n_global_elements; /* parameters of the whole model, gaps not included */
} sago_registry;

/**
 * Adds a row and returns its index, or -1 when memory is out or a dim is not positive (sago_message() says).
 * shape has n_dims entries, axes likewise. Only before sago_registry_shard.
 */
int sago_registry_declare(sago_registry *registry, int block, const char *name, int n_dims,
                          const int64_t shape[], const sago_axis axes[], sago_init_kind init,
                          float deviation);

/** Gives every row its local shape and offset. model_rank of model_size; rules: "heads: model" etc. (NULL:
 * none). */
sago_status sago_registry_shard(sago_registry *registry, const char *const rules[], int n_rules,
                                int model_rank, int model_size) SAGO_MUST_CHECK;

/**
 * *out = `whole` as one rank of a fully sharded data axis holds it: of each parameter's local piece, one at a time and in
 * whole rows, those from rows * rank / ranks up to rows * (rank + 1) / ranks; some may have none. Rows of the registry
 * keep their order and their blocks.
 */
void sago_registry_cut_rows(const sago_registry *whole, int rank, int ranks, sago_registry *out);

/** The first of `rows` rows that this rank of a fully sharded data axis holds. */
int64_t sago_first_row(int64_t rows, int rank, int ranks);

void sago_registry_free(sago_registry *registry);

/** The row of that name, or NULL. */
const sago_param *sago_registry_find(const sago_registry *registry, const char *name);

/** The parameter's tensor in a flat buffer of registry->n_elements of this dtype (values, gradients, ...). */
sago_tensor sago_param_tensor(const sago_param *param, sago_dtype dtype, void *flat);

/** [first, end) elements of the flat buffer that belong to a block; blocks lie one after another. */
void sago_registry_block_range(const sago_registry *registry, int block, int64_t *first, int64_t *end);

/** Rows [first_row, first_row + n_rows) of a parameter's local piece from the seed, by global index; out is
 * the host's. */
void sago_param_initialise(const sago_param *param, uint64_t seed, int64_t first_row, int64_t n_rows,
                           float *out);

/** Fills flat (host, fp32) from the seed by global index: the same weights on every mesh. */
void sago_registry_initialise(const sago_registry *registry, uint64_t seed, float *flat);

#endif
