// SPDX-License-Identifier: Apache-2.0
/**
 * Functions that a loop over floats can call and still be vectorized: no branches, no tables, no library.
 * They keep NaN and infinities, so that a value that is not finite is noticed further on.
 */
#ifndef SAGO_VECTOR_MATH_H
#define SAGO_VECTOR_MATH_H

#include <stdint.h>
#include <string.h>

static inline int32_t sago_float_bits(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float sago_bits_float(int32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/** 2^n for n of normal floats, -126 .. 127. */
static inline float sago_power_of_two(int32_t n) {
    return sago_bits_float((int32_t)((uint32_t)(n + 127) << 23));
}

/**
 * e^x within 2 ulp for every float; subnormal results too. -inf gives 0, +inf and overflow give +inf, NaN
 * stays. x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder 5e-9), 2^n in
 * two factors so that neither leaves the range of normal numbers.
 */
static inline float sago_exp(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, held in the low bits */
    float shifted = x * 1.44269504f + shift;
    int32_t n = sago_float_bits(shifted) - sago_float_bits(shift);
    float whole = shifted - shift;
    float r = x - whole * 0.693145752f; /* ln 2 in two parts, the first with few bits */
    r = r - whole * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    int32_t half = n >> 1;
    return p * sago_power_of_two(half) * sago_power_of_two(n - half);
}

/** 1 / (1 + e^-x) */
static inline float sago_sigmoid(float x) {
    return 1.0f / (1.0f + sago_exp(-x));
}

/** bf16 bits of a float, rounded to nearest even; NaN stays NaN. */
static inline uint16_t sago_to_bf16(float x) {
    uint32_t bits = (uint32_t)sago_float_bits(x);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static inline float sago_from_bf16(uint16_t x) {
    return sago_bits_float((int32_t)((uint32_t)x << 16));
}

#endif
