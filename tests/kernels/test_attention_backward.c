// SPDX-License-Identifier: Apache-2.0
/*
 * Backward attention from given o and lse, in both dtypes; test_attention.c has it behind the forward pass.
 */
#include "attention_cases.h"

#define BF16 .dtype = SAGO_BF16, .bias_dtype = SAGO_BF16

/* Every device. */
static const attention_case cases[] = {
    {"four buckets", 1, 9, 11, 2, 2, 4, WHOLE, 0.5f, 4, 4, true},
    {"many distances", 1, 70, 70, 1, 1, 8, WHOLE, 0.3f, 400, 3000, true},
    {"many distances, sums outside shared memory", 1, 300, 301, 1, 1, 4, RAGGED, 0.5f, 600, 3000, true},
    {"offset, one-sided", 1, 40, 90, 2, 1, 16, RAGGED, 0.25f, 8, 20, false, 37},
    {"keys that nobody attends", 2, 40, 170, 2, 2, 8, ALIGNED, 0.3f, 8, 20, true},
    {"queries without keys", 1, 75, 67, 2, 2, 8, PADDED, 0.3f, 8, 20, true},
    {"dropout of whole words", 2, 37, 48, 2, 2, 16, RAGGED, 0.3f, 8, 20, true, 0, 0.25f, 3},
    {"dropout, some heads and keys of more", 2, 37, 48, 2, 2, 16, RAGGED, 0.3f, .rate = 0.25f, .first_row = 3,
     .all_heads = 5, .first_head = 2, .pitch = 61, .first_key = 5},
    {"one shared head, causal", 1, 45, 45, 5, 1, 13, CAUSAL, 0.3f, 8, 20, false},
    {"shared heads, packed", 2, 70, 70, 6, 2, 8, PACKED_CAUSAL, 0.3f, 8, 20, false, 0, 0.2f, 1},
    {"7 heads in 3 splits", 88, 5, 6, 7, 1, 4, RAGGED, 0.5f, 8, 20, true},
};

/* Devices with bf16: widths of all kernels and between them, tiles of every class, near and far. */
static const attention_case bf16_cases[] = {
    {"one", 1, 1, 1, 1, 1, 1, WHOLE, 1.0f, BF16},
    {"T5 encoder", 1, 150, 150, 1, 1, 64, WHOLE, 0.125f, 32, 128, true, BF16},
    {"T5 encoder, packed", 1, 140, 140, 2, 2, 64, SEGMENTS, 0.125f, 32, 128, true, BF16},
    {"T5 decoder, packed", 1, 141, 141, 1, 1, 64, PACKED_CAUSAL, 0.125f, 32, 128, false, BF16},
    {"cross, packed", 1, 70, 190, 1, 1, 64, SEGMENTS, 0.125f, BF16},
    {"causal", 1, 170, 170, 1, 1, 32, CAUSAL, 0.125f, .dtype = SAGO_BF16},
    {"far tiles", 1, 135, 260, 1, 1, 32, WHOLE, 0.2f, 8, 20, true, .dtype = SAGO_BF16},
    {"far tiles, causal", 1, 230, 230, 1, 1, 32, CAUSAL, 0.2f, 8, 20, false, BF16},
    {"far tiles, one-sided", 1, 60, 140, 1, 1, 32, WHOLE, 0.2f, 8, 20, false, 30, BF16},
    {"dropout", 1, 75, 132, 2, 2, 64, RAGGED, 0.2f, 32, 128, true, 0, 0.3f, 5, BF16},
    {"dropout, odd rows", 1, 37, 53, 2, 2, 32, RAGGED, 0.2f, .rate = 0.2f, .first_row = 3, BF16},
    {"dropout, some heads of more", 1, 75, 132, 2, 2, 64, RAGGED, 0.2f, BF16, .rate = 0.3f, .first_row = 5,
     .all_heads = 5, .first_head = 2},
    {"dropout, some keys of more, whole words", 1, 37, 53, 2, 2, 32, RAGGED, 0.2f, BF16, .rate = 0.3f,
     .first_row = 1, .pitch = 172, .first_key = 8},
    {"dropout, some keys of more, odd", 1, 37, 52, 2, 2, 64, RAGGED, 0.2f, BF16, .rate = 0.3f, .pitch = 172,
     .first_key = 9},
    {"dropout, far tiles", 2, 64, 160, 1, 1, 32, WHOLE, 0.2f, 8, 20, true, 0, 0.1f, 1, BF16},
    {"shared heads", 1, 65, 100, 4, 2, 80, RAGGED, 0.11f, 32, 128, true, BF16},
    {"one shared head, causal", 1, 90, 90, 5, 1, 64, CAUSAL, 0.125f, 32, 128, false, BF16},
    {"shared heads, packed", 1, 130, 130, 6, 2, 32, PACKED_CAUSAL, 0.2f, 8, 20, false, 0, 0.2f, 1, BF16},
    {"7 heads in 3 splits", 88, 3, 5, 7, 1, 24, RAGGED, 0.2f, 8, 20, true, BF16},
    {"one shared head, wide", 1, 40, 70, 3, 1, 256, CAUSAL, 0.0625f, BF16},
    {"wide, dropout", 1, 20, 72, 1, 1, 200, RAGGED, 0.07f, 32, 128, true, 0, 0.1f, 1, BF16},
    {"wide, far tiles", 1, 40, 90, 1, 1, 136, WHOLE, 0.08f, 8, 20, true, BF16},
    {"width 128", 1, 131, 140, 1, 1, 128, HOLES, 0.09f, 32, 128, true, BF16},
    {"queries without keys", 1, 75, 132, 1, 1, 64, PADDED, 0.125f, 8, 20, true, BF16},
    {"negative scale", 1, 40, 70, 1, 1, 40, RAGGED, -0.2f, 8, 20, true, BF16},
    {"odd width", 1, 33, 50, 2, 1, 13, RAGGED, 0.3f, 32, 128, true, 0, 0.1f, 2, BF16},
    {"keys that nobody attends", 1, 40, 170, 1, 1, 32, ALIGNED, 0.3f, 8, 20, true, BF16},
    {"many distances, sums outside shared memory", 1, 300, 301, 1, 1, 32, RAGGED, 0.2f, 600, 3000, true,
     BF16},
    {"far scores", 1, 40, 130, 1, 1, 64, WHOLE, 2.0f, 32, 128, true, BF16},
};

