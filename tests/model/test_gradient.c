// SPDX-License-Identifier: Apache-2.0
/* Loss and gradient against the models in float64: the objective itself, and its central differences. */
#include "small_model.h"

#include "rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Packed rows, one without any example, one with a segment that has a single input and target. */
static sago_batch packed(const small_model *small) {
    return small_batch(&small->shape, 4, (int[]){2, 3, 0, 1}, (int[]){9, 12, 5, 1, 10, 21},
                       (int[]){6, 7, 4, 1, 5, 13}, 3);
}

static void compare(small_kind kind, small_options options, float dropout, float smoothing) {
    small_model small;
    small_open(&small, kind, options);
    sago_batch batch = packed(&small);
    batch.first_row = 6;
    const sago_loss_args args = {.dropout = dropout,
                                 .dropout_key = 99,
                                 .z_loss = 0.01f,
                                 .label_smoothing = smoothing,
                                 .scale = 1.0 / (double)batch.n_target_tokens};
    sago_loss_sums loss = small_loss(&small, &batch, 0, 4, &args);
    reference r = small_reference(&small);
    r.dropout = (double)dropout, r.dropout_key = 99, r.z_loss = (double)args.z_loss;
    r.label_smoothing = (double)smoothing;
    double expected = reference_objective(&r, &batch);
    assert_int_equal(loss.tokens, batch.n_target_tokens);
    assert_true(fabs(loss.objective - expected) <= 2e-6 * fabs(expected));
    /* A few elements of every parameter, the largest gradient among them. */
    for (int p = 0; p < small.registry.n_params; p++) {
        const sago_param *param = &small.registry.params[p];
        const float *gradient = small.gradients + param->offset;
        int64_t count = param->local_shape[0] * param->local_shape[1], largest = 0;
        for (int64_t i = 0; i < count; i++)
            if (fabsf(gradient[i]) > fabsf(gradient[largest])) largest = i;
        double most = fabs((double)gradient[largest]);
        assert_true(most > 0);
        for (int k = 0; k < 5; k++) {
            int64_t i =
                k == 0 ? largest : (int64_t)sago_below(sago_mix((uint64_t)p, (uint64_t)k), (uint64_t)count);
            double *x = &r.values[param->offset + i], at = *x, h = 1e-5;
            *x = at + h;
            double above = reference_objective(&r, &batch);
            *x = at - h;
            double below = reference_objective(&r, &batch);
            *x = at;
            double difference = (above - below) / (2 * h) * args.scale;
            if (fabs(difference - (double)gradient[i]) > 2e-5 * most + 1e-9)
                fail_msg("%s[%lld]: gradient %.9g, difference %.9g", param->name, (long long)i,
                         (double)gradient[i], difference);
        }
    }
    free(r.values);
    small_batch_free(&batch);
    small_close(&small);
}

static void t5_gated_and_untied(void **state) {
    (void)state;
    compare(SMALL_T5_1_1, (small_options){0}, 0, 0);
}

static void t5_relu_and_tied(void **state) {
    (void)state;
    compare(SMALL_T5_1_0, (small_options){.chunk = 64}, 0, 0);
}

static void t5_of_ul2(void **state) {
    (void)state;
    compare(SMALL_T5_UL2, (small_options){0}, 0.2f, 0);
}

static void t5_with_dropout_and_smoothing(void **state) {
    (void)state;
    compare(SMALL_T5_1_1, (small_options){.recompute = true}, 0.2f, 0.1f);
}

static void t5_tied_with_dropout(void **state) {
    (void)state;
    compare(SMALL_T5_1_0, (small_options){0}, 0.3f, 0);
}

static void palm_multi_query_and_causal(void **state) {
    (void)state;
    compare(SMALL_PALM, (small_options){0}, 0, 0);
}

static void palm_grouped_with_a_prefix(void **state) {
    (void)state;
    compare(SMALL_PALM_GROUPED, (small_options){.chunk = 64}, 0, 0);
}

static void palm_with_dropout_and_smoothing(void **state) {
    (void)state;
    compare(SMALL_PALM, (small_options){.recompute = true}, 0.2f, 0.1f);
}

static void palm_grouped_with_dropout(void **state) {
    (void)state;
    compare(SMALL_PALM_GROUPED, (small_options){0}, 0.3f, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t5_gated_and_untied),
        cmocka_unit_test(t5_relu_and_tied),
        cmocka_unit_test(t5_of_ul2),
        cmocka_unit_test(t5_with_dropout_and_smoothing),
        cmocka_unit_test(t5_tied_with_dropout),
        cmocka_unit_test(palm_multi_query_and_causal),
        cmocka_unit_test(palm_grouped_with_a_prefix),
        cmocka_unit_test(palm_with_dropout_and_smoothing),
        cmocka_unit_test(palm_grouped_with_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
