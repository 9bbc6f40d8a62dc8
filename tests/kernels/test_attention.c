// SPDX-License-Identifier: Apache-2.0
#include "attention_cases.h"

static const attention_case cases[] = {
    {"one", 1, 1, 1, 1, 1, 1, WHOLE, 1.0f},
    {"primes", 2, 37, 53, 3, 3, 13, RAGGED, 0.3f, 32, 128, true},
    {"T5 encoder", 2, 200, 200, 3, 3, 64, WHOLE, 0.125f, 32, 128, true},
    {"T5 encoder, packed", 2, 300, 300, 2, 2, 64, SEGMENTS, 0.125f, 32, 128, true},
    {"T5 decoder", 1, 150, 150, 2, 2, 64, CAUSAL, 0.125f, 32, 128, false},
    {"T5 decoder, packed", 2, 141, 141, 2, 2, 32, PACKED_CAUSAL, 0.2f, 32, 128, false},
    {"few buckets, near", 1, 40, 40, 2, 2, 16, WHOLE, 0.25f, 8, 20, true},
    {"cross, packed", 2, 70, 190, 2, 2, 64, SEGMENTS, 0.125f},
    {"holes of padding", 2, 90, 90, 2, 2, 48, HOLES, 0.2f, 32, 128, true},
    {"dropout", 2, 75, 131, 3, 3, 33, RAGGED, 0.2f, 32, 128, true, 0, 0.3f, 5},
    {"dropout, packed", 2, 130, 130, 2, 2, 64, PACKED_CAUSAL, 0.125f, 32, 128, false, 0, 0.1f, 0},
    {"shared heads", 2, 65, 140, 6, 2, 24, RAGGED, 0.2f, 32, 128, true},
    {"one shared head, wide", 1, 33, 64, 4, 1, 256, CAUSAL, 0.0625f},
    {"width 160", 1, 20, 30, 2, 2, 160, WHOLE, 0.08f},
    {"few queries", 3, 2, 77, 4, 2, 40, RAGGED, 0.15f, 32, 128, false, 60},
    {"few queries, dropout", 2, 3, 200, 3, 3, 64, RAGGED, 0.125f, 32, 128, false, 150, 0.2f, 3},
    {"whole vectors", 2, 128, 160, 2, 2, 64, WHOLE, 1.0f, 32, 128, true},
    {"whole vectors, segments", 2, 160, 160, 3, 3, 32, ALIGNED, 1.0f, 32, 128, true},
    {"whole vectors, shared heads", 1, 64, 96, 4, 2, 64, ALIGNED, 1.0f},
    {"dropout, some heads of more", 2, 37, 53, 2, 2, 33, RAGGED, 0.2f, .rate = 0.3f, .first_row = 1,
     .all_heads = 5, .first_head = 2},
    {"dropout, some keys of more", 2, 20, 131, 2, 2, 16, RAGGED, 0.2f, .rate = 0.3f, .first_row = 3,
     .pitch = 150, .first_key = 7},
    {"few queries, dropout, some heads and keys of more", 2, 3, 140, 3, 3, 64, RAGGED, 0.125f, .rate = 0.2f,
     .all_heads = 7, .first_head = 4, .pitch = 171, .first_key = 31},
    {"no keys", 2, 5, 0, 2, 1, 8, WHOLE, 0.3f},
    {"far scores", 1, 130, 130, 2, 2, 64, WHOLE, 4.0f, 32, 128, true},
};