/** o and lse of the exact forward pass, rounded as they are stored: inputs of the operation. */
static void take_forward(attention_data *d) {
    const attention_case *c = d->c;
    double *q = ref_from(d->q, d->n_q), *k = ref_from(d->k, d->n_k), *v = ref_from(d->v, d->n_k);
    double *bias = ref_from(d->bias, d->n_bias), *keep = ref_from(d->keep, d->n_pairs);
    double *o = ref_array(d->n_q), *lse = ref_array(d->n_lse);
    ref_attention exact = ref_describe(d, keep, bias);
    ref_attention_forward(o, lse, &exact, q, k, v);
    for (int64_t i = 0; i < d->n_q; i++) d->o[i] = (float)o[i];
    suite_round(c->dtype, d->o, d->n_q);
    for (int64_t at = 0; at < d->n_lse; at++) {
        int64_t token = at / c->queries / c->heads * c->queries + at % c->queries;
        d->lse[at] = d->lo[token] < d->hi[token] ? (float)lse[at] : -INFINITY;
    }
    free(q), free(k), free(v), free(bias), free(keep), free(o), free(lse);
}

static void body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    sago_attention_args args = arguments(run, d);
    sago_tensor d_q = suite_typed(run, c->dtype, NULL, Q_DIMS(c)),
                d_k = suite_typed(run, c->dtype, NULL, K_DIMS(c));
    sago_tensor d_v = suite_typed(run, c->dtype, NULL, K_DIMS(c)), d_bias = {0};
    sago_tensor o = suite_typed(run, c->dtype, d->o, Q_DIMS(c)),
                lse = suite_f32(run, d->lse, DIMS(c->batch, c->heads, c->queries));
    sago_tensor q = suite_typed(run, c->dtype, d->q, Q_DIMS(c)),
                k = suite_typed(run, c->dtype, d->k, K_DIMS(c)),
                v = suite_typed(run, c->dtype, d->v, K_DIMS(c));
    sago_tensor d_o = suite_typed(run, c->dtype, d->d_o, Q_DIMS(c));
    if (c->n_buckets) d_bias = suite_f32(run, d->d_bias, DIMS(c->n_buckets, c->heads));
    suite_ok(run->device->ops->attention_backward(run->device, d_q, d_k, d_v, d_bias, d_o, o, lse, q, k, v,
                                                  &args));
    suite_output(run, "d_q", d_q);
    suite_output(run, "d_k", d_k);
    suite_output(run, "d_v", d_v);
    if (c->n_buckets) suite_output(run, "d_bias", d_bias);
}

