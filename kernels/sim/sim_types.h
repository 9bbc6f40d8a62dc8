// SPDX-License-Identifier: Apache-2.0
/**
 * What CUDA gives a kernel without any other thread taking part, for the host's compiler: words of the
 * language, vector types, bf16, arithmetic. Part of sim.h.
 */
#ifndef SAGO_SIM_TYPES_H
#define SAGO_SIM_TYPES_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

/* --- words of the language ------------------------------------------------------------------------------ */

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)

/* --- vector types --------------------------------------------------------------------------------------- */

#define SAGO_SIM_VECTOR2(type, name, align)                                                                  \
    struct __attribute__((aligned(align))) name {                                                            \
        type x, y;                                                                                           \
    };                                                                                                       \
    static inline name make_##name(type x, type y) {                                                         \
        return name{x, y};                                                                                   \
    }
#define SAGO_SIM_VECTOR3(type, name)                                                                         \
    struct name {                                                                                            \
        type x, y, z;                                                                                        \
    };                                                                                                       \
    static inline name make_##name(type x, type y, type z) {                                                 \
        return name{x, y, z};                                                                                \
    }
#define SAGO_SIM_VECTOR4(type, name, align)                                                                  \
    struct __attribute__((aligned(align))) name {                                                            \
        type x, y, z, w;                                                                                     \
    };                                                                                                       \
    static inline name make_##name(type x, type y, type z, type w) {                                         \
        return name{x, y, z, w};                                                                             \
    }

typedef unsigned int uint;
SAGO_SIM_VECTOR2(int, int2, 8)
SAGO_SIM_VECTOR2(unsigned, uint2, 8)
SAGO_SIM_VECTOR2(float, float2, 8)
SAGO_SIM_VECTOR2(short, short2, 4)
SAGO_SIM_VECTOR2(unsigned short, ushort2, 4)
SAGO_SIM_VECTOR2(double, double2, 16)
SAGO_SIM_VECTOR2(long long, longlong2, 16)
SAGO_SIM_VECTOR2(unsigned long long, ulonglong2, 16)
SAGO_SIM_VECTOR3(int, int3)
SAGO_SIM_VECTOR3(unsigned, uint3)
SAGO_SIM_VECTOR3(float, float3)
SAGO_SIM_VECTOR4(int, int4, 16)
SAGO_SIM_VECTOR4(unsigned, uint4, 16)
SAGO_SIM_VECTOR4(float, float4, 16)
SAGO_SIM_VECTOR4(short, short4, 8)
SAGO_SIM_VECTOR4(unsigned short, ushort4, 8)
#undef SAGO_SIM_VECTOR2
#undef SAGO_SIM_VECTOR3
#undef SAGO_SIM_VECTOR4

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* --- bits ----------------------------------------------------------------------------------------------- */

