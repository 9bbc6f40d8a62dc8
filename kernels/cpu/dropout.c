// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cpu_ops.h"
#include "dropout_mask.h"

enum { GRAIN = 8192 };

static void residual_piece(float *out, const float *residual, const float *in, const float *keep,
                           int64_t count) {
    if (keep && residual) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = residual[i] + (keep[i] > 0.0f ? in[i] * keep[i] : 0.0f);
    } else if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = keep[i] > 0.0f ? in[i] * keep[i] : 0.0f;
    } else if (residual) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) out[i] = residual[i] + in[i];
    } else if (out != in) {
        for (int64_t i = 0; i < count; i++) out[i] = in[i];
    }
}

/* residual may be NULL: none. */
static void apply(const sago_device *device, float *out, const float *residual, sago_tensor in,
                  const sago_dropout *dropout) {
    const float *x = in.data;
    bool drops = dropout && dropout->rate > 0.0f;
    sago_mask mask = {0};
    if (drops) mask = sago_mask_make(dropout, in.shape[1], in.shape[2]);
    int64_t count = sago_tensor_count(in), n = sago_cpu_chunks(count, GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        int64_t end = sago_cpu_chunk_start(count, n, c + 1);
        float keep[SAGO_MASK_PIECE];
        for (int64_t at = sago_cpu_chunk_start(count, n, c); at < end; at += SAGO_MASK_PIECE) {
            int64_t piece = end - at < SAGO_MASK_PIECE ? end - at : SAGO_MASK_PIECE;
            if (drops) sago_mask_factors(keep, &mask, at, piece);
            residual_piece(out + at, residual ? residual + at : NULL, x + at, drops ? keep : NULL, piece);
        }
    }
}

sago_status SAGO_CPU(dropout)(sago_device *device, sago_tensor out, sago_tensor in,
                              const sago_dropout *dropout) {
    SAGO_TRY(
        sago_check_shapes(sago_all_dtype(SAGO_F32, SAGO_TENSORS(out, in)) && sago_tensor_same_shape(out, in),
                          "dropout", "f32 out[B, S, D], in[B, S, D]", SAGO_TENSORS(out, in)));
    SAGO_TRY(sago_check_dropout(dropout, "dropout", in));
    apply(device, out.data, NULL, in, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(residual)(sago_device *device, sago_tensor out, sago_tensor residual, sago_tensor in,
                               const sago_dropout *dropout) {
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(out, residual, in)) &&
                sago_tensor_same_shape(out, in) && sago_tensor_same_shape(residual, in);
    SAGO_TRY(sago_check_shapes(fits, "residual", "f32 out, residual, in, each [B, S, D]",
                               SAGO_TENSORS(out, residual, in)));
    SAGO_TRY(sago_check_dropout(dropout, "residual", in));
    apply(device, out.data, residual.data, in, dropout);
    return SAGO_OK;
}
