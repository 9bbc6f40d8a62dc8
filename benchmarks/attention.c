// SPDX-License-Identifier: Apache-2.0
/**
 * Attention of the cpu device: bench_attention [--threads N] [--processor-time 1] [--rounds N] [--case TEXT]
 *
 * A JSON line a case, forward and backward: median seconds with quartiles, GFLOP/s counted over the pairs
 * that may attend (4 E a pair forward, 10 E backward), and that as a share of the matrix product of the same
 * run. Cases and the product take turns, so that a slow moment of the machine falls on all of them. A last
 * line gives what a row of eight segments costs beside its full attention.
 */
#include "bench.h"
#include "log.h"
#include "ops.h"
#include "rng.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 256, GEMM = 1024 };

enum mask { FULL, CAUSAL, EIGHT_EQUAL, EIGHT_MIXED };

typedef struct bench_case {
    const char *name;
    int64_t batch, heads, groups, queries, keys, width;
    enum mask mask;
    int buckets;
    float dropout;
} bench_case;

static const bench_case cases[] = {
    {"t5-small encoder, full", 4, 6, 6, 512, 512, 64, FULL, 32, 0.0f},
    {"t5-small encoder, eight segments of 64", 4, 6, 6, 512, 512, 64, EIGHT_EQUAL, 32, 0.0f},
    {"t5-small encoder, eight mixed segments", 4, 6, 6, 512, 512, 64, EIGHT_MIXED, 32, 0.0f},
    {"t5-small encoder, full, dropout .05", 4, 6, 6, 512, 512, 64, FULL, 32, 0.05f},
    {"t5-small decoder", 4, 6, 6, 128, 128, 64, CAUSAL, 32, 0.0f},
    {"t5-small cross", 4, 6, 6, 128, 512, 64, FULL, 0, 0.0f},
    {"causal, width 128", 1, 8, 8, 1024, 1024, 128, CAUSAL, 0, 0.0f},
    {"causal, one key/value head, width 256", 1, 8, 1, 512, 512, 256, CAUSAL, 0, 0.0f},
    {"t5-small decoding one token, 512 keys, batch 8", 8, 6, 6, 1, 512, 64, FULL, 32, 0.0f},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

typedef struct bench_state {
    sago_tensor q, k, v, o, lse, d_q, d_k, d_v, d_o, d_bias;
    sago_attention_args args;
    int64_t pairs;
    double forward[MAX_ROUNDS], backward[MAX_ROUNDS];
} bench_state;

static sago_tensor make(sago_device *device, sago_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d,
                        uint64_t key) {
    sago_tensor t = sago_tensor_4d(NULL, dtype, a, b, c, d);
    bench_check(device->ops->allocate(device, &t.data, sago_tensor_bytes(t)));
    if (key && dtype == SAGO_F32) sago_normal_fill(t.data, 0, sago_tensor_count(t), key);
    return t;
}

static sago_tensor flat(sago_tensor t, int n_dims, const int64_t shape[]) {
    return sago_tensor_view(t, n_dims, shape);
}

/** Ranges of the case; returns how many pairs may attend, over all heads. */
static int64_t fill_ranges(const bench_case *c, int32_t *lo, int32_t *hi) {
    static const int mixed[] = {17, 120, 33, 80, 64, 9, 101, 88}; /* 512 tokens */
    int64_t pairs = 0;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t i = 0, segment = 0, start = 0; i < c->queries; i++) {
            int64_t from = 0, to = c->keys;
            if (c->mask == CAUSAL) to = i + 1;
            if (c->mask == EIGHT_EQUAL) from = i / 64 * 64, to = from + 64;
            if (c->mask == EIGHT_MIXED) {
                if (i == start + mixed[segment]) start += mixed[segment++];
                from = start, to = start + mixed[segment];
            }
            lo[b * c->queries + i] = (int32_t)from, hi[b * c->queries + i] = (int32_t)to;
            pairs += (to - from) * c->heads;
        }
    return pairs;
}

static void open_case(sago_device *device, const bench_case *c, bench_state *s) {
    s->q = make(device, SAGO_F32, c->batch, c->queries, c->heads, c->width, 1);
    s->o = make(device, SAGO_F32, c->batch, c->queries, c->heads, c->width, 0);
    s->d_o = make(device, SAGO_F32, c->batch, c->queries, c->heads, c->width, 2);
    s->d_q = make(device, SAGO_F32, c->batch, c->queries, c->heads, c->width, 0);
    s->k = make(device, SAGO_F32, c->batch, c->keys, c->groups, c->width, 3);
    s->v = make(device, SAGO_F32, c->batch, c->keys, c->groups, c->width, 4);
    s->d_k = make(device, SAGO_F32, c->batch, c->keys, c->groups, c->width, 0);
    s->d_v = make(device, SAGO_F32, c->batch, c->keys, c->groups, c->width, 0);
    s->lse = flat(make(device, SAGO_F32, c->batch, c->heads, c->queries, 1, 0), 3,
                  (int64_t[]){c->batch, c->heads, c->queries});
    int64_t rows[] = {c->batch, c->queries}, table[] = {c->buckets, c->heads};
    s->args =
        (sago_attention_args){.scale = c->buckets ? 1.0f : 0.0625f, /* T5 does not scale */
                              .lo = flat(make(device, SAGO_I32, c->batch, c->queries, 1, 1, 0), 2, rows),
                              .hi = flat(make(device, SAGO_I32, c->batch, c->queries, 1, 1, 0), 2, rows),
                              .bias_bidirectional = c->mask != CAUSAL,
                              .bias_max_distance = 128,
                              .query_offset = c->queries == 1 ? c->keys - 1 : 0,
                              .dropout = {c->dropout, 7, 0, c->heads * c->queries}};
    if (c->buckets) {
        s->args.bias = flat(make(device, SAGO_F32, c->buckets, c->heads, 1, 1, 5), 2, table);
        s->d_bias = flat(make(device, SAGO_F32, c->buckets, c->heads, 1, 1, 0), 2, table);
    }
    s->pairs = fill_ranges(c, s->args.lo.data, s->args.hi.data);
}

