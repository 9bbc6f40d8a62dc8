// SPDX-License-Identifier: Apache-2.0
#include "optimizer.h"

#include "arena.h"
#include "ops.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>

/* One kind of state of one parameter, as checkpoints name it. */
typedef struct state_tensor {
    char name[SAGO_PARAM_NAME_BYTES + 32];
    int n_dims;
    int64_t global_shape[2], offset[2], shape[2];
    bool cut_over_data, cut_over_model;
    float *data;
} state_tensor;

/* Sums that lie one after another, of which every rank of an axis has its part. */
typedef struct partial_sums {
    double *first; /* on the device */
    int64_t count;
} partial_sums;

struct sago_optimizer {
    const sago_config *config;
    const sago_registry *registry;
    sago_device *device;
    sago_mesh *mesh;
    partial_sums statistics[SAGO_WORLD_AXIS], updates[SAGO_WORLD_AXIS]; /* that travel on an axis */
    sago_adafactor_slot *slots; /* of the parameters that learn */
    const sago_param **params;  /* the slot's parameter */
    double *multipliers;        /* the slot's learning-rate multiplier */
    int n_slots;
    state_tensor *tensors;
    int n_tensors;
    void *memory; /* on the device */
    size_t bytes;
    sago_remote remote; /* the same for checkpoints, where it is not the host's */
};

static double group_multiplier(const sago_config *config, const char *name) {
    for (int i = 0; i < config->optimizer.n_groups; i++)
        if (sago_glob_match(config->optimizer.groups[i].pattern, name))
            return config->optimizer.groups[i].multiplier;
    return 1;
}

/* State of a parameter over some of its dims: all of them, or one. */
static float *take_state(sago_optimizer *o, sago_arena *arena, const char *kind, const sago_param *param,
                         int n_dims, int first_dim) {
    state_tensor *t = &o->tensors[o->n_tensors++];
    *t = (state_tensor){.n_dims = n_dims, .global_shape = {1, 1}, .shape = {1, 1}};
    snprintf(t->name, sizeof t->name, "adafactor/%s/%s", kind, param->name);
    for (int i = 0; i < n_dims; i++) {
        t->global_shape[i] = param->global_shape[first_dim + i];
        t->offset[i] = param->global_offset[first_dim + i];
        t->shape[i] = param->local_shape[first_dim + i];
        t->cut_over_data |= param->rows_are_cut && first_dim + i == 0;
        t->cut_over_model |= param->model_dim == first_dim + i;
    }
    t->data = sago_arena_take(arena, (size_t)(t->shape[0] * t->shape[1]) * sizeof(float));
    return t->data;
}

static double *take_sums(sago_arena *arena, int64_t count) {
    return sago_arena_take(arena, (size_t)count * sizeof(double));
}

/*
 * The axes that a sum travels on: those over which what it adds up is cut. Sums of one kind lie together, in
 * this order, so that those of an axis are one run of numbers: model, both, data.
 */
typedef enum travel { ON_MODEL, ON_BOTH, ON_DATA, NOWHERE, N_TRAVELS } travel;

static travel travel_of(bool data, bool model) {
    return data && model ? ON_BOTH : data ? ON_DATA : model ? ON_MODEL : NOWHERE;
}

/* Rows are summed over columns, columns over rows, squares over all. Rows may be cut over both axes. */
static travel row_travel(const sago_param *p) {
    return travel_of(false, p->model_dim == 1);
}

static travel column_travel(const sago_param *p) {
    return travel_of(p->rows_are_cut, p->model_dim == 0);
}

static travel square_travel(const sago_param *p) {
    return travel_of(p->rows_are_cut, p->model_dim >= 0);
}

static void lay_out_statistics(sago_optimizer *o, sago_arena *arena, travel now) {
    for (int i = 0; i < o->n_slots; i++) {
        const sago_param *p = o->params[i];
        sago_adafactor_slot *slot = &o->slots[i];
        if (slot->factored && row_travel(p) == now) slot->row_sum = take_sums(arena, p->local_shape[0]);
        if (slot->factored && column_travel(p) == now) slot->column_sum = take_sums(arena, p->local_shape[1]);
        if (square_travel(p) == now) slot->value_square = take_sums(arena, 1);
        /* No rank has a whole row or a whole column. */
        if (slot->factored && p->rows_are_cut && p->model_dim == 1 && now == ON_BOTH) {
            slot->mean_parts = take_sums(arena, 2);
            slot->row_copies = o->mesh->axis_size[SAGO_MODEL_AXIS];
        }
    }
}

