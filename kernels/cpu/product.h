// SPDX-License-Identifier: Apache-2.0
/**
 * Small matrix products whose operands lie in cache, in a block of PRODUCT_ROWS x PRODUCT_PANELS registers.
 *
 * The right operand and often the result are in panels: a matrix [n, width] is cut into pieces of LANES
 * columns, and piece p holds its n rows of LANES floats one after the other, at p * panel. So the innermost
 * loop reads memory in order, whatever the widths are. A right operand that is used once is not worth
 * packing: its rows are then read where they lie, b_step floats apart, with panels LANES apart.
 */
#ifndef SAGO_PRODUCT_H
#define SAGO_PRODUCT_H

#include "vector.h"

#include <stdbool.h>
#include <string.h>

/** One block: c[m][n] = or += sum over t of a[m * a_row + t * a_step] * b[n * b_panel + t * b_step ...]. */
ALWAYS_INLINE void product_block(float *c, int64_t c_row, int64_t c_panel, const float *a, int64_t a_row,
                                 int64_t a_step, const float *b, int64_t b_panel, int64_t b_step,
                                 int64_t steps, const int panels, bool add) {
    vec sum[PRODUCT_ROWS][PRODUCT_PANELS];
#pragma GCC unroll 8
    for (int m = 0; m < PRODUCT_ROWS; m++)
#pragma GCC unroll 4
        for (int n = 0; n < panels; n++) sum[m][n] = add ? vec_load(c + m * c_row + n * c_panel) : (vec){0};
    for (int64_t t = 0; t < steps; t++) {
        vec right[PRODUCT_PANELS];
#pragma GCC unroll 4
        for (int n = 0; n < panels; n++) right[n] = vec_load(b + n * b_panel + t * b_step);
#pragma GCC unroll 8
        for (int m = 0; m < PRODUCT_ROWS; m++) {
            vec left = vec_splat(a[m * a_row + t * a_step]);
#pragma GCC unroll 4
            for (int n = 0; n < panels; n++) sum[m][n] += left * right[n];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < PRODUCT_ROWS; m++)
#pragma GCC unroll 4
        for (int n = 0; n < panels; n++) vec_store(c + m * c_row + n * c_panel, sum[m][n]);
}

/**
 * c = or += a b over `rows` rows (rounded up to PRODUCT_ROWS: a and c have room) and `panels` panels of b.
 * Each sum runs over t in order, so a row's result does not depend on the rows beside it.
 */
ALWAYS_INLINE void product(float *c, int64_t c_row, int64_t c_panel, const float *a, int64_t a_row,
                           int64_t a_step, const float *b, int64_t b_panel, int64_t b_step, int64_t steps,
                           int64_t rows, int64_t panels, bool add) {
    int64_t n = 0;
    for (; n + PRODUCT_PANELS <= panels; n += PRODUCT_PANELS)
        for (int64_t m = 0; m < rows; m += PRODUCT_ROWS)
            product_block(c + m * c_row + n * c_panel, c_row, c_panel, a + m * a_row, a_row, a_step,
                          b + n * b_panel, b_panel, b_step, steps, PRODUCT_PANELS, add);
    for (; n < panels; n++)
        for (int64_t m = 0; m < rows; m += PRODUCT_ROWS)
            product_block(c + m * c_row + n * c_panel, c_row, c_panel, a + m * a_row, a_row, a_step,
                          b + n * b_panel, b_panel, b_step, steps, 1, add);
}

/** Asks for a row that is used soon: rows of one head lie a whole token apart, too far for the processor to
 * guess. */
ALWAYS_INLINE void row_prefetch(const float *row, int64_t width, const int write) {
    for (int64_t e = 0; e < width; e += 16) __builtin_prefetch(row + e, write, 2);
}

/**
 * Rows [0, count) of `width` floats, `stride` apart, into panels; rows up to `room` and columns past width
 * are 0. Row by row, since it is the rows outside that lie far apart.
 */
static inline void panels_pack(float *to, int64_t panel, const float *from, int64_t stride, int64_t count,
                               int64_t room, int64_t width) {
    int64_t panels = lanes_up(width) / LANES, whole = lanes_down(width) / LANES;
    for (int64_t i = 0; i < count; i++, to += LANES, from += stride) {
        for (int64_t p = 0; p < whole; p++) vec_store(to + p * panel, vec_load(from + p * LANES));
        if (whole < panels) {
            vec_store(to + whole * panel, (vec){0});
            for (int64_t e = whole * LANES; e < width; e++) to[whole * panel + e - whole * LANES] = from[e];
        }
    }
    for (int64_t i = count; i < room; i++, to += LANES)
        for (int64_t p = 0; p < panels; p++) vec_store(to + p * panel, (vec){0});
}

/** The way back: out[i * stride + column] = factor * panels. */
static inline void panels_unpack(float *out, int64_t stride, const float *from, int64_t panel, int64_t count,
                                 int64_t width, float factor) {
    int64_t whole = lanes_down(width) / LANES;
    for (int64_t i = 0; i < count; i++, out += stride, from += LANES) {
        for (int64_t p = 0; p < whole; p++) vec_store(out + p * LANES, vec_load(from + p * panel) * factor);
        for (int64_t e = whole * LANES; e < width; e++)
            out[e] = from[whole * panel + e - whole * LANES] * factor;
    }
}

/** LANES rows of four floats, stride apart, turned into four columns LANES apart: quads of rows meet in one
 * vector, and each of its quarters is transposed by itself. */
ALWAYS_INLINE void transpose_lanes_4(float *to, const float *from, int64_t stride) {
    vec row[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
#if defined(__AVX512F__)
        const float *at = from + r * stride;
        __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(at));
        x = _mm512_insertf32x4(x, _mm_loadu_ps(at + 4 * stride), 1);
        x = _mm512_insertf32x4(x, _mm_loadu_ps(at + 8 * stride), 2);
        row[r] = (vec)_mm512_insertf32x4(x, _mm_loadu_ps(at + 12 * stride), 3);
#elif defined(__AVX2__)
        const float *at = from + r * stride;
        row[r] = (vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)),
                                           _mm_loadu_ps(at + 4 * stride), 1);