#define BF16 .dtype = SAGO_BF16, .bias_dtype = SAGO_BF16
static const attention_case bf16_cases[] = {
    {"bf16, T5 encoder", 1, 150, 150, 2, 2, 64, WHOLE, 0.125f, 32, 128, true, BF16},
    {"bf16, T5 decoder, packed", 1, 141, 141, 2, 2, 64, PACKED_CAUSAL, 0.125f, 32, 128, false, BF16},
    {"bf16, cross, packed", 2, 70, 190, 1, 1, 64, SEGMENTS, 0.125f, BF16},
    {"bf16, causal", 1, 200, 200, 1, 1, 64, CAUSAL, 0.125f, BF16},
    {"bf16, far tiles", 1, 130, 260, 1, 1, 32, WHOLE, 0.2f, 8, 20, true, BF16},
    {"bf16, far tiles, causal", 1, 230, 230, 1, 1, 32, CAUSAL, 0.2f, 8, 20, false, .dtype = SAGO_BF16},
    {"bf16, dropout", 1, 75, 132, 2, 2, 64, RAGGED, 0.2f, 32, 128, true, 0, 0.3f, 5, BF16},
    {"bf16, dropout, odd rows", 1, 37, 53, 3, 3, 32, RAGGED, 0.2f, .rate = 0.2f, .first_row = 3, BF16},
    {"bf16, shared heads", 1, 65, 100, 4, 2, 80, RAGGED, 0.2f, 32, 128, true, BF16},
    {"bf16, one shared head, wide", 1, 70, 130, 2, 1, 256, CAUSAL, 0.0625f, BF16},
    {"bf16, wide, dropout", 1, 20, 72, 1, 1, 200, RAGGED, 0.07f, 32, 128, true, 0, 0.1f, 1, BF16},
    {"bf16, width 128", 1, 129, 140, 1, 1, 128, HOLES, 0.09f, 32, 128, true, BF16},
    {"bf16, queries without keys in whole tiles", 1, 70, 150, 1, 1, 64, PADDED, 0.125f, BF16},
    {"bf16, width 8", 1, 5, 7, 1, 1, 8, WHOLE, 0.4f, BF16},
    {"bf16, negative scale", 1, 40, 70, 1, 1, 40, RAGGED, -0.3f, 32, 128, true, BF16},
    {"bf16, negative scale, no bias", 1, 40, 70, 1, 1, 32, RAGGED, -0.3f, BF16},
    {"bf16, decoded by tiles", 1, 6, 140, 1, 1, 64, RAGGED, 0.125f, 32, 128, false, 134, BF16},
    {"bf16, odd width", 1, 33, 50, 2, 1, 13, RAGGED, 0.3f, 32, 128, true, 0, 0.1f, 2, BF16},
    {"bf16, one query", 2, 1, 300, 2, 2, 64, RAGGED, 0.125f, 32, 128, false, 250, BF16},
    {"bf16, one query, shared heads", 2, 1, 140, 6, 1, 128, RAGGED, 0.09f, BF16},
    {"bf16, three queries, wide, dropout", 1, 3, 90, 3, 1, 250, RAGGED, 0.07f, .rate = 0.2f, BF16},
    {"bf16, dropout, some heads of more", 1, 75, 132, 2, 2, 64, RAGGED, 0.2f, BF16, .rate = 0.3f,
     .first_row = 5, .all_heads = 5, .first_head = 2},
    {"bf16, dropout, some keys of more, whole words", 1, 37, 53, 2, 2, 32, RAGGED, 0.2f, BF16, .rate = 0.3f,
     .first_row = 1, .pitch = 172, .first_key = 8},
    {"bf16, dropout, some keys of more, odd", 1, 37, 52, 2, 2, 64, RAGGED, 0.2f, BF16, .rate = 0.3f,
     .pitch = 172, .first_key = 9},
    {"bf16, no keys", 2, 5, 0, 2, 1, 8, WHOLE, 0.3f, BF16},
    {"bf16, no keys, one query", 2, 1, 0, 2, 1, 8, WHOLE, 0.3f, BF16},
    {"bf16, far scores", 1, 40, 130, 1, 1, 64, WHOLE, 2.0f, 32, 128, true, BF16},
};

static void forward_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    sago_attention_args args = arguments(run, d);
    sago_tensor o = suite_typed(run, c->dtype, NULL, Q_DIMS(c)),
                lse = suite_f32(run, NULL, DIMS(c->batch, c->heads, c->queries));
    sago_tensor q = suite_typed(run, c->dtype, d->q, Q_DIMS(c)),
                k = suite_typed(run, c->dtype, d->k, K_DIMS(c)),
                v = suite_typed(run, c->dtype, d->v, K_DIMS(c));
    suite_ok(run->device->ops->attention_forward(run->device, o, lse, q, k, v, &args));
    suite_output(run, "attention o", o);
    suite_output(run, "attention lse", lse);
}

/** lse of queries without keys is -inf; such entries leave the comparison as zeros. */
static void take_empty_out(const attention_data *d, float *lse) {
    const attention_case *c = d->c;
    for (int64_t at = 0; at < d->n_lse; at++) {
        int64_t token = at / c->queries / c->heads * c->queries + at % c->queries;
        if (d->lo[token] < d->hi[token]) continue;
        assert_true(isinf(lse[at]) && lse[at] < 0);
        lse[at] = 0;
    }
}

/** Sim runs a thousand threads on one core: it leaves out what only repeats on more tokens what smaller cases
 * do. */
static bool too_large(const attention_case *c, int64_t most) {
    return suite_is_sim() && c->batch * c->heads * c->queries * c->keys * c->width > most;
}
enum { SIM_MOST = 5000000, SIM_MOST_BACKWARD = 2700000, SIM_MOST_AGAIN = 2000000 };

