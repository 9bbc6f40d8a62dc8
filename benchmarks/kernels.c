// SPDX-License-Identifier: Apache-2.0
/**
 * The device's own loops at the shapes of T5 v1.1 small: 2048 tokens, width 512, MLP 1024, 512 target tokens
 * against a vocabulary of 32128. Each operation takes turns with its peer, a copy that moves as many bytes,
 * so that share_of_copy holds on a busy machine too. Decoding products take turns with oneDNN's product of
 * the same shape, which the device uses for more rows.
 *
 * bench_kernels [--device cpu] [--threads 0] [--runs 31] [--only NAME]; with one thread times are of its
 * processor clock, otherwise of the wall.
 */
#include "bench.h"

#include "cpu/onednn.h"
#include "log.h"
#include "rng.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROWS = 4,
    TOKENS = 512,
    N = ROWS * TOKENS,
    D = 512,
    F = 1024,
    V = 32128,
    TARGETS = 512,
    BATCH = 8,
    HEAD_WIDTH = 64,
    MAX_RUNS = 999
};

static sago_device *device;
static const sago_ops *ops;
static int runs;
static const char *only;
static json_t *results;

static double now_seconds(void) {
    if (device->n_threads > 1) return (double)sago_now_ns() * 1e-9;
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *memory(int64_t count) {
    enum { PIECE = 65536 };
    static float piece[PIECE];
    void *out;
    bench_check(ops->allocate(device, &out, (size_t)count * sizeof(float)));
    sago_normal_fill(piece, 0, PIECE, (uint64_t)count);
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;
        bench_check(ops->upload(device, (float *)out + at, piece, (size_t)n * sizeof(float)));
    }
    return out;
}

static sago_tensor vector(int64_t n) {
    return sago_tensor_1d(memory(n), SAGO_F32, n);
}
static sago_tensor matrix(int64_t n, int64_t d) {
    return sago_tensor_2d(memory(n * d), SAGO_F32, n, d);
}
static sago_tensor batch(int64_t d) {
    return sago_tensor_3d(memory(N * d), SAGO_F32, ROWS, TOKENS, d);
}

/* Everything a case may need; only what it uses is touched. */
static struct {
    sago_tensor x, y, z, scale, d_scale, mean, rstd, f[5], table, d_table, ids, logits, stats, targets, lse,
        weights;
    sago_tensor few, few_out, decode_logits, picked, logprobs, from, to;
    sago_dropout drop, none;
    sago_cross_entropy_args loss;
    sago_sample_args sample;
    sago_matmul_args product;
    uint64_t draws[BATCH];
} s;

typedef sago_status action(void);

static void report(const char *name, double bytes, action *run, action *peer, const char *peer_name) {
    if (only && !strstr(name, only)) return;
    double seconds[MAX_RUNS], others[MAX_RUNS], shares[MAX_RUNS], median;
    bench_check(run());
    bench_check(peer());
    for (int i = 0; i < runs; i++) {
        double start = now_seconds();
        bench_check(peer());
        double middle = now_seconds();
        bench_check(run());
        seconds[i] = now_seconds() - middle;
        others[i] = middle - start;
        shares[i] = others[i] / seconds[i];
    }
    json_t *row = json_object();
    json_object_set_new(row, "name", json_string(name));
    json_object_set_new(row, "seconds", bench_summary(seconds, runs, &median));
    json_object_set_new(row, "bytes", json_real(bytes));
    json_object_set_new(row, "gb_per_second", json_real(bytes / median * 1e-9));
    json_object_set_new(row, "peer", json_string(peer_name));
    json_object_set_new(row, "peer_seconds", bench_summary(others, runs, &median));
    json_object_set_new(row, "speed_over_peer", bench_summary(shares, runs, &median));
    json_array_append_new(results, row);
}

static sago_status copy(void) {
    return ops->copy(device, s.to, s.from);
}

static void against_copy(const char *name, double bytes, action *run) {
    if (only && !strstr(name, only)) return;
    s.from = vector((int64_t)(bytes / 8)), s.to = vector((int64_t)(bytes / 8));
    report(name, bytes, run, copy, "copy of as many bytes");
    ops->release(device, s.from.data);
    ops->release(device, s.to.data);
}

