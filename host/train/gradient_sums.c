// SPDX-License-Identifier: Apache-2.0
#include "gradient_sums.h"

#include "ops.h"
#include "str.h"

#include <stdlib.h>

struct sago_gradient_sums {
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

static bool held_by_all(const sago_gradient_sums *sums, const sago_param *p) {
    return sums->size > 1 && p->replicated_over > 1;
}

sago_status sago_gradient_sums_open(const sago_registry *registry, sago_mesh *mesh, sago_device *device,
                                    sago_gradient_sums **out) {
    sago_gradient_sums *sums = sago_alloc_zero(1, sizeof *sums);
    *sums = (sago_gradient_sums){
        .registry = registry, .mesh = mesh, .device = device, .size = mesh->axis_size[SAGO_MODEL_AXIS]};
    sums->rows_are_cut = registry->n_params > 0 && registry->params[0].rows_are_cut;
    for (int i = 0; i < registry->n_params; i++)
        if (held_by_all(sums, &registry->params[i])) sums->n_packed += count_of(&registry->params[i]);
    sums->counted = sago_alloc_zero((size_t)registry->n_params, sizeof *sums->counted);
    *out = sums;
    if (sums->n_packed == 0) return SAGO_OK;
    return device->ops->allocate(device, (void **)&sums->packed, (size_t)sums->n_packed * sizeof(float));
}

void sago_gradient_sums_close(sago_gradient_sums *sums) {
    if (!sums) return;
    if (sums->packed) sums->device->ops->release(sums->device, sums->packed);
    free(sums->counted);
    free(sums);
}

/* Between the flat buffer and the packed one. */
static sago_status move(sago_gradient_sums *sums, float *gradients, bool pack) {
    int64_t at = 0;
    for (int i = 0; i < sums->registry->n_params; i++) {
        const sago_param *p = &sums->registry->params[i];
        if (!held_by_all(sums, p) || count_of(p) == 0) continue;
        sago_tensor flat = sago_tensor_1d(gradients + p->offset, SAGO_F32, count_of(p)),
                    packed = sago_tensor_1d(sums->packed + at, SAGO_F32, count_of(p));
        SAGO_TRY(sums->device->ops->copy(sums->device, pack ? packed : flat, pack ? flat : packed));
        at += count_of(p);
    }
    return SAGO_OK;
}

sago_status sago_gradient_sums_join(sago_gradient_sums *sums, float *gradients) {
    if (sums->n_packed == 0) return SAGO_OK;
    sago_collective *sum;
    SAGO_TRY(move(sums, gradients, true));
    SAGO_TRY(sago_all_reduce_start(sums->mesh, SAGO_MODEL_AXIS, sums->packed, sums->n_packed, &sum));
    SAGO_TRY(sago_collective_wait(sums->mesh, sum));
    return move(sums, gradients, false);
}

sago_status sago_gradient_sums_squares(sago_gradient_sums *sums, float *gradients, double *squares) {
    const sago_ops *ops = sums->device->ops;
    if (sums->size == 1 && !sums->rows_are_cut) {
        sago_tensor all = sago_tensor_1d(gradients, SAGO_F32, sums->registry->n_elements);
        return ops->sum_squares(sums->device, squares, &all, 1);
    }
    int n = 0;
    for (int i = 0; i < sums->registry->n_params; i++) {
        const sago_param *p = &sums->registry->params[i];
        if (held_by_all(sums, p) && sums->mesh->axis_rank[SAGO_MODEL_AXIS] > 0) continue;
        if (count_of(p) == 0) continue;
        sums->counted[n++] = sago_tensor_1d(gradients + p->offset, SAGO_F32, count_of(p));
    }
    sago_collective *sum;
    SAGO_TRY(ops->sum_squares(sums->device, squares, sums->counted, n));
    SAGO_TRY(sago_all_reduce_f64_start(
        sums->mesh, sums->rows_are_cut ? SAGO_WORLD_AXIS : SAGO_MODEL_AXIS, squares, 1, &sum));
    return sago_collective_wait(sums->mesh, sum);
}
