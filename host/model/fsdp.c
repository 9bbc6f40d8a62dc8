// SPDX-License-Identifier: Apache-2.0
#include "fsdp.h"

#include "ops.h"
#include "str.h"

#include <stdlib.h>

enum { NONE = -1, SHARED_SLOTS = 3 };

/* Collectives under way, one a parameter of a block. */
typedef struct flight {
    sago_collective **waiting; /* [most parameters of a block] */
    int n;
} flight;

typedef struct slot {
    int64_t room; /* elements */
    void *values;
    float *gradients;
    int gathered;   /* block whose values are here, or on their way in `gathers` */
    int travelling; /* block whose gradients are on their way in `sums` */
    flight gathers, sums;
} slot;

struct sago_fsdp {
    const sago_registry *whole, *held;
    sago_mesh *mesh;
    sago_device *device;
    sago_dtype dtype;
    bool keep;
    int rank, ranks;
    int64_t *first_element; /* [n_blocks + 1] of the flat buffer of `whole` */
    int *first_param;       /* [n_blocks + 1] */
    slot *slots;
    int n_slots;
    int64_t *counts; /* [ranks]: elements of a parameter that each rank holds */
    size_t *bytes;   /* [ranks] */
    const void *values;
    float *gradients;
    int block; /* entered last */
    sago_direction direction;
};

static slot *slot_of(const sago_fsdp *f, int block) {
    return &f->slots[f->keep || block == 0 ? block : 1 + (block - 1) % 2];
}

static int64_t block_elements(const sago_fsdp *f, int block) {
    return f->first_element[block + 1] - f->first_element[block];
}

/* --- memory
 * ---------------------------------------------------------------------------------------------------------
 */

static void find_blocks(sago_fsdp *f) {
    int n = f->whole->n_blocks;
    f->first_element = sago_alloc_zero((size_t)n + 1, sizeof *f->first_element);
    f->first_param = sago_alloc_zero((size_t)n + 1, sizeof *f->first_param);
    for (int block = 0, p = 0; block <= n; block++) {
        while (p < f->whole->n_params && f->whole->params[p].block < block) p++;
        f->first_param[block] = p;
        f->first_element[block] = p < f->whole->n_params ? f->whole->params[p].offset : f->whole->n_elements;
    }
}

static sago_status open_slots(sago_fsdp *f) {
    const sago_ops *ops = f->device->ops;
    int n = f->whole->n_blocks, most = 0;
    f->n_slots = f->keep || n < SHARED_SLOTS ? n : SHARED_SLOTS;
    f->slots = sago_alloc_zero((size_t)f->n_slots, sizeof *f->slots);
    for (int block = 0; block < n; block++) {
        slot *s = slot_of(f, block);
        int params = f->first_param[block + 1] - f->first_param[block];
        if (block_elements(f, block) > s->room) s->room = block_elements(f, block);
        if (params > most) most = params;
    }
    f->device->purpose = "gathered parameters";
    for (int i = 0; i < f->n_slots; i++) {
        slot *s = &f->slots[i];
        s->gathered = s->travelling = NONE;
        s->gathers.waiting = sago_alloc_zero((size_t)most, sizeof *s->gathers.waiting);
        s->sums.waiting = sago_alloc_zero((size_t)most, sizeof *s->sums.waiting);
        SAGO_TRY(ops->allocate(f->device, &s->values, (size_t)s->room * sago_dtype_bytes(f->dtype)));
        SAGO_TRY(ops->allocate(f->device, (void **)&s->gradients, (size_t)s->room * sizeof(float)));
    }
    return SAGO_OK;
}

sago_status sago_fsdp_open(const sago_registry *whole, const sago_registry *held, sago_mesh *mesh,
                           sago_device *device, sago_dtype dtype, bool keep, sago_fsdp **out) {
    sago_fsdp *f = sago_alloc_zero(1, sizeof *f);
    *f = (sago_fsdp){.whole = whole,
                     .held = held,
                     .mesh = mesh,
                     .device = device,
                     .dtype = dtype,
                     .keep = keep,
                     .rank = mesh->axis_rank[SAGO_DATA_AXIS],
                     .ranks = mesh->axis_size[SAGO_DATA_AXIS],
                     .block = NONE};
    f->counts = sago_alloc_zero((size_t)f->ranks, sizeof *f->counts);
    f->bytes = sago_alloc_zero((size_t)f->ranks, sizeof *f->bytes);
    find_blocks(f);
    sago_status status = open_slots(f);
    if (status == SAGO_OK)
        *out = f;
    else
        sago_fsdp_close(f);
    return sago_wrap(status, "gathered parameters");
}

