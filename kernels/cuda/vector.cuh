// SPDX-License-Identifier: Apache-2.0
/**
 * Several neighbouring elements of global memory in one access: 16 bytes a thread are what keeps a GPU's
 * memory busy.
 */
#ifndef SAGO_VECTOR_CUH
#define SAGO_VECTOR_CUH

#include "dialect.cuh"

/**
 * N elements of T, as they lie in memory: 4, 8 or 16 bytes' multiple, or a single element. Loads and stores
 * want an address that is a multiple of the size (of 16 where it is larger). Kept as words until used, a bf16
 * takes half a register.
 */
template <typename T, int N> struct vec {
    uint32_t words[N * sizeof(T) / 4];

    __device__ __forceinline__ void load(const T *from) {
        constexpr int n = N * (int)sizeof(T) / 4;
        if constexpr (n % 4 == 0) {
#pragma unroll
            for (int i = 0; i < n / 4; i++) {
                uint4 part = reinterpret_cast<const uint4 *>(from)[i];
                words[4 * i] = part.x, words[4 * i + 1] = part.y, words[4 * i + 2] = part.z;
                words[4 * i + 3] = part.w;
            }
        } else if constexpr (n == 2) {
            uint2 part = *reinterpret_cast<const uint2 *>(from);
            words[0] = part.x, words[1] = part.y;
        } else {
            words[0] = *reinterpret_cast<const uint32_t *>(from);
        }
    }
    __device__ __forceinline__ void store(T *to) const {
        constexpr int n = N * (int)sizeof(T) / 4;
        if constexpr (n % 4 == 0) {
#pragma unroll
            for (int i = 0; i < n / 4; i++)
                store16(reinterpret_cast<uint4 *>(to) + i,
                        make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]));
        } else if constexpr (n == 2) {
            store8(to, make_uint2(words[0], words[1]));
        } else {
            *reinterpret_cast<uint32_t *>(to) = words[0];
        }
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < N * (int)sizeof(T) / 4; i++) words[i] = 0;
    }
    /** Unpacks anew from here on: kept unpacked from one use to the next, bf16 values would take twice the
     * registers. */
    __device__ __forceinline__ void keep_packed() {
        if constexpr (sizeof(T) == 2) {
#pragma unroll
            for (int i = 0; i < N / 2; i++) asm volatile("" : "+r"(words[i]));
        }
    }
    __device__ __forceinline__ float get(int i) const {
        if constexpr (sizeof(T) == 4) return bits_float(words[i]);
        uint32_t pair = words[i / 2];
        return bits_float(i % 2 ? pair & 0xffff0000u : pair << 16);
    }
    __device__ __forceinline__ void set(const float from[N]) {
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int i = 0; i < N; i++) words[i] = float_bits(from[i]);
        } else {
#pragma unroll
            for (int i = 0; i < N / 2; i++) words[i] = pack_bf16(from[2 * i], from[2 * i + 1]);
        }
    }
};

template <typename T> struct vec<T, 1> {
    T value;
    __device__ __forceinline__ void load(const T *from) { value = *from; }
    __device__ __forceinline__ void store(T *to) const { *to = value; }
    __device__ __forceinline__ void clear() { value = from_float<T>(0.0f); }
    __device__ __forceinline__ float get(int) const { return to_float(value); }
    __device__ __forceinline__ void set(const float from[1]) { value = from_float<T>(from[0]); }
};

/** Elements of T in 16 bytes. */
template <typename T> struct lanes_of {
    enum { COUNT = 16 / sizeof(T) };
};

/** May memory be read 16 bytes at a time? */
static inline bool is_aligned16(const void *memory) {
    return ((uintptr_t)memory & 15) == 0;
}

/** Blocks of a grid that strides over `tiles` pieces of work: no more than the GPU runs at a time. */
static inline unsigned persistent_blocks(const sago_gpu *gpu, int64_t tiles, int blocks_a_multiprocessor) {
    int64_t most = (int64_t)gpu->properties.multiprocessors * blocks_a_multiprocessor;
    return (unsigned)(tiles < most ? tiles : most);
}

#endif
