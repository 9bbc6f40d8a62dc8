// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include "arena.h"
#include "ops.h"
#include "str.h"

#include <stdlib.h>

enum { GATHER_BUFFERS = 2 };

const char *sago_memory_name(sago_memory_kind kind) {
    static const char *const names[] = {"parameters", "gradients", "optimizer", "activations",
                                        "gathered",   "workspace", "host"};
    return names[kind];
}

/* --- activations
 * ------------------------------------------------------------------------------------------------- */

/* A device whose memory is never there: the model that is opened on it plans all it needs, and takes nothing.
 */
static sago_status take_nothing(sago_device *device, void **out, size_t bytes) {
    (void)device, (void)bytes;
    *out = NULL;
    return SAGO_OK;
}

static void release_nothing(sago_device *device, void *memory) {
    (void)device, (void)memory;
}

static const sago_ops counting_ops = {.allocate = take_nothing,
                                      .release = release_nothing,
                                      .allocate_host = take_nothing,
                                      .release_host = release_nothing};

sago_status sago_activation_bytes(const sago_workload *work, const sago_layout *layout, int64_t *out) {
    sago_device device = {
        .ops = &counting_ops, .name = "plan", .n_threads = 1, .has_bf16 = true, .stores_bf16 = true};
    /* Planning asks a mesh for its sizes alone. */
    sago_mesh mesh = {.size = (int)layout->model,
                      .axis_size = {[SAGO_DATA_AXIS] = 1, [SAGO_MODEL_AXIS] = (int)layout->model}};
    const sago_model_options options = {
        .max_rows = layout->micro_batch,
        .input_length = work->config->data.input_length,
        .target_length = work->config->data.target_length,
        .training = true,
        .recompute = layout->recompute,
        .dtype = work->dtype,
        .bf16 = work->bf16,
        .loss_chunk_tokens = work->config->train.loss_chunk,
    };
    sago_registry registry = {0};
    sago_model *model = NULL;
    sago_status status = sago_workload_registry(work, layout->model, &registry);
    if (status == SAGO_OK)
        status = sago_model_open(&work->shape, &registry, &device, &mesh, &options, &model);
    if (status == SAGO_OK) *out = (int64_t)sago_model_bytes(model);
    sago_model_close(model);
    sago_registry_free(&registry);
    return status;
}

/* --- parameters and their state
 * ---------------------------------------------------------------------------------- */

static bool is_frozen(const sago_config *config, const char *name) {
    for (int i = 0; i < config->optimizer.n_groups; i++)
        if (sago_glob_match(config->optimizer.groups[i].pattern, name))
            return config->optimizer.groups[i].multiplier == 0;
    return false;
}

static int64_t aligned(int64_t bytes) {
    return (bytes + SAGO_ARENA_ALIGN - 1) / SAGO_ARENA_ALIGN * SAGO_ARENA_ALIGN;
}

/* Second moments, momentum and partial sums of a piece of `rows` rows; of that, what a checkpoint holds. */
static int64_t optimizer_of(const sago_config *config, const sago_param *p, int64_t rows, int64_t *saved) {
    int64_t columns = p->local_shape[1], count = rows * columns, bytes = 0;
    int64_t smaller = p->global_shape[0] < p->global_shape[1] ? p->global_shape[0] : p->global_shape[1];
    bool factored =
        config->optimizer.factored && p->n_dims == 2 && smaller >= config->optimizer.min_factored_dim;
    const int64_t f32 = sizeof(float), f64 = sizeof(double);
    *saved = (factored ? rows + columns : count) * f32;
    if (factored)
        bytes += aligned(rows * f32) + aligned(columns * f32) + aligned(rows * f64) + aligned(columns * f64);
    else
        bytes += aligned(count * f32);
    if (config->optimizer.momentum > 0) {
        bytes += aligned(count * f32);
        *saved += count * f32;
    }
    return bytes + 2 * aligned(f64);
}