static void lay_out_updates(sago_optimizer *o, sago_arena *arena, travel now) {
    for (int i = 0; i < o->n_slots; i++)
        if (square_travel(o->params[i]) == now) o->slots[i].update_square = take_sums(arena, 1);
}

static partial_sums between(const sago_optimizer *o, size_t first, size_t end) {
    if (!o->memory) return (partial_sums){0}; /* only measured */
    return (partial_sums){(double *)(void *)((char *)o->memory + first),
                          (int64_t)((end - first) / sizeof(double))};
}

/* All sums of one kind. They are padded by the arena, and padding is summed too. */
static void lay_out_sums(sago_optimizer *o, sago_arena *arena,
                         void (*lay)(sago_optimizer *, sago_arena *, travel), partial_sums sums[]) {
    size_t at[N_TRAVELS];
    for (travel now = ON_MODEL; now < N_TRAVELS; now++) {
        at[now] = sago_arena_mark(arena);
        lay(o, arena, now);
    }
    sums[SAGO_MODEL_AXIS] = between(o, at[ON_MODEL], at[ON_DATA]);
    sums[SAGO_DATA_AXIS] = between(o, at[ON_BOTH], at[NOWHERE]);
}

/* Runs twice: to measure, then to hand out addresses. */
static void lay_out(sago_optimizer *o, sago_arena *arena) {
    const sago_config *config = o->config;
    o->n_tensors = 0;
    for (int i = 0; i < o->n_slots; i++) {
        const sago_param *p = o->params[i];
        int64_t smaller = p->global_shape[0] < p->global_shape[1] ? p->global_shape[0] : p->global_shape[1];
        o->slots[i].factored =
            config->optimizer.factored && p->n_dims == 2 && smaller >= config->optimizer.min_factored_dim;
        o->slots[i].global_rows = p->global_shape[0], o->slots[i].global_columns = p->global_shape[1];
    }
    lay_out_sums(o, arena, lay_out_statistics, o->statistics);
    lay_out_sums(o, arena, lay_out_updates, o->updates);
    for (int i = 0; i < o->n_slots; i++) {
        const sago_param *p = o->params[i];
        sago_adafactor_slot *slot = &o->slots[i];
        if (slot->factored) {
            slot->row = take_state(o, arena, "row", p, 1, 0);
            slot->column = take_state(o, arena, "column", p, 1, 1);
        } else {
            slot->moment = take_state(o, arena, "moment", p, p->n_dims, 0);
        }
        if (config->optimizer.momentum > 0)
            slot->momentum = take_state(o, arena, "momentum", p, p->n_dims, 0);
    }
}

static sago_status read_state(const void *optimizer, void *to_host, int64_t first, int64_t count) {
    const sago_optimizer *o = optimizer;
    return o->device->ops->download(o->device, to_host, (const float *)o->memory + first,
                                    (size_t)count * sizeof(float));
}

static sago_status write_state(void *optimizer, int64_t first, const void *from_host, int64_t count) {
    sago_optimizer *o = optimizer;
    return o->device->ops->upload(o->device, (float *)o->memory + first, from_host,
                                  (size_t)count * sizeof(float));
}

sago_status sago_optimizer_open(const sago_config *config, const sago_registry *registry, sago_mesh *mesh,
                                sago_device *device, sago_optimizer **out) {
    sago_optimizer *o = sago_alloc_zero(1, sizeof *o);
    o->config = config, o->registry = registry, o->mesh = mesh, o->device = device;
    o->remote = (sago_remote){read_state, write_state, o};
    size_t n = (size_t)registry->n_params;
    o->slots = sago_alloc_zero(n, sizeof *o->slots);
    o->params = sago_alloc_zero(n, sizeof *o->params);
    o->multipliers = sago_alloc_zero(n, sizeof *o->multipliers);
    o->tensors = sago_alloc_zero(3 * n, sizeof *o->tensors);
    for (int i = 0; i < registry->n_params; i++) {
        double multiplier = group_multiplier(config, registry->params[i].name);
        if (multiplier == 0) continue;
        o->params[o->n_slots] = &registry->params[i];
        o->multipliers[o->n_slots++] = multiplier;
    }
    sago_arena arena = sago_arena_measure();
    lay_out(o, &arena);
    o->bytes = arena.peak_bytes;
    device->purpose = "optimizer state";
    sago_status status = device->ops->allocate(device, &o->memory, o->bytes ? o->bytes : 1);
    if (status != SAGO_OK) {
        sago_optimizer_close(o);
        return sago_wrap(status, "optimizer state");
    }
    sago_arena_over(&arena, o->memory, o->bytes);
    lay_out(o, &arena);
    *out = o;
    return SAGO_OK;
}

