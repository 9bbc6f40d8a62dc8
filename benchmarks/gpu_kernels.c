// SPDX-License-Identifier: Apache-2.0
/**
 * The operations of a GPU device at the shapes of large models, in bf16: bench_gpu_kernels [--device cuda]
 * [--rounds 31]
 * [--only TEXT] [--small 1]
 *
 * A JSON line a case: median seconds of one call with quartiles, and TFLOP/s (attention counts the pairs that
 * may attend: 4 E a pair forward, 10 E backward) or GB/s (bytes that must move, each once). A round hands
 * over as many calls as last some milliseconds and waits once; the calls take turns over several sets of
 * tensors, together larger than any cache, so that each finds its inputs in memory. Values are random: a
 * product of zeros draws less power and runs faster. Two cases are yardsticks of the same run: a copy, and a
 * product of 8192 x 8192 matrices.
 * --small shrinks every shape, so that the same program runs in the sim device, where times mean nothing.
 */
#include "bench.h"
#include "log.h"
#include "ops.h"
#include "rng.h"
#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 256, MAX_SETS = 16, MAX_TENSORS = 16, CACHE_BYTES = 256 << 20 };

typedef enum mask { FULL, CAUSAL, PACKED } mask;

/* One set of a case's tensors; every case knows their order. */
typedef struct tensor_set {
    sago_tensor t[MAX_TENSORS];
    int n;
    void *sums; /* sago_loss_sums */
} tensor_set;

typedef struct bench_case {
    const char *name;
    int64_t size[6];
    mask mask;
    int buckets; /* T5 bias; 0: none */
    void (*make)(const struct bench_case *, tensor_set *);
    sago_status (*run)(const struct bench_case *, tensor_set *);
    double (*flops)(const struct bench_case *); /* NULL: the case is about bytes */
} bench_case;

static sago_device *device;
static const sago_ops *ops;
static bool small;

/* --- tensors
 * -------------------------------------------------------------------------------------------------- */

/* Normal values times deviation; one block of random numbers, repeated, is enough to keep power realistic. */
static void fill_random(sago_tensor t, float deviation) {
    enum { PIECE = 1 << 16 };
    static float normal[PIECE];
    static uint16_t narrow[PIECE];
    sago_normal_fill(normal, 0, PIECE, (uint64_t)sago_tensor_count(t));
    for (int i = 0; i < PIECE; i++) {
        normal[i] *= deviation;
        uint32_t bits;
        memcpy(&bits, &normal[i], sizeof bits);
        narrow[i] = (uint16_t)((bits + 0x8000) >> 16);
    }
    bool wide = t.dtype == SAGO_F32;
    size_t bytes = sago_tensor_bytes(t), piece = wide ? sizeof normal : sizeof narrow;
    for (size_t at = 0; at < bytes; at += piece)
        bench_check(ops->upload(device, (char *)t.data + at, wide ? (void *)normal : (void *)narrow,
                                bytes - at < piece ? bytes - at : piece));
}

static sago_tensor *add(tensor_set *s, sago_tensor t, float deviation) {
    bench_check(ops->allocate(device, &t.data, sago_tensor_bytes(t)));
    if (deviation > 0) fill_random(t, deviation);
    s->t[s->n] = t;
    return &s->t[s->n++];
}

static void add_ids(tensor_set *s, int64_t n, int64_t below) {
    int32_t *ids = sago_alloc((size_t)n * sizeof *ids);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)sago_below(sago_mix(5, (uint64_t)i), (uint64_t)below);
    sago_tensor *t = add(s, sago_tensor_1d(NULL, SAGO_I32, n), 0);
    bench_check(ops->upload(device, t->data, ids, sago_tensor_bytes(*t)));
    free(ids);
}

static size_t set_bytes(const tensor_set *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->n; i++) bytes += sago_tensor_bytes(s->t[i]);
    return bytes;
}

static int64_t shrunk(int64_t size, int64_t most) {
    return small && size > most ? most : size;
}

/* --- attention: size = batch, heads, groups, tokens, width
 * ------------------------------------------------------ */

