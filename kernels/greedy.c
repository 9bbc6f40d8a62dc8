// SPDX-License-Identifier: Apache-2.0
#include "greedy.h"

#include "check.h"
#include "cpu/cpu_ops.h"
#include "cpu/greedy_loops.h"

#include <string.h>

enum { MOST_COLUMNS = 1 << 16, ALIGNMENT = 64, PADDING = 16 };

bool sago_greedy_possible(const sago_device *device, int64_t k, float scale) {
    return strcmp(device->name, "cpu") == 0 && k >= 1 && k <= MOST_COLUMNS && scale >= 1e-6f && scale <= 1e6f;
}

static const sago_cpu_greedy *loops(const sago_device *device) {
    const sago_cpu *cpu = device->state;
    return cpu->greedy;
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

sago_status sago_greedy_prepare(sago_device *device, sago_greedy *greedy, sago_tensor w, float scale) {
    SAGO_TRY(sago_check_shapes(w.n_dims == 2 && w.dtype == SAGO_F32 &&
                                   sago_greedy_possible(device, w.shape[1], scale),
                               "greedy", "w[N, D]", SAGO_TENSORS(w)));
    int64_t n = w.shape[0], k = w.shape[1], padded = (k + PADDING - 1) / PADDING * PADDING;
    size_t q_bytes = aligned((size_t)(n * padded)), row_bytes = aligned((size_t)n * sizeof(float));
    if (greedy->n != n || greedy->k != k) sago_greedy_release(device, greedy);
    if (!greedy->memory) {
        device->purpose = "8-bit copy of the output matrix";
        SAGO_TRY(device->ops->allocate(device, &greedy->memory, q_bytes + 3 * row_bytes));
    }
    char *rows = (char *)greedy->memory + q_bytes;
    greedy->w = w.data, greedy->n = n, greedy->k = k, greedy->padded = padded, greedy->scale = scale;
    greedy->q = greedy->memory;
    greedy->step = (float *)(void *)rows;
    greedy->error = (float *)(void *)(rows + row_bytes);
    greedy->length = (float *)(void *)(rows + 2 * row_bytes);
    loops(device)->prepare(device, greedy);
    return SAGO_OK;
}

sago_status sago_greedy_choose(sago_device *device, const sago_greedy *greedy, sago_tensor ids, sago_tensor x,
                               bool *settled) {
    int64_t rows = sago_rows(x);
    SAGO_TRY(sago_check_shapes(x.dtype == SAGO_F32 && sago_width(x) == greedy->k &&
                                   rows <= SAGO_GREEDY_ROWS && ids.dtype == SAGO_I32 &&
                                   sago_rows(ids) * sago_width(ids) == rows,
                               "greedy", "ids[M], x[M, D] of at most eight rows", SAGO_TENSORS(ids, x)));
    return loops(device)->choose(device, greedy, ids.data, x.data, rows, settled);
}

void sago_greedy_release(sago_device *device, sago_greedy *greedy) {
    if (greedy->memory) device->ops->release(device, greedy->memory);
    *greedy = (sago_greedy){0};
}
