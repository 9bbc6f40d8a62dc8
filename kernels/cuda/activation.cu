// SPDX-License-Identifier: Apache-2.0
/* Dropout, the residual sum, ReLU, GEGLU and SwiGLU: one pass over memory each (elementwise.cuh);
 * docs/kernels/activations.md. */
#include "elementwise.cuh"

#include "check_layers.h"
#include "gpu_ops.h"

struct dropout {
    enum { IN = 1, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = kept(in[0], m);
    }
};

struct residual {
    enum { IN = 2, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = in[0] + kept(in[1], m);
    }
};

struct relu_forward {
    enum { IN = 1, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = kept(in[0] < 0.0f ? 0.0f : in[0], m); /* so that NaN stays */
    }
};

struct relu_backward {
    enum { IN = 2, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = in[1] <= 0.0f ? 0.0f : kept(in[0], m);
    }
};

/* 1 / x to 1 ulp, for x that is neither tiny nor huge: one instruction where a division takes ten. */
static __device__ __forceinline__ float fast_inverse(float x) {
#ifdef SAGO_SIM
    return 1.0f / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* An activation f at x, as gated layers use it. */
struct gate_parts {
    float gate;  /* f(x) / x */
    float slope; /* f'(x) */
};

/* What the short forms of exp and 1 / x lose is far below bf16's own rounding; f32 has the time for the long
 * ones. */
template <typename T> struct short_forms {
    enum { USED = sizeof(T) == 2 };
    static constexpr float unit = USED ? 1.44269504f : 1.0f; /* u in this unit: exp2 wants log2(e) u */
};

/*
 * f(x) = x sigmoid(u), u a function of x in short_forms' unit, u_slope its derivative in 1. All comes from
 * e = exp(-|u|): then nothing cancels and nothing overflows in either tail, and the sigmoid's slope is
 * e / (1 + e)^2.
 */
template <typename T>
static __device__ __forceinline__ gate_parts sigmoid_gate(float x, float u, float u_slope) {
    constexpr bool shorter = short_forms<T>::USED;
    float e = shorter ? fast_exp2(-fabsf(u)) : expf(-fabsf(u));
    float inverse = shorter ? fast_inverse(1.0f + e) : 1.0f / (1.0f + e), other = e * inverse;
    gate_parts parts;
    parts.gate = u < 0.0f ? other : inverse;
    parts.slope = parts.gate + x * (inverse * other) * u_slope;
    return parts;
}

/* gelu(x) = x / 2 (1 + tanh(u / 2)) = x sigmoid(u), u = sqrt(8 / pi) (x + 0.044715 x^3) */
struct gelu {
    template <typename T> static __device__ __forceinline__ gate_parts of(float x) {
        constexpr float one = 1.59576912f * short_forms<T>::unit, cube = 0.044715f * one;
        float square = x * x;
        return sigmoid_gate<T>(x, x * fmaf(cube, square, one), fmaf(0.21406444f, square, 1.59576912f));
    }
};

struct silu {
    template <typename T> static __device__ __forceinline__ gate_parts of(float x) {
        return sigmoid_gate<T>(x, x * short_forms<T>::unit, 1.0f);
    }
};

template <typename F, typename T> struct gated_forward {
    enum { IN = 2, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = kept(in[0] * F::template of<T>(in[0]).gate * in[1], m);
    }
};

template <typename F, typename T> struct gated_backward {
    enum { IN = 3, OUT = 2 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        float d = kept(in[0], m), x = in[1];
        gate_parts parts = F::template of<T>(x);
        out[0] = d * in[2] * parts.slope;
        out[1] = d * (x * parts.gate);
    }
};

template <typename F>
static sago_status run_gated_forward(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *drops) {
    streams s = {{y.data}, {gate.data, linear.data}};
    SAGO_BY_DTYPE(
        y, T,
        return (run_masked<gated_forward<F, T>, T>(sago_gpu_of(device), gated_forward<F, T>(), s, y, drops)));
}

template <typename F>
static sago_status run_gated_backward(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *drops) {
    streams s = {{d_gate.data, d_linear.data}, {d_y.data, gate.data, linear.data}};
    SAGO_BY_DTYPE(gate, T,
                  return (run_masked<gated_backward<F, T>, T>(sago_gpu_of(device), gated_backward<F, T>(), s,
                                                              gate, drops)));
}

extern "C" {

sago_status SAGO_GPU(dropout)(sago_device *device, sago_tensor out, sago_tensor in,
                              const sago_dropout *drops) {
    SAGO_TRY(sago_fits_dropout(device, out, in, drops));
    streams s = {{out.data}, {in.data}};
    if (out.data == in.data && (!drops || drops->rate == 0.0f)) return SAGO_OK;
    SAGO_BY_DTYPE(in, T, return (run_masked<dropout, T>(sago_gpu_of(device), dropout(), s, in, drops)));
}

sago_status SAGO_GPU(residual)(sago_device *device, sago_tensor out, sago_tensor base, sago_tensor in,
                               const sago_dropout *drops) {
    SAGO_TRY(sago_fits_residual(device, out, base, in, drops));
    streams s = {{out.data}, {base.data, in.data}};
    SAGO_BY_DTYPE(in, T, return (run_masked<residual, T>(sago_gpu_of(device), residual(), s, in, drops)));
}

sago_status SAGO_GPU(relu_forward)(sago_device *device, sago_tensor y, sago_tensor x,
                                   const sago_dropout *drops) {
    SAGO_TRY(sago_fits_relu_forward(device, y, x, drops));
    streams s = {{y.data}, {x.data}};
    SAGO_BY_DTYPE(x, T,
                  return (run_masked<relu_forward, T>(sago_gpu_of(device), relu_forward(), s, x, drops)));
}

sago_status SAGO_GPU(relu_backward)(sago_device *device, sago_tensor d_x, sago_tensor d_y, sago_tensor x,
                                    const sago_dropout *drops) {
    SAGO_TRY(sago_fits_relu_backward(device, d_x, d_y, x, drops));
    streams s = {{d_x.data}, {d_y.data, x.data}};
    SAGO_BY_DTYPE(x, T,
                  return (run_masked<relu_backward, T>(sago_gpu_of(device), relu_backward(), s, x, drops)));
}

sago_status SAGO_GPU(geglu_forward)(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                    const sago_dropout *drops) {
    SAGO_TRY(sago_fits_geglu_forward(device, y, gate, linear, drops));
    return run_gated_forward<gelu>(device, y, gate, linear, drops);
}

sago_status SAGO_GPU(geglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *drops) {
    SAGO_TRY(sago_fits_geglu_backward(device, d_gate, d_linear, d_y, gate, linear, drops));
    return run_gated_backward<gelu>(device, d_gate, d_linear, d_y, gate, linear, drops);
}

sago_status SAGO_GPU(swiglu_forward)(sago_device *device, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *drops) {
    SAGO_TRY(sago_fits_swiglu_forward(device, y, gate, linear, drops));
    return run_gated_forward<silu>(device, y, gate, linear, drops);
}

sago_status SAGO_GPU(swiglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *drops) {
    SAGO_TRY(sago_fits_swiglu_backward(device, d_gate, d_linear, d_y, gate, linear, drops));
    return run_gated_backward<silu>(device, d_gate, d_linear, d_y, gate, linear, drops);
}
}