enum { Q, K, V, O, LSE, LO, HI, BIAS, D_O, D_Q, D_K, D_V, D_BIAS };
enum { PACKED_SEGMENT = 384 };

static int64_t tokens_of(const bench_case *c) {
    return shrunk(c->size[3], 160);
}

static int64_t fill_ranges(const bench_case *c, int32_t *lo, int32_t *hi) {
    int64_t tokens = tokens_of(c), segment = small ? 48 : PACKED_SEGMENT, pairs = 0;
    for (int64_t i = 0; i < tokens; i++) {
        int64_t from = c->mask == PACKED ? i / segment * segment : 0;
        int64_t to = c->mask == CAUSAL ? i + 1 : c->mask == PACKED ? from + segment : tokens;
        if (to > tokens) to = tokens;
        if (lo) lo[i] = (int32_t)from, hi[i] = (int32_t)to;
        pairs += to - from;
    }
    return pairs;
}

static double pairs_of(const bench_case *c) {
    return (double)fill_ranges(c, NULL, NULL) * (double)(shrunk(c->size[0], 1) * shrunk(c->size[1], 2));
}

static void make_attention(const bench_case *c, tensor_set *s) {
    int64_t b = shrunk(c->size[0], 1), h = shrunk(c->size[1], 2), g = shrunk(c->size[2], 2), n = tokens_of(c),
            e = c->size[4];
    add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, h, e), 1);
    for (int i = 0; i < 2; i++) add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, g, e), 1);
    add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, h, e), 0);
    add(s, sago_tensor_3d(NULL, SAGO_F32, b, h, n), 0);
    int32_t *ranges = sago_alloc((size_t)(2 * b * n) * sizeof *ranges);
    for (int64_t row = 0; row < b; row++) fill_ranges(c, ranges + row * n, ranges + (b + row) * n);
    for (int i = 0; i < 2; i++) {
        sago_tensor *t = add(s, sago_tensor_2d(NULL, SAGO_I32, b, n), 0);
        bench_check(ops->upload(device, t->data, ranges + i * b * n, sago_tensor_bytes(*t)));
    }
    free(ranges);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, c->buckets ? c->buckets : 2, h), 1);
    add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, h, e), 1);
    add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, h, e), 0);
    for (int i = 0; i < 2; i++) add(s, sago_tensor_4d(NULL, SAGO_BF16, b, n, g, e), 0);
    add(s, sago_tensor_2d(NULL, SAGO_F32, c->buckets ? c->buckets : 2, h), 0);
}

static sago_attention_args attention_args(const bench_case *c, const tensor_set *s) {
    sago_attention_args args = {.scale = 1 / sqrtf((float)c->size[4]),
                                .lo = s->t[LO],
                                .hi = s->t[HI],
                                .bias_bidirectional = c->mask != CAUSAL,
                                .bias_max_distance = 128};
    if (c->buckets) args.bias = s->t[BIAS];
    return args;
}

static sago_status attention_forward(const bench_case *c, tensor_set *s) {
    const sago_attention_args args = attention_args(c, s);
    return ops->attention_forward(device, s->t[O], s->t[LSE], s->t[Q], s->t[K], s->t[V], &args);
}

static sago_status attention_backward(const bench_case *c, tensor_set *s) {
    const sago_attention_args args = attention_args(c, s);
    sago_tensor d_bias = c->buckets ? s->t[D_BIAS] : (sago_tensor){0};
    return ops->attention_backward(device, s->t[D_Q], s->t[D_K], s->t[D_V], d_bias, s->t[D_O], s->t[O],
                                   s->t[LSE], s->t[Q], s->t[K], s->t[V], &args);
}

static void make_attention_backward(const bench_case *c, tensor_set *s) {
    make_attention(c, s);
    bench_check(attention_forward(c, s)); /* o and lse */
}

static double forward_flops(const bench_case *c) {
    return 4 * pairs_of(c) * (double)c->size[4];
}
static double backward_flops(const bench_case *c) {
    return 10 * pairs_of(c) * (double)c->size[4];
}

