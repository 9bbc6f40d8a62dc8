// SPDX-License-Identifier: Apache-2.0
/**
 * Four neighbouring elements of a row, some of which may lie past its end: one access where all four are
 * there and stand at a multiple of their size, else one by one. For whole rows without an end to look at: vec
 * of vector.cuh.
 */
#ifndef SAGO_QUAD_CUH
#define SAGO_QUAD_CUH

#include "dialect.cuh"

template <typename T> struct quad { T x[4]; };

/** The type that four elements are read as, and how they are written. */
template <typename T> struct quad_words;
template <> struct quad_words<float> {
    typedef float4 type;
    static __device__ __forceinline__ void store(float *to, const float x[4]) {
        store16(to, make_uint4(float_bits(x[0]), float_bits(x[1]), float_bits(x[2]), float_bits(x[3])));
    }
};
template <> struct quad_words<uint16_t> {
    typedef ushort4 type;
    static __device__ __forceinline__ void store(uint16_t *to, const uint16_t x[4]) {
        store8(to, make_uint2(x[0] | (uint32_t)x[1] << 16, x[2] | (uint32_t)x[3] << 16));
    }
};

/** The first `length` elements from `from` on (any number; at most 4 count), and `rest` for the others. */
template <typename T>
static __device__ __forceinline__ quad<T> quad_load(const T *from, int length, bool vector, T rest = T(0)) {
    quad<T> out = {{rest, rest, rest, rest}};
    if (vector && length >= 4) {
        typename quad_words<T>::type v = *reinterpret_cast<const typename quad_words<T>::type *>(from);
        out.x[0] = v.x, out.x[1] = v.y, out.x[2] = v.z, out.x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) out.x[i] = from[i];
    }
    return out;
}

/** The first `length` of v; elements past them are not touched. */
template <typename T>
static __device__ __forceinline__ void quad_store(T *to, const quad<T> &v, int length, bool vector) {
    if (vector && length >= 4) {
        quad_words<T>::store(to, v.x);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) to[i] = v.x[i];
    }
}

/** fp32 rounded to bf16 on the way. */
static __device__ __forceinline__ void quad_store(bf16 *to, const quad<float> &v, int length, bool vector) {
    if (vector && length >= 4) {
        store8(to, make_uint2(pack_bf16(v.x[0], v.x[1]), pack_bf16(v.x[2], v.x[3])));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) to[i] = from_float<bf16>(v.x[i]);
    }
}

#endif
