// SPDX-License-Identifier: Apache-2.0
/*
 * Matrix products: oneDNN for large ones, sums in double for small ones, own loops where a has so few rows that reading b is all the work
 * (decoding).
 */
#include "check.h"
#include "cpu_ops.h"
#include "onednn.h"
#include "product_exact.h"
#include "vector_math.h"

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

enum {
    FEW_ROWS = 8,    /* up to here the own loops are used */
    SLICE = 512,     /* columns of c that one task of few_rows_plain holds: 16 kB for eight rows */
    DOT_COLUMNS = 2, /* columns of c that one turn of few_rows_transposed makes */
    DOT_GRAIN = 64,  /* columns of c of one task there */
    AHEAD = 2048,    /* floats: about the latency of memory */
    CAST_GRAIN = 16384,
};

/* One vector register of this instruction set. */
typedef float vector __attribute__((vector_size(LANES * sizeof(float))));
#define INLINE static inline __attribute__((always_inline))

INLINE vector load(const float *x) {
    vector v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float *x, vector v) {
    memcpy(x, &v, sizeof v);
}

INLINE float to_bf16_precision(float x) {
    return sago_from_bf16(sago_to_bf16(x));
}

INLINE vector load_rounded(const float *x, bool bf16) {
    if (!bf16) return load(x);
    float rounded[LANES];
    for (int i = 0; i < LANES; i++) rounded[i] = to_bf16_precision(x[i]);
    return load(rounded);
}

/* The sum over lanes in a fixed order: halves are added to halves. */
INLINE float lane_sum(vector v) {
#if defined(__AVX512F__)
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
    v += __builtin_shufflevector(v, v, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0);
#elif defined(__AVX__)
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1);
    v += __builtin_shufflevector(v, v, 1, 0, 1, 0, 1, 0, 1, 0);
#else
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1);
    v += __builtin_shufflevector(v, v, 1, 0, 1, 0);
#endif
    return v[0];
}

/*
 * b is [k, n]: four rows of b at a time are multiplied into a slice of c's rows, which stay in the
 * first-level cache. b is read once, in long contiguous pieces.
 */
INLINE void plain_slice(int rows, bool bf16, float *sum, const float *a, const float *b, int64_t n, int64_t k,
                        int64_t first, int64_t width) {
    int64_t vectors = width / LANES * LANES;
    memset(sum, 0, (size_t)rows * SLICE * sizeof(float));
    int64_t p = 0;
    for (; p + 4 <= k; p += 4) {
        const float *b0 = b + p * n + first, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
        for (int64_t j = 0; j < vectors; j += LANES) {
            vector v0 = load_rounded(b0 + j, bf16), v1 = load_rounded(b1 + j, bf16),
                   v2 = load_rounded(b2 + j, bf16), v3 = load_rounded(b3 + j, bf16);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const float *x = a + r * k + p;
                vector s = load(sum + r * SLICE + j);
                s += x[0] * v0;
                s += x[1] * v1;
                s += x[2] * v2;
                s += x[3] * v3;
                store(sum + r * SLICE + j, s);
            }
        }
        for (int64_t j = vectors; j < width; j++)
            for (int r = 0; r < rows; r++)
                for (int q = 0; q < 4; q++) {
                    float value = b0[q * n + j];
                    sum[r * SLICE + j] += a[r * k + p + q] * (bf16 ? to_bf16_precision(value) : value);
                }
    }
    for (; p < k; p++)
        for (int r = 0; r < rows; r++)
            for (int64_t j = 0; j < width; j++) {
                float value = b[p * n + first + j];
                sum[r * SLICE + j] += a[r * k + p] * (bf16 ? to_bf16_precision(value) : value);
            }
}

/* b is [n, k]: c's elements are dot products of contiguous rows; a row of b is read once for all rows of a.
 */