static void forward(const attention_case list[], int count) {
    for (int n = 0; n < count; n++) {
        const attention_case *c = &list[n];
        if (too_large(c, SIM_MOST)) continue;
        attention_data d = make(c);
        suite_result result;
        print_message("forward: %s\n", c->what);
        suite_run_op(forward_body, &d, SUITE_SAME_BITS, &result);
        double *q = ref_from(d.q, d.n_q), *k = ref_from(d.k, d.n_k), *v = ref_from(d.v, d.n_k);
        double *bias = ref_from(d.bias, d.n_bias), *keep = ref_from(d.keep, d.n_pairs);
        double *o = ref_array(d.n_q), *lse = ref_array(d.n_lse);
        ref_attention exact = ref_describe(&d, keep, bias);
        plain_attention plain = plain_describe(&d, d.keep, d.bias);
        ref_attention_forward(o, lse, &exact, q, k, v);
        plain_attention_forward(d.o, d.lse, &plain, d.q, d.k, d.v);
        bool bf16 = c->dtype == SAGO_BF16;
        suite_close(bf16 ? "attention o, bf16" : "attention o", suite_floats(&result, "attention o"), o, d.o,
                    d.n_q);
        float *got = plain_from(suite_floats(&result, "attention lse"), d.n_lse);
        take_empty_out(&d, got);
        suite_close(bf16 ? "attention lse, bf16" : "attention lse", got, lse, d.lse, d.n_lse);
        suite_free(&result);
        free(q), free(k), free(v), free(bias), free(keep), free(o), free(lse), free(got);
        drop(&d);
    }
}

static void test_forward(void **state) {
    (void)state;
    forward(cases, LENGTH(cases));
}

/** On GPUs: every width of the tensor core kernel, every class of tile, near and far bias; odd rows; few
 * queries. */
static void test_forward_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    forward(bf16_cases, LENGTH(bf16_cases));
}

/** What a block of the widest heads asks for fits GPUs of every compute capability. */
static void test_forward_99_kib(void **state) {
    (void)state;
    static const attention_case widest[] = {
        {"bf16, widest, bias", 1, 70, 130, 2, 1, 256, RAGGED, 0.0625f, 32, 128, true, BF16},
        {"bf16, widest, bias, dropout", 1, 33, 75, 1, 1, 256, RAGGED, 0.0625f, 8, 20, false, 0, 0.2f, 1,
         BF16},
        {"bf16, width 128, bias", 1, 70, 130, 1, 1, 128, RAGGED, 0.09f, 32, 128, true, BF16},
        {"f32, widest, bias", 1, 33, 75, 1, 1, 256, RAGGED, 0.0625f, 8, 20, true},
    };
    if (!suite_is_sim()) skip();
    suite_shared_memory(SUITE_99_KIB);
    forward(widest, LENGTH(widest));
    suite_shared_memory(0);
}

static void backward_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    sago_attention_args args = arguments(run, d);
    sago_tensor d_q = suite_f32(run, NULL, Q_DIMS(c)), d_k = suite_f32(run, NULL, K_DIMS(c));
    sago_tensor d_v = suite_f32(run, NULL, K_DIMS(c)), d_bias = {0};
    sago_tensor o = suite_f32(run, NULL, Q_DIMS(c)),
                lse = suite_f32(run, NULL, DIMS(c->batch, c->heads, c->queries));
    sago_tensor q = suite_f32(run, d->q, Q_DIMS(c)), k = suite_f32(run, d->k, K_DIMS(c)),
                v = suite_f32(run, d->v, K_DIMS(c));
    sago_tensor d_o = suite_f32(run, d->d_o, Q_DIMS(c));
    if (c->n_buckets) d_bias = suite_f32(run, d->d_bias, DIMS(c->n_buckets, c->heads));
    suite_ok(run->device->ops->attention_forward(run->device, o, lse, q, k, v, &args));
    suite_ok(run->device->ops->attention_backward(run->device, d_q, d_k, d_v, d_bias, d_o, o, lse, q, k, v,
                                                  &args));
    suite_output(run, "attention o", o);
    suite_output(run, "attention lse", lse);
    suite_output(run, "attention d_q", d_q);
    suite_output(run, "attention d_k", d_k);
    suite_output(run, "attention d_v", d_v);
    if (c->n_buckets) suite_output(run, "attention d_bias", d_bias);
}

