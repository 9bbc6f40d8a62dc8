// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "check_loss.h"
#include "cpu_ops.h"
#include "vector_math.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK =
        2048, /* logits that stay in the first-level cache between looking for their maximum and summing */
    TILE = 256,
    LINE = 16, /* floats of a cache line */
};

/*
 * One pass over memory: a block's maximum is found and its exponentials are summed while it is in the cache;
 * the sums so far are multiplied down whenever a greater maximum turns up.
 */
static void row_stats(float stats[SAGO_CE_STATS], const float *x, int64_t width) {
    float max = -INFINITY, sum_exp = 0, sum = 0;
    for (int64_t first = 0; first < width; first += BLOCK) {
        int64_t end = first + BLOCK < width ? first + BLOCK : width;
        float top = max, block_sum = 0, block_exp = 0;
#pragma omp simd reduction(max : top) reduction(+ : block_sum)
        for (int64_t i = first; i < end; i++) {
            top = x[i] > top ? x[i] : top;
            block_sum += x[i];
        }
        float base =
            top == -INFINITY ? 0.0f : top; /* a block of -inf adds exp(-inf) = 0, not exp(-inf + inf) */
        for (int64_t tile = first; tile < end; tile += TILE) {
            int64_t tile_end = tile + TILE < end ? tile + TILE : end;
            /* The exponentials keep the arithmetic busy; memory brings the next block meanwhile. */
            for (int64_t i = tile; i < tile_end; i += LINE)
                if (i + BLOCK < width) __builtin_prefetch(x + i + BLOCK);
#pragma omp simd reduction(+ : block_exp)
            for (int64_t i = tile; i < tile_end; i++) block_exp += sago_exp(x[i] - base);
        }
        sum_exp = sum_exp * sago_exp(max - base) + block_exp;
        sum += block_sum;
        max = top;
    }
    stats[SAGO_CE_MAX] = max;
    stats[SAGO_CE_SUM_EXP] = sum_exp;
    stats[SAGO_CE_TARGET] = 0;
    stats[SAGO_CE_SUM] = sum;
}

sago_status SAGO_CPU(cross_entropy_forward)(sago_device *device, sago_tensor stats, sago_tensor logits,
                                            sago_tensor targets, const sago_cross_entropy_args *args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    SAGO_TRY(sago_check_cross_entropy_forward(stats, logits, targets));
    const int32_t *target = targets.data;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (rows > 1)
    for (int64_t row = 0; row < rows; row++) {
        const float *x = (const float *)logits.data + row * width;
        float *out = (float *)stats.data + row * SAGO_CE_STATS;
        row_stats(out, x, width);
        int64_t column = target[row] - args->first_id;
        if (column >= 0 && column < width) out[SAGO_CE_TARGET] = x[column];
    }
    return SAGO_OK;
}

sago_status SAGO_CPU(cross_entropy_combine)(sago_device *device, sago_tensor stats, sago_tensor parts) {
    (void)device;
    SAGO_TRY(sago_check_cross_entropy_combine(stats, parts));
    int64_t slices = parts.shape[0], rows = parts.shape[1];
    for (int64_t row = 0; row < rows; row++) { /* a few numbers a token: one thread */
        const float *part = (const float *)parts.data + row * SAGO_CE_STATS;
        float *out = (float *)stats.data + row * SAGO_CE_STATS, max = part[SAGO_CE_MAX];
        for (int64_t m = 1; m < slices; m++) max = fmaxf(max, part[m * rows * SAGO_CE_STATS + SAGO_CE_MAX]);
        double base = max == -INFINITY ? 0.0 : (double)max, sum_exp = 0, target = 0, sum = 0;
        for (int64_t m = 0; m < slices; m++, part += rows * SAGO_CE_STATS) {
            sum_exp += (double)part[SAGO_CE_SUM_EXP] * exp((double)part[SAGO_CE_MAX] - base);
            target += (double)part[SAGO_CE_TARGET], sum += (double)part[SAGO_CE_SUM];
        }
        out[SAGO_CE_MAX] = max;
        out[SAGO_CE_SUM_EXP] = (float)sum_exp;
        out[SAGO_CE_TARGET] = (float)target;
        out[SAGO_CE_SUM] = (float)sum;
    }
    return SAGO_OK;
}

sago_status SAGO_CPU(cross_entropy_backward)(sago_device *device, sago_tensor d_logits, sago_tensor logits,
                                             sago_tensor lse, sago_tensor targets, sago_tensor weights,
                                             const sago_cross_entropy_args *args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    SAGO_TRY(sago_check_cross_entropy_backward(device, d_logits, logits, lse, targets, weights, args));
    const int32_t *target = targets.data;
    const float *weight = weights.data, *log_sum = lse.data;
    float spread = args->label_smoothing / (float)args->vocabulary, peak = 1.0f - args->label_smoothing;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (rows > 1)
    for (int64_t row = 0; row < rows; row++) {
        const float *x = (const float *)logits.data + row * width;
        float *d = (float *)d_logits.data + row * width; /* may be x */
        float w = weight[row] * args->scale, l = log_sum[row];
        if (weight[row] == 0.0f) { /* padding: whatever stands there, it has no gradient */
            memset(d, 0, (size_t)width * sizeof(float));
            continue;
        }
        float factor = w * (1.0f + 2.0f * args->z_loss * l), offset = w * spread;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) d[i] = factor * sago_exp(x[i] - l) - offset;
        int64_t column = target[row] - args->first_id;
        if (column >= 0 && column < width) d[column] -= w * peak;
    }
    return SAGO_OK;
}
