// SPDX-License-Identifier: Apache-2.0
/**
 * A vector of floats as wide as the instruction set at hand has it, by the compiler's vector extension. LANES
 * is the width; PRODUCT_ROWS x PRODUCT_PANELS vectors are the block of sums that a small matrix product keeps
 * in registers.
 */
#ifndef SAGO_VECTOR_H
#define SAGO_VECTOR_H

#include "vector_math.h"

#include <stdint.h>
#if defined(__AVX512F__)
#include <immintrin.h>
enum {
    LANES = 16,
    PRODUCT_ROWS = 8,
    PRODUCT_PANELS = 2
}; /* 16 sums of 32 registers, 10 loads per 16 products */
#elif defined(__AVX2__)
#include <immintrin.h>
enum {
    LANES = 8,
    PRODUCT_ROWS = 4,
    PRODUCT_PANELS = 3
}; /* 12 sums of 16 registers, 7 loads per 12 products */
#else
enum { LANES = 4, PRODUCT_ROWS = 4, PRODUCT_PANELS = 2 };
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* Lane i gets lane i ^ flip. */
#if defined(__AVX512F__)
#define VEC_FLIP(x, flip)                                                                                    \
    __builtin_shufflevector(x, x, 0 ^ (flip), 1 ^ (flip), 2 ^ (flip), 3 ^ (flip), 4 ^ (flip), 5 ^ (flip),    \
                            6 ^ (flip), 7 ^ (flip), 8 ^ (flip), 9 ^ (flip), 10 ^ (flip), 11 ^ (flip),        \
                            12 ^ (flip), 13 ^ (flip), 14 ^ (flip), 15 ^ (flip))
#elif defined(__AVX2__)
#define VEC_FLIP(x, flip)                                                                                    \
    __builtin_shufflevector(x, x, 0 ^ (flip), 1 ^ (flip), 2 ^ (flip), 3 ^ (flip), 4 ^ (flip), 5 ^ (flip),    \
                            6 ^ (flip), 7 ^ (flip))
#else
#define VEC_FLIP(x, flip) __builtin_shufflevector(x, x, 0 ^ (flip), 1 ^ (flip), 2 ^ (flip), 3 ^ (flip))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vec vec_load(const float *from) {
    return *(const vec_unaligned *)from;
}
ALWAYS_INLINE void vec_store(float *to, vec x) {
    *(vec_unaligned *)to = x;
}
ALWAYS_INLINE vec vec_splat(float x) {
    return x - (vec){0};
}

/** mask lanes are all ones or all zeros, as comparisons give them. */
ALWAYS_INLINE vec vec_select(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/** The larger of each lane; b's where either is NaN. */
ALWAYS_INLINE vec vec_max(vec a, vec b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b); /* the compiler makes three instructions of the general form */
#else
    return vec_select(a > b, a, b);
#endif
}

/** Sum and largest of the lanes, always in the same order: halves meet until one lane is left. */
#define VEC_FOLD(name, meet)                                                                                 \
    ALWAYS_INLINE float name(vec x) {                                                                        \
        VEC_FOLD_WIDE(meet)                                                                                  \
        x = meet(x, VEC_FLIP(x, 2));                                                                         \
        x = meet(x, VEC_FLIP(x, 1));                                                                         \
        return x[0];                                                                                         \
    }
#if defined(__AVX512F__)
#define VEC_FOLD_WIDE(meet)                                                                                  \
    x = meet(x, VEC_FLIP(x, 8));                                                                             \
    x = meet(x, VEC_FLIP(x, 4));
#elif defined(__AVX2__)
#define VEC_FOLD_WIDE(meet) x = meet(x, VEC_FLIP(x, 4));
#else
#define VEC_FOLD_WIDE(meet)
#endif
ALWAYS_INLINE vec vec_add(vec a, vec b) {
    return a + b;
}
VEC_FOLD(vec_sum, vec_add)
VEC_FOLD(vec_largest, vec_max)

/* Lanes of a and b in turn, `half` of each. At even multiples of half stand a's: the first ones of each 2 *
 * half lanes, or the second ones; at odd multiples b's. */
#define VEC_FIRST_LANE(i, half)  ((i) / (half) % 2 == 0 ? (i) : LANES + (i) - (half))
#define VEC_SECOND_LANE(i, half) (VEC_FIRST_LANE(i, half) + (half))
#if defined(__AVX512F__)
#define VEC_LANES(lane, half)                                                                                \
    lane(0, half), lane(1, half), lane(2, half), lane(3, half), lane(4, half), lane(5, half), lane(6, half), \
        lane(7, half), lane(8, half), lane(9, half), lane(10, half), lane(11, half), lane(12, half),         \
        lane(13, half), lane(14, half), lane(15, half)
#elif defined(__AVX2__)
#define VEC_LANES(lane, half)                                                                                \
    lane(0, half), lane(1, half), lane(2, half), lane(3, half), lane(4, half), lane(5, half), lane(6, half), \
        lane(7, half)
#else
#define VEC_LANES(lane, half) lane(0, half), lane(1, half), lane(2, half), lane(3, half)
#endif

#define VEC_MEET(a, b, which, half) __builtin_shufflevector(a, b, VEC_LANES(VEC_##which##_LANE, half))

/* Halves of `half` lanes are added to each other: 2 * half vectors become half vectors. */
#define VEC_HALVE(x, half)                                                                                   \
    _Pragma("GCC unroll 8") for (int i = 0; i < (half); i++) x[i] =                                          \
        VEC_MEET(x[i], x[i + (half)], FIRST, half) + VEC_MEET(x[i], x[i + (half)], SECOND, half);

/** Lane i is vec_sum(x[i]), bit for bit, for a quarter of the work. */
ALWAYS_INLINE vec vec_sums(const vec x[LANES]) {
    vec t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) t[i] = x[i];
#if defined(__AVX512F__)
    VEC_HALVE(t, 8)
#endif
#if defined(__AVX2__)
    VEC_HALVE(t, 4)
#endif
    VEC_HALVE(t, 2)
    VEC_HALVE(t, 1)
    return t[0];
}

static inline int64_t lanes_up(int64_t n) {
    return (n + LANES - 1) / LANES * LANES;
}
static inline int64_t lanes_down(int64_t n) {
    return n / LANES * LANES;
}

#endif