void sago_optimizer_close(sago_optimizer *o) {
    if (!o) return;
    if (o->memory) o->device->ops->release(o->device, o->memory);
    free(o->slots);
    free(o->params);
    free(o->multipliers);
    free(o->tensors);
    free(o);
}

/* Adds the parts of all ranks: first of those that share rows, then of those that hold other ones. */
static sago_status join(sago_optimizer *o, const partial_sums all[]) {
    static const sago_mesh_axis order[] = {SAGO_MODEL_AXIS, SAGO_DATA_AXIS};
    for (int i = 0; i < 2; i++) {
        const partial_sums *sums = &all[order[i]];
        sago_collective *sum;
        if (sums->count == 0) continue;
        SAGO_TRY(sago_all_reduce_f64_start(o->mesh, order[i], sums->first, sums->count, &sum));
        SAGO_TRY(sago_collective_wait(o->mesh, sum));
    }
    return SAGO_OK;
}

sago_status sago_optimizer_step(sago_optimizer *o, const sago_weights *weights, float *gradients, int64_t t,
                                double rate, const sago_step_control *control) {
    const sago_config *config = o->config;
    sago_adafactor_args args = {
        .beta2 = 1 - pow((double)t, -config->optimizer.decay_exponent),
        .control = control,
        .clip_threshold = config->optimizer.clip_threshold,
        .parameter_scale = config->optimizer.parameter_scale,
        .minimum_scale = config->optimizer.minimum_scale,
        .momentum = config->optimizer.momentum,
        .weight_decay =
            config->optimizer.weight_decay *
            (config->optimizer.weight_decay_by_rate ? pow(rate, config->optimizer.weight_decay_power) : 1),
    };
    for (int i = 0; i < o->n_slots; i++) {
        o->slots[i].value = sago_param_tensor(o->params[i], weights->dtype, weights->values);
        o->slots[i].remainder = weights->remainder ? weights->remainder + o->params[i]->offset : NULL;
        o->slots[i].kept_square =
            weights->squares ? weights->squares + (o->params[i] - o->registry->params) : NULL;
        o->slots[i].gradient = sago_param_tensor(o->params[i], SAGO_F32, gradients);
        o->slots[i].learning_rate = (float)(rate * o->multipliers[i]);
    }
    const sago_ops *ops = o->device->ops;
    SAGO_TRY(ops->adafactor_statistics(o->device, o->slots, o->n_slots, &args));
    SAGO_TRY(join(o, o->statistics));
    SAGO_TRY(ops->adafactor_moments(o->device, o->slots, o->n_slots, &args));
    SAGO_TRY(join(o, o->updates));
    return ops->adafactor_apply(o->device, o->slots, o->n_slots, &args);
}

int sago_optimizer_count_pieces(const sago_optimizer *o) {
    return o->n_tensors;
}

void sago_optimizer_pieces(const sago_optimizer *o, sago_piece *out) {
    for (int i = 0; i < o->n_tensors; i++) {
        const state_tensor *t = &o->tensors[i];
        out[i] = (sago_piece){.name = t->name,
                              .dtype = SAGO_F32,
                              .n_dims = t->n_dims,
                              .global_shape = {t->global_shape[0], t->global_shape[1]},
                              .offset = {t->offset[0], t->offset[1]},
                              .shape = {t->shape[0], t->shape[1]},
                              .cut_over_data = t->cut_over_data,
                              .cut_over_model = t->cut_over_model,
                              .data = o->device->asynchronous ? NULL : t->data,
                              .remote = o->device->asynchronous ? &o->remote : NULL,
                              .first_remote = t->data - (float *)o->memory};
    }
}

sago_status sago_optimizer_clear(sago_optimizer *o, const sago_piece *piece) {
    float *state = (float *)o->memory + piece->first_remote;
    return o->device->ops->fill(o->device, sago_tensor_1d(state, SAGO_F32, sago_piece_count(piece)), 0);
}

size_t sago_optimizer_bytes(const sago_optimizer *o) {
    return o->bytes;
}