static void test_backward(void **state) {
    (void)state;
    for (int n = 0; n < LENGTH(cases); n++) {
        const attention_case *c = &cases[n];
        if (too_large(c, SIM_MOST_BACKWARD)) continue;
        attention_data d = make(c);
        print_message("backward: %s\n", c->what);
        double *q = ref_from(d.q, d.n_q), *k = ref_from(d.k, d.n_k), *v = ref_from(d.v, d.n_k),
               *d_o = ref_from(d.d_o, d.n_q);
        double *bias = ref_from(d.bias, d.n_bias), *keep = ref_from(d.keep, d.n_pairs),
               *d_bias = ref_from(d.d_bias, d.n_bias);
        double *o = ref_array(d.n_q), *lse = ref_array(d.n_lse);
        double *d_q = ref_array(d.n_q), *d_k = ref_array(d.n_k), *d_v = ref_array(d.n_k);
        float *plain_q = plain_array(d.n_q), *plain_k = plain_array(d.n_k), *plain_v = plain_array(d.n_k);
        float *plain_bias = plain_from(d.d_bias, d.n_bias);
        ref_attention exact = ref_describe(&d, keep, bias);
        plain_attention plain = plain_describe(&d, d.keep, d.bias);
        plain_attention_forward(d.o, d.lse, &plain, d.q, d.k, d.v);
        suite_result result;
        suite_run_op(backward_body, &d, SUITE_SAME_BITS, &result);
        ref_attention_forward(o, lse, &exact, q, k, v);
        ref_attention_backward(d_q, d_k, d_v, d_bias, &exact, d_o, o, lse, q, k, v);
        plain_attention_backward(plain_q, plain_k, plain_v, plain_bias, &plain, d.d_o, d.o, d.lse, d.q, d.k,
                                 d.v);
        suite_close("attention d_q", suite_floats(&result, "attention d_q"), d_q, plain_q, d.n_q);
        suite_close("attention d_k", suite_floats(&result, "attention d_k"), d_k, plain_k, d.n_k);
        suite_close("attention d_v", suite_floats(&result, "attention d_v"), d_v, plain_v, d.n_k);
        if (c->n_buckets)
            suite_close("attention d_bias", suite_floats(&result, "attention d_bias"), d_bias, plain_bias,
                        d.n_bias);
        suite_free(&result);
        free(q), free(k), free(v), free(d_o), free(bias), free(keep), free(d_bias), free(d_q), free(d_k),
            free(d_v);
        free(plain_q), free(plain_k), free(plain_v), free(plain_bias), free(o), free(lse);
        drop(&d);
    }
}

/** Each head's scores move together when its bias does, and softmax does not see that: d_bias sums to about
 * 0. */
static void test_bias_sums(void **state) {
    (void)state;
    for (int n = 0; n < LENGTH(cases); n++) {
        const attention_case *c = &cases[n];
        if (!c->n_buckets || too_large(c, SIM_MOST_AGAIN)) continue;
        attention_data d = make(c);
        memset(d.d_bias, 0, (size_t)d.n_bias * sizeof(float));
        suite_result result;
        suite_run_op(backward_body, &d, SUITE_SAME_BITS, &result);
        const float *d_bias = suite_floats(&result, "attention d_bias");
        for (int64_t h = 0; h < c->heads; h++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < c->n_buckets; i++) {
                sum += d_bias[i * c->heads + h];
                size += fabs((double)d_bias[i * c->heads + h]);
            }
            if (fabs(sum) > 1e-5 * size + 1e-6)
                fail_msg("%s, head %d: d_bias sums to %g", c->what, (int)h, sum);
        }
        suite_free(&result);
        drop(&d);
    }
}

static const attention_case small = {"small", 2, 5, 6, 4, 2, 3, RAGGED, 0.7f, 6, 9, true, 0, 0.25f, 2};

typedef struct attention_loss {
    ref_attention a;
    double *q, *k, *v, *bias, *d_o, *o, *lse;
    int64_t n;
} attention_loss;

static double loss_of(attention_loss *l) {
    double sum = 0;
    ref_attention_forward(l->o, l->lse, &l->a, l->q, l->k, l->v);
    for (int64_t i = 0; i < l->n; i++) sum += l->o[i] * l->d_o[i];
    return sum;
}

static void differences(attention_loss *l, double *x, int64_t n, const float *got, const char *name) {
    double *numeric = ref_array(n), *formula = ref_from(got, n);
    const double step = 1e-5;
    for (int64_t i = 0; i < n; i++) {
        double at = x[i];
        x[i] = at + step;
        double up = loss_of(l);
        x[i] = at - step;
        numeric[i] = (up - loss_of(l)) / (2 * step);
        x[i] = at;
    }
    suite_gradient_close(name, numeric, formula, n, 2e-6);
    free(numeric), free(formula);
}