INLINE void transposed_dots(int rows, int columns, bool bf16, float out[FEW_ROWS][DOT_COLUMNS],
                            const float *a, const float *b, int64_t k) {
    vector sum[FEW_ROWS][DOT_COLUMNS] = {{{0}}};
    int64_t p = 0;
    for (; p + LANES <= k; p += LANES) {
        vector v[DOT_COLUMNS];
#pragma GCC unroll 2
        for (int j = 0; j < columns; j++) {
            v[j] = load_rounded(b + j * k + p, bf16);
            /* Rows that are read side by side hide from the processor that b is read in order. */
            __builtin_prefetch(b + j * k + p + AHEAD);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vector x = load(a + r * k + p);
#pragma GCC unroll 2
            for (int j = 0; j < columns; j++) sum[r][j] += x * v[j];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) {
            float total = lane_sum(sum[r][j]);
            for (int64_t q = p; q < k; q++) {
                float value = b[j * k + q];
                total += a[r * k + q] * (bf16 ? to_bf16_precision(value) : value);
            }
            out[r][j] = total;
        }
}

/* The number of rows is a constant inside each case, so that the sums stay in registers. */
#define FOR_ROWS(rows, call)                                                                                 \
    switch (rows) {                                                                                          \
    case 1: {                                                                                                \
        enum { M = 1 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 2: {                                                                                                \
        enum { M = 2 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 3: {                                                                                                \
        enum { M = 3 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 4: {                                                                                                \
        enum { M = 4 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 5: {                                                                                                \
        enum { M = 5 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 6: {                                                                                                \
        enum { M = 6 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    case 7: {                                                                                                \
        enum { M = 7 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    default: {                                                                                               \
        enum { M = 8 };                                                                                      \
        call;                                                                                                \
    } break;                                                                                                 \
    }

static void plain_rows(int rows, bool bf16, float *sum, const float *a, const float *b, int64_t n, int64_t k,
                       int64_t first, int64_t width) {
    if (bf16)
        FOR_ROWS(rows, plain_slice(M, true, sum, a, b, n, k, first, width))
    else
        FOR_ROWS(rows, plain_slice(M, false, sum, a, b, n, k, first, width))
}

static void transposed_rows(int rows, int columns, bool bf16, float out[FEW_ROWS][DOT_COLUMNS],
                            const float *a, const float *b, int64_t k) {
    if (columns < DOT_COLUMNS) {
        transposed_dots(rows, columns, bf16, out, a, b, k);
    } else if (bf16) {
        FOR_ROWS(rows, transposed_dots(M, DOT_COLUMNS, true, out, a, b, k))
    } else {
        FOR_ROWS(rows, transposed_dots(M, DOT_COLUMNS, false, out, a, b, k))
    }
}

/* beta 0 overwrites whatever stood there, NaN too. */
INLINE float blend(const sago_gemm *g, float sum, float old) {
    return g->beta == 0.0f ? g->alpha * sum : g->alpha * sum + g->beta * old;
}

static void few_rows_plain(const sago_device *device, const sago_gemm *g, bool bf16, float *c, const float *a,
                           const float *b) {
    /* Slices narrow enough that there are some for each of a few threads; every element's sum runs over k in
       order, so the width changes no bits. */
    int64_t slice = g->n / 16 / 64 * 64;
    slice = slice < 64 ? 64 : slice > SLICE ? SLICE : slice;
    int64_t slices = (g->n + slice - 1) / slice;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (g->n * g->k > CAST_GRAIN)
    for (int64_t s = 0; s < slices; s++) {
        float sum[FEW_ROWS * SLICE];
        int64_t first = s * slice, width = g->n - first < slice ? g->n - first : slice;
        plain_rows((int)g->m, bf16, sum, a, b, g->n, g->k, first, width);
        for (int64_t r = 0; r < g->m; r++)
            for (int64_t j = 0; j < width; j++)
                c[r * g->n + first + j] = blend(g, sum[r * SLICE + j], c[r * g->n + first + j]);
    }
}

static void few_rows_transposed(const sago_device *device, const sago_gemm *g, bool bf16, float *c,
                                const float *a, const float *b) {
    int64_t tasks = (g->n + DOT_GRAIN - 1) / DOT_GRAIN;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (g->n * g->k > CAST_GRAIN)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t end = (task + 1) * DOT_GRAIN < g->n ? (task + 1) * DOT_GRAIN : g->n;
        for (int64_t j = task * DOT_GRAIN; j < end; j += DOT_COLUMNS) {
            float out[FEW_ROWS][DOT_COLUMNS];
            int columns = end - j < DOT_COLUMNS ? (int)(end - j) : DOT_COLUMNS;
            transposed_rows((int)g->m, columns, bf16, out, a, b + j * g->k, g->k);
            for (int64_t r = 0; r < g->m; r++)
                for (int q = 0; q < columns; q++)
                    c[r * g->n + j + q] = blend(g, out[r][q], c[r * g->n + j + q]);
        }
    }
}

static void cast(const sago_device *device, uint16_t *out, const float *in, int64_t count) {
    int64_t n = sago_cpu_chunks(count, CAST_GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t chunk = 0; chunk < n; chunk++) {
        int64_t first = sago_cpu_chunk_start(count, n, chunk),
                end = sago_cpu_chunk_start(count, n, chunk + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) out[i] = sago_to_bf16(in[i]);
    }
}

/* Rounded to bf16, kept as fp32. */
static void round_values(const sago_device *device, float *out, const float *in, int64_t count) {
    int64_t n = sago_cpu_chunks(count, CAST_GRAIN);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t chunk = 0; chunk < n; chunk++) {
        int64_t first = sago_cpu_chunk_start(count, n, chunk),
                end = sago_cpu_chunk_start(count, n, chunk + 1);
#pragma omp simd
        for (int64_t i = first; i < end; i++) out[i] = to_bf16_precision(in[i]);
    }
}

static sago_status multiply_bf16(sago_device *device, const sago_gemm *g, float *c, const float *a,
                                 const float *b) {
    sago_cpu *cpu = device->state;
    int64_t a_count = (g->m * g->k + 63) / 64 * 64, b_count = g->k * g->n;
    void *scratch;
    if (device->has_bf16) {
        bool supported;
        SAGO_TRY(sago_cpu_scratch(device, (size_t)(a_count + b_count) * sizeof(uint16_t), &scratch));
        uint16_t *a16 = scratch, *b16 = a16 + a_count;
        cast(device, a16, a, g->m * g->k);
        cast(device, b16, b, b_count);
        SAGO_TRY(sago_onednn_bf16(cpu->onednn, g, c, a16, b16, device->n_threads, &supported));
        if (supported) return SAGO_OK;
    }
    /* fp32 products of the rounded values mean the same, and are faster where bf16 ones are slow or missing.
     */
    SAGO_TRY(sago_cpu_scratch(device, (size_t)(a_count + b_count) * sizeof(float), &scratch));
    float *a32 = scratch, *b32 = a32 + a_count;
    round_values(device, a32, a, g->m * g->k);
    round_values(device, b32, b, b_count);
    return sago_onednn_f32(g, c, a32, b32, device->n_threads);
}

sago_status SAGO_CPU(matmul)(sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                             const sago_matmul_args *args) {
    sago_gemm g = {.transpose_a = args->transpose_a,
                   .transpose_b = args->transpose_b,
                   .alpha = args->alpha,
                   .beta = args->beta};
    g.m = args->transpose_a ? sago_width(a) : sago_rows(a);
    g.k = args->transpose_a ? sago_rows(a) : sago_width(a);
    g.n = args->transpose_b ? sago_rows(b) : sago_width(b);
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(c, a, b)) && sago_rows(c) == g.m &&
                sago_width(c) == g.n && (args->transpose_b ? sago_width(b) : sago_rows(b)) == g.k;
    SAGO_TRY(
        sago_check_shapes(fits, "matmul", "f32 c[m, n], op(a)[m, k], op(b)[k, n]", SAGO_TENSORS(c, a, b)));
    if (g.m == 0 || g.n == 0) return SAGO_OK;
    if (g.k == 0) {
        if (args->beta == 0.0f) return SAGO_CPU(fill)(device, c, 0.0f);
        return SAGO_CPU(scale)(device, c, args->beta);
    }
    if (g.m <= FEW_ROWS && !args->transpose_a) {
        float *few = NULL;
        if (args->bf16) {
            void *scratch;
            SAGO_TRY(sago_cpu_scratch(device, (size_t)(g.m * g.k) * sizeof(float), &scratch));
            few = scratch;
            for (int64_t i = 0; i < g.m * g.k; i++) few[i] = to_bf16_precision(((const float *)a.data)[i]);
        }
        (args->transpose_b ? few_rows_transposed : few_rows_plain)(device, &g, args->bf16, c.data,
                                                                   few ? few : a.data, b.data);
        return SAGO_OK;
    }
    if (args->bf16) return multiply_bf16(device, &g, c.data, a.data, b.data);
    if (SAGO_CPU(product_is_small)(&g)) return SAGO_CPU(product_exact)(device, &g, c.data, a.data, b.data);
    return sago_onednn_f32(&g, c.data, a.data, b.data, device->n_threads);
}
