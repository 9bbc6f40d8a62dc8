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
    int64_t shape[2];
    float *data;
} state_tensor;

struct sago_optimizer {
    const sago_config *config;
    const sago_registry *registry;
    sago_device *device;
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

static float *take_state(sago_optimizer *o, sago_arena *arena, const char *kind, const sago_param *param,
                         int n_dims, int64_t a, int64_t b) {
    float *data = sago_arena_take(arena, (size_t)(a * b) * sizeof(float));
    state_tensor *t = &o->tensors[o->n_tensors++];
    snprintf(t->name, sizeof t->name, "adafactor/%s/%s", kind, param->name);
    t->n_dims = n_dims;
    t->shape[0] = a, t->shape[1] = b;
    t->data = data;
    return data;
}

/* Runs twice: to measure, then to hand out addresses. */
static void lay_out(sago_optimizer *o, sago_arena *arena) {
    const sago_config *config = o->config;
    o->n_tensors = 0;
    for (int i = 0; i < o->n_slots; i++) {
        const sago_param *p = o->params[i];
        sago_adafactor_slot *slot = &o->slots[i];
        int64_t rows = p->local_shape[0], columns = p->local_shape[1];
        int64_t smaller = p->global_shape[0] < p->global_shape[1] ? p->global_shape[0] : p->global_shape[1];
        slot->factored =
            config->optimizer.factored && p->n_dims == 2 && smaller >= config->optimizer.min_factored_dim;
        slot->global_rows = p->global_shape[0], slot->global_columns = p->global_shape[1];
        if (slot->factored) {
            slot->row = take_state(o, arena, "row", p, 1, rows, 1);
            slot->column = take_state(o, arena, "column", p, 1, columns, 1);
            slot->row_sum = sago_arena_take(arena, (size_t)rows * sizeof(double));
            slot->column_sum = sago_arena_take(arena, (size_t)columns * sizeof(double));
        } else {
            slot->moment = take_state(o, arena, "moment", p, p->n_dims, rows, columns);
        }
        if (config->optimizer.momentum > 0)
            slot->momentum = take_state(o, arena, "momentum", p, p->n_dims, rows, columns);
        slot->value_square = sago_arena_take(arena, sizeof(double));
        slot->update_square = sago_arena_take(arena, sizeof(double));
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

sago_status sago_optimizer_open(const sago_config *config, const sago_registry *registry, sago_device *device,
                                sago_optimizer **out) {
    sago_optimizer *o = sago_alloc_zero(1, sizeof *o);
    o->config = config, o->registry = registry, o->device = device;
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
        .weight_decay = config->optimizer.weight_decay * (config->optimizer.weight_decay_by_rate ? rate : 1),
    };
    for (int i = 0; i < o->n_slots; i++) {
        o->slots[i].value = sago_param_tensor(o->params[i], weights->dtype, weights->values);
        o->slots[i].remainder = weights->remainder ? weights->remainder + o->params[i]->offset : NULL;
        o->slots[i].gradient = sago_param_tensor(o->params[i], SAGO_F32, gradients);
        o->slots[i].learning_rate = (float)(rate * o->multipliers[i]);
    }
    /* Every rank holds whole parameters here, so the partial sums between the phases are whole already. */
    const sago_ops *ops = o->device->ops;
    SAGO_TRY(ops->adafactor_statistics(o->device, o->slots, o->n_slots, &args));
    SAGO_TRY(ops->adafactor_moments(o->device, o->slots, o->n_slots, &args));
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
                              .global_shape = {t->shape[0], t->shape[1]},
                              .shape = {t->shape[0], t->shape[1]},
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