/** The operation's gradients against central differences of the float64 loss sum(o d_o), dropout on. */
static void test_differences(void **state) {
    (void)state;
    const attention_case *c = &small;
    attention_data d = make(c);
    memset(d.d_bias, 0, (size_t)d.n_bias * sizeof(float));
    suite_result result;
    suite_run_op(backward_body, &d, SUITE_SAME_BITS, &result);
    double *keep = ref_from(d.keep, d.n_pairs);
    attention_loss l = {.q = ref_from(d.q, d.n_q),
                        .k = ref_from(d.k, d.n_k),
                        .v = ref_from(d.v, d.n_k),
                        .bias = ref_from(d.bias, d.n_bias),
                        .d_o = ref_from(d.d_o, d.n_q),
                        .o = ref_array(d.n_q),
                        .lse = ref_array(d.n_lse),
                        .n = d.n_q};
    l.a = ref_describe(&d, keep, l.bias);
    differences(&l, l.q, d.n_q, suite_floats(&result, "attention d_q"), "differences d_q");
    differences(&l, l.k, d.n_k, suite_floats(&result, "attention d_k"), "differences d_k");
    differences(&l, l.v, d.n_k, suite_floats(&result, "attention d_v"), "differences d_v");
    differences(&l, l.bias, d.n_bias, suite_floats(&result, "attention d_bias"), "differences d_bias");
    suite_free(&result);
    free(keep), free(l.q), free(l.k), free(l.v), free(l.bias), free(l.d_o), free(l.o), free(l.lse);
    drop(&d);
}

/** Token by token through a cache: the same rows as causal attention of the whole. */
static void decode_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    const sago_ops *ops = run->device->ops;
    sago_attention_args args = arguments(run, d);
    sago_tensor o = suite_f32(run, NULL, Q_DIMS(c)),
                lse = suite_f32(run, NULL, DIMS(c->batch, c->heads, c->queries));
    sago_tensor q = suite_f32(run, d->q, Q_DIMS(c)), k = suite_f32(run, d->k, K_DIMS(c)),
                v = suite_f32(run, d->v, K_DIMS(c));
    suite_ok(ops->attention_forward(run->device, o, lse, q, k, v, &args));
    int64_t capacity = c->queries + 7, key_row = c->groups * c->width, query_row = c->heads * c->width;
    float *empty = plain_array(c->batch * capacity * key_row), *one = plain_array(c->batch * query_row);
    float *all = plain_array(d->n_q), *got = plain_array(d->n_q), *scratch = plain_array(d->n_q);
    sago_tensor k_cache = suite_f32(run, empty, DIMS(c->batch, capacity, c->groups, c->width));
    sago_tensor v_cache = suite_f32(run, empty, DIMS(c->batch, capacity, c->groups, c->width));
    sago_tensor k_one = suite_f32(run, empty, DIMS(c->batch, 1, c->groups, c->width));
    sago_tensor q_one = suite_f32(run, one, DIMS(c->batch, 1, c->heads, c->width));
    sago_tensor o_one = suite_f32(run, NULL, DIMS(c->batch, 1, c->heads, c->width));
    sago_tensor lse_one = suite_f32(run, NULL, DIMS(c->batch, c->heads, 1));
    int32_t numbers[8] = {0};
    sago_tensor at = suite_i32(run, numbers, DIMS(c->batch)), hi = suite_i32(run, numbers, DIMS(c->batch, 1));
    sago_tensor lo = suite_i32(run, numbers, DIMS(c->batch, 1));
    for (int64_t t = 0; t < c->queries; t++) {
        const float *const from[] = {d->k, d->v};
        const sago_tensor caches[] = {k_cache, v_cache};
        for (int64_t b = 0; b < c->batch; b++) numbers[b] = (int32_t)t;
        suite_ok(ops->upload(run->device, at.data, numbers, (size_t)c->batch * sizeof(int32_t)));
        for (int i = 0; i < 2; i++) {
            for (int64_t b = 0; b < c->batch; b++)
                memcpy(scratch + b * key_row, from[i] + (b * c->keys + t) * key_row,
                       (size_t)key_row * sizeof(float));
            suite_ok(
                ops->upload(run->device, k_one.data, scratch, (size_t)(c->batch * key_row) * sizeof(float)));
            suite_ok(ops->cache_append(run->device, caches[i], k_one, at));
        }
        for (int64_t b = 0; b < c->batch; b++)
            memcpy(scratch + b * query_row, d->q + (b * c->queries + t) * query_row,
                   (size_t)query_row * sizeof(float));
        suite_ok(
            ops->upload(run->device, q_one.data, scratch, (size_t)(c->batch * query_row) * sizeof(float)));
        if (t > 0) {
            for (int64_t b = 0; b < c->batch; b++) numbers[b] = (int32_t)t - 1;
            suite_ok(ops->upload(run->device, at.data, numbers, (size_t)c->batch * sizeof(int32_t)));
        }
        for (int64_t b = 0; b < c->batch; b++) numbers[b] = (int32_t)t + 1;
        suite_ok(ops->upload(run->device, hi.data, numbers, (size_t)c->batch * sizeof(int32_t)));
        sago_attention_args step = args;
        step.lo = lo, step.hi = hi, step.position = sago_tensor_1d(at.data, SAGO_I32, 1);
        step.query_offset = t == 0 ? 0 : 1; /* the rest is the device's */
        suite_ok(ops->attention_forward(run->device, o_one, lse_one, q_one, k_cache, v_cache, &step));
        suite_ok(
            ops->download(run->device, scratch, o_one.data, (size_t)(c->batch * query_row) * sizeof(float)));
        for (int64_t b = 0; b < c->batch; b++)
            memcpy(got + (b * c->queries + t) * query_row, scratch + b * query_row,
                   (size_t)query_row * sizeof(float));
    }
    suite_ok(ops->download(run->device, all, o.data, (size_t)d->n_q * sizeof(float)));
    for (int64_t i = 0; i < d->n_q; i++)
        if (fabsf(all[i] - got[i]) > 1e-6f * (1 + fabsf(all[i])))
            fail_msg("element %d: %g token by token, %g at once", (int)i, (double)got[i], (double)all[i]);
    suite_output(run, "o", o), suite_output(run, "lse", lse), suite_output(run, "k cache", k_cache);
    suite_output(run, "v cache", v_cache), suite_output(run, "k", k_one), suite_output(run, "q", q_one);
    suite_output(run, "o one", o_one), suite_output(run, "lse one", lse_one), suite_output(run, "at", at);
    suite_output(run, "hi", hi);
    free(empty), free(one), free(all), free(got), free(scratch);
}

