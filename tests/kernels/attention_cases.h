// SPDX-License-Identifier: Apache-2.0
/**
 * Cases of attention: shapes, what may be attended, values, and both references over them.
 */
#ifndef SAGO_TESTS_ATTENTION_CASES_H
#define SAGO_TESTS_ATTENTION_CASES_H

#include "reference.h"
#include "suite.h"

static inline double ref_log(double x) {
    return log(x);
}
static inline float plain_log(float x) {
    return logf(x);
}
#define FORMULAS "attention_reference.inc"
#include "both_precisions.h"

enum layout { WHOLE, CAUSAL, SEGMENTS, PACKED_CAUSAL, RAGGED, HOLES, ALIGNED, PADDED };

typedef struct attention_case {
    const char *what;
    int64_t batch, queries, keys, heads, groups, width;
    enum layout layout;
    float scale;
    int n_buckets, max_distance;
    bool bidirectional;
    int64_t query_offset;
    float rate;
    int64_t first_row;
    sago_dtype dtype, bias_dtype; /* zero is f32 */
    /* Where the dropout elements lie among those of more heads (0: these) and of rows of more keys (0:
     * these). */
    int64_t all_heads, first_head, pitch, first_key;
} attention_case;

static inline int64_t dropout_heads(const attention_case *c) {
    return c->all_heads ? c->all_heads : c->heads;
}

/** The published formula of the bucket, in fp32 as the published models compute it. */
static inline int bucket_of(int64_t relative, int n_buckets, bool bidirectional, int max_distance) {
    int first = 0;
    int64_t n = relative < 0 ? -relative : 0;
    if (bidirectional) {
        n_buckets /= 2;
        first = relative > 0 ? n_buckets : 0;
        n = relative < 0 ? -relative : relative;
    }
    int exact = n_buckets / 2;
    if (n < exact) return first + (int)n;
    float share = logf((float)n / (float)exact) / (float)log((double)max_distance / exact);
    int large = exact + (int)(share * (float)(n_buckets - exact));
    return first + (large < n_buckets - 1 ? large : n_buckets - 1);
}

/** Everything that one case needs, in float; and what may be attended. */
typedef struct attention_data {
    const attention_case *c;
    int64_t n_q, n_k, n_bias, n_lse, n_pairs;
    float *q, *k, *v, *bias, *d_o, *d_bias, *o, *lse, *keep;
    int32_t *lo, *hi;
    int *bucket;
} attention_data;

static inline uint64_t draw(uint64_t key, int64_t below) {
    return sago_below(sago_mix(key, 77), (uint64_t)below);
}

static inline void make_ranges(attention_data *d) {
    const attention_case *c = d->c;
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t from = 0, key_from = 0;
        int64_t end = 0, key_end = 0;
        for (int64_t i = 0; i < c->queries; i++) {
            int64_t lo = 0, hi = c->keys;
            if (c->layout == CAUSAL) hi = i + 1 < c->keys ? i + 1 : c->keys;
            if (c->layout == SEGMENTS || c->layout == PACKED_CAUSAL) {
                if (i == end) {
                    uint64_t seed = (uint64_t)(b * 1000 + i);
                    from = end, key_from = key_end;
                    end += 1 + (int64_t)draw(seed, 60);
                    key_end = c->keys == c->queries ? end : key_end + (int64_t)draw(seed + 500, 50);
                    if (key_end > c->keys) key_end = c->keys;
                }
                lo = key_from, hi = key_end;
                if (c->layout == PACKED_CAUSAL) hi = i + 1;
                if (i > c->queries - 20) lo = hi = 0; /* trailing padding */
                (void)from;
            }
            if (c->layout == RAGGED || c->layout == HOLES) {
                lo = (int64_t)draw((uint64_t)(b * 7919 + i), c->keys);
                hi = lo + (int64_t)draw((uint64_t)(b * 104729 + i), c->keys - lo + 1);
            }
            if (c->layout == HOLES && i % 5 < 3) lo = 3, hi = 3;
            if (c->layout == PADDED && (i % 7 == 3 || i >= c->queries - 9)) hi = 0; /* all keys, or none */
            if (c->layout == ALIGNED) { /* nobody attends the second segment */
                lo = i / 32 == 1 ? 0 : i / 32 * 32;
                hi = lo + 32;
            }
            d->lo[b * c->queries + i] = (int32_t)lo;
            d->hi[b * c->queries + i] = (int32_t)hi;
        }
    }
}