/* --- rows and elements: size = tokens, width
 * ------------------------------------------------------------------------ */

enum { X, Y, Z, W, D_SCALE, SCALE, RSTD, MEAN };

static int64_t rows_of(const bench_case *c) {
    return shrunk(c->size[0], 64);
}
static int64_t width_of(const bench_case *c) {
    return shrunk(c->size[1], 256);
}

static void make_rows(const bench_case *c, tensor_set *s) {
    for (int i = 0; i < 4; i++) add(s, sago_tensor_2d(NULL, SAGO_BF16, rows_of(c), width_of(c)), 1);
    add(s, sago_tensor_1d(NULL, SAGO_F32, width_of(c)), 0);
    add(s, sago_tensor_1d(NULL, SAGO_BF16, width_of(c)), 1);
    for (int i = 0; i < 2; i++) add(s, sago_tensor_1d(NULL, SAGO_F32, rows_of(c)), 0);
}

static sago_tensor as_batch(sago_tensor t) {
    return sago_tensor_3d(t.data, t.dtype, 1, t.shape[0], t.shape[1]);
}

static sago_status copy(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->copy(device, s->t[Y], s->t[X]);
}
static sago_status norm_forward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->rmsnorm_forward(device, s->t[Y], s->t[RSTD], s->t[X], s->t[SCALE], 1e-6f);
}
static sago_status norm_backward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->rmsnorm_backward(device, s->t[Z], s->t[D_SCALE], s->t[Y], s->t[X], s->t[SCALE], s->t[RSTD]);
}
static void make_norm_backward(const bench_case *c, tensor_set *s) {
    make_rows(c, s);
    bench_check(ops->rmsnorm_forward(device, s->t[W], s->t[RSTD], s->t[X], s->t[SCALE], 1e-6f));
}
static sago_status layer_norm_forward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->layernorm_forward(device, s->t[Y], s->t[MEAN], s->t[RSTD], s->t[X], s->t[SCALE], 1e-6f);
}
static sago_status layer_norm_backward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->layernorm_backward(device, s->t[Z], s->t[D_SCALE], s->t[Y], s->t[X], s->t[SCALE], s->t[MEAN],
                                   s->t[RSTD]);
}
static void make_layer_norm_backward(const bench_case *c, tensor_set *s) {
    make_rows(c, s);
    bench_check(ops->layernorm_forward(device, s->t[W], s->t[MEAN], s->t[RSTD], s->t[X], s->t[SCALE], 1e-6f));
}
static sago_status geglu_forward(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_dropout none = {0};
    return ops->geglu_forward(device, as_batch(s->t[Z]), as_batch(s->t[X]), as_batch(s->t[Y]), &none);
}
static sago_status geglu_backward(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_dropout none = {0};
    return ops->geglu_backward(device, as_batch(s->t[W]), as_batch(s->t[Z]), as_batch(s->t[Z]),
                               as_batch(s->t[X]), as_batch(s->t[Y]), &none);
}
static sago_status swiglu_forward(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_dropout none = {0};
    return ops->swiglu_forward(device, as_batch(s->t[Z]), as_batch(s->t[X]), as_batch(s->t[Y]), &none);
}
static sago_status swiglu_backward(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_dropout none = {0};
    return ops->swiglu_backward(device, as_batch(s->t[W]), as_batch(s->t[Z]), as_batch(s->t[Z]),
                                as_batch(s->t[X]), as_batch(s->t[Y]), &none);
}
static sago_status residual(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_dropout none = {0};
    return ops->residual(device, as_batch(s->t[Y]), as_batch(s->t[Y]), as_batch(s->t[X]), &none);
}
static sago_status residual_dropout(const bench_case *c, tensor_set *s) {
    const sago_dropout drop = {.rate = 0.1f, .key = 7, .row_tokens = rows_of(c)};
    return ops->residual(device, as_batch(s->t[Y]), as_batch(s->t[Y]), as_batch(s->t[X]), &drop);
}

/* --- rotary position embedding: size = tokens, width of all heads
 * ------------------------------------------------------ */