static void test_decoding(void **state) {
    (void)state;
    static const attention_case decoded = {"decoding", 3, 45, 45, 4, 2, 24, CAUSAL, 0.2f, 32, 128, false};
    attention_data d = make(&decoded);
    suite_result result;
    suite_run_op(decode_body, &d, SUITE_SAME_BITS, &result);
    suite_free(&result);
    drop(&d);
}

typedef struct cache_case {
    sago_dtype dtype;
    int64_t rows, capacity, groups, width;
} cache_case;

/** Row b goes to position 2 b - 1, so that on GPUs the first and the last row are outside the cache. */
static void cache_body(suite_run *run, const void *context) {
    const cache_case *c = context;
    enum { MOST = 4 };
    int32_t position[MOST];
    int64_t n_cache = c->rows * c->capacity * c->groups * c->width, n_in = c->rows * c->groups * c->width;
    float *before = suite_normal(n_cache, 11), *values = suite_normal(n_in, 12);
    bool outside = run->device->asynchronous;
    for (int64_t b = 0; b < c->rows; b++) position[b] = (int32_t)(outside ? 2 * b - 1 : c->capacity - 1 - b);
    sago_tensor cache = suite_typed(run, c->dtype, before, DIMS(c->rows, c->capacity, c->groups, c->width));
    sago_tensor in = suite_typed(run, c->dtype, values, DIMS(c->rows, 1, c->groups, c->width));
    sago_tensor at = suite_i32(run, position, DIMS(c->rows));
    suite_ok(run->device->ops->cache_append(run->device, cache, in, at));
    suite_output(run, "cache", cache);
    free(before), free(values);
}

static void test_cache(void **state) {
    (void)state;
    static const cache_case all[] = {{SAGO_F32, 4, 5, 2, 8},  {SAGO_F32, 3, 4, 1, 3},
                                     {SAGO_F32, 0, 4, 1, 3},  {SAGO_BF16, 4, 5, 3, 64},
                                     {SAGO_BF16, 4, 5, 1, 6}, {SAGO_BF16, 4, 5, 1, 3}};
    sago_device *device = suite_device(0);
    for (int n = 0; n < LENGTH(all); n++) {
        const cache_case *c = &all[n];
        if (c->dtype == SAGO_BF16 && !device->stores_bf16) continue;
        int64_t row = c->groups * c->width, n_cache = c->rows * c->capacity * row, n_in = c->rows * row;
        float *want = suite_normal(n_cache, 11), *values = suite_normal(n_in, 12);
        for (int64_t b = 0; b < c->rows; b++) {
            int64_t position = device->asynchronous ? 2 * b - 1 : c->capacity - 1 - b;
            if (position >= 0 && position < c->capacity)
                memcpy(want + (b * c->capacity + position) * row, values + b * row,
                       (size_t)row * sizeof(float));
        }
        suite_round(c->dtype, want, n_cache);
        suite_result result;
        suite_run_op(cache_body, c, SUITE_SAME_BITS, &result);
        const float *got = suite_floats(&result, "cache");
        for (int64_t i = 0; i < n_cache; i++)
            if (got[i] != want[i])
                fail_msg("case %d: element %d is %g, must be %g", n, (int)i, (double)got[i], (double)want[i]);
        suite_free(&result);
        free(want), free(values);
    }
}