static sago_status dropout(void) {
    return ops->dropout(device, s.y, s.x, &s.drop);
}
static sago_status residual(void) {
    return ops->residual(device, s.y, s.y, s.x, &s.none);
}
static sago_status residual_drop(void) {
    return ops->residual(device, s.y, s.y, s.x, &s.drop);
}
static sago_status norm(void) {
    return ops->rmsnorm_forward(device, s.y, s.rstd, s.x, s.scale, 1e-6f);
}
static sago_status norm_back(void) {
    return ops->rmsnorm_backward(device, s.z, s.d_scale, s.y, s.x, s.scale, s.rstd);
}
static sago_status layer_norm(void) {
    return ops->layernorm_forward(device, s.y, s.mean, s.rstd, s.x, s.scale, 1e-6f);
}
static sago_status layer_norm_back(void) {
    return ops->layernorm_backward(device, s.z, s.d_scale, s.y, s.x, s.scale, s.mean, s.rstd);
}
static sago_status relu(void) {
    return ops->relu_forward(device, s.f[0], s.f[1], &s.none);
}
static sago_status geglu(void) {
    return ops->geglu_forward(device, s.f[0], s.f[1], s.f[2], &s.none);
}
static sago_status geglu_drop(void) {
    return ops->geglu_forward(device, s.f[0], s.f[1], s.f[2], &s.drop);
}
static sago_status geglu_back(void) {
    return ops->geglu_backward(device, s.f[3], s.f[4], s.f[0], s.f[1], s.f[2], &s.none);
}
static sago_status swiglu(void) {
    return ops->swiglu_forward(device, s.f[0], s.f[1], s.f[2], &s.none);
}
static sago_status swiglu_back(void) {
    return ops->swiglu_backward(device, s.f[3], s.f[4], s.f[0], s.f[1], s.f[2], &s.none);
}
static sago_status rotate(sago_rope_style style) {
    const sago_rope_args args = {.theta = 1e4, .style = style};
    const int64_t heads[] = {ROWS, TOKENS, D / HEAD_WIDTH, HEAD_WIDTH};
    return ops->rope(device, sago_tensor_view(s.y, 4, heads), sago_tensor_view(s.x, 4, heads), s.ids, &args);
}
static sago_status rope_interleaved(void) {
    return rotate(SAGO_ROPE_INTERLEAVED);
}
static sago_status rope_halves(void) {
    return rotate(SAGO_ROPE_HALVES);
}
static sago_status embed(void) {
    return ops->embedding_forward(device, s.x, s.table, s.ids, 1);
}
static sago_status embed_back(void) {
    return ops->embedding_backward(device, s.d_table, s.x, s.ids, 1);
}
static sago_status loss(void) {
    return ops->cross_entropy_forward(device, s.stats, s.logits, s.targets, &s.loss);
}
static sago_status loss_back(void) {
    return ops->cross_entropy_backward(device, s.logits, s.logits, s.lse, s.targets, s.weights, &s.loss);
}
static sago_status pick(void) {
    return ops->sample(device, s.picked, s.logprobs, s.decode_logits, s.draws, &s.sample);
}
static sago_status decode_product(void) {
    return ops->matmul(device, s.few_out, s.few, s.table, &s.product);
}
static sago_status decode_onednn(void) {
    sago_gemm g = {BATCH, V, D, false, true, 1, 0};
    return sago_onednn_f32(&g, s.few_out.data, s.few.data, s.table.data, device->n_threads);
}

