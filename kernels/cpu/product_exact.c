// SPDX-License-Identifier: Apache-2.0
/*
 * Small matrix products with sums in double. A pre-activation that float64 puts just beside the kink of a ReLU should
 * stay on its side: fp32 sums over 128 terms are wrong by some 4e-7, these by the rounding of their inputs alone. Past
 * SAGO_EXACT_MOST multiplications speed counts, and oneDNN's fp32 products take over.
 */
#include "product_exact.h"

#include "cpu_ops.h"

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 8 };
#elif defined(__AVX__)
enum { LANES = 4 };
#else
enum { LANES = 2 };
#endif
enum { TILE_ROWS = 4, TILE_VECTORS = 3, TILE_COLUMNS = TILE_VECTORS * LANES };

typedef double vector __attribute__((vector_size(LANES * sizeof(double))));

static inline vector load(const double *x) {
    vector v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* Columns [first, first + TILE_COLUMNS) of op(b) as double, k after k, zeros past n: what a tile reads in order. */
static void pack_columns(const sago_gemm *g, const float *b, int64_t first, double *out) {
    for (int64_t j = 0; j < TILE_COLUMNS; j++) {
        bool inside = first + j < g->n;
        const float *from = g->transpose_b ? b + (first + j) * g->k : b + first + j;
        int64_t step = g->transpose_b ? 1 : g->n;
        for (int64_t p = 0; p < g->k; p++) out[p * TILE_COLUMNS + j] = inside ? (double)from[p * step] : 0;
    }
}

/* TILE_ROWS x TILE_COLUMNS sums over k, in order. Rows past m repeat the last one and are not stored. */
static void tile(const sago_gemm *g, const float *a, const double *packed, int64_t row, double out[TILE_ROWS * TILE_COLUMNS]) {
    const float *from[TILE_ROWS];
    int64_t step = g->transpose_a ? g->m : 1;
    for (int r = 0; r < TILE_ROWS; r++) {
        int64_t i = row + r < g->m ? row + r : g->m - 1;
        from[r] = g->transpose_a ? a + i : a + i * g->k;
    }
    vector sum[TILE_ROWS][TILE_VECTORS] = {{{0}}};
    for (int64_t p = 0; p < g->k; p++) {
        vector b[TILE_VECTORS];
        for (int v = 0; v < TILE_VECTORS; v++) b[v] = load(packed + p * TILE_COLUMNS + v * LANES);
        for (int r = 0; r < TILE_ROWS; r++) {
            double x = from[r][p * step];
            for (int v = 0; v < TILE_VECTORS; v++) sum[r][v] += x * b[v];
        }
    }
    memcpy(out, sum, sizeof sum);
}

static void strip(const sago_gemm *g, float *c, const float *a, const double *packed, int64_t first) {
    int64_t columns = g->n - first < TILE_COLUMNS ? g->n - first : TILE_COLUMNS;
    for (int64_t row = 0; row < g->m; row += TILE_ROWS) {
        double sums[TILE_ROWS * TILE_COLUMNS];
        tile(g, a, packed, row, sums);
        for (int64_t r = 0; r < TILE_ROWS && row + r < g->m; r++) {
            float *out = c + (row + r) * g->n + first;
            for (int64_t j = 0; j < columns; j++) {
                double x = g->alpha * sums[r * TILE_COLUMNS + j];
                /* beta 0 overwrites whatever stood there, NaN too. */
                out[j] = (float)(g->beta == 0.0f ? x : x + g->beta * (double)out[j]);
            }
        }
    }
}

bool SAGO_CPU(product_is_small)(const sago_gemm *g) {
    return (double)g->m * (double)g->n * (double)g->k <= SAGO_EXACT_MOST;
}

sago_status SAGO_CPU(product_exact)(sago_device *device, const sago_gemm *g, float *c, const float *a, const float *b) {
    int64_t strips = (g->n + TILE_COLUMNS - 1) / TILE_COLUMNS, strip_values = g->k * TILE_COLUMNS;
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(device, (size_t)(strips * strip_values) * sizeof(double), &scratch));
    double *packed = scratch;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (g->m * g->n * g->k > 32768)
    for (int64_t s = 0; s < strips; s++) {
        pack_columns(g, b, s * TILE_COLUMNS, packed + s * strip_values);
        strip(g, c, a, packed + s * strip_values, s * TILE_COLUMNS);
    }
    return SAGO_OK;
}
