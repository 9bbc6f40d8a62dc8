// SPDX-License-Identifier: Apache-2.0
/* One batch, cut, packed, padded or recomputed in any way, is one loss and one gradient. */
#include "small_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sago_batch packed(const small_model *small) {
    return small_batch(&small->shape, 4, (int[]){2, 3, 0, 1}, (int[]){9, 12, 5, 1, 10, 21},
                       (int[]){6, 7, 4, 1, 5, 13}, 3);
}

static sago_loss_args arguments(float dropout) {
    return (sago_loss_args){.dropout = dropout, .dropout_key = 7, .z_loss = 1e-3f, .scale = 1.0 / 36};
}

/* Largest difference relative to the largest gradient of the parameter it belongs to. */
static double worst_difference(const small_model *small, const float *a, const float *b) {
    double worst = 0;
    for (int p = 0; p < small->registry.n_params; p++) {
        const sago_param *param = &small->registry.params[p];
        double most = 0, difference = 0;
        for (int64_t i = 0; i < param->local_shape[0] * param->local_shape[1]; i++) {
            int64_t at = param->offset + i;
            most = fmax(most, fabs((double)a[at]));
            difference = fmax(difference, fabs((double)a[at] - (double)b[at]));
        }
        worst = fmax(worst, difference / most);
    }
    return worst;
}

static float *keep_gradients(const small_model *small) {
    size_t bytes = (size_t)small->registry.n_elements * sizeof(float);
    return memcpy(malloc(bytes), small->gradients, bytes);
}

static void repeats_and_recomputes_bit_for_bit(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model plain, again;
        small_open(&plain, kind, (small_options){0});
        small_open(&again, kind, (small_options){.recompute = true});
        assert_true(sago_model_bytes(again.model) < sago_model_bytes(plain.model));
        sago_batch batch = packed(&plain);
        const sago_loss_args args = arguments(0.1f);
        sago_loss_sums first = small_loss(&plain, &batch, 0, 4, &args),
                       second = small_loss(&again, &batch, 0, 4, &args);
        size_t bytes = (size_t)plain.registry.n_elements * sizeof(float);
        assert_memory_equal(plain.gradients, again.gradients, bytes);
        assert_memory_equal(&first, &second, sizeof first);
        small_clear_gradients(&again);
        second = small_loss(&again, &batch, 0, 4, &args);
        assert_memory_equal(plain.gradients, again.gradients, bytes);
        small_batch_free(&batch);
        small_close(&plain);
        small_close(&again);
    }
}

static void micro_batches_add_up(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        for (int dropped = 0; dropped < 2; dropped++) {
            small_model small;
            small_open(&small, kind, (small_options){0});
            sago_batch batch = packed(&small);
            const sago_loss_args args = arguments(dropped ? 0.25f : 0);
            sago_loss_sums whole = small_loss(&small, &batch, 0, 4, &args);
            float *gradients = keep_gradients(&small);
            small_clear_gradients(&small);
            double nll = 0;
            for (int row = 0; row < 4; row++) nll += small_loss(&small, &batch, row, 1, &args).nll;
            assert_true(fabs(nll - whole.nll) < 1e-5 * whole.nll);
            assert_true(worst_difference(&small, gradients, small.gradients) < 1e-5);
            /* Other masks would be far away. */
            if (dropped) {
                sago_batch moved = batch;
                moved.first_row = 1;
                assert_true(fabs(small_loss(&small, &moved, 0, 4, &args).nll - whole.nll) > 1e-3 * whole.nll);
            }
            free(gradients);
            small_batch_free(&batch);
            small_close(&small);
        }
    }
}

static void packing_changes_nothing(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        small_open(&small, kind, (small_options){.max_rows = 6});
        sago_batch rows = packed(&small);
        const int lengths[] = {9, 12, 5, 1, 10, 21}, targets[] = {6, 7, 4, 1, 5, 13};
        sago_batch alone = small_batch(&small.shape, 6, (int[]){1, 1, 1, 1, 1, 1}, lengths, targets, 3);
        const sago_loss_args args = arguments(0);
        sago_loss_sums a = small_loss(&small, &rows, 0, 4, &args);
        float *gradients = keep_gradients(&small);
        small_clear_gradients(&small);
        sago_loss_sums b = small_loss(&small, &alone, 0, 6, &args);
        assert_int_equal(a.tokens, b.tokens);
        assert_int_equal(a.correct, b.correct);
        assert_true(fabs(a.nll - b.nll) < 1e-5 * a.nll);
        assert_true(fabs(a.z - b.z) < 1e-5 * a.z);
        assert_true(worst_difference(&small, gradients, small.gradients) < 1e-5);
        free(gradients);
        small_batch_free(&rows);
        small_batch_free(&alone);
        small_close(&small);
    }
}