sago_status sago_shares_open(const sago_workload *work, const sago_layout *layout, sago_shares *out) {
    sago_registry registry;
    *out = (sago_shares){0};
    sago_status status = sago_workload_registry(work, layout->model, &registry);
    if (status != SAGO_OK) {
        sago_registry_free(&registry);
        return status;
    }
    out->n_blocks = registry.n_blocks;
    out->elements = registry.n_elements;
    out->block_elements = sago_alloc_zero((size_t)registry.n_blocks, sizeof *out->block_elements);
    bool shared = layout->sharded && layout->data > 1;
    int64_t held = 0, checkpoint = 0;
    for (int i = 0; i < registry.n_params; i++) {
        const sago_param *p = &registry.params[i];
        /* Whole rows, so that the rank that has most of them rounds up. */
        int64_t rows = shared ? (p->local_shape[0] + layout->data - 1) / layout->data : p->local_shape[0];
        int64_t count = rows * p->local_shape[1], saved = 0;
        out->block_elements[p->block] += p->local_shape[0] * p->local_shape[1];
        held += aligned(count * (int64_t)sizeof(float)) / (int64_t)sizeof(float);
        if (!is_frozen(work->config, p->name))
            out->optimizer_bytes += optimizer_of(work->config, p, rows, &saved);
        checkpoint += count * (int64_t)sizeof(float) + saved;
    }
    out->held_elements = held;
    out->checkpoint_bytes = shared ? checkpoint : checkpoint / layout->data;
    for (int64_t b = 0; b < out->n_blocks; b++)
        if (out->block_elements[b] > out->largest) out->largest = out->block_elements[b];
    sago_registry_free(&registry);
    return SAGO_OK;
}

void sago_shares_close(sago_shares *shares) {
    free(shares->block_elements);
    *shares = (sago_shares){0};
}

/* --- all of it
 * --------------------------------------------------------------------------------------------------- */

static int64_t gathered_bytes(const sago_workload *work, const sago_layout *layout,
                              const sago_shares *shares) {
    if (!layout->sharded || layout->data == 1) return 0;
    return GATHER_BUFFERS * shares->largest *
           ((int64_t)sago_dtype_bytes(work->dtype) + (int64_t)sizeof(float));
}

/* Batches made ready, the two that are on their way, and the copy that a checkpoint is written from. */
static int64_t host_bytes(const sago_workload *work, const sago_layout *layout, const sago_shares *shares) {
    const sago_config *config = work->config;
    enum { ARRAYS_OF_INPUTS = 2, ARRAYS_OF_TARGETS = 5, ID_BYTES = 4, STAGES = 2 };
    int64_t row = (ARRAYS_OF_INPUTS * work->inputs + ARRAYS_OF_TARGETS * work->targets) * ID_BYTES;
    int64_t batches =
        (config->data.prefetch + 1) * sago_layout_rows(work, layout) + STAGES * layout->micro_batch;
    return row * batches + (config->checkpoint.background ? shares->checkpoint_bytes : 0);
}

sago_status sago_memory_plan(const sago_workload *work, const sago_layout *layout,
                             const sago_hardware *hardware, const sago_shares *shares, sago_memory *out) {
    const double gib = 1024.0 * 1024 * 1024;
    *out = (sago_memory){.room_bytes = (int64_t)(hardware->memory_gib * gib)};
    /* bf16 values have a remainder of as many bytes beside them: fp32 exactly. */
    out->bytes[SAGO_MEMORY_PARAMETERS] = shares->held_elements * (int64_t)sizeof(float);
    out->bytes[SAGO_MEMORY_GRADIENTS] = shares->held_elements * (int64_t)sizeof(float);
    out->bytes[SAGO_MEMORY_OPTIMIZER] = shares->optimizer_bytes;
    SAGO_TRY(sago_activation_bytes(work, layout, &out->bytes[SAGO_MEMORY_ACTIVATIONS]));
    out->bytes[SAGO_MEMORY_GATHERED] = gathered_bytes(work, layout, shares);
    out->bytes[SAGO_MEMORY_WORKSPACE] = (int64_t)(hardware->reserved_gib * gib);
    out->bytes[SAGO_MEMORY_HOST] = host_bytes(work, layout, shares);
    for (int kind = 0; kind < SAGO_MEMORY_KINDS; kind++)
        if (kind != SAGO_MEMORY_HOST || hardware->memory_is_host) out->device_bytes += out->bytes[kind];
    return SAGO_OK;
}
