// SPDX-License-Identifier: Apache-2.0
/*
 * Slices of a tensor, as ranks of a mesh hold them, drop what the whole tensor drops: every operation with
 * dropout, on the whole and on its slices, gives the same bits.
 */
#include "suite.h"

typedef struct box {
    sago_dtype dtype;
    int64_t rows, tokens, width; /* or batch, queries and head width */
    int64_t keys, heads;         /* these are attention's */
    sago_dropout dropout;
    float *in[4];
} box;

static sago_tensor take(suite_run *run, const box *b, const float *values) {
    return suite_typed(run, b->dtype, values, DIMS(b->rows, b->tokens, b->width));
}

static void elements_body(suite_run *run, const void *context) {
    const box *b = context;
    sago_device *d = run->device;
    const sago_dropout *drops = &b->dropout;
    sago_tensor d_y = take(run, b, b->in[0]), x = take(run, b, b->in[1]), other = take(run, b, b->in[2]);
    const char *names[] = {"dropout", "residual", "relu",   "relu d_x",      "geglu",
                           "d_gate",  "d_linear", "swiglu", "swiglu d_gate", "swiglu d_linear"};
    sago_tensor out[LENGTH(names)];
    for (int i = 0; i < LENGTH(names); i++) out[i] = take(run, b, NULL);
    suite_ok(d->ops->dropout(d, out[0], x, drops));
    suite_ok(d->ops->residual(d, out[1], other, x, drops));
    suite_ok(d->ops->relu_forward(d, out[2], x, drops));
    suite_ok(d->ops->relu_backward(d, out[3], d_y, x, drops));
    suite_ok(d->ops->geglu_forward(d, out[4], x, other, drops));
    suite_ok(d->ops->geglu_backward(d, out[5], out[6], d_y, x, other, drops));
    suite_ok(d->ops->swiglu_forward(d, out[7], x, other, drops));
    suite_ok(d->ops->swiglu_backward(d, out[8], out[9], d_y, x, other, drops));
    for (int i = 0; i < LENGTH(names); i++) suite_output(run, names[i], out[i]);
}

/* [outer, middle, inner] of [.., all_middle, all_inner], from a middle and an inner place on. */
typedef struct cut {
    int64_t outer, middle, inner, all_middle, all_inner, from_middle, from_inner;
} cut;

static void cut_out(void *out, const void *from, cut c, size_t element_bytes) {
    for (int64_t o = 0; o < c.outer; o++)
        for (int64_t m = 0; m < c.middle; m++) {
            int64_t at = (o * c.all_middle + c.from_middle + m) * c.all_inner + c.from_inner;
            memcpy((char *)out + (size_t)((o * c.middle + m) * c.inner) * element_bytes,
                   (const char *)from + (size_t)at * element_bytes, (size_t)c.inner * element_bytes);
        }
}

/* An output of the slice is the same part of the whole's. */
static void expect_part(const suite_result *part, const suite_result *whole, int output, cut c,
                        size_t element_bytes) {
    size_t bytes = (size_t)(c.outer * c.middle * c.inner) * element_bytes;
    char *want = malloc(bytes);
    assert_non_null(want);
    assert_int_equal(part->out[output].bytes, bytes);
    cut_out(want, whole->out[output].data, c, element_bytes);
    if (memcmp(part->out[output].data, want, bytes) != 0)
        fail_msg("%s: [%d, %d, %d] from (%d, %d) on is not what the whole has", part->out[output].name,
                 (int)c.outer, (int)c.middle, (int)c.inner, (int)c.from_middle, (int)c.from_inner);
    free(want);
}