enum { HEAD_WIDTH = 256 };

static void make_rope(const bench_case *c, tensor_set *s) {
    for (int i = 0; i < 2; i++)
        add(s, sago_tensor_4d(NULL, SAGO_BF16, 1, rows_of(c), width_of(c) / HEAD_WIDTH, HEAD_WIDTH), 1);
    add_ids(s, rows_of(c), 1000000);
}
static sago_status rope(tensor_set *s, sago_rope_style style) {
    const sago_rope_args args = {.theta = 1e4, .style = style};
    return ops->rope(device, s->t[Y], s->t[X], s->t[2], &args);
}
static sago_status rope_interleaved(const bench_case *c, tensor_set *s) {
    (void)c;
    return rope(s, SAGO_ROPE_INTERLEAVED);
}
static sago_status rope_halves(const bench_case *c, tensor_set *s) {
    (void)c;
    return rope(s, SAGO_ROPE_HALVES);
}

/* --- embedding: size = tokens, width, vocabulary
 * -------------------------------------------------------------------- */

static void make_embedding(const bench_case *c, tensor_set *s) {
    int64_t vocabulary = shrunk(c->size[2], 500);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, rows_of(c), width_of(c)), 1);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, vocabulary, width_of(c)), 1);
    add(s, sago_tensor_2d(NULL, SAGO_F32, vocabulary, width_of(c)), 0);
    add_ids(s, rows_of(c), vocabulary);
}
static sago_status embedding_forward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->embedding_forward(device, s->t[0], s->t[1], s->t[3], 1);
}
static sago_status embedding_backward(const bench_case *c, tensor_set *s) {
    (void)c;
    return ops->embedding_backward(device, s->t[2], s->t[0], s->t[3], 1);
}

/* --- products and the loss: size = m or tokens, n or width, k or vocabulary, chunk
 * ------------------------------------ */

static void make_product(const bench_case *c, tensor_set *s) {
    int64_t m = shrunk(c->size[0], 64), n = shrunk(c->size[1], 64), k = shrunk(c->size[2], 64);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, m, k), 1);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, n, k), 1);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, m, n), 0);
}
static sago_status product(const bench_case *c, tensor_set *s) {
    (void)c;
    const sago_matmul_args args = {.transpose_b = true, .alpha = 1};
    return ops->matmul(device, s->t[2], s->t[0], s->t[1], &args);
}
static double product_flops(const bench_case *c) {
    return 2 * (double)shrunk(c->size[0], 64) * (double)shrunk(c->size[1], 64) *
           (double)shrunk(c->size[2], 64);
}

enum { HIDDEN, TABLE, D_HIDDEN, D_TABLE, LOGITS, D_LOGITS, STATS, CE_LSE, WEIGHTS, TARGETS };

static void make_loss(const bench_case *c, tensor_set *s) {
    int64_t n = rows_of(c), d = width_of(c), v = shrunk(c->size[2], 700), chunk = shrunk(c->size[3], 32);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, n, d), 1);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, v, d), 1 / sqrtf((float)d));
    add(s, sago_tensor_2d(NULL, SAGO_BF16, n, d), 0);
    add(s, sago_tensor_2d(NULL, SAGO_F32, v, d), 0);
    add(s, sago_tensor_2d(NULL, SAGO_F32, chunk, v), 0);
    add(s, sago_tensor_2d(NULL, SAGO_BF16, chunk, v), 0);
    add(s, sago_tensor_2d(NULL, SAGO_F32, n, SAGO_CE_STATS), 0);
    add(s, sago_tensor_1d(NULL, SAGO_F32, n), 0);
    bench_check(ops->fill(device, *add(s, sago_tensor_1d(NULL, SAGO_F32, n), 0), 1));
    add_ids(s, n, v);
    bench_check(ops->allocate(device, &s->sums, sizeof(sago_loss_sums)));
}

