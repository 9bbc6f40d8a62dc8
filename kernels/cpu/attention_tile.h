// SPDX-License-Identifier: Apache-2.0
/**
 * What forward and backward attention of the cpu device share: tiles of queries, the bias by distance, e^x.
 */
#ifndef SAGO_ATTENTION_TILE_H
#define SAGO_ATTENTION_TILE_H

#include "attention.h"
#include "cpu_ops.h"
#include "dropout_mask.h"
#include "product.h"

/**
 * A tile is TILE_QUERIES queries against TILE_KEYS keys: 64 x 128 scores are 32 KiB, and with the panels of K
 * and V that they need they stay in the second-level cache. Its queries' ranges begin at one key, and so do
 * the tiles of keys: a query's sums depend on its own range alone, not on the queries that share its tile nor
 * on where in the row it stands.
 */
enum { TILE_QUERIES = 64, TILE_KEYS = 128, SCORE_STRIDE = TILE_KEYS + LANES };

/** Queries [first, first + count) of a row whose ranges are not empty and all begin at lo; the last ends at
 * hi. */
typedef struct attention_run {
    int64_t first, count;
    int64_t lo, hi;
} attention_run;

/** The next run at or after `from`, of at most `most` queries; count 0 when only empty ranges are left before
 * `end`. */
static inline attention_run attention_next_run(const int32_t *lo, const int32_t *hi, int64_t from,
                                               int64_t end, int64_t most) {
    while (from < end && lo[from] >= hi[from]) from++;
    attention_run run = {from, 0, 0, 0};
    if (from == end) return run;
    run.lo = lo[from], run.hi = hi[from];
    int64_t i = from;
    for (; i < end && i - from < most && lo[i] == run.lo && hi[i] > run.lo; i++)
        run.hi = hi[i] > run.hi ? hi[i] : run.hi;
    run.count = i - from;
    return run;
}

/** Borders of all ranges of a row's queries [from, end): keys outside them are never read. */
static inline void attention_span(const int32_t *lo, const int32_t *hi, int64_t from, int64_t end,
                                  int64_t *first, int64_t *last) {
    *first = *last = 0;
    for (int64_t i = from; i < end; i++) {
        if (lo[i] >= hi[i]) continue;
        bool none = *first == *last;
        *first = none || lo[i] < *first ? lo[i] : *first;
        *last = none || hi[i] > *last ? hi[i] : *last;
    }
}

/**
 * The bias as a row of floats a head, by distance: entry d of head h is the bias of a key that stands
 * d - (Sq - 1) - query_offset positions after its query. For one query the keys then read consecutive
 * entries, and no element needs a bucket of its own.
 */
typedef struct attention_bias {
    float *rows;      /* [H][stride], or NULL: no bias */
    int32_t *buckets; /* [Sq + Sk - 1] */
    int64_t stride;
} attention_bias;

/** Bytes for SAGO_CPU(attention_bias_fill); 0 without a bias. */
static inline size_t attention_bias_bytes(const sago_attention_sizes *z) {
    if (z->n_buckets == 0) return 0;
    int64_t stride = lanes_up(z->queries + z->keys) + LANES; /* a last vector may read past the last key */
    return (size_t)((z->heads + 1) * stride) * sizeof(float);
}

attention_bias SAGO_CPU(attention_bias_fill)(void *memory, const sago_attention_sizes *z,
                                             const sago_attention_args *args);

/** Few queries (decoding): keys and values are read once, in order. */
sago_status SAGO_CPU(attention_decode)(sago_device *device, sago_tensor o, sago_tensor lse, sago_tensor q,
                                       sago_tensor k, sago_tensor v, const sago_attention_args *args,
                                       const sago_attention_sizes *z);

/** Rows as the left operand of a product: those of the tensor where they serve as they are, else a padded
 * copy. */
typedef struct left_rows {
    const float *at;
    int64_t stride;
} left_rows;

/** `count` rows times factor; copy has room for TILE_QUERIES padded rows. */
static inline left_rows take_left_rows(float *copy, const float *from, int64_t stride, int64_t count,
                                       int64_t width, float factor) {
    int64_t padded = lanes_up(width), room = (count + PRODUCT_ROWS - 1) / PRODUCT_ROWS * PRODUCT_ROWS;
    if (factor == 1.0f && room == count) return (left_rows){from, stride};
    for (int64_t i = 0; i < count; i++) {
        for (int64_t e = 0; e < width; e++) copy[i * padded + e] = from[i * stride + e] * factor;
        for (int64_t e = width; e < padded; e++) copy[i * padded + e] = 0.0f;
    }
    memset(copy + count * padded, 0, (size_t)((room - count) * padded) * sizeof(float));
    return (left_rows){copy, padded};
}

/** e^x for x <= 0, 1 ulp or so; 0 below -64, where it no longer counts beside the row's largest (and products
 * of such numbers would be subnormal, which processors are slow at). NaN stays. The polynomial is Cephes'
 * expf. */
ALWAYS_INLINE vec vec_exp_negative(vec x) {
    const vec shift =
        vec_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer, held in the low bits */
    const vec least = vec_splat(-64.0f);
    ivec small = x < least;
    x = vec_max(least, x);
    vec shifted = x * 1.44269504f + shift;
    vec whole = shifted - shift;
    vec r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    ivec power = ((ivec)shifted - (ivec)shift + 127) << 23;
    return (vec)((ivec)(p * (vec)power) & ~small);
}

#endif
