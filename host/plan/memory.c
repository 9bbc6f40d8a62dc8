// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include "arena.h"
#include "ops.h"
#include "str.h"

#include <stdlib.h>

enum { SHARED_SLOTS = 3 }; /* of host/model/fsdp.c */

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

/* Ranks that hold the same piece and save a part of it each. */
static int64_t holders(const sago_layout *layout, bool cut_over_data, bool cut_over_model) {
    return (cut_over_data ? 1 : layout->data) * (cut_over_model ? 1 : layout->model);
}

/* Second moments, momentum and partial sums of a piece; adds what of it a rank saves. */
static int64_t optimizer_of(const sago_config *config, const sago_layout *layout, const sago_param *p,
                            int64_t *saved) {
    int64_t rows = p->local_shape[0], columns = p->local_shape[1], count = rows * columns, bytes = 0;
    int64_t smaller = p->global_shape[0] < p->global_shape[1] ? p->global_shape[0] : p->global_shape[1];
    bool factored =
        config->optimizer.factored && p->n_dims == 2 && smaller >= config->optimizer.min_factored_dim;
    const int64_t f32 = sizeof(float), f64 = sizeof(double);
    if (factored) {
        bytes += aligned(rows * f32) + aligned(columns * f32) + aligned(rows * f64) + aligned(columns * f64);
        /* No rank has a whole row or a whole column: two sums more. */
        if (p->rows_are_cut && p->model_dim == 1) bytes += aligned(2 * f64);
        *saved += rows * f32 / holders(layout, p->rows_are_cut, p->model_dim == 0);
        *saved += columns * f32 / holders(layout, false, p->model_dim == 1);
    }
    int whole = (factored ? 0 : 1) + (config->optimizer.momentum > 0 ? 1 : 0);
    *saved += whole * count * f32 / holders(layout, p->rows_are_cut, p->model_dim >= 0);
    return bytes + whole * aligned(count * f32) + 2 * aligned(f64);
}

static void add_share(const sago_workload *work, const sago_layout *layout, const sago_param *whole,
                      const sago_param *held, sago_shares *out) {
    const int64_t f32 = sizeof(float);
    int64_t elements = whole->local_shape[0] * whole->local_shape[1];
    int64_t kept = held->local_shape[0] * held->local_shape[1];
    sago_block_share *block = &out->blocks[whole->block];
    block->params++;
    block->elements += elements;
    block->room += aligned(elements * f32) / f32;
    block->held += kept;
    if (layout->model > 1 && held->replicated_over > 1) out->packed_elements += kept;
    if (!is_frozen(work->config, held->name))
        out->optimizer_bytes += optimizer_of(work->config, layout, held, &out->checkpoint_bytes);
    out->checkpoint_bytes += kept * f32 / holders(layout, held->rows_are_cut, held->model_dim >= 0);
}

sago_status sago_shares_open(const sago_workload *work, const sago_layout *layout, sago_shares *out) {
    sago_registry registry, held;
    *out = (sago_shares){0};
    sago_status status = sago_workload_registry(work, layout->model, &registry);
    if (status != SAGO_OK) {
        sago_registry_free(&registry);
        return status;
    }
    /* The last rank has most rows of every parameter. */
    int ranks = layout->sharing == SAGO_REPLICATED ? 1 : (int)layout->data;
    sago_registry_cut_rows(&registry, ranks - 1, ranks, &held);
    out->n_blocks = registry.n_blocks;
    out->held_elements = held.n_elements, out->held_params = held.n_params;
    out->blocks = sago_alloc_zero((size_t)registry.n_blocks, sizeof *out->blocks);
    for (int i = 0; i < registry.n_params; i++)
        add_share(work, layout, &registry.params[i], &held.params[i], out);
    sago_registry_free(&held);
    sago_registry_free(&registry);
    return SAGO_OK;
}

void sago_shares_close(sago_shares *shares) {
    free(shares->blocks);
    *shares = (sago_shares){0};
}

int64_t sago_slot_elements(const sago_layout *layout, const sago_shares *shares) {
    int64_t all = 0, slots[SHARED_SLOTS] = {0};
    if (layout->sharing == SAGO_REPLICATED) return 0;
    for (int64_t b = 0; b < shares->n_blocks; b++) {
        int64_t room = shares->blocks[b].room, *slot = &slots[b == 0 ? 0 : 1 + (b - 1) % 2];
        all += room;
        if (room > *slot) *slot = room;
    }
    return layout->sharing == SAGO_SHARDED_KEEP ? all : slots[0] + slots[1] + slots[2];
}

/* --- all of it
 * --------------------------------------------------------------------------------------------------- */

/* Batches made ready, the two that are on their way, and the copy that a checkpoint is written from. */
static int64_t host_bytes(const sago_workload *work, const sago_layout *layout, const sago_shares *shares) {
    const sago_config *config = work->config;
    enum { ARRAYS_OF_INPUTS = 2, ARRAYS_OF_TARGETS = 5, ID_BYTES = 4, STAGES = 2 };
    int64_t row = (ARRAYS_OF_INPUTS * work->inputs + ARRAYS_OF_TARGETS * work->targets) * ID_BYTES;
    int64_t batches =
        (config->data.prefetch + 1) * sago_layout_rows(work, layout) + STAGES * layout->micro_batch;
    return row * batches + (config->checkpoint.background ? shares->checkpoint_bytes : 0);
}

void sago_memory_plan(const sago_workload *work, const sago_layout *layout, const sago_hardware *hardware,
                      const sago_shares *shares, int64_t activation_bytes, sago_memory *out) {
    const int64_t f32 = sizeof(float);
    const double gib = 1024.0 * 1024 * 1024;
    *out = (sago_memory){.room_bytes = (int64_t)(hardware->memory_gib * gib)};
    /* bf16 values have a remainder of as many bytes beside them: fp32 exactly. */
    out->bytes[SAGO_MEMORY_PARAMETERS] =
        shares->held_elements * f32 + shares->held_params * (int64_t)sizeof(double);
    out->bytes[SAGO_MEMORY_GRADIENTS] = (shares->held_elements + shares->packed_elements) * f32;
    out->bytes[SAGO_MEMORY_OPTIMIZER] = shares->optimizer_bytes;
    out->bytes[SAGO_MEMORY_ACTIVATIONS] = activation_bytes;
    out->bytes[SAGO_MEMORY_GATHERED] =
        sago_slot_elements(layout, shares) * ((int64_t)sago_dtype_bytes(work->dtype) + f32);
    out->bytes[SAGO_MEMORY_WORKSPACE] = (int64_t)(hardware->reserved_gib * gib);
    out->bytes[SAGO_MEMORY_HOST] = host_bytes(work, layout, shares);
    for (int kind = 0; kind < SAGO_MEMORY_KINDS; kind++)
        if (kind != SAGO_MEMORY_HOST || hardware->memory_is_host) out->device_bytes += out->bytes[kind];
}