/* Linear, cross-entropy with z-loss, and all gradients, chunk by chunk: what host/model/loss.c does. */
static sago_status loss(const bench_case *c, tensor_set *s) {
    (void)c;
    int64_t n = s->t[HIDDEN].shape[0], chunk = s->t[LOGITS].shape[0];
    const sago_cross_entropy_args ce = {
        .vocabulary = s->t[TABLE].shape[0], .z_loss = 1e-4f, .scale = 1 / (float)n};
    for (int64_t first = 0; first < n; first += chunk) {
        int64_t rows = n - first < chunk ? n - first : chunk;
        sago_tensor hidden = sago_tensor_rows(s->t[HIDDEN], first, rows),
                    d_hidden = sago_tensor_rows(s->t[D_HIDDEN], first, rows),
                    logits = sago_tensor_rows(s->t[LOGITS], 0, rows),
                    d_logits = sago_tensor_rows(s->t[D_LOGITS], 0, rows),
                    stats = sago_tensor_rows(s->t[STATS], first, rows),
                    lse = sago_tensor_rows(s->t[CE_LSE], first, rows),
                    weights = sago_tensor_rows(s->t[WEIGHTS], first, rows),
                    targets = sago_tensor_rows(s->t[TARGETS], first, rows);
        const sago_matmul_args forward = {.transpose_b = true, .alpha = 1}, to_hidden = {.alpha = 1},
                               to_table = {.transpose_a = true, .alpha = 1, .beta = 1};
        SAGO_TRY(ops->matmul(device, logits, hidden, s->t[TABLE], &forward));
        SAGO_TRY(ops->cross_entropy_forward(device, stats, logits, targets, &ce));
        SAGO_TRY(ops->loss_finish(device, lse, s->sums, stats, weights, &ce));
        SAGO_TRY(ops->cross_entropy_backward(device, d_logits, logits, lse, targets, weights, &ce));
        SAGO_TRY(ops->matmul(device, d_hidden, d_logits, s->t[TABLE], &to_hidden));
        SAGO_TRY(ops->matmul(device, s->t[D_TABLE], d_logits, hidden, &to_table));
    }
    return SAGO_OK;
}
static double loss_flops(const bench_case *c) {
    return 6 * (double)rows_of(c) * (double)width_of(c) * (double)shrunk(c->size[2], 700);
}

/* --- Adafactor: size = matrices, rows, columns
 * -------------------------------------------------------------------------- */

enum { MAX_SLOTS = 128 };
static sago_adafactor_slot slots[MAX_SLOTS];

static void *state(size_t bytes) {
    void *memory;
    bench_check(ops->allocate(device, &memory, bytes));
    return memory;
}

static void make_adafactor(const bench_case *c, tensor_set *s) {
    int64_t n = shrunk(c->size[0], 3), rows = shrunk(c->size[1], 130), columns = shrunk(c->size[2], 140);
    sago_tensor *value = add(s, sago_tensor_2d(NULL, SAGO_BF16, n * rows, columns), 1),
                *gradient = add(s, sago_tensor_2d(NULL, SAGO_F32, n * rows, columns), 0.01f);
    int16_t *remainder = state((size_t)(n * rows * columns) * sizeof *remainder);
    for (int64_t i = 0; i < n; i++) {
        slots[i] = (sago_adafactor_slot){.value = sago_tensor_rows(*value, i * rows, rows),
                                         .gradient = sago_tensor_rows(*gradient, i * rows, rows),
                                         .remainder = remainder + i * rows * columns,
                                         .factored = true,
                                         .row = state((size_t)rows * sizeof(float)),
                                         .column = state((size_t)columns * sizeof(float)),
                                         .row_sum = state((size_t)rows * sizeof(double)),
                                         .column_sum = state((size_t)columns * sizeof(double)),
                                         .value_square = state(sizeof(double)),
                                         .kept_square = state(sizeof(double)),
                                         .update_square = state(sizeof(double)),
                                         .global_rows = rows,
                                         .global_columns = columns,
                                         .learning_rate = 1e-3f};
    }
}

