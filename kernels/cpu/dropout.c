// SPDX-License-Identifier: Apache-2.0
#include "check_layers.h"
#include "cpu_ops.h"
#include "mask_walk.h"

enum { GRAIN = 8192 };

static void dropout_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    float *out = s->out + at;
    const float *in = s->a + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = keep[i] > 0.0f ? in[i] * keep[i] : 0.0f;
    } else if (out != in) {
        for (int64_t i = 0; i < count; i++) out[i] = in[i];
    }
}

static void residual_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    float *out = s->out + at;
    const float *residual = s->a + at, *in = s->b + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = residual[i] + (keep[i] > 0.0f ? in[i] * keep[i] : 0.0f);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = residual[i] + in[i];
    }
}

sago_status SAGO_CPU(dropout)(sago_device *device, sago_tensor out, sago_tensor in,
                              const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_dropout(device, out, in, dropout));
    sago_streams s = {.out = out.data, .a = in.data};
    sago_mask_walk(device, dropout_piece, &s, in, dropout, GRAIN);
    return SAGO_OK;
}

sago_status SAGO_CPU(residual)(sago_device *device, sago_tensor out, sago_tensor residual, sago_tensor in,
                               const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_residual(device, out, residual, in, dropout));
    sago_streams s = {.out = out.data, .a = residual.data, .b = in.data};
    sago_mask_walk(device, residual_piece, &s, in, dropout, GRAIN);
    return SAGO_OK;
}
