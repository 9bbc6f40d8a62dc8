// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "check_layers.h"
#include "cpu_ops.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = 16,       /* rows of a chunk at least */
    MAX_CHUNKS = 64, /* partial sums of d_scale: [chunks, D] */
    COLUMNS = 256,   /* columns that one turn of their addition takes */
};

static int64_t row_chunks(int64_t rows, int64_t width) {
    int64_t grain = width >= 256 ? ROWS : ROWS * 256 / (width > 0 ? width : 1);
    int64_t n = (rows + grain - 1) / grain;
    return n > MAX_CHUNKS ? MAX_CHUNKS : n;
}

static float square_sum(const float *x, int64_t width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += x[i] * x[i];
    return sum;
}

sago_status SAGO_CPU(rmsnorm_forward)(sago_device *device, sago_tensor y, sago_tensor rstd, sago_tensor x,
                                      sago_tensor scale, float epsilon) {
    int64_t rows = sago_rows(x), width = sago_width(x);
    SAGO_TRY(sago_fits_rmsnorm_forward(device, y, rstd, x, scale));
    const float *g = scale.data;
    int64_t n = row_chunks(rows, width);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        for (int64_t row = rows * c / n; row < rows * (c + 1) / n; row++) {
            const float *in = (const float *)x.data + row * width;
            float *out = (float *)y.data + row * width;
            float r = 1.0f / sqrtf(square_sum(in, width) / (float)width + epsilon);
            ((float *)rstd.data)[row] = r;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] = in[i] * r * g[i];
        }
    }
    return SAGO_OK;
}

/*
 * With x' = x rstd: d_x = rstd (d_y scale - x' mean(d_y scale x')), d_scale = sum over rows of d_y x'.
 */
static void backward_row(float *d_x, float *d_scale, const float *d_y, const float *x, const float *scale,
                         float r, int64_t width) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += d_y[i] * scale[i] * x[i];
    float mean = dot * r / (float)width; /* of d_y scale x' */
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float normal = x[i] * r;
        d_x[i] += r * (d_y[i] * scale[i] - normal * mean);
        d_scale[i] += d_y[i] * normal;
    }
}

sago_status SAGO_CPU(rmsnorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor rstd) {
    int64_t rows = sago_rows(x), width = sago_width(x);
    SAGO_TRY(sago_fits_rmsnorm_backward(device, d_x, d_scale, d_y, x, scale, rstd));
    int64_t n = row_chunks(rows, width);
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(device, (size_t)(n * width) * sizeof(float), &scratch));
    float *partial = scratch, *total = d_scale.data;
    const float *r = rstd.data;
#pragma omp parallel num_threads(device->n_threads) if (n > 1)
    {
#pragma omp for schedule(static)
        for (int64_t c = 0; c < n; c++) {
            float *mine = partial + c * width;
            memset(mine, 0, (size_t)width * sizeof(float));
            for (int64_t row = rows * c / n; row < rows * (c + 1) / n; row++)
                backward_row((float *)d_x.data + row * width, mine, (const float *)d_y.data + row * width,
                             (const float *)x.data + row * width, scale.data, r[row], width);
        }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < width; first += COLUMNS) {
            int64_t end = first + COLUMNS < width ? first + COLUMNS : width;
            float sum[COLUMNS] = {0};
            for (int64_t c = 0; c < n; c++)
                for (int64_t i = first; i < end; i++) sum[i - first] += partial[c * width + i];
            for (int64_t i = first; i < end; i++) total[i] += sum[i - first];
        }
    }
    return SAGO_OK;
}
