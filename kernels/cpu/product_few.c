// SPDX-License-Identifier: Apache-2.0
/*
 * b is read in order and asked for ahead of its use: rows that are read side by side hide from the processor
 * that they are read in order. a is a few kB and stays in the first-level cache.
 */
#include "product_few.h"

#include "cpu_ops.h"
#include "vector.h"

#include <string.h>

#if defined(__AVX512F__)
enum { GROUP = 8 }; /* rows of a at a time: GROUP x WIDE sums fill half of the registers */
#else
enum { GROUP = 4 };
#endif
enum {
    WIDE = 2,            /* registers of columns at a time */
    DEEP = 4,            /* rows of b at a time, and how many rows ahead is asked for */
    SLICE = 512,         /* most columns of one task: their sums are 16 kB for eight rows */
    STEP = WIDE * LANES, /* columns at a time */
    DOT_COLUMNS = 2,     /* columns of c that one turn of dots makes */
    DOT_GRAIN = 64,      /* columns of c of one task there */
    AHEAD = 4096,        /* floats that dots asks ahead: 16 kB, a microsecond of reading */
    ALONE = 16384,       /* elements of b that one thread reads by itself sooner than several */
};

typedef struct problem {
    const sago_gemm *g;
    const float *a; /* [rows, k], rows a multiple of GROUP */
    const float *b;
    float *c;
    int64_t rows;
} problem;

/* Through memory, lane by lane: compilers make vectors of it. */
ALWAYS_INLINE vec load(const float *x, bool bf16) {
    if (!bf16) return vec_load(x);
    float rounded[LANES];
    for (int i = 0; i < LANES; i++) rounded[i] = sago_from_bf16(sago_to_bf16(x[i]));
    return vec_load(rounded);
}

ALWAYS_INLINE float value(float x, bool bf16) {
    return bf16 ? sago_from_bf16(sago_to_bf16(x)) : x;
}

/* beta 0 overwrites whatever stood there, NaN too. */
ALWAYS_INLINE float blend(const sago_gemm *g, float sum, float old) {
    return g->beta == 0.0f ? g->alpha * sum : g->alpha * sum + g->beta * old;
}

/* --- b as [k, n]: `deep` rows of b are multiplied into a slice of the sums --------------------------------
 */