static sago_status adafactor(const bench_case *c, tensor_set *s) {
    (void)s;
    int n = (int)shrunk(c->size[0], 3);
    const sago_adafactor_args args = {
        .beta2 = 0.99, .clip_threshold = 1, .parameter_scale = true, .minimum_scale = 1e-3};
    SAGO_TRY(ops->adafactor_statistics(device, slots, n, &args));
    SAGO_TRY(ops->adafactor_moments(device, slots, n, &args));
    return ops->adafactor_apply(device, slots, n, &args);
}

/* --- the cases
 * -------------------------------------------------------------------------------------------------------- */

#define ATTENTION(NAME, B, H, G, S, E, MASK, BUCKETS)                                                        \
    {NAME ", forward", {B, H, G, S, E}, MASK, BUCKETS, make_attention, attention_forward, forward_flops}, {  \
        NAME ", backward", {B, H, G, S, E}, MASK, BUCKETS, make_attention_backward, attention_backward,      \
            backward_flops                                                                                   \
    }
#define ROWS(NAME, N, D, MAKE, RUN)                                                                          \
    { NAME, {N, D}, FULL, 0, MAKE, RUN, NULL }

static const bench_case cases[] = {
    ROWS("copy", 65536, 4096, make_rows, copy),
    {"product 8192^3", {8192, 8192, 8192}, FULL, 0, make_product, product, product_flops},
    ATTENTION("attention d64 full 2k", 8, 32, 32, 2048, 64, FULL, 0),
    ATTENTION("attention d128 full 2k", 8, 16, 16, 2048, 128, FULL, 0),
    ATTENTION("attention d128 full 8k", 2, 16, 16, 8192, 128, FULL, 0),
    ATTENTION("attention d128 causal 8k", 2, 16, 16, 8192, 128, CAUSAL, 0),
    ATTENTION("attention d256 full 2k", 8, 8, 8, 2048, 256, FULL, 0),
    ATTENTION("attention d256 multi-query 2k", 8, 8, 1, 2048, 256, CAUSAL, 0),
    ATTENTION("attention d64 packed 384 of 4k", 8, 16, 16, 4096, 64, PACKED, 0),
    ATTENTION("attention d64 T5 bias 2k", 8, 32, 32, 2048, 64, FULL, 32),
    ROWS("rmsnorm forward", 32768, 4096, make_rows, norm_forward),
    ROWS("rmsnorm backward", 32768, 4096, make_norm_backward, norm_backward),
    ROWS("layernorm forward", 32768, 4096, make_rows, layer_norm_forward),
    ROWS("layernorm backward", 32768, 4096, make_layer_norm_backward, layer_norm_backward),
    ROWS("geglu forward", 16384, 10240, make_rows, geglu_forward),
    ROWS("geglu backward", 16384, 10240, make_rows, geglu_backward),
    ROWS("swiglu forward", 16384, 10240, make_rows, swiglu_forward),
    ROWS("swiglu backward", 16384, 10240, make_rows, swiglu_backward),
    ROWS("rope interleaved, 16 heads", 32768, 4096, make_rope, rope_interleaved),
    ROWS("rope halves, 16 heads", 32768, 4096, make_rope, rope_halves),
    ROWS("rope halves, 1 head", 262144, 256, make_rope, rope_halves),
    ROWS("residual", 32768, 4096, make_rows, residual),
    ROWS("residual with dropout", 32768, 4096, make_rows, residual_dropout),
    {"embedding forward", {32768, 4096, 32128}, FULL, 0, make_embedding, embedding_forward, NULL},
    {"embedding backward", {32768, 4096, 32128}, FULL, 0, make_embedding, embedding_backward, NULL},
    {"linear + cross-entropy + z-loss", {8192, 4096, 256000, 1024}, FULL, 0, make_loss, loss, loss_flops},
    {"adafactor, 1e9 parameters", {60, 4096, 4096}, FULL, 0, make_adafactor, adafactor, NULL},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Bytes that a case must move at least, each tensor as often as the operation's definition reads or writes
 * it. */
static double least_bytes(const bench_case *c, const tensor_set *s) {
    double rows = (double)sago_tensor_bytes(s->t[X]);
    if (c->run == copy || c->run == norm_forward || c->run == layer_norm_forward ||
        c->run == rope_interleaved || c->run == rope_halves)
        return 2 * rows;
    if (c->run == norm_backward || c->run == layer_norm_backward)
        return 4 * rows; /* d_y, x, d_x read and written */
    if (c->run == geglu_forward || c->run == swiglu_forward || c->run == residual ||
        c->run == residual_dropout)
        return 3 * rows;
    if (c->run == geglu_backward || c->run == swiglu_backward) return 5 * rows;
    if (c->run == embedding_forward) return 2 * rows;
    if (c->run == embedding_backward) return 5 * rows; /* bf16 in; fp32 sums read and written */
    if (c->run == adafactor)                           /* g three times, p (4 bytes) read and written */
        return 20 * (double)sago_tensor_count(s->t[0]);
    return 0;
}

static void drop_set(tensor_set *s) {
    for (int i = 0; i < s->n; i++) ops->release(device, s->t[i].data);
    if (s->sums) ops->release(device, s->sums);
    *s = (tensor_set){0};
}

static void run_case(const bench_case *c, int rounds) {
    tensor_set sets[MAX_SETS] = {0};
    int n_sets = 0;
    do {
        c->make(c, &sets[n_sets]);
    } while (++n_sets < MAX_SETS && !small && c->run != adafactor &&
             set_bytes(&sets[0]) * (size_t)n_sets < CACHE_BYTES);
    bench_check(c->run(c, &sets[0])); /* grows the workspace, chooses algorithms */
    bench_check(ops->synchronize(device));
    int64_t since = sago_now_ns();
    bench_check(c->run(c, &sets[n_sets - 1]));
    bench_check(ops->synchronize(device));
    double once = (double)(sago_now_ns() - since) * 1e-9;
    int calls = small || once > 5e-3 ? 1 : (int)(5e-3 / once) + 1;
    double seconds[MAX_ROUNDS], median;
    for (int round = 0; round < rounds; round++) {
        since = sago_now_ns();
        for (int i = 0; i < calls; i++) bench_check(c->run(c, &sets[i % n_sets]));
        bench_check(ops->synchronize(device));
        seconds[round] = (double)(sago_now_ns() - since) * 1e-9 / calls;
    }
    json_t *line = json_pack("{s:s, s:s, s:o}", "benchmark", "gpu_kernels", "case", c->name, "seconds",
                             bench_summary(seconds, rounds, &median));
    json_t *shape = json_array();
    for (int i = 0; i < 6 && c->size[i]; i++) json_array_append_new(shape, json_integer(c->size[i]));
    json_object_set_new(line, "shape", shape);
    json_object_set_new(line, "calls_a_round", json_integer(calls));
    if (c->flops)
        json_object_set_new(line, "tflops", json_real(c->flops(c) / median * 1e-12));
    else
        json_object_set_new(line, "gb_per_second", json_real(least_bytes(c, &sets[0]) / median * 1e-9));
    char *text = json_dumps(line, JSON_REAL_PRECISION(5) | JSON_PRESERVE_ORDER);
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(line);
    for (int i = 0; i < n_sets; i++) drop_set(&sets[i]);
}

int main(int argc, char **argv) {
    int rounds = (int)bench_option(argc, argv, "rounds", 31);
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = MAX_ROUNDS;
    const char *only = bench_text(argc, argv, "only", "");
    small = bench_option(argc, argv, "small", 0) != 0;
    bench_check(sago_device_open(bench_text(argc, argv, "device", "cuda"),
                                 (int)bench_option(argc, argv, "threads", 0), &device));
    ops = device->ops;
    json_t *head = json_pack("{s:s, s:o, s:s, s:b}", "benchmark", "gpu_kernels", "command",
                             bench_command(argc, argv), "device", device->description, "small", small);
    char *text = json_dumps(head, JSON_PRESERVE_ORDER);
    puts(text);
    free(text);
    json_decref(head);
    for (int i = 0; i < N_CASES; i++)
        if (strstr(cases[i].name, only)) run_case(&cases[i], rounds);
    sago_device_close(device);
    return 0;
}
