// SPDX-License-Identifier: Apache-2.0
#include "parallel.h"

#include <stddef.h>

enum { MOST_RANKS = 1024 };

static bool alone(const sago_pass *pass) {
    return pass->model_size <= 1;
}

static int64_t first_token(const sago_pass *pass, int64_t n, int rank) {
    return n * rank / pass->model_size;
}

void sago_own_tokens(const sago_pass *pass, int64_t n, int64_t *first, int64_t *count) {
    *first = 0, *count = n;
    if (alone(pass) || !pass->cut_tokens) return;
    *first = first_token(pass, n, pass->model_rank);
    *count = first_token(pass, n, pass->model_rank + 1) - *first;
}

sago_tensor sago_residual_tokens(const sago_pass *pass, void *data, int64_t rows, int64_t tokens,
                                 int64_t width) {
    int64_t first, count;
    if (alone(pass) || !pass->cut_tokens) return sago_tokens(pass, data, rows, tokens, width);
    sago_own_tokens(pass, rows * tokens, &first, &count);
    return sago_tokens(pass, data, 1, count, width);
}

sago_status sago_gather_tokens(const sago_pass *pass, sago_tensor *whole, sago_tensor own, int64_t rows,
                               int64_t tokens, void *room) {
    *whole = own;
    if (alone(pass) || !pass->cut_tokens) return SAGO_OK;
    int64_t width = own.shape[2], n = rows * tokens;
    size_t bytes[MOST_RANKS], each = (size_t)width * sago_dtype_bytes(own.dtype);
    for (int r = 0; r < pass->model_size; r++)
        bytes[r] = (size_t)(first_token(pass, n, r + 1) - first_token(pass, n, r)) * each;
    *whole = sago_tensor_3d(room, own.dtype, rows, tokens, width);
    sago_collective *gather;
    SAGO_TRY(sago_all_gather_start(pass->mesh, SAGO_MODEL_AXIS, own.data, room, bytes, &gather));
    return sago_collective_wait(pass->mesh, gather);
}

sago_tensor sago_partial_sum(const sago_pass *pass, void *data, int64_t rows, int64_t tokens, int64_t width) {
    return sago_tensor_3d(data, alone(pass) ? pass->dtype : SAGO_F32, rows, tokens, width);
}

static sago_status sum_over_ranks(const sago_pass *pass, sago_tensor *own, sago_tensor partial) {
    int64_t n = partial.shape[0] * partial.shape[1], width = partial.shape[2], first, count;
    sago_collective *sum;
    if (!pass->cut_tokens) {
        SAGO_TRY(sago_all_reduce_start(pass->mesh, SAGO_MODEL_AXIS, partial.data, n * width, &sum));
        *own = partial;
        return sago_collective_wait(pass->mesh, sum);
    }
    int64_t counts[MOST_RANKS];
    for (int r = 0; r < pass->model_size; r++)
        counts[r] = (first_token(pass, n, r + 1) - first_token(pass, n, r)) * width;
    sago_own_tokens(pass, n, &first, &count);
    *own = sago_tensor_3d((float *)partial.data + first * width, SAGO_F32, 1, count, width);
    SAGO_TRY(sago_reduce_scatter_start(pass->mesh, SAGO_MODEL_AXIS, partial.data, own->data, counts, &sum));
    return sago_collective_wait(pass->mesh, sum);
}

sago_status sago_sum_partial(const sago_pass *pass, sago_tensor *own, sago_tensor partial) {
    *own = partial;
    if (alone(pass)) return SAGO_OK;
    SAGO_TRY(sum_over_ranks(pass, own, partial));
    if (pass->dtype == SAGO_F32) return SAGO_OK;
    sago_tensor narrow =
        sago_tensor_3d(pass->narrow, pass->dtype, own->shape[0], own->shape[1], own->shape[2]);
    SAGO_TRY(pass->device->ops->copy(pass->device, narrow, *own));
    *own = narrow;
    return SAGO_OK;
}

sago_dropout sago_residual_dropout(const sago_pass *pass, int site, sago_tensor own, int64_t rows,
                                   int64_t tokens) {
    sago_dropout dropout = sago_pass_dropout(pass, site, tokens);
    if (alone(pass) || !pass->cut_tokens) return dropout;
    /* Own tokens are one row here; they count on from where this rank's begin in the global batch. */
    int64_t first, count;
    sago_own_tokens(pass, rows * tokens, &first, &count);
    int64_t before = pass->first_row * tokens + first;
    dropout.first = before * own.shape[2];
    dropout.first_row = 0;
    dropout.row_tokens = before + count;
    return dropout;
}

sago_status sago_gather_equal(const sago_pass *pass, sago_tensor own, void *all) {
    size_t bytes[MOST_RANKS];
    for (int r = 0; r < pass->model_size; r++) bytes[r] = sago_tensor_bytes(own);
    sago_collective *gather;
    SAGO_TRY(sago_all_gather_start(pass->mesh, SAGO_MODEL_AXIS, own.data, all, bytes, &gather));
    return sago_collective_wait(pass->mesh, gather);
}

sago_status sago_combine_slices(const sago_pass *pass, sago_tensor stats, float *parts) {
    if (alone(pass)) return SAGO_OK;
    SAGO_TRY(sago_gather_equal(pass, stats, parts));
    sago_tensor all = sago_tensor_3d(parts, SAGO_F32, pass->model_size, stats.shape[0], stats.shape[1]);
    return pass->device->ops->cross_entropy_combine(pass->device, stats, all);
}

sago_status sago_model_mesh_open(sago_mesh *mesh, sago_device *device, sago_mesh **out) {
    *out = NULL;
    SAGO_TRY(sago_mesh_second_order(mesh, out));
    return mesh->axis_size[SAGO_MODEL_AXIS] > 1 ? sago_mesh_use_device(*out, device) : SAGO_OK;
}

sago_status sago_model_mesh_close(sago_mesh *mesh) {
    if (!mesh) return SAGO_OK;
    sago_status status = mesh->axis_size[SAGO_MODEL_AXIS] > 1 ? sago_mesh_use_device(mesh, NULL) : SAGO_OK;
    sago_mesh_close(mesh);
    return status;
}