static void errors_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    const sago_ops *ops = run->device->ops;
    sago_attention_args args = arguments(run, d), wrong;
    sago_tensor o = suite_f32(run, NULL, Q_DIMS(c)),
                lse = suite_f32(run, NULL, DIMS(c->batch, c->heads, c->queries));
    sago_tensor q = suite_f32(run, d->q, Q_DIMS(c)), k = suite_f32(run, d->k, K_DIMS(c)), v = k;
    sago_tensor three = suite_f32(run, NULL, DIMS(c->batch, c->keys, 3, c->width));
    sago_tensor position = suite_i32(run, (int32_t[]){0, 6}, DIMS(2));
    sago_tensor one = suite_f32(run, NULL, DIMS(c->batch, 1, c->groups, c->width));
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, three, three, &args),
                             "attention_forward");
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, three, &args),
                             "attention_forward");
    wrong = args, wrong.lo = sago_tensor_2d(args.lo.data, SAGO_I32, c->queries, c->batch);
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    wrong = args, wrong.dropout.rate = 1;
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    wrong = args, wrong.dropout.rate = 0.5f, wrong.dropout.first = c->keys * c->queries;
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    wrong = args, wrong.dropout.rate = 0.5f, wrong.dropout.pitch = c->keys - 1;
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    wrong = args, wrong.position = sago_tensor_1d(args.lo.data, SAGO_I32, 1);
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    wrong = args, wrong.bias_max_distance = 1;
    suite_expect_shape_error(ops->attention_forward(run->device, o, lse, q, k, v, &wrong),
                             "attention_forward");
    suite_expect_shape_error(ops->attention_backward(run->device, q, k, v, lse, o, o, lse, q, k, v, &args),
                             "attention_backward");
    int32_t zeros[4] = {0};
    sago_tensor wide = suite_f32(run, NULL, DIMS(1, 4, 1, 300)),
                wide_lse = suite_f32(run, NULL, DIMS(1, 1, 4));
    wrong = (sago_attention_args){.scale = 1, .lo = suite_i32(run, zeros, DIMS(1, 4))}, wrong.hi = wrong.lo;
    if (run->device->asynchronous) /* GPUs hold a head in registers */
        suite_expect_shape_error(
            ops->attention_forward(run->device, wide, wide_lse, wide, wide, wide, &wrong),
            "attention_forward");
    sago_tensor half = suite_bf16(run, NULL, DIMS(1, 4, 1, 8)), full = suite_f32(run, NULL, DIMS(1, 4, 1, 8));
    if (!run->device->stores_bf16)
        suite_expect_shape_error(
            ops->attention_forward(run->device, half, wide_lse, half, half, half, &wrong),
            "attention_forward");
    suite_expect_shape_error(ops->attention_forward(run->device, half, wide_lse, half, full, half, &wrong),
                             "attention_forward");
    if (!run->device->asynchronous) /* others look at positions when the host has gone on */
        suite_expect_shape_error(ops->cache_append(run->device, k, one, position), "cache_append");
    suite_expect_shape_error(ops->cache_append(run->device, k, q, position), "cache_append");
    suite_expect_shape_error(
        ops->attention_ranges(run->device, args.lo, args.hi, args.lo, position, position, SAGO_ATTEND_FULL),
        "attention_ranges");
}

static void test_errors(void **state) {
    (void)state;
    attention_data d = make(&small);
    suite_run_once(errors_body, &d);
    drop(&d);
}

typedef struct ranges_case {
    int64_t batch, queries, keys;
    const int32_t *query, *key, *prefix;
    sago_attention_mode mode;
} ranges_case;

