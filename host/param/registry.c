// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include "rng.h"
#include "rules.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_ELEMENTS = 16 }; /* 64 bytes: every parameter starts on a cache line */

int sago_registry_declare(sago_registry *registry, int block, const char *name, int n_dims,
                          const int64_t shape[], const sago_axis axes[], sago_init_kind init,
                          float deviation) {
    if (n_dims < 1 || n_dims > 2 || strlen(name) >= SAGO_PARAM_NAME_BYTES) {
        (void)sago_fail(SAGO_E_INTERNAL, "registry: %s: %d dims, or a name of %d bytes or more", name, n_dims,
                        SAGO_PARAM_NAME_BYTES);
        return -1;
    }
    for (int i = 0; i < n_dims; i++) {
        if (shape[i] > 0 && shape[i] < INT64_C(1) << 31) continue;
        (void)sago_fail(SAGO_E_SHAPE, "registry: %s: dim %d is %lld; it must be from 1 to 2147483647", name,
                        i, (long long)shape[i]);
        return -1;
    }
    if (block + 1 < registry->n_blocks) {
        (void)sago_fail(SAGO_E_INTERNAL,
                        "registry: %s: block %d after block %d: blocks are declared in order", name, block,
                        registry->n_blocks - 1);
        return -1;
    }
    if (sago_registry_find(registry, name)) {
        (void)sago_fail(SAGO_E_INTERNAL, "registry: %s is declared twice", name);
        return -1;
    }
    if (registry->n_params == registry->room) {
        int room = registry->room ? 2 * registry->room : 64;
        sago_param *more = realloc(registry->params, (size_t)room * sizeof *more);
        if (!more) {
            (void)sago_fail(SAGO_E_MEMORY, "registry: no memory for %d parameters", room);
            return -1;
        }
        registry->params = more;
        registry->room = room;
    }
    sago_param *param = &registry->params[registry->n_params];
    *param = (sago_param){.n_dims = n_dims,
                          .axes = {SAGO_AXIS_NONE, SAGO_AXIS_NONE},
                          .global_shape = {1, 1},
                          .local_shape = {1, 1},
                          .replicated_over = 1,
                          .model_dim = -1,
                          .init = init,
                          .init_deviation = deviation,
                          .block = block};
    memcpy(param->name, name, strlen(name) + 1);
    for (int i = 0; i < n_dims; i++) {
        param->axes[i] = axes[i];
        param->global_shape[i] = param->local_shape[i] = shape[i];
    }
    registry->n_blocks = block + 1;
    return registry->n_params++;
}

/* Gives the parameter its place in the flat buffer; where the next one may stand. */
static int64_t place(sago_param *param, int64_t at) {
    int64_t count = param->local_shape[0] * param->local_shape[1];
    param->offset = at;
    return at + (count + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

sago_status sago_registry_shard(sago_registry *registry, const char *const rules[], int n_rules,
                                int model_rank, int model_size) {
    if (model_size < 1 || model_rank < 0 || model_rank >= model_size)
        return sago_fail(SAGO_E_INTERNAL, "registry: rank %d of a model axis of %d", model_rank, model_size);
    int64_t at = 0, global = 0;
    for (int p = 0; p < registry->n_params; p++) {
        sago_param *param = &registry->params[p];
        int dim;
        SAGO_TRY(sago_rules_dim(rules, n_rules, param->n_dims, param->axes, &dim));
        for (int i = 0; i < 2; i++)
            param->local_shape[i] = param->global_shape[i], param->global_offset[i] = 0;
        param->replicated_over = dim < 0 ? model_size : 1;
        param->model_dim = model_size > 1 ? dim : -1;
        param->rows_are_cut = false;
        if (dim >= 0) {
            int64_t size = param->global_shape[dim];
            if (size % model_size != 0)
                return sago_fail(SAGO_E_SHAPE, "%s: dim %d (%s) of %lld does not divide by model=%d",
                                 param->name, dim, sago_axis_name(param->axes[dim]), (long long)size,
                                 model_size);
            param->local_shape[dim] = size / model_size;
            param->global_offset[dim] = model_rank * (size / model_size);
        }
        at = place(param, at);
        global += param->global_shape[0] * param->global_shape[1];
    }
    registry->n_elements = at;
    registry->n_global_elements = global;
    return SAGO_OK;
}

int64_t sago_first_row(int64_t rows, int rank, int ranks) {
    return rows * rank / ranks;
}

void sago_registry_cut_rows(const sago_registry *whole, int rank, int ranks, sago_registry *out) {
    int64_t at = 0;
    *out = *whole;
    out->room = out->n_params;
    out->params = sago_alloc((size_t)out->n_params * sizeof *out->params);
    for (int i = 0; i < out->n_params; i++) {
        sago_param *param = &out->params[i];
        *param = whole->params[i];
        int64_t rows = param->local_shape[0], first = sago_first_row(rows, rank, ranks);
        param->local_shape[0] = sago_first_row(rows, rank + 1, ranks) - first;
        param->global_offset[0] += first;
        param->rows_are_cut = ranks > 1;
        at = place(param, at);
    }
    out->n_elements = at;
}

void sago_registry_free(sago_registry *registry) {
    free(registry->params);
    *registry = (sago_registry){0};
}

const sago_param *sago_registry_find(const sago_registry *registry, const char *name) {
    for (int p = 0; p < registry->n_params; p++)
        if (strcmp(registry->params[p].name, name) == 0) return &registry->params[p];
    return NULL;
}

sago_tensor sago_param_tensor(const sago_param *param, sago_dtype dtype, void *flat) {
    /* Planning walks over parameters that have no memory yet; their tensors have none either. */
    void *data = flat ? (char *)flat + (size_t)param->offset * sago_dtype_bytes(dtype) : NULL;
    return sago_tensor_view((sago_tensor){.data = data, .dtype = dtype}, param->n_dims, param->local_shape);
}

void sago_registry_block_range(const sago_registry *registry, int block, int64_t *first, int64_t *end) {
    *first = *end = registry->n_elements;
    for (int p = registry->n_params - 1; p >= 0; p--) {
        if (registry->params[p].block > block) *first = *end = registry->params[p].offset;
        if (registry->params[p].block == block) *first = registry->params[p].offset;
    }
}

void sago_param_initialise(const sago_param *param, uint64_t seed, int64_t first_row, int64_t rows,
                           float *out) {
    int64_t columns = param->local_shape[1];
    if (param->init != SAGO_INIT_NORMAL) {
        for (int64_t i = 0; i < rows * columns; i++) out[i] = param->init == SAGO_INIT_ONE ? 1.0f : 0.0f;
        return;
    }
    uint64_t key = sago_mix(seed, sago_hash_bytes(param->name, strlen(param->name)));
    float deviation = param->init_deviation;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        int64_t first =
            (param->global_offset[0] + first_row + row) * param->global_shape[1] + param->global_offset[1];
        sago_normal_fill(out + row * columns, first, columns, key);
        for (int64_t i = 0; i < columns; i++) out[row * columns + i] *= deviation;
    }
}

void sago_registry_initialise(const sago_registry *registry, uint64_t seed, float *flat) {
    memset(flat, 0, (size_t)registry->n_elements * sizeof *flat);
    for (int p = 0; p < registry->n_params; p++)
        sago_param_initialise(&registry->params[p], seed, 0, registry->params[p].local_shape[0],
                              flat + registry->params[p].offset);
}