static void compare(const attention_case *c) {
    attention_data d = make(c);
    print_message("%s%s\n", c->dtype == SAGO_BF16 ? "bf16, " : "", c->what);
    take_forward(&d);
    double *q = ref_from(d.q, d.n_q), *k = ref_from(d.k, d.n_k), *v = ref_from(d.v, d.n_k);
    double *d_o = ref_from(d.d_o, d.n_q), *o = ref_from(d.o, d.n_q), *lse = ref_from(d.lse, d.n_lse);
    double *bias = ref_from(d.bias, d.n_bias), *keep = ref_from(d.keep, d.n_pairs);
    double *d_bias = ref_from(d.d_bias, d.n_bias);
    double *d_q = ref_array(d.n_q), *d_k = ref_array(d.n_k), *d_v = ref_array(d.n_k);
    float *plain_q = plain_array(d.n_q), *plain_k = plain_array(d.n_k), *plain_v = plain_array(d.n_k);
    float *plain_bias = plain_from(d.d_bias, d.n_bias);
    ref_attention exact = ref_describe(&d, keep, bias);
    plain_attention plain = plain_describe(&d, d.keep, d.bias);
    ref_attention_backward(d_q, d_k, d_v, d_bias, &exact, d_o, o, lse, q, k, v);
    plain_attention_backward(plain_q, plain_k, plain_v, plain_bias, &plain, d.d_o, d.o, d.lse, d.q, d.k, d.v);
    suite_round(c->dtype, plain_q, d.n_q), suite_round(c->dtype, plain_k, d.n_k);
    suite_round(c->dtype, plain_v, d.n_k);
    suite_result result;
    suite_run_op(body, &d, SUITE_SAME_BITS, &result);
    bool bf16 = c->dtype == SAGO_BF16;
    suite_close(bf16 ? "d_q, bf16" : "d_q", suite_floats(&result, "d_q"), d_q, plain_q, d.n_q);
    suite_close(bf16 ? "d_k, bf16" : "d_k", suite_floats(&result, "d_k"), d_k, plain_k, d.n_k);
    suite_close(bf16 ? "d_v, bf16" : "d_v", suite_floats(&result, "d_v"), d_v, plain_v, d.n_k);
    if (c->n_buckets)
        suite_close(bf16 ? "d_bias, bf16" : "d_bias", suite_floats(&result, "d_bias"), d_bias, plain_bias,
                    d.n_bias);
    suite_free(&result);
    free(q), free(k), free(v), free(d_o), free(o), free(lse), free(bias), free(keep), free(d_bias);
    free(d_q), free(d_k), free(d_v), free(plain_q), free(plain_k), free(plain_v), free(plain_bias);
    drop(&d);
}

static void test_f32(void **state) {
    (void)state;
    for (int n = 0; n < LENGTH(cases); n++) compare(&cases[n]);
}

static void test_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    for (int n = 0; n < LENGTH(bf16_cases); n++) compare(&bf16_cases[n]);
}

/**
 * A head's scores move together when its bias does, which softmax does not see: what is added to d_bias sums
 * to about 0. In bf16, D comes from o as it is stored, so the sum is that of the roundings of o.
 */
