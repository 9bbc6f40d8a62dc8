// SPDX-License-Identifier: Apache-2.0
/**
 * Matrix products of the sim device. On a GPU they are cuBLASLt's, no text of ours; here the cpu device
 * computes them, on the compute stream's turn. bf16 operands are widened, which is exact, and the sums are
 * fp32 as on the GPU.
 */
#include "matmul.h"

#include "gpu_ops.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct call {
    sago_device *cpu;
    sago_tensor c, a, b;
    sago_matmul_args args;
} call;

static void widen(float *out, const uint16_t *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

/* Round to nearest even; what is not a number stays so. */
static void narrow(uint16_t *out, const float *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, in + i, sizeof bits);
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        out[i] = (uint16_t)(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

/* The tensor in fp32: itself, or a copy in *copy. */
static sago_tensor in_f32(sago_tensor t, float **copy, bool read) {
    *copy = NULL;
    if (t.dtype == SAGO_F32) return t;
    int64_t n = sago_tensor_count(t);
    *copy = sago_alloc((size_t)(n ? n : 1) * sizeof **copy);
    if (read) widen(*copy, t.data, n);
    t.dtype = SAGO_F32;
    t.data = *copy;
    return t;
}

static sago_status multiply(void *argument) {
    const call *m = argument;
    float *a32, *b32, *c32;
    sago_tensor a = in_f32(m->a, &a32, true), b = in_f32(m->b, &b32, true);
    sago_tensor c = in_f32(m->c, &c32, m->args.beta != 0.0f);
    sago_status status = m->cpu->ops->matmul(m->cpu, c, a, b, &m->args);
    if (status == SAGO_OK && c32) narrow(m->c.data, c32, sago_tensor_count(c));
    free(a32);
    free(b32);
    free(c32);
    return status;
}

sago_status SAGO_GPU(matmul)(sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                             const sago_matmul_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    sago_matmul_sizes sizes;
    SAGO_TRY(sago_matmul_check(device, c, a, b, args, &sizes));
    if (sizes.m == 0 || sizes.n == 0) return SAGO_OK;
    call now = {.cpu = gpu->products, .c = c, .a = a, .b = b, .args = *args};
    if (a.dtype == SAGO_BF16) now.args.bf16 = false; /* rounded already */
    return SAGO_GPU(rt_host_function)(gpu->compute, multiply, &now, sizeof now);
}

sago_status SAGO_GPU(products_open)(sago_gpu *gpu, char description[48]) {
    sago_device *cpu;
    SAGO_TRY(sago_device_open("cpu", gpu->device.n_threads, &cpu));
    gpu->products = cpu;
    gpu->device.n_threads = cpu->n_threads;
    snprintf(description, 48, "cpu with %d thread%s", cpu->n_threads, cpu->n_threads == 1 ? "" : "s");
    return SAGO_OK;
}

void SAGO_GPU(products_close)(sago_gpu *gpu) {
    sago_device_close(gpu->products);
}