static void ranges_body(suite_run *run, const void *context) {
    const ranges_case *c = context;
    sago_tensor lo = suite_i32(run, NULL, DIMS(c->batch, c->queries)),
                hi = suite_i32(run, NULL, DIMS(c->batch, c->queries));
    sago_tensor query = suite_i32(run, c->query, DIMS(c->batch, c->queries)),
                key = suite_i32(run, c->key, DIMS(c->batch, c->keys));
    sago_tensor prefix = {0};
    if (c->mode == SAGO_ATTEND_PREFIX) prefix = suite_i32(run, c->prefix, DIMS(c->batch, c->keys));
    suite_ok(run->device->ops->attention_ranges(run->device, lo, hi, query, key, prefix, c->mode));
    suite_output(run, "lo", lo);
    suite_output(run, "hi", hi);
}

/** Whether a key may be attended, straight from the definition in ops.h. */
static bool allowed(const ranges_case *c, int64_t b, int64_t i, int64_t j) {
    int32_t segment = c->query[b * c->queries + i];
    if (segment <= 0 || c->key[b * c->keys + j] != segment) return false;
    if (c->mode == SAGO_ATTEND_FULL) return true;
    return j <= i || (c->mode == SAGO_ATTEND_PREFIX && c->prefix[b * c->keys + j] != 0);
}

/** Packed rows: segments of up to `longest` tokens, then padding; row 0 is padding alone. */
static void check_ranges(int64_t rows, int64_t tokens, int64_t keys, int64_t longest) {
    int32_t *query = calloc((size_t)(rows * tokens), sizeof *query);
    int32_t *prefix = calloc((size_t)(rows * tokens), sizeof *prefix);
    int32_t *key = calloc((size_t)(rows * keys), sizeof *key);
    assert_true(query && prefix && key);
    for (int64_t b = 0; b < rows; b++) {
        int64_t i = 0, j = 0;
        for (int32_t segment = 1; b > 0 && segment < 30; segment++) {
            int64_t n_queries = (int64_t)draw((uint64_t)(b * 100 + segment), longest),
                    n_keys = (int64_t)draw((uint64_t)(b * 200 + segment), longest + longest / 4);
            for (int64_t t = 0; t < n_queries && i < tokens - b; t++) query[b * tokens + i++] = segment;
            for (int64_t t = 0; t < n_keys && j < keys - 2 * b; t++) key[b * keys + j++] = segment;
        }
        for (int64_t t = 0; t < tokens; t++) {
            bool begins = t == 0 || query[b * tokens + t] != query[b * tokens + t - 1];
            prefix[b * tokens + t] =
                begins || (prefix[b * tokens + t - 1] && draw((uint64_t)(b * 300 + t), longest / 2) != 0);
        }
    }
    const ranges_case all[] = {{rows, tokens, tokens, query, query, NULL, SAGO_ATTEND_FULL},
                               {rows, tokens, keys, query, key, NULL, SAGO_ATTEND_FULL},
                               {rows, tokens, tokens, query, query, NULL, SAGO_ATTEND_CAUSAL},
                               {rows, tokens, tokens, query, query, prefix, SAGO_ATTEND_PREFIX},
                               {0, 3, 3, query, query, NULL, SAGO_ATTEND_FULL}};
    for (int n = 0; n < LENGTH(all); n++) {
        const ranges_case *c = &all[n];
        suite_result result;
        suite_run_op(ranges_body, c, SUITE_SAME_BITS, &result);
        const int32_t *lo = suite_ints(&result, "lo"), *hi = suite_ints(&result, "hi");
        for (int64_t at = 0; at < c->batch * c->queries; at++) {
            if (c->query[at] <= 0) assert_true(lo[at] == hi[at]);
            for (int64_t j = 0; j < c->keys; j++)
                if ((j >= lo[at] && j < hi[at]) != allowed(c, at / c->queries, at % c->queries, j))
                    fail_msg("case %d, query %d: keys %d to %d, which is wrong for key %d", n, (int)at,
                             lo[at], hi[at], (int)j);
        }
        suite_free(&result);
    }
    free(query), free(prefix), free(key);
}

static void test_ranges(void **state) {
    (void)state;
    check_ranges(5, 40, 61, 9);
    check_ranges(2, 700, 531, 400); /* a row takes several pieces of a block's threads */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_ranges),       cmocka_unit_test(test_forward),
    cmocka_unit_test(test_forward_bf16), cmocka_unit_test(test_backward),
    cmocka_unit_test(test_differences),  cmocka_unit_test(test_bias_sums),
    cmocka_unit_test(test_decoding),     cmocka_unit_test(test_cache),
    cmocka_unit_test(test_errors),       cmocka_unit_test(test_forward_99_kib)};
SUITE_MAIN(tests)