static void test_bias_sums(void **state) {
    (void)state;
    static const attention_case full[] = {
        {"f32", 2, 70, 70, 2, 2, 32, WHOLE, 0.2f, 32, 128, true},
        {"f32, causal, dropout", 1, 90, 90, 2, 2, 32, CAUSAL, 0.2f, 8, 20, false, 0, 0.2f, 0},
        {"bf16", 1, 150, 150, 2, 2, 32, WHOLE, 0.2f, 32, 128, true, BF16},
        {"bf16, causal, dropout", 1, 140, 140, 1, 1, 64, CAUSAL, 0.2f, 8, 20, false, 0, 0.2f, 0, BF16},
    };
    for (int n = 0; n < LENGTH(full); n++) {
        const attention_case *c = &full[n];
        if (c->dtype == SAGO_BF16 && !suite_device(0)->stores_bf16) continue;
        attention_data d = make(c);
        take_forward(&d);
        memset(d.d_bias, 0, (size_t)d.n_bias * sizeof(float));
        suite_result result;
        suite_run_op(body, &d, SUITE_SAME_BITS, &result);
        const float *d_bias = suite_floats(&result, "d_bias");
        for (int64_t h = 0; h < c->heads; h++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < c->n_buckets; i++) {
                sum += d_bias[i * c->heads + h];
                size += fabs((double)d_bias[i * c->heads + h]);
            }
            if (fabs(sum) > (c->dtype == SAGO_BF16 ? 1e-2 : 1e-5) * size + 1e-6)
                fail_msg("%s, head %d: d_bias sums to %g of %g", c->what, (int)h, sum, size);
        }
        suite_free(&result);
        drop(&d);
    }
}

/** A row without keys, and one without queries: all gradients are written, as zeros. */
static void test_nothing(void **state) {
    (void)state;
    static const attention_case none[] = {
        {"no queries", 2, 0, 40, 2, 1, 8, WHOLE, 0.3f, 8, 20, true},
        {"no keys", 2, 40, 0, 2, 2, 8, WHOLE, 0.3f, 8, 20, true},
        {"no queries, bf16", 1, 0, 140, 2, 1, 32, WHOLE, 0.3f, 8, 20, true, BF16},
        {"no keys, bf16", 1, 40, 0, 2, 2, 32, WHOLE, 0.3f, 8, 20, true, BF16},
    };
    for (int n = 0; n < LENGTH(none); n++) {
        const attention_case *c = &none[n];
        if (c->dtype == SAGO_BF16 && !suite_device(0)->stores_bf16) continue;
        attention_data d = make(c);
        take_forward(&d);
        suite_result result;
        suite_run_op(body, &d, SUITE_SAME_BITS, &result);
        for (int64_t i = 0; i < d.n_q; i++) assert_true(suite_floats(&result, "d_q")[i] == 0);
        for (int64_t i = 0; i < d.n_k; i++) assert_true(suite_floats(&result, "d_k")[i] == 0);
        for (int64_t i = 0; i < d.n_k; i++) assert_true(suite_floats(&result, "d_v")[i] == 0);
        assert_memory_equal(suite_floats(&result, "d_bias"), d.d_bias, (size_t)d.n_bias * sizeof(float));
        suite_free(&result);
        drop(&d);
    }
}

static void errors_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    const sago_ops *ops = run->device->ops;
    sago_attention_args args = arguments(run, d);
    sago_tensor q = suite_f32(run, d->q, Q_DIMS(c)), k = suite_f32(run, d->k, K_DIMS(c));
    sago_tensor lse = suite_f32(run, d->lse, DIMS(c->batch, c->heads, c->queries));
    sago_tensor d_bias = suite_f32(run, d->d_bias, DIMS(c->n_buckets, c->heads));
    sago_tensor turned = suite_f32(run, NULL, DIMS(c->heads, c->n_buckets)), narrow = k;
    narrow.dtype = SAGO_BF16;
    const char *name = "attention_backward";
    suite_expect_shape_error(ops->attention_backward(run->device, k, k, k, d_bias, q, q, lse, q, k, k, &args),
                             name);
    suite_expect_shape_error(ops->attention_backward(run->device, q, q, k, d_bias, q, q, lse, q, k, k, &args),
                             name);
    suite_expect_shape_error(
        ops->attention_backward(run->device, q, k, narrow, d_bias, q, q, lse, q, k, k, &args), name);
    suite_expect_shape_error(ops->attention_backward(run->device, q, k, k, turned, q, q, lse, q, k, k, &args),
                             name);
    suite_expect_shape_error(ops->attention_backward(run->device, q, k, k, d_bias, q, q, q, q, k, k, &args),
                             name);
}

static void test_errors(void **state) {
    (void)state;
    static const attention_case c = {"errors", 2, 5, 6, 4, 2, 3, RAGGED, 0.7f, 6, 9, true};
    attention_data d = make(&c);
    take_forward(&d);
    suite_run_once(errors_body, &d);
    drop(&d);
}