static sago_status wait_for(sago_fsdp *f, flight *all) {
    sago_status first = SAGO_OK;
    for (int i = 0; i < all->n; i++) {
        sago_status status = sago_collective_wait(f->mesh, all->waiting[i]);
        if (first == SAGO_OK) first = status;
    }
    all->n = 0;
    return first;
}

void sago_fsdp_close(sago_fsdp *f) {
    if (!f) return;
    /* Only a step that failed leaves any under way; its own error is the one to tell. */
    sago_error failure;
    sago_error_take(SAGO_E_INTERNAL, &failure);
    for (int i = 0; i < f->n_slots; i++) {
        slot *s = &f->slots[i];
        if (wait_for(f, &s->gathers) != SAGO_OK) (void)sago_error_give(&failure);
        if (wait_for(f, &s->sums) != SAGO_OK) (void)sago_error_give(&failure);
        if (s->values) f->device->ops->release(f->device, s->values);
        if (s->gradients) f->device->ops->release(f->device, s->gradients);
        free(s->gathers.waiting);
        free(s->sums.waiting);
    }
    free(f->slots);
    free(f->first_element);
    free(f->first_param);
    free(f->counts);
    free(f->bytes);
    free(f);
}

size_t sago_fsdp_bytes(const sago_fsdp *f) {
    size_t elements = 0;
    for (int i = 0; i < f->n_slots; i++) elements += (size_t)f->slots[i].room;
    return elements * (sago_dtype_bytes(f->dtype) + sizeof(float));
}

/* --- values
 * ---------------------------------------------------------------------------------------------------------
 */

static int64_t rows_of(const sago_fsdp *f, const sago_param *whole, int rank) {
    int64_t rows = whole->local_shape[0];
    return sago_first_row(rows, rank + 1, f->ranks) - sago_first_row(rows, rank, f->ranks);
}

/* out = the whole parameter, from the flat buffer of what the ranks hold. */
static sago_status start_gather(sago_fsdp *f, int param, const void *held, void *out,
                                sago_collective **started) {
    const sago_param *p = &f->whole->params[param];
    size_t each = sago_dtype_bytes(f->dtype);
    for (int r = 0; r < f->ranks; r++) f->bytes[r] = (size_t)(rows_of(f, p, r) * p->local_shape[1]) * each;
    const char *mine = (const char *)held + (size_t)f->held->params[param].offset * each;
    return sago_all_gather_start(f->mesh, SAGO_DATA_AXIS, mine, out, f->bytes, started);
}

static sago_status gather(sago_fsdp *f, int block) {
    slot *s = slot_of(f, block);
    if (s->gathered == block) return SAGO_OK;
    SAGO_TRY(wait_for(f, &s->gathers)); /* of a block that was left out */
    s->gathered = block;
    for (int p = f->first_param[block]; p < f->first_param[block + 1]; p++) {
        SAGO_TRY(
            start_gather(f, p, f->values, sago_fsdp_value(f, p).data, &s->gathers.waiting[s->gathers.n]));
        s->gathers.n++;
    }
    return SAGO_OK;
}

static sago_tensor in_slot(const sago_fsdp *f, int param, sago_dtype dtype, void *slot_begin) {
    sago_param p = f->whole->params[param];
    p.offset -= f->first_element[p.block];
    return sago_param_tensor(&p, dtype, slot_begin);
}

sago_tensor sago_fsdp_value(const sago_fsdp *f, int param) {
    return in_slot(f, param, f->dtype, slot_of(f, f->whole->params[param].block)->values);
}

sago_tensor sago_fsdp_gradient(const sago_fsdp *f, int param) {
    return in_slot(f, param, SAGO_F32, slot_of(f, f->whole->params[param].block)->gradients);
}

sago_status sago_fsdp_gather_all(sago_fsdp *f, const void *held, void *whole) {
    for (int p = 0; p < f->whole->n_params; p++) {
        sago_collective *started;
        sago_tensor out = sago_param_tensor(&f->whole->params[p], f->dtype, whole);
        SAGO_TRY(start_gather(f, p, held, out.data, &started));
        SAGO_TRY(sago_collective_wait(f->mesh, started));
    }
    return SAGO_OK;
}

