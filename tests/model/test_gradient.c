// SPDX-License-Identifier: Apache-2.0
/* Loss and gradient against T5 in float64: the objective itself, and its central differences. */
#include "small_t5.h"

#include "rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Packed rows, one without any example, one with a segment that has a single input and target. */
static sago_batch packed(void) {
    return small_batch(4, (int[]){2, 3, 0, 1}, (int[]){9, 12, 5, 1, 10, 21}, (int[]){6, 7, 4, 1, 5, 13}, 3);
}

static void compare(bool version_1_1, small_options options, float dropout, float smoothing) {
    small_t5 t5;
    small_open(&t5, version_1_1, options);
    sago_batch batch = packed();
    batch.first_row = 6;
    const sago_loss_args args = {.dropout = dropout,
                                 .dropout_key = 99,
                                 .z_loss = 0.01f,
                                 .label_smoothing = smoothing,
                                 .scale = 1.0 / (double)batch.n_target_tokens};
    sago_loss_sums loss = small_loss(&t5, &batch, 0, 4, &args);
    reference r = small_reference(&t5);
    r.dropout = (double)dropout, r.dropout_key = 99, r.z_loss = (double)args.z_loss;
    r.label_smoothing = (double)smoothing;
    double expected = reference_objective(&r, &batch);
    assert_int_equal(loss.tokens, batch.n_target_tokens);
    assert_true(fabs(loss.objective - expected) <= 2e-6 * fabs(expected));
    /* A few elements of every parameter, the largest gradient among them. */
    for (int p = 0; p < t5.registry.n_params; p++) {
        const sago_param *param = &t5.registry.params[p];
        const float *gradient = t5.gradients + param->offset;
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
    small_close(&t5);
}

static void gated_and_untied(void **state) {
    (void)state;
    compare(true, (small_options){0}, 0, 0);
}

static void relu_and_tied(void **state) {
    (void)state;
    compare(false, (small_options){.chunk = 64}, 0, 0);
}

static void with_dropout_and_smoothing(void **state) {
    (void)state;
    compare(true, (small_options){.recompute = true}, 0.2f, 0.1f);
}

static void tied_with_dropout(void **state) {
    (void)state;
    compare(false, (small_options){0}, 0.3f, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gated_and_untied),
        cmocka_unit_test(relu_and_tied),
        cmocka_unit_test(with_dropout_and_smoothing),
        cmocka_unit_test(tied_with_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
