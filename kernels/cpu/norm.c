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

static float mean_of(const float *x, int64_t width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += x[i];
    return sum / (float)width;
}

static float square_sum(const float *x, float mean, int64_t width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

/* RMSNorm is LayerNorm about a mean of 0: `mean` is where LayerNorm's go, or NULL. */
static void forward(const sago_device *device, sago_tensor y, float *mean, float *rstd, sago_tensor x,
                    const float *scale, float epsilon) {
    int64_t rows = sago_rows(x), width = sago_width(x);
    int64_t n = row_chunks(rows, width);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        for (int64_t row = rows * c / n; row < rows * (c + 1) / n; row++) {
            const float *in = (const float *)x.data + row * width;
            float *out = (float *)y.data + row * width;
            float m = mean ? mean_of(in, width) : 0.0f;
            float r = 1.0f / sqrtf(square_sum(in, m, width) / (float)width + epsilon);
            if (mean) mean[row] = m;
            rstd[row] = r;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] = (in[i] - m) * r * scale[i];
        }
    }
}

/*
 * With x' = (x - mean) rstd and g = d_y scale: d_x = rstd (g - mean(g) - x' mean(g x')), of RMSNorm without
 * mean(g); d_scale = sum over rows of d_y x'.
 */
static void backward_row(float *d_x, float *d_scale, const float *d_y, const float *x, const float *scale,
                         const float *mean, float r, int64_t width) {
    float m = mean ? *mean : 0.0f, dot = 0, sum = 0;
#pragma omp simd reduction(+ : dot, sum)
    for (int64_t i = 0; i < width; i++) {
        dot += d_y[i] * scale[i] * (x[i] - m);
        sum += d_y[i] * scale[i];
    }
    float along = dot * r / (float)width, level = mean ? sum / (float)width : 0.0f;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float normal = (x[i] - m) * r;
        d_x[i] += r * (d_y[i] * scale[i] - normal * along - level);
        d_scale[i] += d_y[i] * normal;
    }
}

static sago_status backward(sago_device *device, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                            sago_tensor x, sago_tensor scale, const float *mean, const float *rstd) {
    int64_t rows = sago_rows(x), width = sago_width(x);
    int64_t n = row_chunks(rows, width);
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(device, (size_t)(n * width) * sizeof(float), &scratch));
    float *partial = scratch, *total = d_scale.data;
#pragma omp parallel num_threads(device->n_threads) if (n > 1)
    {
#pragma omp for schedule(static)
        for (int64_t c = 0; c < n; c++) {
            float *mine = partial + c * width;
            memset(mine, 0, (size_t)width * sizeof(float));
            for (int64_t row = rows * c / n; row < rows * (c + 1) / n; row++)
                backward_row((float *)d_x.data + row * width, mine, (const float *)d_y.data + row * width,
                             (const float *)x.data + row * width, scale.data, mean ? mean + row : NULL,
                             rstd[row], width);
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

sago_status SAGO_CPU(rmsnorm_forward)(sago_device *device, sago_tensor y, sago_tensor rstd, sago_tensor x,
                                      sago_tensor scale, float epsilon) {
    SAGO_TRY(sago_fits_rmsnorm_forward(device, y, rstd, x, scale));
    forward(device, y, NULL, rstd.data, x, scale.data, epsilon);
    return SAGO_OK;
}

sago_status SAGO_CPU(rmsnorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor rstd) {
    SAGO_TRY(sago_fits_rmsnorm_backward(device, d_x, d_scale, d_y, x, scale, rstd));
    return backward(device, d_x, d_scale, d_y, x, scale, NULL, rstd.data);
}

sago_status SAGO_CPU(layernorm_forward)(sago_device *device, sago_tensor y, sago_tensor mean,
                                        sago_tensor rstd, sago_tensor x, sago_tensor scale, float epsilon) {
    SAGO_TRY(sago_fits_layernorm_forward(device, y, mean, rstd, x, scale));
    forward(device, y, mean.data, rstd.data, x, scale.data, epsilon);
    return SAGO_OK;
}

sago_status SAGO_CPU(layernorm_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                         sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor mean,
                                         sago_tensor rstd) {
    SAGO_TRY(sago_fits_layernorm_backward(device, d_x, d_scale, d_y, x, scale, mean, rstd));
    return backward(device, d_x, d_scale, d_y, x, scale, mean.data, rstd.data);
}