/* --- gradients
 * ------------------------------------------------------------------------------------------------------ */

/* This rank's rows of a whole gradient in its slot. */
static sago_tensor own_rows(const sago_fsdp *f, int param) {
    const sago_param *p = &f->whole->params[param];
    int64_t first = sago_first_row(p->local_shape[0], f->rank, f->ranks) * p->local_shape[1];
    return sago_tensor_1d((float *)sago_fsdp_gradient(f, param).data + first, SAGO_F32,
                          rows_of(f, p, f->rank) * p->local_shape[1]);
}

/* Waits for a slot's sums and adds them to what the step has so far. */
static sago_status land(sago_fsdp *f, slot *s) {
    int block = s->travelling;
    if (block == NONE) return SAGO_OK;
    s->travelling = NONE;
    SAGO_TRY(wait_for(f, &s->sums));
    for (int p = f->first_param[block]; p < f->first_param[block + 1]; p++) {
        sago_tensor own = own_rows(f, p);
        sago_tensor held = sago_tensor_1d(f->gradients + f->held->params[p].offset, SAGO_F32, own.shape[0]);
        if (own.shape[0] > 0) SAGO_TRY(f->device->ops->add_scaled(f->device, held, own, 1));
    }
    return SAGO_OK;
}

static sago_status clear(sago_fsdp *f, int block) {
    sago_tensor all = sago_tensor_1d(slot_of(f, block)->gradients, SAGO_F32, block_elements(f, block));
    return f->device->ops->fill(f->device, all, 0);
}

sago_status sago_fsdp_block_done(sago_fsdp *f, int block) {
    slot *s = slot_of(f, block);
    s->travelling = block;
    for (int p = f->first_param[block]; p < f->first_param[block + 1]; p++) {
        const sago_param *param = &f->whole->params[p];
        for (int r = 0; r < f->ranks; r++) f->counts[r] = rows_of(f, param, r) * param->local_shape[1];
        SAGO_TRY(sago_reduce_scatter_start(f->mesh, SAGO_DATA_AXIS, sago_fsdp_gradient(f, p).data,
                                           own_rows(f, p).data, f->counts, &s->sums.waiting[s->sums.n]));
        s->sums.n++;
    }
    return SAGO_OK;
}

/* --- the order of a step
 * -------------------------------------------------------------------------------------------- */

sago_status sago_fsdp_begin(sago_fsdp *f, const void *values, float *gradients) {
    f->values = values, f->gradients = gradients;
    f->block = NONE, f->direction = SAGO_FORWARD;
    for (int i = 0; i < f->n_slots; i++) f->slots[i].gathered = NONE;
    for (int block = 0; f->keep && block < f->whole->n_blocks; block++) SAGO_TRY(clear(f, block));
    return SAGO_OK;
}

sago_status sago_fsdp_finish(sago_fsdp *f) {
    for (int i = 0; i < f->n_slots; i++) {
        SAGO_TRY(wait_for(f, &f->slots[i].gathers)); /* the next block of a pass that ended */
        SAGO_TRY(land(f, &f->slots[i]));
    }
    return SAGO_OK;
}

sago_status sago_fsdp_enter(sago_fsdp *f, int block, sago_direction direction) {
    if (f->block == block && f->direction == direction) return SAGO_OK;
    bool turning = direction == SAGO_BACKWARD && f->direction == SAGO_FORWARD;
    int next = direction == SAGO_FORWARD ? block + 1 : block - 1;
    f->block = block, f->direction = direction;
    SAGO_TRY(gather(f, block));
    SAGO_TRY(wait_for(f, &slot_of(f, block)->gathers));
    if (next > 0 && next < f->whole->n_blocks) SAGO_TRY(gather(f, next));
    if (direction == SAGO_FORWARD || f->keep) return SAGO_OK;
    /* Gradients begin at 0 for each micro-batch; block 0's are added to by all others. */
    if (turning) {
        SAGO_TRY(land(f, slot_of(f, 0)));
        SAGO_TRY(clear(f, 0));
    }
    SAGO_TRY(land(f, slot_of(f, block)));
    return clear(f, block);
}
