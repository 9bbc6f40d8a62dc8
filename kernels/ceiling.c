// SPDX-License-Identifier: Apache-2.0
#include "ceiling.h"

#include "log.h"
#include "ops.h"

#include <stdlib.h>

enum { SIZE = 1024, ROUNDS = 9 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

sago_status sago_device_measure_gemm(sago_device *device, double *gflops) {
    const sago_ops *ops = device->ops;
    void *memory;
    size_t bytes = (size_t)SIZE * SIZE * sizeof(float);
    SAGO_TRY(ops->allocate(device, &memory, 3 * bytes));
    sago_tensor a = sago_tensor_2d(memory, SAGO_F32, SIZE, SIZE), b = a, c = a;
    b.data = (char *)memory + bytes;
    c.data = (char *)memory + 2 * bytes;
    const sago_matmul_args args = {.transpose_b = true, .alpha = 1};
    double seconds[ROUNDS];
    sago_status status;
    SAGO_TRY_TO(done, ops->fill(device, a, 0.5f));
    SAGO_TRY_TO(done, ops->fill(device, b, 0.25f));
    /* The first product sets up threads and primitives; it is not counted. */
    for (int i = -1; i < ROUNDS; i++) {
        int64_t start = sago_now_ns();
        SAGO_TRY_TO(done, ops->matmul(device, c, a, b, &args));
        SAGO_TRY_TO(done, ops->synchronize(device));
        if (i >= 0) seconds[i] = (double)(sago_now_ns() - start) * 1e-9;
    }
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    *gflops = 2.0 * SIZE * SIZE * SIZE / seconds[ROUNDS / 2] * 1e-9;
done:
    ops->release(device, memory);
    return status;
}