#else
        row[r] = vec_load(from + r * stride);
#endif
    }
    /* Lanes in turn by ones, then by twos: see VEC_FIRST_LANE. */
    vec a = VEC_MEET(row[0], row[1], FIRST, 1), b = VEC_MEET(row[0], row[1], SECOND, 1);
    vec c = VEC_MEET(row[2], row[3], FIRST, 1), d = VEC_MEET(row[2], row[3], SECOND, 1);
    vec_store(to, VEC_MEET(a, c, FIRST, 2));
    vec_store(to + LANES, VEC_MEET(b, d, FIRST, 2));
    vec_store(to + 2 * LANES, VEC_MEET(a, c, SECOND, 2));
    vec_store(to + 3 * LANES, VEC_MEET(b, d, SECOND, 2));
}

/**
 * The transpose of rows [0, count) in panels: LANES rows become a panel [width][LANES]. Rows past count are
 * 0. Panels are width * LANES apart.
 */
static inline void panels_pack_transposed(float *to, const float *from, int64_t stride, int64_t count,
                                          int64_t width) {
    for (int64_t i = 0; i < count; i += LANES, to += width * LANES, from += LANES * stride) {
        int64_t here = count - i < LANES ? count - i : LANES, e = 0;
        if (here == LANES)
            for (; e + 4 <= width; e += 4) transpose_lanes_4(to + e * LANES, from + e, stride);
        for (; e < width; e++)
            for (int64_t l = 0; l < LANES; l++) to[e * LANES + l] = l < here ? from[l * stride + e] : 0.0f;
    }
}

#endif
