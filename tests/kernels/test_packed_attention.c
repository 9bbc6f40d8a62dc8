// SPDX-License-Identifier: Apache-2.0
/*
 * Packing must change nothing: a segment's attention and its gradients are the same bits whether it stands
 * alone or between others, and what a neighbour holds, even NaN, does not reach it. (Fewer than four queries
 * alone are decoding, which adds in another order.)
 */
#include "suite.h"

#include <math.h>

enum { HEADS = 2, WIDE = 64, ODD = 23, BUCKETS = 32, MOST = 300 };

typedef struct part {
    float *q, *k, *v, *d_o, *o, *lse, *d_q, *d_k, *d_v;
} part;

static float *values(int64_t count, uint64_t key) {
    return key ? suite_normal(count, key) : calloc((size_t)count, sizeof(float));
}

/* Attention of one row of `count` tokens in segments of the given lengths, over the part's values. */
static void run(sago_device *d, part *p, const int *lengths, int n, int64_t count, int64_t width,
                bool causal) {
    int32_t lo[MOST], hi[MOST];
    for (int s = 0, at = 0; s < n; at += lengths[s++])
        for (int i = at; i < at + lengths[s]; i++) lo[i] = at, hi[i] = causal ? i + 1 : at + lengths[s];
    float *table = suite_normal(BUCKETS * HEADS, 9), *d_table = values(BUCKETS * HEADS, 0);
    sago_attention_args args = {.scale = 0.3f,
                                .lo = sago_tensor_2d(lo, SAGO_I32, 1, count),
                                .hi = sago_tensor_2d(hi, SAGO_I32, 1, count),
                                .bias = sago_tensor_2d(table, SAGO_F32, BUCKETS, HEADS),
                                .bias_bidirectional = !causal,
                                .bias_max_distance = 128};
#define ROW(x) sago_tensor_4d(x, SAGO_F32, 1, count, HEADS, width)
    sago_tensor lse = sago_tensor_3d(p->lse, SAGO_F32, 1, HEADS, count);
    suite_ok(d->ops->attention_forward(d, ROW(p->o), lse, ROW(p->q), ROW(p->k), ROW(p->v), &args));
    suite_ok(d->ops->attention_backward(d, ROW(p->d_q), ROW(p->d_k), ROW(p->d_v),
                                        sago_tensor_2d(d_table, SAGO_F32, BUCKETS, HEADS), ROW(p->d_o),
                                        ROW(p->o), lse, ROW(p->q), ROW(p->k), ROW(p->v), &args));
    free(table), free(d_table);
}

static void compare(sago_device *d, const int *lengths, int n, int64_t width, bool causal) {
    int64_t count = 0, token = HEADS * width;
    for (int s = 0; s < n; s++) count += lengths[s];
    int64_t size = count * token;
    part packed = {values(size, 1), values(size, 2), values(size, 3),
                   values(size, 4), values(size, 0), values(count * HEADS, 0),
                   values(size, 0), values(size, 0), values(size, 0)};
    for (int64_t i = 0; i < lengths[0] * token; i++) packed.k[i] = packed.v[i] = NAN;
    run(d, &packed, lengths, n, count, width, causal);
    int64_t at = lengths[0];
    for (int s = 1; s < n; at += lengths[s++]) {
        int64_t here = lengths[s] * token, from = at * token;
        part alone = {packed.q + from,   packed.k + from, packed.v + from,
                      packed.d_o + from, values(here, 0), values(lengths[s] * HEADS, 0),
                      values(here, 0),   values(here, 0), values(here, 0)};
        run(d, &alone, &lengths[s], 1, lengths[s], width, causal);
        assert_memory_equal(alone.o, packed.o + from, here * 4);
        assert_memory_equal(alone.d_q, packed.d_q + from, here * 4);
        assert_memory_equal(alone.d_k, packed.d_k + from, here * 4);
        assert_memory_equal(alone.d_v, packed.d_v + from, here * 4);
        for (int h = 0; h < HEADS; h++)
            assert_memory_equal(alone.lse + h * lengths[s], packed.lse + h * count + at, lengths[s] * 4);
        free(alone.o), free(alone.lse), free(alone.d_q), free(alone.d_k), free(alone.d_v);
    }
    assert_true(isnan(packed.o[0]));
    free(packed.q), free(packed.k), free(packed.v), free(packed.d_o), free(packed.o), free(packed.lse);
    free(packed.d_q), free(packed.d_k), free(packed.d_v);
}

static void test_alone_or_packed(void **state) {
    (void)state;
    static const int mixed[] = {17, 120, 5, 9, 64, 4, 80}, long_one[] = {3, 290}, whole[] = {64, 64, 64};
    sago_device *d = suite_device(suite_n_devices() - 1);
    for (int causal = 0; causal < 2; causal++)
        for (int odd = 0; odd < 2; odd++) {
            compare(d, mixed, LENGTH(mixed), odd ? ODD : WIDE, causal);
            compare(d, long_one, LENGTH(long_one), odd ? ODD : WIDE, causal);
            compare(d, whole, LENGTH(whole), odd ? ODD : WIDE, causal);
        }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone_or_packed)};
SUITE_MAIN(tests)
