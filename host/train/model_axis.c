// SPDX-License-Identifier: Apache-2.0
#include "model_axis.h"

#include "ops.h"
#include "str.h"

#include <stdlib.h>

struct sago_model_axis {
    const sago_registry *registry;
    sago_mesh *mesh;
    sago_device *device;
    int size;
    bool rows_are_cut; /* over the data axis */
    float *packed;     /* gradients of the parameters that all hold, one after another; on the device */
    int64_t n_packed;
    sago_tensor *counted; /* whose squares this rank adds */
};

static int64_t count_of(const sago_param *p) {
    return p->local_shape[0] * p->local_shape[1];
}

static bool held_by_all(const sago_model_axis *axis, const sago_param *p) {
    return axis->size > 1 && p->replicated_over > 1;
}

sago_status sago_model_axis_open(const sago_registry *registry, sago_mesh *mesh, sago_device *device,
                                 sago_model_axis **out) {
    sago_model_axis *axis = sago_alloc_zero(1, sizeof *axis);
    *axis = (sago_model_axis){
        .registry = registry, .mesh = mesh, .device = device, .size = mesh->axis_size[SAGO_MODEL_AXIS]};
    axis->rows_are_cut = registry->n_params > 0 && registry->params[0].rows_are_cut;
    for (int i = 0; i < registry->n_params; i++)
        if (held_by_all(axis, &registry->params[i])) axis->n_packed += count_of(&registry->params[i]);
    axis->counted = sago_alloc_zero((size_t)registry->n_params, sizeof *axis->counted);
    *out = axis;
    if (axis->n_packed == 0) return SAGO_OK;
    return device->ops->allocate(device, (void **)&axis->packed, (size_t)axis->n_packed * sizeof(float));
}

void sago_model_axis_close(sago_model_axis *axis) {
    if (!axis) return;
    if (axis->packed) axis->device->ops->release(axis->device, axis->packed);
    free(axis->counted);
    free(axis);
}

/* Between the flat buffer and the packed one. */
static sago_status move(sago_model_axis *axis, float *gradients, bool pack) {
    int64_t at = 0;
    for (int i = 0; i < axis->registry->n_params; i++) {
        const sago_param *p = &axis->registry->params[i];
        if (!held_by_all(axis, p) || count_of(p) == 0) continue;
        sago_tensor flat = sago_tensor_1d(gradients + p->offset, SAGO_F32, count_of(p)),
                    packed = sago_tensor_1d(axis->packed + at, SAGO_F32, count_of(p));
        SAGO_TRY(axis->device->ops->copy(axis->device, pack ? packed : flat, pack ? flat : packed));
        at += count_of(p);
    }
    return SAGO_OK;
}

sago_status sago_model_axis_sum(sago_model_axis *axis, float *gradients) {
    if (axis->n_packed == 0) return SAGO_OK;
    sago_collective *sum;
    SAGO_TRY(move(axis, gradients, true));
    SAGO_TRY(sago_all_reduce_start(axis->mesh, SAGO_MODEL_AXIS, axis->packed, axis->n_packed, &sum));
    SAGO_TRY(sago_collective_wait(axis->mesh, sum));
    return move(axis, gradients, false);
}

sago_status sago_model_axis_squares(sago_model_axis *axis, float *gradients, double *squares) {
    const sago_ops *ops = axis->device->ops;
    if (axis->size == 1 && !axis->rows_are_cut) {
        sago_tensor all = sago_tensor_1d(gradients, SAGO_F32, axis->registry->n_elements);
        return ops->sum_squares(axis->device, squares, &all, 1);
    }
    int n = 0;
    for (int i = 0; i < axis->registry->n_params; i++) {
        const sago_param *p = &axis->registry->params[i];
        if (held_by_all(axis, p) && axis->mesh->axis_rank[SAGO_MODEL_AXIS] > 0) continue;
        if (count_of(p) == 0) continue;
        axis->counted[n++] = sago_tensor_1d(gradients + p->offset, SAGO_F32, count_of(p));
    }
    double own;
    SAGO_TRY(ops->sum_squares(axis->device, squares, axis->counted, n));
    SAGO_TRY(ops->download(axis->device, &own, squares, sizeof own));
    SAGO_TRY(
        sago_all_reduce_f64(axis->mesh, axis->rows_are_cut ? SAGO_WORLD_AXIS : SAGO_MODEL_AXIS, &own, 1));
    return ops->upload(axis->device, squares, &own, sizeof own);
}