static inline void make_keep(attention_data *d) {
    const attention_case *c = d->c;
    int64_t row_tokens = dropout_heads(c) * c->queries, pitch = c->pitch ? c->pitch : c->keys;
    for (int64_t at = 0; at < d->n_pairs; at++) {
        int64_t j = at % c->keys, i = at / c->keys % c->queries, h = at / c->keys / c->queries % c->heads;
        int64_t b = at / c->keys / c->queries / c->heads;
        bool allowed = j >= d->lo[b * c->queries + i] && j < d->hi[b * c->queries + i];
        d->keep[at] = allowed ? 1.0f : -1.0f;
        if (!allowed || c->rate == 0) continue;
        int64_t query = (c->first_row + b) * row_tokens + (c->first_head + h) * c->queries + i;
        uint64_t element = (uint64_t)(query * pitch + c->first_key + j);
        uint32_t words[4];
        sago_philox(99, element / 4, 0, words);
        d->keep[at] =
            (double)words[element % 4] >= (double)c->rate * 4294967296.0 ? 1.0f / (1.0f - c->rate) : 0.0f;
    }
}

static inline attention_data make(const attention_case *c) {
    attention_data d = {.c = c,
                        .n_q = c->batch * c->queries * c->heads * c->width,
                        .n_k = c->batch * c->keys * c->groups * c->width,
                        .n_bias = c->n_buckets * c->heads,
                        .n_lse = c->batch * c->heads * c->queries};
    d.n_pairs = d.n_lse * c->keys;
    d.q = suite_normal(d.n_q, 1), d.k = suite_normal(d.n_k, 2), d.v = suite_normal(d.n_k, 3);
    d.bias = suite_normal(d.n_bias, 4), d.d_o = suite_normal(d.n_q, 5), d.d_bias = suite_normal(d.n_bias, 6);
    d.o = plain_array(d.n_q), d.lse = plain_array(d.n_lse), d.keep = plain_array(d.n_pairs);
    d.lo = calloc((size_t)(c->batch * c->queries), sizeof(int32_t));
    d.hi = calloc((size_t)(c->batch * c->queries), sizeof(int32_t));
    d.bucket = calloc((size_t)(c->queries * c->keys), sizeof(int));
    assert_true(d.lo && d.hi && d.bucket);
    suite_round(c->dtype, d.q, d.n_q), suite_round(c->dtype, d.k, d.n_k), suite_round(c->dtype, d.v, d.n_k);
    suite_round(c->dtype, d.d_o, d.n_q), suite_round(c->bias_dtype, d.bias, d.n_bias);
    make_ranges(&d);
    make_keep(&d);
    for (int64_t i = 0; c->n_buckets && i < c->queries; i++)
        for (int64_t j = 0; j < c->keys; j++)
            d.bucket[i * c->keys + j] =
                bucket_of(j - i - c->query_offset, c->n_buckets, c->bidirectional, c->max_distance);
    return d;
}

static inline void drop(attention_data *d) {
    free(d->q), free(d->k), free(d->v), free(d->bias), free(d->d_o), free(d->d_bias), free(d->o),
        free(d->lse);
    free(d->keep), free(d->lo), free(d->hi), free(d->bucket);
}

#define DESCRIBE(real, name, rounding)                                                                       \
    static inline name##_attention name##_describe(const attention_data *d, const real *keep,                \
                                                   const real *bias) {                                       \
        const attention_case *c = d->c;                                                                      \
        return (name##_attention){c->batch,       c->queries, c->keys,                                       \
                                  c->heads,       c->groups,  c->width,                                      \
                                  (real)c->scale, keep,       c->n_buckets ? d->bucket : NULL,               \
                                  c->n_buckets,   bias,       rounding};                                     \
    }
static inline float nearest_bf16(float x) {
    return suite_from_bf16(suite_to_bf16(x));
}
DESCRIBE(double, ref, NULL)
DESCRIBE(float, plain, c->dtype == SAGO_BF16 ? nearest_bf16 : NULL)

static inline sago_attention_args arguments(suite_run *run, const attention_data *d) {
    const attention_case *c = d->c;
    int64_t first = c->first_head * c->queries * (c->pitch ? c->pitch : c->keys) + c->first_key;
    sago_attention_args args = {
        .scale = c->scale,
        .lo = suite_i32(run, d->lo, DIMS(c->batch, c->queries)),
        .hi = suite_i32(run, d->hi, DIMS(c->batch, c->queries)),
        .bias_bidirectional = c->bidirectional,
        .bias_max_distance = c->max_distance,
        .query_offset = c->query_offset,
        .dropout = {c->rate, 99, c->first_row, dropout_heads(c) * c->queries, first, c->pitch}};
    if (c->n_buckets) args.bias = suite_typed(run, c->bias_dtype, d->bias, DIMS(c->n_buckets, c->heads));
    return args;
}

#define Q_DIMS(c) DIMS((c)->batch, (c)->queries, (c)->heads, (c)->width)
#define K_DIMS(c) DIMS((c)->batch, (c)->keys, (c)->groups, (c)->width)

#endif
