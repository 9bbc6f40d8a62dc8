// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cpu_ops.h"
#include "dropout_mask.h"
#include "vector_math.h"

#include <math.h>

enum { GRAIN = 4096 };

/*
 * gelu(x) = x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); sqrt(8 / pi) (1 + 3 *
 * 0.044715 x^2) is the derivative of 2 u. All comes from e = exp(-|2 u|): then nothing cancels and nothing
 * overflows in either tail, and the sigmoid's slope is e / (1 + e)^2.
 */
typedef struct gelu_parts {
    float gate;  /* gelu(x) / x */
    float slope; /* gelu'(x) */
} gelu_parts;

static inline gelu_parts gelu_of(float x) {
    float square = x * x, twice = 1.59576912f * (x + 0.044715f * (x * square));
    float e = sago_exp(-fabsf(twice)), inverse = 1.0f / (1.0f + e), other = e * inverse;
    gelu_parts parts;
    parts.gate = twice < 0.0f ? other : inverse;
    parts.slope = parts.gate + x * (inverse * other) * (1.59576912f * (1.0f + 0.134145f * square));
    return parts;
}

/* The parts of an elementwise operation on one piece; keep is NULL without dropout. */
typedef struct streams {
    float *out, *out2;
    const float *a, *b, *c;
} streams;

typedef void piece_function(const streams *s, int64_t at, const float *keep, int64_t count);

static void relu_forward_piece(const streams *s, int64_t at, const float *keep, int64_t count) {
    float *y = s->out + at;
    const float *x = s->a + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float positive = x[i] < 0.0f ? 0.0f : x[i];
            y[i] = keep[i] > 0.0f ? positive * keep[i] : 0.0f;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = x[i] < 0.0f ? 0.0f : x[i];
    }
}

static void relu_backward_piece(const streams *s, int64_t at, const float *keep, int64_t count) {
    float *d_x = s->out + at;
    const float *d_y = s->a + at, *x = s->b + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float kept = keep[i] > 0.0f ? d_y[i] * keep[i] : 0.0f;
            d_x[i] = x[i] <= 0.0f ? 0.0f : kept;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) d_x[i] = x[i] <= 0.0f ? 0.0f : d_y[i];
    }
}

static void geglu_forward_piece(const streams *s, int64_t at, const float *keep, int64_t count) {
    float *y = s->out + at;
    const float *gate = s->a + at, *linear = s->b + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float value = gate[i] * gelu_of(gate[i]).gate * linear[i];
            y[i] = keep[i] > 0.0f ? value * keep[i] : 0.0f;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = gate[i] * gelu_of(gate[i]).gate * linear[i];
    }
}

static void geglu_backward_piece(const streams *s, int64_t at, const float *keep, int64_t count) {
    float *d_gate = s->out + at, *d_linear = s->out2 + at;
    const float *d_y = s->a + at, *gate = s->b + at, *linear = s->c + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = keep[i] > 0.0f ? d_y[i] * keep[i] : 0.0f;
            float x = gate[i], l = linear[i];
            gelu_parts gelu = gelu_of(x);
            d_linear[i] = d * (x * gelu.gate);
            d_gate[i] = d * l * gelu.slope;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = d_y[i], x = gate[i], l = linear[i];
            gelu_parts gelu = gelu_of(x);
            d_linear[i] = d * (x * gelu.gate);
            d_gate[i] = d * l * gelu.slope;
        }
    }
}

static void run(const sago_device *device, piece_function *function, const streams *s, sago_tensor like,
                const sago_dropout *dropout) {
    bool drops = dropout && dropout->rate > 0.0f;
    sago_mask mask = {0};
    if (drops) mask = sago_mask_make(dropout, like.shape[1], like.shape[2]);
    int64_t count = sago_tensor_count(like), n = sago_cpu_chunks(count, GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        int64_t end = sago_cpu_chunk_start(count, n, c + 1);
        float keep[SAGO_MASK_PIECE];
        for (int64_t at = sago_cpu_chunk_start(count, n, c); at < end; at += SAGO_MASK_PIECE) {
            int64_t piece = end - at < SAGO_MASK_PIECE ? end - at : SAGO_MASK_PIECE;
            if (drops) sago_mask_factors(keep, &mask, at, piece);
            function(s, at, drops ? keep : NULL, piece);
        }
    }
}

static bool alike(int n, const sago_tensor t[]) {
    for (int i = 1; i < n; i++)
        if (!sago_tensor_same_shape(t[0], t[i])) return false;
    return sago_all_dtype(SAGO_F32, n, t);
}

sago_status SAGO_CPU(relu_forward)(sago_device *device, sago_tensor y, sago_tensor x,
                                   const sago_dropout *dropout) {
    SAGO_TRY(sago_check_shapes(alike(SAGO_TENSORS(y, x)), "relu_forward", "f32 y, x, each [B, S, F]",
                               SAGO_TENSORS(y, x)));
    SAGO_TRY(sago_check_dropout(dropout, "relu_forward", y));
    run(device, relu_forward_piece, &(streams){.out = y.data, .a = x.data}, y, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(relu_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_y, sago_tensor x,
                                    const sago_dropout *dropout) {
    SAGO_TRY(sago_check_shapes(alike(SAGO_TENSORS(d_x, d_y, x)), "relu_backward",
                               "f32 d_x, d_y, x, each [B, S, F]", SAGO_TENSORS(d_x, d_y, x)));
    SAGO_TRY(sago_check_dropout(dropout, "relu_backward", x));
    run(device, relu_backward_piece, &(streams){.out = d_x.data, .a = d_y.data, .b = x.data}, x, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(geglu_forward)(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                    const sago_dropout *dropout) {
    SAGO_TRY(sago_check_shapes(alike(SAGO_TENSORS(y, gate, linear)), "geglu_forward",
                               "f32 y, gate, linear, each [B, S, F]", SAGO_TENSORS(y, gate, linear)));
    SAGO_TRY(sago_check_dropout(dropout, "geglu_forward", y));
    run(device, geglu_forward_piece, &(streams){.out = y.data, .a = gate.data, .b = linear.data}, y, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(geglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *dropout) {
    SAGO_TRY(sago_check_shapes(alike(SAGO_TENSORS(d_gate, d_linear, d_y, gate, linear)), "geglu_backward",
                               "f32 d_gate, d_linear, d_y, gate, linear, each [B, S, F]",
                               SAGO_TENSORS(d_gate, d_linear, d_y, gate, linear)));
    SAGO_TRY(sago_check_dropout(dropout, "geglu_backward", gate));
    streams s = {.out = d_gate.data, .out2 = d_linear.data, .a = d_y.data, .b = gate.data, .c = linear.data};
    run(device, geglu_backward_piece, &s, gate, dropout);
    return SAGO_OK;
}
