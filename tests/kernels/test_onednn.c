// SPDX-License-Identifier: Apache-2.0
#include "cpu/onednn.h"
#include "cpu/vector_math.h"
#include "reference.h"
#include "suite.h"

/* oneDNN's bf16 products also where the device prefers fp32 ones; a processor that has none skips. */
static void test_bf16(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{17, 33, 9}, {64, 48, 128}, {1, 7, 5}};
    sago_onednn *onednn;
    suite_ok(sago_onednn_open(&onednn));
    bool supported = true;
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int mode = 0; mode < 16 && supported; mode++) {
            sago_gemm g = {shapes[s][0],          shapes[s][1],    shapes[s][2],
                           (mode & 1) != 0,       (mode & 2) != 0, mode & 4 ? -0.5f : 1.0f,
                           mode & 8 ? 2.0f : 0.0f};
            int64_t a_count = g.m * g.k, b_count = g.k * g.n, c_count = g.m * g.n;
            float *a = suite_normal(a_count, 1), *b = suite_normal(b_count, 2), *c = suite_normal(c_count, 3);
            float *plain = plain_from(c, c_count);
            uint16_t *a16 = malloc((size_t)a_count * 2), *b16 = malloc((size_t)b_count * 2);
            for (int64_t i = 0; i < a_count; i++) a16[i] = sago_to_bf16(a[i]), a[i] = sago_from_bf16(a16[i]);
            for (int64_t i = 0; i < b_count; i++) b16[i] = sago_to_bf16(b[i]), b[i] = sago_from_bf16(b16[i]);
            double *ea = ref_from(a, a_count), *eb = ref_from(b, b_count), *ec = ref_from(c, c_count);
            ref_matmul(ec, ea, eb, g.m, g.n, g.k, g.transpose_a, g.transpose_b, (double)g.alpha,
                       (double)g.beta);
            plain_matmul(plain, a, b, g.m, g.n, g.k, g.transpose_a, g.transpose_b, g.alpha, g.beta);
            for (int again = 0; again < 2;
                 again++) { /* the second call finds the primitive made by the first */
                float *out = plain_from(c, c_count);
                suite_ok(sago_onednn_bf16(onednn, &g, out, a16, b16, 1, &supported));
                if (supported) suite_close("oneDNN bf16", out, ec, plain, c_count);
                free(out);
            }
            free(a), free(b), free(c), free(plain), free(a16), free(b16), free(ea), free(eb), free(ec);
        }
    sago_onednn_close(onednn);
    if (!supported) skip();
}

/* More shapes than primitives are kept, in turn: the least recently used ones leave, results stay right. */
static void test_many_shapes(void **state) {
    (void)state;
    sago_onednn *onednn;
    suite_ok(sago_onednn_open(&onednn));
    bool supported = true;
    uint16_t one = sago_to_bf16(1.0f), values[100];
    for (int i = 0; i < 100; i++) values[i] = one;
    for (int round = 0; round < 2; round++)
        for (int k = 1; k <= 100 && supported; k++) {
            float c = 0;
            suite_ok(sago_onednn_bf16(onednn, &(sago_gemm){1, 1, k, false, false, 1, 0}, &c, values, values,
                                      1, &supported));
            if (supported) assert_true(c == (float)k);
        }
    sago_onednn_close(onednn);
    if (!supported) skip();
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16), cmocka_unit_test(test_many_shapes)};
int main(void) {
    return _cmocka_run_group_tests("oneDNN", tests, LENGTH(tests), NULL, NULL);
}
