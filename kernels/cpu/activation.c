// SPDX-License-Identifier: Apache-2.0
#include "check_layers.h"
#include "cpu_ops.h"
#include "mask_walk.h"
#include "vector_math.h"

#include <math.h>

enum { GRAIN = 4096 };

/* An activation f at x, as gated layers use it. */
typedef struct gate_parts {
    float gate;  /* f(x) / x */
    float slope; /* f'(x) */
} gate_parts;
typedef gate_parts gate_function(float x);

/*
 * f(x) = x sigmoid(u), u a function of x. All comes from e = exp(-|u|): then nothing cancels and nothing
 * overflows in either tail, and the sigmoid's slope is e / (1 + e)^2.
 */
static inline gate_parts sigmoid_gate(float x, float u, float u_slope) {
    float e = sago_exp(-fabsf(u)), inverse = 1.0f / (1.0f + e), other = e * inverse;
    gate_parts parts;
    parts.gate = u < 0.0f ? other : inverse;
    parts.slope = parts.gate + x * (inverse * other) * u_slope;
    return parts;
}

/* gelu(x) = x / 2 (1 + tanh(u / 2)) = x sigmoid(u), u = sqrt(8 / pi) (x + 0.044715 x^3) */
static inline gate_parts gelu_of(float x) {
    float square = x * x;
    return sigmoid_gate(x, 1.59576912f * (x + 0.044715f * (x * square)),
                        1.59576912f * (1.0f + 0.134145f * square));
}

static inline gate_parts silu_of(float x) {
    return sigmoid_gate(x, x, 1.0f);
}

static void relu_forward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
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

static void relu_backward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
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

/* Inlined where the function is known, so that the loops are over its text. */
static inline __attribute__((always_inline)) void
gated_forward_piece(gate_function *f, const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    float *y = s->out + at;
    const float *gate = s->a + at, *linear = s->b + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float value = gate[i] * f(gate[i]).gate * linear[i];
            y[i] = keep[i] > 0.0f ? value * keep[i] : 0.0f;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) y[i] = gate[i] * f(gate[i]).gate * linear[i];
    }
}

static inline __attribute__((always_inline)) void
gated_backward_piece(gate_function *f, const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    float *d_gate = s->out + at, *d_linear = s->out2 + at;
    const float *d_y = s->a + at, *gate = s->b + at, *linear = s->c + at;
    if (keep) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = keep[i] > 0.0f ? d_y[i] * keep[i] : 0.0f;
            float x = gate[i], l = linear[i];
            gate_parts part = f(x);
            d_linear[i] = d * (x * part.gate);
            d_gate[i] = d * l * part.slope;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = d_y[i], x = gate[i], l = linear[i];
            gate_parts part = f(x);
            d_linear[i] = d * (x * part.gate);
            d_gate[i] = d * l * part.slope;
        }
    }
}

static void geglu_forward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    gated_forward_piece(gelu_of, s, at, keep, count);
}
static void geglu_backward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    gated_backward_piece(gelu_of, s, at, keep, count);
}
static void swiglu_forward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    gated_forward_piece(silu_of, s, at, keep, count);
}
static void swiglu_backward_piece(const sago_streams *s, int64_t at, const float *keep, int64_t count) {
    gated_backward_piece(silu_of, s, at, keep, count);
}

static void run_gated_forward(const sago_device *device, sago_piece_function *piece, sago_tensor y,
                              sago_tensor gate, sago_tensor linear, const sago_dropout *dropout) {
    sago_streams s = {.out = y.data, .a = gate.data, .b = linear.data};
    sago_mask_walk(device, piece, &s, y, dropout, GRAIN);
}

static void run_gated_backward(const sago_device *device, sago_piece_function *piece, sago_tensor d_gate,
                               sago_tensor d_linear, sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                               const sago_dropout *dropout) {
    sago_streams s = {
        .out = d_gate.data, .out2 = d_linear.data, .a = d_y.data, .b = gate.data, .c = linear.data};
    sago_mask_walk(device, piece, &s, gate, dropout, GRAIN);
}

sago_status SAGO_CPU(relu_forward)(sago_device *device, sago_tensor y, sago_tensor x,
                                   const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_relu_forward(device, y, x, dropout));
    sago_streams s = {.out = y.data, .a = x.data};
    sago_mask_walk(device, relu_forward_piece, &s, y, dropout, GRAIN);
    return SAGO_OK;
}

sago_status SAGO_CPU(relu_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_y, sago_tensor x,
                                    const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_relu_backward(device, d_x, d_y, x, dropout));
    sago_streams s = {.out = d_x.data, .a = d_y.data, .b = x.data};
    sago_mask_walk(device, relu_backward_piece, &s, x, dropout, GRAIN);
    return SAGO_OK;
}

sago_status SAGO_CPU(geglu_forward)(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                    const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_geglu_forward(device, y, gate, linear, dropout));
    run_gated_forward(device, geglu_forward_piece, y, gate, linear, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(geglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_geglu_backward(device, d_gate, d_linear, d_y, gate, linear, dropout));
    run_gated_backward(device, geglu_backward_piece, d_gate, d_linear, d_y, gate, linear, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(swiglu_forward)(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_swiglu_forward(device, y, gate, linear, dropout));
    run_gated_forward(device, swiglu_forward_piece, y, gate, linear, dropout);
    return SAGO_OK;
}

sago_status SAGO_CPU(swiglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *dropout) {
    SAGO_TRY(sago_fits_swiglu_backward(device, d_gate, d_linear, d_y, gate, linear, dropout));
    run_gated_backward(device, swiglu_backward_piece, d_gate, d_linear, d_y, gate, linear, dropout);
    return SAGO_OK;
}