static void set_up(void) {
    s.x = batch(D), s.y = batch(D), s.z = batch(D);
    s.scale = vector(D), s.d_scale = vector(D), s.mean = vector(N), s.rstd = vector(N);
    for (int i = 0; i < 5; i++) s.f[i] = batch(F);
    s.table = matrix(V, D), s.d_table = matrix(V, D);
    s.ids = sago_tensor_1d(memory(N), SAGO_I32, N);
    s.logits = matrix(TARGETS, V), s.stats = matrix(TARGETS, SAGO_CE_STATS);
    s.targets = sago_tensor_1d(memory(TARGETS), SAGO_I32, TARGETS);
    s.lse = vector(TARGETS), s.weights = vector(TARGETS);
    s.few = matrix(BATCH, D), s.few_out = matrix(BATCH, V), s.decode_logits = matrix(BATCH, V);
    s.picked = sago_tensor_1d(memory(BATCH), SAGO_I32, BATCH), s.logprobs = vector(BATCH);
    int32_t ids[N], targets[TARGETS];
    for (int i = 0; i < N; i++) { /* frequent low ids, as words are */
        uint64_t hash = sago_mix(1, (uint64_t)i);
        ids[i] = (int32_t)sago_below(hash, 1 + sago_below(sago_mix(2, hash), V));
    }
    for (int i = 0; i < TARGETS; i++) targets[i] = ids[i];
    bench_check(ops->upload(device, s.ids.data, ids, sizeof ids));
    bench_check(ops->upload(device, s.targets.data, targets, sizeof targets));
    bench_check(ops->fill(device, s.lse, 12));
    bench_check(ops->fill(device, s.weights, 1));
    s.drop = (sago_dropout){0.1f, 77, 0, TOKENS};
    s.loss = (sago_cross_entropy_args){.vocabulary = V, .z_loss = 1e-4f, .scale = 1};
    s.product = (sago_matmul_args){.transpose_b = true, .alpha = 1};
    for (int i = 0; i < BATCH; i++) s.draws[i] = (uint64_t)i;
}

int main(int argc, char **argv) {
    bench_check(sago_device_open(bench_text(argc, argv, "device", "cpu"),
                                 (int)bench_option(argc, argv, "threads", 0), &device));
    ops = device->ops;
    runs = (int)bench_option(argc, argv, "runs", 31);
    if (runs < 1 || runs > MAX_RUNS) bench_check(sago_fail(SAGO_E_USAGE, "--runs is 1 to %d", MAX_RUNS));
    only = bench_text(argc, argv, "only", NULL);
    results = json_array();
    set_up();
    const double narrow = 4.0 * N * D, wide = 4.0 * N * F, logits = 4.0 * TARGETS * V;
    against_copy("dropout", 2 * narrow, dropout);
    against_copy("residual", 3 * narrow, residual);
    against_copy("residual with dropout", 3 * narrow, residual_drop);
    against_copy("rmsnorm forward", 2 * narrow, norm);
    against_copy("rmsnorm backward", 4 * narrow, norm_back);
    against_copy("layernorm forward", 2 * narrow, layer_norm);
    against_copy("layernorm backward", 4 * narrow, layer_norm_back);
    against_copy("relu forward", 2 * wide, relu);
    against_copy("geglu forward", 3 * wide, geglu);
    against_copy("geglu forward with dropout", 3 * wide, geglu_drop);
    against_copy("geglu backward", 5 * wide, geglu_back);
    against_copy("swiglu forward", 3 * wide, swiglu);
    against_copy("swiglu backward", 5 * wide, swiglu_back);
    against_copy("rope interleaved", 2 * narrow, rope_interleaved);
    against_copy("rope halves", 2 * narrow, rope_halves);
    against_copy("embedding forward", 2 * narrow, embed);
    against_copy("embedding backward", 3 * narrow, embed_back);
    against_copy("cross-entropy forward", logits, loss);
    against_copy("cross-entropy backward", 2 * logits, loss_back);
    static const struct {
        const char *name;
        sago_sample_args args;
    } samples[] = {{"sample greedy", {0, 0, 1, 1}},
                   {"sample by temperature", {1, 0, 1, 1}},
                   {"sample top-k 50", {1, 50, 1, 1}},
                   {"sample top-p 0.9", {1, 0, 0.9f, 1}}};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        s.sample = samples[i].args;
        against_copy(samples[i].name, 4.0 * BATCH * V, pick);
    }
    if (strcmp(device->name, "cpu") == 0)
        report("decoding product, 8 x 512 x 32128", 4.0 * V * D, decode_product, decode_onednn,
               "oneDNN's product");
    json_t *out =
        json_pack("{s:s, s:o, s:s, s:i}", "benchmark", "kernels", "command", bench_command(argc, argv),
                  "device", device->description, "threads", device->n_threads);
    json_object_set_new(out, "results", results);
    sago_str text = {0};
    sago_json_add(&text, out, 5);
    printf("%s\n", sago_str_text(&text));
    sago_str_free(&text);
    json_decref(out);
    sago_device_close(device);
    return 0;
}