static void run_case(sago_device *device, const bench_case *c, bench_state *s, int round) {
    const sago_ops *ops = device->ops;
    int64_t start = bench_now_ns();
    bench_check(ops->attention_forward(device, s->o, s->lse, s->q, s->k, s->v, &s->args));
    int64_t middle = bench_now_ns();
    if (c->queries > 1)
        bench_check(ops->attention_backward(device, s->d_q, s->d_k, s->d_v, s->d_bias, s->d_o, s->o, s->lse,
                                            s->q, s->k, s->v, &s->args));
    if (round < 0) return;
    s->forward[round] = (double)(middle - start) * 1e-9;
    s->backward[round] = (double)(bench_now_ns() - middle) * 1e-9;
}

static void print_line(json_t *line) {
    char *text = json_dumps(line, JSON_REAL_PRECISION(5) | JSON_PRESERVE_ORDER);
    puts(text);
    free(text);
    json_decref(line);
}

static void report(const bench_case *c, bench_state *s, int rounds, double ceiling, double *both) {
    double forward, backward = 0;
    json_t *line = json_pack("{s:s, s:s, s:[I,I,I,I,I,I]}", "benchmark", "attention", "case", c->name,
                             "batch_heads_groups_queries_keys_width", c->batch, c->heads, c->groups,
                             c->queries, c->keys, c->width);
    json_object_set_new(line, "forward_seconds", bench_summary(s->forward, rounds, &forward));
    double flops = 4.0 * (double)s->pairs * (double)c->width * 1e-9;
    if (c->queries > 1) {
        json_object_set_new(line, "backward_seconds", bench_summary(s->backward, rounds, &backward));
        json_t *rates = json_pack(
            "{s:f, s:f, s:f, s:f, s:f}", "forward_gflops", flops / forward, "backward_gflops",
            2.5 * flops / backward, "forward_share", flops / forward / ceiling, "backward_share",
            2.5 * flops / backward / ceiling, "share", 3.5 * flops / (forward + backward) / ceiling);
        json_object_update(line, rates);
        json_decref(rates);
    } else {
        double bytes = 2.0 * (double)(c->batch * c->keys * c->groups * c->width) * sizeof(float);
        json_object_set_new(line, "gigabytes_per_second", json_real(bytes / forward * 1e-9));
    }
    *both = forward + backward;
    print_line(line);
}

int main(int argc, char **argv) {
    int rounds = (int)bench_option(argc, argv, "rounds", 15);
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = MAX_ROUNDS;
    const char *only = bench_text(argc, argv, "case", "");
    sago_device *device;
    bench_check(
        sago_device_open(bench_text(argc, argv, "device", "cpu"), bench_threads(argc, argv), &device));
    bench_state *states = sago_alloc_zero(N_CASES, sizeof *states);
    for (int i = 0; i < N_CASES; i++)
        if (strstr(cases[i].name, only)) open_case(device, &cases[i], &states[i]);
    sago_tensor a = make(device, SAGO_F32, GEMM, GEMM, 1, 1, 8),
                b = make(device, SAGO_F32, GEMM, GEMM, 1, 1, 9);
    int64_t square[] = {GEMM, GEMM};
    a = flat(a, 2, square), b = flat(b, 2, square);
    sago_tensor product = flat(make(device, SAGO_F32, GEMM, GEMM, 1, 1, 0), 2, square);
    double gemm[MAX_ROUNDS], gemm_seconds, both[N_CASES] = {0};
    for (int round = -1; round < rounds; round++) {
        int64_t start = bench_now_ns();
        bench_check(device->ops->matmul(device, product, a, b, &(sago_matmul_args){.alpha = 1.0f}));
        if (round >= 0) gemm[round] = (double)(bench_now_ns() - start) * 1e-9;
        for (int i = 0; i < N_CASES; i++)
            if (states[i].pairs) run_case(device, &cases[i], &states[i], round);
    }
    json_t *seconds = bench_summary(gemm, rounds, &gemm_seconds);
    double ceiling = 2.0 * GEMM * GEMM * GEMM / gemm_seconds * 1e-9;
    print_line(json_pack("{s:s, s:o, s:s, s:s, s:i, s:o, s:f}", "benchmark", "attention", "command",
                         bench_command(argc, argv), "device", device->description, "peer",
                         "matmul 1024^3 fp32", "size", GEMM, "seconds", seconds, "gflops", ceiling));
    for (int i = 0; i < N_CASES; i++)
        if (states[i].pairs) report(&cases[i], &states[i], rounds, ceiling, &both[i]);
    if (both[0] > 0 && both[1] > 0 && both[2] > 0)
        print_line(json_pack("{s:s, s:f, s:f}", "benchmark", "attention", "eight_equal_segments_of_full",
                             both[1] / both[0], "eight_mixed_segments_of_full", both[2] / both[0]));
    free(states);
    sago_device_close(device);
    return 0;
}
