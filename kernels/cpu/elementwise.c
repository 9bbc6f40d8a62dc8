// SPDX-License-Identifier: Apache-2.0
#include "check_layers.h"
#include "cpu_ops.h"
#include "vector_math.h"

#include <string.h>

enum {
    GRAIN = 16384
}; /* elements of a chunk at least: below that starting threads costs more than they give */

sago_status SAGO_CPU(fill)(sago_device *device, sago_tensor out, float value) {
    SAGO_TRY(sago_fits_fill(device, out));
    float *o = out.data;
    int64_t count = sago_tensor_count(out), n = sago_cpu_chunks(count, GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++)
        for (int64_t i = sago_cpu_chunk_start(count, n, c), end = sago_cpu_chunk_start(count, n, c + 1);
             i < end; i++)
            o[i] = value;
    return SAGO_OK;
}

static void copy_piece(void *to, sago_dtype to_dtype, const void *from, sago_dtype from_dtype, int64_t first,
                       int64_t end) {
    if (to_dtype == from_dtype) {
        size_t bytes = sago_dtype_bytes(to_dtype);
        memmove((char *)to + (size_t)first * bytes, (const char *)from + (size_t)first * bytes,
                (size_t)(end - first) * bytes);
    } else if (to_dtype == SAGO_BF16) {
        uint16_t *o = to;
        const float *x = from;
#pragma omp simd
        for (int64_t i = first; i < end; i++) o[i] = sago_to_bf16(x[i]);
    } else {
        float *o = to;
        const uint16_t *x = from;
#pragma omp simd
        for (int64_t i = first; i < end; i++) o[i] = sago_from_bf16(x[i]);
    }
}

sago_status SAGO_CPU(copy)(sago_device *device, sago_tensor out, sago_tensor in) {
    int64_t count = sago_tensor_count(out), n = sago_cpu_chunks(count, GRAIN);
    SAGO_TRY(sago_fits_copy(out, in));
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++)
        copy_piece(out.data, out.dtype, in.data, in.dtype, sago_cpu_chunk_start(count, n, c),
                   sago_cpu_chunk_start(count, n, c + 1));
    return SAGO_OK;
}

sago_status SAGO_CPU(add_scaled)(sago_device *device, sago_tensor out, sago_tensor in, float factor) {
    int64_t count = sago_tensor_count(out), n = sago_cpu_chunks(count, GRAIN);
    SAGO_TRY(sago_fits_add_scaled(device, out, in));
    float *o = out.data;
    const float *x = in.data;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        int64_t first = sago_cpu_chunk_start(count, n, c), end = sago_cpu_chunk_start(count, n, c + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) o[i] += factor * x[i];
    }
    return SAGO_OK;
}

sago_status SAGO_CPU(scale)(sago_device *device, sago_tensor out, float factor) {
    SAGO_TRY(sago_fits_scale(device, out));
    float *o = out.data;
    int64_t count = sago_tensor_count(out), n = sago_cpu_chunks(count, GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        int64_t first = sago_cpu_chunk_start(count, n, c), end = sago_cpu_chunk_start(count, n, c + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) o[i] *= factor;
    }
    return SAGO_OK;
}

/* Four sums side by side: one alone would wait for each of its additions. */
static double square_sum(const float *x, int64_t count) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int64_t quarter = count / 4;
    const float *x1 = x + quarter, *x2 = x1 + quarter, *x3 = x2 + quarter;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < quarter; i++) {
        s0 += (double)x[i] * (double)x[i];
        s1 += (double)x1[i] * (double)x1[i];
        s2 += (double)x2[i] * (double)x2[i];
        s3 += (double)x3[i] * (double)x3[i];
    }
    for (int64_t i = 4 * quarter; i < count; i++) s0 += (double)x[i] * (double)x[i];
    return (s0 + s1) + (s2 + s3);
}

sago_status SAGO_CPU(sum_squares)(sago_device *device, double *out, const sago_tensor in[], int n) {
    int64_t n_chunks = 0;
    SAGO_TRY(sago_fits_sum_squares(device, in, n));
    for (int t = 0; t < n; t++) n_chunks += sago_cpu_chunks(sago_tensor_count(in[t]), GRAIN);
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(device, (size_t)n_chunks * sizeof(double), &scratch));
    double *partial = scratch;
#pragma omp parallel num_threads(device->n_threads) if (n_chunks > 1)
    {
        int64_t base = 0;
        for (int t = 0; t < n; t++) {
            int64_t count = sago_tensor_count(in[t]), chunks = sago_cpu_chunks(count, GRAIN);
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < chunks; c++) {
                int64_t first = sago_cpu_chunk_start(count, chunks, c),
                        end = sago_cpu_chunk_start(count, chunks, c + 1);
                partial[base + c] = square_sum((const float *)in[t].data + first, end - first);
            }
            base += chunks;
        }
    }
    double sum = 0;
    for (int64_t c = 0; c < n_chunks; c++) sum += partial[c];
    *out = sum;
    return SAGO_OK;
}
