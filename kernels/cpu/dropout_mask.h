// SPDX-License-Identifier: Apache-2.0
/**
 * Dropout masks as loops use them: a factor an element, 0 for dropped ones and 1 / (1 - rate) for kept ones.
 * ops.h says which word of Philox4x32-10 (rng.h) belongs to which element; here sixteen counters run side by
 * side, so that the compiler turns them into vectors.
 */
#ifndef SAGO_DROPOUT_MASK_H
#define SAGO_DROPOUT_MASK_H

#include "mask.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SAGO_MASK_WORDS = 64, SAGO_MASK_PIECE = 1024 };

/*
 * Philox multiplies 32-bit words into 64 bits. Each word stands in the low half of a 64-bit lane; the upper
 * half may hold anything, since the multiplication that every x86-64 has for such lanes doesn't look at it.
 */
#if defined(__AVX512F__)
typedef uint64_t sago_lanes __attribute__((vector_size(64)));
static inline __attribute__((always_inline)) sago_lanes sago_lanes_multiply(sago_lanes a, sago_lanes b) {
    return (sago_lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
#define SAGO_LANES_FRONT(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define SAGO_LANES_BACK(a, b)  __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif defined(__AVX2__)
typedef uint64_t sago_lanes __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) sago_lanes sago_lanes_multiply(sago_lanes a, sago_lanes b) {
    return (sago_lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#define SAGO_LANES_FRONT(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define SAGO_LANES_BACK(a, b)  __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif defined(__SSE2__)
typedef uint64_t sago_lanes __attribute__((vector_size(16)));
static inline __attribute__((always_inline)) sago_lanes sago_lanes_multiply(sago_lanes a, sago_lanes b) {
    return (sago_lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
}
#else
typedef uint64_t sago_lanes __attribute__((vector_size(16)));
static inline __attribute__((always_inline)) sago_lanes sago_lanes_multiply(sago_lanes a, sago_lanes b) {
    return (a & UINT32_MAX) * (b & UINT32_MAX);
}
#endif
#if !defined(__AVX2__)
#define SAGO_LANES_FRONT(a, b) __builtin_shufflevector(a, b, 0, 2)
#define SAGO_LANES_BACK(a, b)  __builtin_shufflevector(a, b, 1, 3)
#endif

enum {
    SAGO_MASK_LANES = sizeof(sago_lanes) / sizeof(uint64_t),
    SAGO_MASK_VECTORS = SAGO_MASK_WORDS / 4 / SAGO_MASK_LANES, /* side by side, to fill the multiplier */
};

/** Words of the 64 elements from 4 * counter on. */
static inline void sago_mask_words(uint32_t out[SAGO_MASK_WORDS], uint64_t key, uint64_t counter) {
    sago_lanes c0[SAGO_MASK_VECTORS], c1[SAGO_MASK_VECTORS], c2[SAGO_MASK_VECTORS], c3[SAGO_MASK_VECTORS];
    const sago_lanes zero = {0};
    static const uint64_t ascending[] = {0, 1, 2, 3, 4, 5, 6, 7};
    sago_lanes steps;
    memcpy(&steps, ascending, sizeof steps);
    for (int v = 0; v < SAGO_MASK_VECTORS; v++) {
        c0[v] = steps + (counter + (uint64_t)(v * SAGO_MASK_LANES));
        c1[v] = c0[v] >> 32;
        c2[v] = zero, c3[v] = zero;
    }
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        sago_lanes add0 = zero + k0, add1 = zero + k1;
#pragma GCC unroll 8
        for (int v = 0; v < SAGO_MASK_VECTORS; v++) {
            sago_lanes p0 = sago_lanes_multiply(c0[v], zero + 0xD2511F53u);
            sago_lanes p1 = sago_lanes_multiply(c2[v], zero + 0xCD9E8D57u);
            c0[v] = (p1 >> 32) ^ c1[v] ^ add0, c2[v] = (p0 >> 32) ^ c3[v] ^ add1;
            c1[v] = p1, c3[v] = p0;
        }
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    for (int v = 0; v < SAGO_MASK_VECTORS; v++) {
        /* Words 0, 1 and words 2, 3 of each counter; in memory they alternate. */
        sago_lanes low = (c0[v] & UINT32_MAX) | c1[v] << 32, high = (c2[v] & UINT32_MAX) | c3[v] << 32;
        sago_lanes front = SAGO_LANES_FRONT(low, high), back = SAGO_LANES_BACK(low, high);
        memcpy(out + 4 * v * SAGO_MASK_LANES, &front, sizeof front);
        memcpy(out + (4 * v + 2) * SAGO_MASK_LANES, &back, sizeof back);
    }
}

/** Factors of count elements from a global index on (the i of sago_dropout in ops.h). */
static inline void sago_mask_run(float *out, const sago_mask *mask, int64_t index, int64_t count) {
    uint32_t words[SAGO_MASK_WORDS];
    for (int64_t done = 0; done < count;) {
        int64_t skip = (index + done) & 3;
        int64_t n = SAGO_MASK_WORDS - skip;
        sago_mask_words(words, mask->key, (uint64_t)(index + done) >> 2);
        if (n > count - done) n = count - done;
        uint32_t threshold = mask->threshold;
        float factor = mask->factor;
        float *to = out + done;
        const uint32_t *from = words + skip;
        if (n == SAGO_MASK_WORDS) {
#pragma omp simd
            for (int i = 0; i < SAGO_MASK_WORDS; i++) to[i] = from[i] >= threshold ? factor : 0.0f;
        } else {
            for (int64_t i = 0; i < n; i++) to[i] = from[i] >= threshold ? factor : 0.0f;
        }
        done += n;
    }
}

/** Factors of `count` columns from `column` on of a token of row `row`; what a row and a token are, attention
 * says itself (ops.h). */
static inline void sago_mask_of_token(float *out, const sago_mask *mask, int64_t row, int64_t token,
                                      int64_t column, int64_t count) {
    sago_mask_run(out, mask, mask->first + row * mask->row_stride + token * mask->pitch + column, count);
}

/** Factors of elements [flat, flat + count) of the tensor whose lines these are. */
static inline void sago_mask_factors(float *out, const sago_mask *mask, const sago_mask_lines *lines,
                                     int64_t flat, int64_t count) {
    while (count > 0) {
        int64_t line = flat / lines->count, column = flat % lines->count;
        int64_t row = line / lines->per_row, in_row = line % lines->per_row;
        int64_t n = lines->count - column < count ? lines->count - column : count;
        sago_mask_run(out, mask, mask->first + row * mask->row_stride + in_row * lines->stride + column, n);
        out += n, flat += n, count -= n;
    }
}

#endif