namespace sago_sim {
template <typename To, typename From> static inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "types of one size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace sago_sim

static inline uint32_t __float_as_uint(float x) {
    return sago_sim::same_bits<uint32_t>(x);
}
static inline int __float_as_int(float x) {
    return sago_sim::same_bits<int>(x);
}
static inline float __uint_as_float(uint32_t x) {
    return sago_sim::same_bits<float>(x);
}
static inline float __int_as_float(int x) {
    return sago_sim::same_bits<float>(x);
}
static inline long long __double_as_longlong(double x) {
    return sago_sim::same_bits<long long>(x);
}
static inline double __longlong_as_double(long long x) {
    return sago_sim::same_bits<double>(x);
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __mulhi(int a, int b) {
    return (int)((int64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}

/* --- bf16: the upper half of a float -------------------------------------------------------------------- */

/* No conversions of its own: kernels say to_float and from_float. */
struct bf16 {
    uint16_t bits;
};

static inline uint32_t float_bits(float x) {
    return __float_as_uint(x);
}
static inline float bits_float(uint32_t x) {
    return __uint_as_float(x);
}

static inline float to_float(float x) {
    return x;
}
static inline float to_float(bf16 x) {
    return bits_float((uint32_t)x.bits << 16);
}
template <typename T> static inline T from_float(float x);
template <> inline float from_float<float>(float x) {
    return x;
}
/** Round to nearest even; every NaN becomes 0x7fff, as on the device. */
template <> inline bf16 from_float<bf16>(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
    return bf16{(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
static inline uint32_t pack_bf16(float lo, float hi) {
    return (uint32_t)from_float<bf16>(lo).bits | (uint32_t)from_float<bf16>(hi).bits << 16;
}

/* --- arithmetic ----------------------------------------------------------------------------------------- */

/* As the C library's, without the call. */
namespace sago_sim {
static inline float larger(float a, float b) {
    return a > b || b != b ? a : b;
}
static inline float smaller(float a, float b) {
    return a < b || b != b ? a : b;
}
} // namespace sago_sim
#define fmaxf(a, b) sago_sim::larger(a, b)
#define fminf(a, b) sago_sim::smaller(a, b)

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;
static inline float max(float a, float b) {
    return fmaxf(a, b);
}
static inline float min(float a, float b) {
    return fminf(a, b);
}
static inline double max(double a, double b) {
    return fmax(a, b);
}
static inline double min(double a, double b) {
    return fmin(a, b);
}

static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
/* The C library has hidden functions of these names. */
#define __expf(x)    expf(x)
#define __logf(x)    logf(x)
#define __log2f(x)   log2f(x)
#define __sinf(x)    sinf(x)
#define __cosf(x)    cosf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float x, float y) {
    return x / y;
}
static inline float __frcp_rn(float x) {
    return 1.0f / x;
}
static inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
static inline float __fadd_rn(float x, float y) {
    return x + y;
}
static inline float __fsub_rn(float x, float y) {
    return x - y;
}
static inline float __fmul_rn(float x, float y) {
    return x * y;
}
static inline float __fdiv_rn(float x, float y) {
    return x / y;
}
static inline float __fmaf_rn(float x, float y, float z) {
    return fmaf(x, y, z);
}
static inline double __dadd_rn(double x, double y) {
    return x + y;
}
static inline double __dmul_rn(double x, double y) {
    return x * y;
}
static inline double __fma_rn(double x, double y, double z) {
    return fma(x, y, z);
}
static inline float __saturatef(float x) {
    return x > 0.0f ? fminf(x, 1.0f) : 0.0f;
}
static inline float __int2float_rn(int x) {
    return (float)x;
}
static inline float __uint2float_rn(unsigned x) {
    return (float)x;
}
static inline int __float2int_rn(float x) {
    return (int)nearbyintf(x);
}
static inline int __float2int_rz(float x) {
    return (int)x;
}
static inline float __double2float_rn(double x) {
    return (float)x;
}

/** 2^x; subnormal numbers are zero on both sides, as the device's instruction has it. */
static inline float fast_exp2(float x) {
    float y = exp2f(std::fabs(x) < 1.17549435e-38f ? 0.0f : x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

/* --- memory --------------------------------------------------------------------------------------------- */

template <typename T> static inline T __ldg(const T *at) {
    return *at;
}
template <typename T> static inline T __ldcg(const T *at) {
    return *at;
}
template <typename T> static inline T __ldcs(const T *at) {
    return *at;
}
template <typename T> static inline T __ldlu(const T *at) {
    return *at;
}
template <typename T> static inline void __stcg(T *at, T value) {
    *at = value;
}
template <typename T> static inline void __stcs(T *at, T value) {
    *at = value;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* Of whole numbers alone: their order does not matter to the result. */
#define SAGO_SIM_ATOMIC(type, name, expression)                                                              \
    static inline type name(type *at, type value) {                                                          \
        type old = *at;                                                                                      \
        *at = (type)(expression);                                                                            \
        return old;                                                                                          \
    }
#define SAGO_SIM_ATOMICS(type)                                                                               \
    SAGO_SIM_ATOMIC(type, atomicAdd, old + value)                                                            \
    SAGO_SIM_ATOMIC(type, atomicMax, old > value ? old : value)                                              \
    SAGO_SIM_ATOMIC(type, atomicMin, old < value ? old : value)                                              \
    SAGO_SIM_ATOMIC(type, atomicOr, old | value)                                                             \
    SAGO_SIM_ATOMIC(type, atomicAnd, old &value)                                                             \
    SAGO_SIM_ATOMIC(type, atomicExch, value)                                                                 \
    static inline type atomicCAS(type *at, type compare, type value) {                                       \
        type old = *at;                                                                                      \
        if (old == compare) *at = value;                                                                     \
        return old;                                                                                          \
    }
SAGO_SIM_ATOMICS(int)
SAGO_SIM_ATOMICS(unsigned)
SAGO_SIM_ATOMICS(unsigned long long)
#undef SAGO_SIM_ATOMICS
#undef SAGO_SIM_ATOMIC

#endif