static void check_elements(sago_dtype dtype, int64_t rows, int64_t tokens, int64_t width, int64_t row_tokens,
                           const cut cuts[], int n_cuts) {
    box whole = {.dtype = dtype,
                 .rows = rows,
                 .tokens = tokens,
                 .width = width,
                 .dropout = {0.3f, 4321, 5, row_tokens}};
    for (int i = 0; i < 3; i++) whole.in[i] = suite_normal(rows * tokens * width, (uint64_t)i + 20);
    suite_result expected;
    suite_run_op(elements_body, &whole, SUITE_SAME_BITS, &expected);
    for (int n = 0; n < n_cuts; n++) {
        cut c = cuts[n];
        c.outer = rows, c.all_middle = tokens, c.all_inner = width;
        box part = {
            .dtype = dtype, .rows = rows, .tokens = c.middle, .width = c.inner, .dropout = whole.dropout};
        part.dropout.first = c.from_middle * width + c.from_inner, part.dropout.pitch = width;
        for (int i = 0; i < 3; i++) {
            part.in[i] = malloc((size_t)(rows * c.middle * c.inner) * sizeof(float));
            assert_non_null(part.in[i]);
            cut_out(part.in[i], whole.in[i], c, sizeof(float));
        }
        suite_result result;
        suite_run_op(elements_body, &part, SUITE_SAME_BITS, &result);
        for (int i = 0; i < result.n; i++) expect_part(&result, &expected, i, c, sago_dtype_bytes(dtype));
        suite_free(&result);
        for (int i = 0; i < 3; i++) free(part.in[i]);
    }
    suite_free(&expected);
    for (int i = 0; i < 3; i++) free(whole.in[i]);
}

/* Columns, tokens, both; whole words and vectors, whole words alone, and neither. */
static void check_all_elements(sago_dtype dtype) {
    static const cut even[] = {{.middle = 6, .inner = 32, .from_inner = 32},
                               {.middle = 6, .inner = 12, .from_inner = 4},
                               {.middle = 3, .inner = 96, .from_middle = 2},
                               {.middle = 4, .inner = 48, .from_middle = 1, .from_inner = 48},
                               {.middle = 6, .inner = 33, .from_inner = 63},
                               {.middle = 2, .inner = 32, .from_middle = 3, .from_inner = 1},
                               {.middle = 1, .inner = 40, .from_middle = 5, .from_inner = 8}};
    static const cut odd[] = {{.middle = 5, .inner = 16, .from_inner = 8},
                              {.middle = 2, .inner = 37, .from_middle = 3},
                              {.middle = 4, .inner = 18, .from_middle = 1, .from_inner = 19}};
    check_elements(dtype, 3, 6, 96, 6, even, LENGTH(even));
    check_elements(dtype, 2, 6, 96, 9, even, LENGTH(even));
    check_elements(dtype, 1, 6, 96, 9, even, LENGTH(even));
    check_elements(dtype, 2, 5, 37, 5, odd, LENGTH(odd));
    check_elements(dtype, 2, 5, 37, 11, odd, LENGTH(odd));
}

static void attention_body(suite_run *run, const void *context) {
    const box *b = context;
    sago_device *d = run->device;
    int32_t *ends = calloc((size_t)(b->rows * b->tokens), sizeof *ends);
    assert_non_null(ends);
    sago_tensor lo = suite_i32(run, ends, DIMS(b->rows, b->tokens));
    for (int64_t i = 0; i < b->rows * b->tokens; i++) ends[i] = (int32_t)(b->keys - i % 3);
    sago_attention_args args = {
        .scale = 0.2f, .lo = lo, .hi = suite_i32(run, ends, DIMS(b->rows, b->tokens)), .dropout = b->dropout};
    free(ends);
    sago_tensor t[8];
    enum { Q, K, V, D_O, O, D_Q, D_K, D_V };
    for (int i = 0; i < LENGTH(t); i++) {
        bool of_keys = i == K || i == V || i == D_K || i == D_V;
        t[i] = suite_typed(run, b->dtype, i < O ? b->in[i] : NULL,
                           DIMS(b->rows, of_keys ? b->keys : b->tokens, b->heads, b->width));
    }
    sago_tensor lse = suite_f32(run, NULL, DIMS(b->rows, b->heads, b->tokens));
    suite_ok(d->ops->attention_forward(d, t[O], lse, t[Q], t[K], t[V], &args));
    suite_ok(d->ops->attention_backward(d, t[D_Q], t[D_K], t[D_V], (sago_tensor){0}, t[D_O], t[O], lse, t[Q],
                                        t[K], t[V], &args));
    suite_output(run, "attention o", t[O]);
    suite_output(run, "attention d_q", t[D_Q]);
    suite_output(run, "attention d_k", t[D_K]);
    suite_output(run, "attention d_v", t[D_V]);
    suite_output(run, "attention lse", lse);
}

