// SPDX-License-Identifier: Apache-2.0
/* Dropout, the residual sum, ReLU and GEGLU: one pass over memory each (elementwise.cuh);
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

/*
 * gelu(x) = x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); sqrt(8 / pi) (1 + 3 *
 * 0.044715 x^2) is the derivative of 2 u. All comes from e = exp(-|2 u|): then nothing cancels and nothing
 * overflows in either tail, and the sigmoid's slope is e / (1 + e)^2.
 */
struct gelu_parts {
    float gate;  /* gelu(x) / x */
    float slope; /* gelu'(x) */
};

template <typename T> static __device__ __forceinline__ gelu_parts gelu_of(float x) {
    /* What the short forms lose is far below bf16's own rounding; f32 has the time for exp and a division. */
    constexpr bool base2 = sizeof(T) == 2;
    constexpr float one = 1.59576912f * (base2 ? 1.44269504f : 1.0f), cube = 0.044715f * one;
    float square = x * x, twice = x * fmaf(cube, square, one);
    float e = base2 ? fast_exp2(-fabsf(twice)) : expf(-fabsf(twice));
    float inverse = base2 ? fast_inverse(1.0f + e) : 1.0f / (1.0f + e), other = e * inverse;
    gelu_parts parts;
    parts.gate = twice < 0.0f ? other : inverse;
    parts.slope = parts.gate + x * (inverse * other) * fmaf(0.21406444f, square, 1.59576912f);
    return parts;
}

template <typename T> struct geglu_forward {
    enum { IN = 2, OUT = 1 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        out[0] = kept(in[0] * gelu_of<T>(in[0]).gate * in[1], m);
    }
};

template <typename T> struct geglu_backward {
    enum { IN = 3, OUT = 2 };
    __device__ __forceinline__ void element(float out[], const float in[], masked m) const {
        float d = kept(in[0], m), x = in[1];
        gelu_parts gelu = gelu_of<T>(x);
        out[0] = d * in[2] * gelu.slope;
        out[1] = d * (x * gelu.gate);
    }
};

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
    streams s = {{y.data}, {gate.data, linear.data}};
    SAGO_BY_DTYPE(
        y, T, return (run_masked<geglu_forward<T>, T>(sago_gpu_of(device), geglu_forward<T>(), s, y, drops)));
}

sago_status SAGO_GPU(geglu_backward)(sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *drops) {
    SAGO_TRY(sago_fits_geglu_backward(device, d_gate, d_linear, d_y, gate, linear, drops));
    streams s = {{d_gate.data, d_linear.data}, {d_y.data, gate.data, linear.data}};
    SAGO_BY_DTYPE(
        gate, T,
        return (run_masked<geglu_backward<T>, T>(sago_gpu_of(device), geglu_backward<T>(), s, gate, drops)));
}
}
