// SPDX-License-Identifier: Apache-2.0
/*
 * Matrix products: oneDNN for large ones, sums in double for small ones, loops of our own where a has so few
 * rows that reading b is all the work (decoding).
 */
#include "cpu_ops.h"
#include "matmul.h"
#include "onednn.h"
#include "product_exact.h"
#include "product_few.h"
#include "vector_math.h"

enum { CAST_GRAIN = 16384 };

static void cast(const sago_device *device, uint16_t *out, const float *in, int64_t count) {
    int64_t n = sago_cpu_chunks(count, CAST_GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t chunk = 0; chunk < n; chunk++) {
        int64_t first = sago_cpu_chunk_start(count, n, chunk),
                end = sago_cpu_chunk_start(count, n, chunk + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) out[i] = sago_to_bf16(in[i]);
    }
}

/* Rounded to bf16, kept as fp32. */
static void round_values(const sago_device *device, float *out, const float *in, int64_t count) {
    int64_t n = sago_cpu_chunks(count, CAST_GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t chunk = 0; chunk < n; chunk++) {
        int64_t first = sago_cpu_chunk_start(count, n, chunk),
                end = sago_cpu_chunk_start(count, n, chunk + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) out[i] = sago_from_bf16(sago_to_bf16(in[i]));
    }
}

static sago_status multiply_bf16(sago_device *device, const sago_gemm *g, float *c, const float *a,
                                 const float *b) {
    sago_cpu *cpu = device->state;
    int64_t a_count = (g->m * g->k + 63) / 64 * 64, b_count = g->k * g->n;
    void *scratch;
    if (device->has_bf16) {
        bool supported;
        SAGO_TRY(sago_cpu_scratch(device, (size_t)(a_count + b_count) * sizeof(uint16_t), &scratch));
        uint16_t *a16 = scratch, *b16 = a16 + a_count;
        cast(device, a16, a, g->m * g->k);
        cast(device, b16, b, b_count);
        SAGO_TRY(sago_onednn_bf16(cpu->onednn, g, c, a16, b16, device->n_threads, &supported));
        if (supported) return SAGO_OK;
    }
    /* fp32 products of the rounded values mean the same, and are faster where bf16 ones are slow or missing.
     */
    SAGO_TRY(sago_cpu_scratch(device, (size_t)(a_count + b_count) * sizeof(float), &scratch));
    float *a32 = scratch, *b32 = a32 + a_count;
    round_values(device, a32, a, g->m * g->k);
    round_values(device, b32, b, b_count);
    return sago_onednn_f32(g, c, a32, b32, device->n_threads);
}

sago_status SAGO_CPU(matmul)(sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                             const sago_matmul_args *args) {
    sago_matmul_sizes sizes;
    SAGO_TRY(sago_matmul_check(device, c, a, b, args, &sizes));
    sago_gemm g = {sizes.m, sizes.n, sizes.k, args->transpose_a, args->transpose_b, args->alpha, args->beta};
    if (g.m == 0 || g.n == 0) return SAGO_OK;
    if (g.k == 0) {
        if (args->beta == 0.0f) return SAGO_CPU(fill)(device, c, 0.0f);
        return SAGO_CPU(scale)(device, c, args->beta);
    }
    if (g.m <= SAGO_FEW_ROWS && !args->transpose_a)
        return SAGO_CPU(product_few)(device, &g, args->bf16, c.data, a.data, b.data);
    if (args->bf16) return multiply_bf16(device, &g, c.data, a.data, b.data);
    if (SAGO_CPU(product_is_small)(&g)) return SAGO_CPU(product_exact)(device, &g, c.data, a.data, b.data);
    return sago_onednn_f32(&g, c.data, a.data, b.data, device->n_threads);
}