/* All heads, and each cut of them: heads [first, first + count). */
static void check_attention(sago_dtype dtype, int64_t queries, int64_t keys, int64_t width) {
    enum { BATCH = 2, HEADS = 4 };
    static const int64_t cuts[][2] = {{2, 2}, {1, 1}};
    box whole = {.dtype = dtype,
                 .rows = BATCH,
                 .tokens = queries,
                 .width = width,
                 .keys = keys,
                 .heads = HEADS,
                 .dropout = {0.25f, 77, 3, HEADS * queries}};
    for (int i = 0; i < 4; i++)
        whole.in[i] =
            suite_normal(BATCH * (i == 1 || i == 2 ? keys : queries) * HEADS * width, (uint64_t)i + 30);
    suite_result expected;
    suite_run_op(attention_body, &whole, SUITE_SAME_BITS, &expected);
    for (int n = 0; n < LENGTH(cuts); n++) {
        int64_t from = cuts[n][0], heads = cuts[n][1];
        box part = whole;
        part.heads = heads, part.dropout.first = from * queries * keys;
        cut of_tokens[2];
        for (int i = 0; i < 2; i++)
            of_tokens[i] = (cut){.outer = BATCH * (i ? keys : queries),
                                 .middle = heads,
                                 .inner = width,
                                 .all_middle = HEADS,
                                 .all_inner = width,
                                 .from_middle = from};
        for (int i = 0; i < 4; i++) {
            cut c = of_tokens[i == 1 || i == 2];
            part.in[i] = malloc((size_t)(c.outer * c.middle * c.inner) * sizeof(float));
            assert_non_null(part.in[i]);
            cut_out(part.in[i], whole.in[i], c, sizeof(float));
        }
        suite_result result;
        suite_run_op(attention_body, &part, SUITE_SAME_BITS, &result);
        for (int i = 0; i < 4; i++)
            expect_part(&result, &expected, i, of_tokens[i >= 2], sago_dtype_bytes(dtype));
        cut of_lse = {.outer = BATCH,
                      .middle = heads,
                      .inner = queries,
                      .all_middle = HEADS,
                      .all_inner = queries,
                      .from_middle = from};
        expect_part(&result, &expected, 4, of_lse, sizeof(float));
        suite_free(&result);
        for (int i = 0; i < 4; i++) free(part.in[i]);
    }
    suite_free(&expected);
    for (int i = 0; i < 4; i++) free(whole.in[i]);
}

static void check_all_attention(sago_dtype dtype) {
    check_attention(dtype, 18, 36, 32);
    check_attention(dtype, 19, 27, 16); /* heads begin within words */
    check_attention(dtype, 2, 45, 32);
}

static void test_elements(void **state) {
    (void)state;
    check_all_elements(SAGO_F32);
}

static void test_elements_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all_elements(SAGO_BF16);
}

static void test_attention(void **state) {
    (void)state;
    check_all_attention(SAGO_F32);
}

static void test_attention_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all_attention(SAGO_BF16);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_elements), cmocka_unit_test(test_elements_bf16), cmocka_unit_test(test_attention),
    cmocka_unit_test(test_attention_bf16)};
SUITE_MAIN(tests)