static void refused_body(suite_run *run, const void *context) {
    const attention_data *d = context;
    const attention_case *c = d->c;
    sago_attention_args args = arguments(run, d);
    sago_tensor q = suite_typed(run, c->dtype, d->q, Q_DIMS(c)),
                k = suite_typed(run, c->dtype, d->k, K_DIMS(c)),
                lse = suite_f32(run, d->lse, DIMS(c->batch, c->heads, c->queries));
    suite_expect_shape_error(run->device->ops->attention_backward(run->device, q, k, k, (sago_tensor){0}, q,
                                                                  q, lse, q, k, k, &args),
                             "attention_backward");
}

/** GPUs of compute capability 8.6, 8.9 and 12.0: one tile at a time where two do not fit, and a refusal. */
static void test_99_kib(void **state) {
    (void)state;
    static const attention_case narrow[] = {
        {"packed", 1, 131, 140, 4, 2, 128, SEGMENTS, 0.09f, 32, 128, true, BF16},
        {"causal, dropout", 1, 170, 170, 1, 1, 80, CAUSAL, 0.11f, BF16, .rate = 0.2f},
        {"holes", 1, 40, 170, 2, 2, 128, HOLES, 0.09f, BF16},
        {"most sums in shared memory", 1, 110, 145, 1, 1, 128, RAGGED, 0.09f, 600, 3000, true, BF16},
        {"widest in f32", 1, 45, 70, 2, 1, 172, RAGGED, 0.08f, 8, 20, true},
    };
    static const attention_case wide[] = {
        {"bf16", 1, 5, 6, 1, 1, 256, WHOLE, 0.0625f, BF16},
        {"f32", 1, 5, 6, 1, 1, 173, WHOLE, 0.0625f},
    };
    if (!suite_is_sim()) skip();
    suite_shared_memory(SUITE_99_KIB);
    for (int n = 0; n < LENGTH(narrow); n++) compare(&narrow[n]);
    for (int n = 0; n < LENGTH(wide); n++) {
        attention_data d = make(&wide[n]);
        take_forward(&d);
        suite_run_once(refused_body, &d);
        drop(&d);
    }
    sago_device *device = suite_device(0);
    suite_ok(device->fits_heads(device, 256, true, false));
    suite_ok(device->fits_heads(device, 128, true, true));
    suite_ok(device->fits_heads(device, 172, false, true));
    assert_int_equal(device->fits_heads(device, 173, false, true), SAGO_E_SHAPE);
    assert_int_equal(device->fits_heads(device, 257, false, false), SAGO_E_SHAPE);
    assert_int_equal(device->fits_heads(device, 256, true, true), SAGO_E_SHAPE);
    assert_string_equal(
        sago_message(),
        "attention_backward: heads of width 256 in bf16 need 140352 bytes of shared memory a block, of which "
        "threads as fibers (forward, late copies) has 101376: train on an A100, an H100 or newer of their "
        "kind, or heads of up to 128 columns");
    suite_shared_memory(0);
    suite_ok(suite_device(0)->fits_heads(suite_device(0), 256, true, true));
}

/** An A100's: the widest heads in smaller blocks than an H100's. */
static void test_163_kib(void **state) {
    (void)state;
    static const attention_case wide[] = {
        {"bias", 1, 70, 75, 3, 1, 256, RAGGED, 0.0625f, 32, 128, true, BF16},
        {"packed, far tiles", 1, 100, 100, 1, 1, 200, PACKED_CAUSAL, 0.07f, 8, 20, false, 0, 0.1f, 1, BF16},
        {"many distances, sums outside shared memory", 1, 100, 190, 1, 1, 136, RAGGED, 0.09f, 600, 3000, true,
         BF16},
    };
    if (!suite_is_sim()) skip();
    suite_shared_memory(SUITE_163_KIB);
    for (int n = 0; n < LENGTH(wide); n++) compare(&wide[n]);
    suite_shared_memory(0);
    for (int n = 0; n < LENGTH(wide); n++) compare(&wide[n]);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32),       cmocka_unit_test(test_bf16),
                                          cmocka_unit_test(test_bias_sums), cmocka_unit_test(test_nothing),
                                          cmocka_unit_test(test_errors),    cmocka_unit_test(test_99_kib),
                                          cmocka_unit_test(test_163_kib)};
SUITE_MAIN(tests)