/* Columns of `wide` registers. sum[GROUP][SLICE], a and b at this row of b and this column. */
ALWAYS_INLINE void add_block(float *sum, const float *a, const float *b, int64_t n, int64_t k, const int wide,
                             const int deep, bool bf16) {
    vec s[GROUP][WIDE];
#pragma GCC unroll 8
    for (int r = 0; r < GROUP; r++)
#pragma GCC unroll 2
        for (int w = 0; w < wide; w++) s[r][w] = vec_load(sum + r * SLICE + w * LANES);
#pragma GCC unroll 4
    for (int p = 0; p < deep; p++) {
        vec right[WIDE];
#pragma GCC unroll 2
        for (int w = 0; w < wide; w++) {
            const float *from = b + p * n + w * LANES;
            __builtin_prefetch(from + DEEP * n, 0, 2);
            right[w] = load(from, bf16);
        }
#pragma GCC unroll 8
        for (int r = 0; r < GROUP; r++) {
            vec left = vec_splat(a[r * k + p]);
#pragma GCC unroll 2
            for (int w = 0; w < wide; w++) s[r][w] += left * right[w];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < GROUP; r++)
#pragma GCC unroll 2
        for (int w = 0; w < wide; w++) vec_store(sum + r * SLICE + w * LANES, s[r][w]);
}

ALWAYS_INLINE void add_rows(float *sum, const float *a, const float *b, int64_t n, int64_t k, int64_t width,
                            const int deep, bool bf16) {
    int64_t j = 0;
    for (; j + STEP <= width; j += STEP) add_block(sum + j, a, b + j, n, k, WIDE, deep, bf16);
    for (; j + LANES <= width; j += LANES) add_block(sum + j, a, b + j, n, k, 1, deep, bf16);
    for (; j < width; j++)
        for (int r = 0; r < GROUP; r++)
            for (int p = 0; p < deep; p++) sum[r * SLICE + j] += a[r * k + p] * value(b[p * n + j], bf16);
}

/* Columns [first, first + width) of c. Each element's sum runs over k in order: how the columns are cut
 * changes no bits. */
ALWAYS_INLINE void slice(const problem *x, int64_t first, int64_t width, bool bf16) {
    const sago_gemm *g = x->g;
    float sum[SAGO_FEW_ROWS * SLICE];
    memset(sum, 0, (size_t)x->rows * SLICE * sizeof(float));
    int64_t p = 0;
    for (; p + DEEP <= g->k; p += DEEP)
        for (int64_t r = 0; r < x->rows; r += GROUP)
            add_rows(sum + r * SLICE, x->a + r * g->k + p, x->b + p * g->n + first, g->n, g->k, width, DEEP,
                     bf16);
    for (; p < g->k; p++)
        for (int64_t r = 0; r < x->rows; r += GROUP)
            add_rows(sum + r * SLICE, x->a + r * g->k + p, x->b + p * g->n + first, g->n, g->k, width, 1,
                     bf16);
    for (int64_t r = 0; r < g->m; r++) {
        float *c = x->c + r * g->n + first;
        for (int64_t j = 0; j < width; j++) c[j] = blend(g, sum[r * SLICE + j], c[j]);
    }
}

/* A thread's columns lie together, since long pieces of b's rows are read faster than short ones. */
static void few_plain(const problem *x, int n_threads, bool bf16) {
    int64_t n = x->g->n, slices = ((n + SLICE - 1) / SLICE + n_threads - 1) / n_threads * n_threads;
    int64_t width = ((n + slices - 1) / slices + STEP - 1) / STEP * STEP;
    slices = (n + width - 1) / width;
#pragma omp parallel for schedule(static) num_threads(n_threads) if (n * x->g->k > ALONE)
    for (int64_t s = 0; s < slices; s++) {
        int64_t first = s * width, here = n - first < width ? n - first : width;
        if (bf16)
            slice(x, first, here, true);
        else
            slice(x, first, here, false);
    }
}

/* --- b as [n, k]: c's elements are dot products of contiguous rows ----------------------------------------
 */

/* c[r][j] for GROUP rows of a and `columns` rows of b, which is read once for all of them. asked: the one of
   b's rows whose successor this turn asks for, all of them from `columns` on. */
ALWAYS_INLINE void dots(float out[GROUP][DOT_COLUMNS], const float *a, const float *b, int64_t k,
                        const int columns, const int asked, bool bf16) {
    _Static_assert(GROUP * DOT_COLUMNS % LANES == 0, "the sums are folded in whole registers");
    vec sum[GROUP * DOT_COLUMNS];
#pragma GCC unroll 16
    for (int i = 0; i < GROUP * DOT_COLUMNS; i++) sum[i] = (vec){0};
    int64_t p = 0;
    for (; p + LANES <= k; p += LANES) {
        vec right[DOT_COLUMNS];
#pragma GCC unroll 2
        for (int j = 0; j < columns; j++) {
            if (asked == j || asked >= columns) __builtin_prefetch(b + j * k + p + AHEAD, 0, 2);
            right[j] = load(b + j * k + p, bf16);
        }
#pragma GCC unroll 8
        for (int r = 0; r < GROUP; r++) {
            vec left = vec_load(a + r * k + p);
#pragma GCC unroll 2
            for (int j = 0; j < columns; j++) sum[r * DOT_COLUMNS + j] += left * right[j];
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < GROUP * DOT_COLUMNS; i += LANES) vec_store(&out[0][0] + i, vec_sums(sum + i));
    for (; p < k; p++)
        for (int r = 0; r < GROUP; r++)
            for (int j = 0; j < columns; j++) out[r][j] += a[r * k + p] * value(b[j * k + p], bf16);
}

ALWAYS_INLINE void dot_columns(const problem *x, int64_t j, const int columns, bool bf16) {
    const sago_gemm *g = x->g;
    const float *b = x->b + j * g->k;
    for (int64_t r = 0; r < g->m; r += GROUP) {
        float out[GROUP][DOT_COLUMNS];
        /* Two groups share the asking: memory that one group asks for all of would wait out the other. */
        if (x->rows != 2 * GROUP || columns != 2)
            dots(out, x->a + r * g->k, b, g->k, columns, columns, bf16);
        else if (r == 0)
            dots(out, x->a, b, g->k, 2, 0, bf16);
        else
            dots(out, x->a + r * g->k, b, g->k, 2, 1, bf16);
        for (int64_t i = 0; i < GROUP && r + i < g->m; i++)
            for (int q = 0; q < columns; q++) {
                float *c = x->c + (r + i) * g->n + j + q;
                *c = blend(g, out[i][q], *c);
            }
    }
}

ALWAYS_INLINE void dot_task(const problem *x, int64_t from, int64_t end, bool bf16) {
    int64_t j = from;
    for (; j + DOT_COLUMNS <= end; j += DOT_COLUMNS) dot_columns(x, j, DOT_COLUMNS, bf16);
    for (; j < end; j++) dot_columns(x, j, 1, bf16);
}

static void few_transposed(const problem *x, int n_threads, bool bf16) {
    int64_t n = x->g->n, tasks = (n + DOT_GRAIN - 1) / DOT_GRAIN;
#pragma omp parallel for schedule(static) num_threads(n_threads) if (n * x->g->k > ALONE)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t end = (task + 1) * DOT_GRAIN < n ? (task + 1) * DOT_GRAIN : n;
        if (bf16)
            dot_task(x, task * DOT_GRAIN, end, true);
        else
            dot_task(x, task * DOT_GRAIN, end, false);
    }
}

void SAGO_CPU(product_few_column)(const sago_gemm *g, float *c, const float *a, const float *b) {
    for (int64_t r = 0; r < g->m; r += GROUP) {
        float out[GROUP][DOT_COLUMNS];
        dots(out, a + r * g->k, b, g->k, 1, 1, false);
        for (int64_t i = 0; i < GROUP && r + i < g->m; i++) c[r + i] = blend(g, out[i][0], 0);
    }
}

sago_status SAGO_CPU(product_few)(sago_device *device, const sago_gemm *g, bool bf16, float *c,
                                  const float *a, const float *b) {
    problem x = {.g = g, .a = a, .b = b, .c = c, .rows = (g->m + GROUP - 1) / GROUP * GROUP};
    if (x.rows != g->m || bf16) {
        void *scratch;
        SAGO_TRY(sago_cpu_scratch(device, (size_t)(x.rows * g->k) * sizeof(float), &scratch));
        float *rows = scratch;
        for (int64_t i = 0; i < g->m * g->k; i++) rows[i] = value(a[i], bf16);
        memset(rows + g->m * g->k, 0, (size_t)((x.rows - g->m) * g->k) * sizeof(float));
        x.a = rows;
    }
    if (g->transpose_b)
        few_transposed(&x, device->n_threads, bf16);
    else
        few_plain(&x, device->n_threads, bf16);
    return SAGO_OK;
}