/* Whatever stands in padding is never read. */
static void spoil_padding(sago_batch *batch) {
    for (int i = 0; i < batch->n_rows * batch->input_length; i++)
        if (batch->input_segments[i] == 0) batch->inputs[i] = 1000 + i;
    for (int i = 0; i < batch->n_rows * batch->target_length; i++)
        if (batch->target_segments[i] == 0) batch->decoder_inputs[i] = batch->targets[i] = -i;
}

static void padding_weighs_nothing(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        small_open(&small, kind, (small_options){0});
        sago_batch batch = packed(&small);
        const sago_loss_args args = arguments(0);
        sago_loss_sums whole = small_loss(&small, &batch, 0, 4, &args);
        float *gradients = keep_gradients(&small);
        size_t bytes = (size_t)small.registry.n_elements * sizeof(float);
        small_clear_gradients(&small);
        spoil_padding(&batch);
        sago_loss_sums padded = small_loss(&small, &batch, 0, 4, &args);
        assert_memory_equal(&whole, &padded, sizeof whole);
        assert_memory_equal(gradients, small.gradients, bytes);
        /* A micro-batch without any example adds nothing. */
        sago_loss_sums empty = small_loss(&small, &batch, 2, 1, &args);
        assert_int_equal(empty.tokens, 0);
        assert_true(empty.nll == 0 && empty.z == 0);
        assert_memory_equal(gradients, small.gradients, bytes);
        free(gradients);
        small_batch_free(&batch);
        small_close(&small);
    }
}

typedef struct watch {
    const small_model *small;
    int next;
    float *at_call; /* gradients of each block when it was called final */
} watch;

static sago_status block_done(void *context, int block) {
    watch *w = context;
    if (block != w->next) return sago_fail(SAGO_E_INTERNAL, "block %d where %d comes next", block, w->next);
    w->next--;
    int64_t first, end;
    sago_registry_block_range(&w->small->registry, block, &first, &end);
    memcpy(w->at_call + first, w->small->gradients + first, (size_t)(end - first) * sizeof(float));
    return SAGO_OK;
}

static void blocks_are_final_when_they_are_called_so(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        small_open(&small, kind, (small_options){0});
        sago_batch batch = packed(&small);
        watch w = {&small, small.registry.n_blocks - 1,
                   calloc((size_t)small.registry.n_elements, sizeof(float))};
        sago_loss_args args = arguments(0.1f);
        args.block_done = block_done;
        args.context = &w;
        (void)small_loss(&small, &batch, 0, 4, &args);
        assert_int_equal(w.next, -1);
        assert_memory_equal(w.at_call, small.gradients, (size_t)small.registry.n_elements * sizeof(float));
        w.next = small.registry.n_blocks - 1;
        (void)small_loss(&small, &batch, 2, 1, &args); /* also where there is nothing to do */
        assert_int_equal(w.next, -1);
        free(w.at_call);
        small_batch_free(&batch);
        small_close(&small);
    }
}

static void scores_are_log_probabilities(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        for (int inference = 0; inference < 2; inference++) {
            small_model small;
            small_open(&small, kind, (small_options){.inference = inference, .max_rows = 3, .chunk = 40});
            sago_batch batch = packed(&small);
            float logprobs[4 * SMALL_LENGTH];
            assert_int_equal(sago_model_score(small.model, small.values, &batch, logprobs), SAGO_OK);
            reference r = small_reference(&small);
            double *all = malloc(sizeof(double) * (size_t)(batch.target_length * SMALL_VOCABULARY));
            for (int row = 0; row < 4; row++) {
                reference_logprobs(&r, &batch, row, all);
                for (int64_t i = 0; i < batch.target_length; i++) {
                    int64_t at = row * batch.target_length + i;
                    double expected =
                        batch.weights[at] > 0 ? all[i * SMALL_VOCABULARY + batch.targets[at]] : 0;
                    assert_true(fabs((double)logprobs[at] - expected) < 1e-5);
                }
            }
            free(all);
            free(r.values);
            small_batch_free(&batch);
            small_close(&small);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeats_and_recomputes_bit_for_bit),
        cmocka_unit_test(micro_batches_add_up),
        cmocka_unit_test(packing_changes_nothing),
        cmocka_unit_test(padding_weighs_nothing),
        cmocka_unit_test(blocks_are_final_when_they_are_called_so),
        cmocka_unit_test(scores_are_log_probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
