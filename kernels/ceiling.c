// SPDX-License-Identifier: Apache-2.0
#include "ceiling.h"

#include "log.h"
#include "rng.h"
#include "str.h"

#include <stdlib.h>

enum { MIN_CALLS = 3, MAX_CALLS = 500 };

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

typedef sago_status timed_call(sago_device *device, void *context);

/* Calls once to warm up, then until the time is over; work / seconds of each call becomes a rate. */
static sago_status measure(sago_device *device, timed_call *call, void *context, double work, double seconds,
                           sago_rate *out) {
    double rates[MAX_CALLS];
    SAGO_TRY(call(device, context));
    SAGO_TRY(device->ops->synchronize(device));
    int64_t start = sago_now_ns(), now = start;
    int n = 0;
    while (n < MAX_CALLS && (n < MIN_CALLS || (double)(now - start) * 1e-9 < seconds)) {
        int64_t before = sago_now_ns();
        SAGO_TRY(call(device, context));
        SAGO_TRY(device->ops->synchronize(device));
        now = sago_now_ns();
        rates[n++] = work / ((double)(now > before ? now - before : 1) * 1e-9);
    }
    qsort(rates, (size_t)n, sizeof *rates, by_value);
    *out = (sago_rate){rates[n / 2], rates[n / 4], rates[n - 1 - n / 4], n};
    return SAGO_OK;
}

/* Device memory with random values: constant ones would draw less power, and clocks would rise. */
static sago_status take_random(sago_device *device, int64_t count, uint64_t key, void **out) {
    enum { PIECE = 4096 };
    float piece[PIECE];
    SAGO_TRY(device->ops->allocate(device, out, (size_t)count * sizeof(float)));
    sago_normal_fill(piece, 0, PIECE, key);
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;
        SAGO_TRY(device->ops->upload(device, (float *)*out + at, piece, (size_t)n * sizeof(float)));
    }
    return SAGO_OK;
}

typedef struct product {
    sago_tensor a, b, c;
    sago_matmul_args args;
} product;

static sago_status multiply(sago_device *device, void *context) {
    const product *p = context;
    return device->ops->matmul(device, p->c, p->a, p->b, &p->args);
}

/* Both in bf16, in new memory. */
static sago_status round_both(sago_device *device, void **a, int64_t a_count, void **b, int64_t b_count) {
    void **both[] = {a, b};
    const int64_t counts[] = {a_count, b_count};
    for (int i = 0; i < 2; i++) {
        void *rounded;
        SAGO_TRY(device->ops->allocate(device, &rounded, (size_t)counts[i] * 2));
        sago_status status = device->ops->copy(device, sago_tensor_1d(rounded, SAGO_BF16, counts[i]),
                                               sago_tensor_1d(*both[i], SAGO_F32, counts[i]));
        device->ops->release(device, *both[i]); /* waits for the copy */
        *both[i] = rounded;
        SAGO_TRY(status);
    }
    return SAGO_OK;
}

sago_status sago_device_measure_product(sago_device *device, int64_t m, int64_t n, int64_t k, bool bf16,
                                        double seconds, sago_rate *out) {
    void *a = NULL, *b = NULL, *c = NULL;
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, take_random(device, m * k, 1, &a));
    SAGO_TRY_TO(done, take_random(device, k * n, 2, &b));
    SAGO_TRY_TO(done, device->ops->allocate(device, &c, (size_t)(m * n) * sizeof(float)));
    /* Where models store bf16, that is what is multiplied; elsewhere the product rounds its operands itself.
     */
    sago_dtype dtype = bf16 && device->stores_bf16 ? SAGO_BF16 : SAGO_F32;
    if (dtype == SAGO_BF16) SAGO_TRY_TO(done, round_both(device, &a, m * k, &b, k * n));
    product p = {sago_tensor_2d(a, dtype, m, k),
                 sago_tensor_2d(b, dtype, k, n),
                 sago_tensor_2d(c, SAGO_F32, m, n),
                 {.alpha = 1, .bf16 = bf16}};
    status = measure(device, multiply, &p, 2e-9 * (double)m * (double)n * (double)k, seconds, out);
done:
    device->ops->release(device, a);
    device->ops->release(device, b);
    device->ops->release(device, c);
    return status;
}

static sago_status copy(sago_device *device, void *context) {
    const product *p = context;
    return device->ops->copy(device, p->c, p->a);
}

sago_status sago_device_measure_copy(sago_device *device, size_t bytes, double seconds, sago_rate *out) {
    int64_t count = (int64_t)(bytes / sizeof(float));
    void *from = NULL, *to = NULL;
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, take_random(device, count, 3, &from));
    SAGO_TRY_TO(done, device->ops->allocate(device, &to, (size_t)count * sizeof(float)));
    product p = {.a = sago_tensor_1d(from, SAGO_F32, count), .c = sago_tensor_1d(to, SAGO_F32, count)};
    status = measure(device, copy, &p, 2e-9 * (double)count * sizeof(float), seconds, out);
done:
    device->ops->release(device, from);
    device->ops->release(device, to);
    return status;
}

sago_status sago_device_measure_gemm(sago_device *device, double *gflops) {
    static const int64_t sizes[] = {768, 1024, 1536};
    int64_t start = sago_now_ns();
    *gflops = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sago_rate rate;
        SAGO_TRY(sago_device_measure_product(device, sizes[i], sizes[i], sizes[i], false, 0.15, &rate));
        if (rate.median > *gflops) *gflops = rate.median;
        /* A slow processor is measured by the smaller ones alone: eight times the time would be too much. */
        if ((double)(sago_now_ns() - start) * 1e-9 > 0.4) break;
    }
    return SAGO_OK;
}
