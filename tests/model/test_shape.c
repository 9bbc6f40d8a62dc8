// SPDX-License-Identifier: Apache-2.0
#include "small_t5.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Parameters of the published T5 v1.1 models (their checkpoints on the Hugging Face hub). */
static void published_sizes_have_their_parameters(void **state) {
    (void)state;
    const struct {
        int64_t d_model, heads, layers, d_ff, parameters;
    } published[] = {{512, 6, 8, 1024, 76961152},
                     {768, 12, 12, 2048, 247577856},
                     {1024, 16, 24, 2816, 783150080},
                     {2048, 32, 24, 5120, INT64_C(2849757184)},
                     {4096, 64, 24, 10240, INT64_C(11135332352)}};
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        sago_model_shape shape = {.family = "t5",
                                  .vocab_size = 32128,
                                  .d_model = published[i].d_model,
                                  .n_heads = published[i].heads,
                                  .head_dim = 64,
                                  .d_ff = published[i].d_ff,
                                  .encoder_layers = published[i].layers,
                                  .decoder_layers = published[i].layers,
                                  .activation = SAGO_GATED_GELU,
                                  .relative_buckets = 32,
                                  .relative_max_distance = 128,
                                  .norm_epsilon = 1e-6f};
        sago_model_shape_complete(&shape);
        sago_registry registry = {0};
        assert_int_equal(sago_model_declare(&shape, &registry), SAGO_OK);
        assert_int_equal(sago_registry_shard(&registry, NULL, 0, 0, 1), SAGO_OK);
        assert_int_equal(registry.n_global_elements, published[i].parameters);
        assert_int_equal(registry.n_blocks, 2 + 2 * published[i].layers);
        sago_registry_free(&registry);
    }
}

static void shape_survives_json(void **state) {
    (void)state;
    for (int version = 0; version < 2; version++) {
        sago_model_shape shape = small_shape(version), back;
        json_t *json = sago_model_shape_to_json(&shape);
        assert_int_equal(sago_model_shape_from_json(json, &back), SAGO_OK);
        assert_memory_equal(&shape, &back, sizeof shape);
        const char *const keys[] = {"family", "d_model", "activation", "tied_embeddings", "norm_epsilon"};
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
            json_t *without = json_copy(json);
            json_object_del(without, keys[i]);
            assert_int_equal(sago_model_shape_from_json(without, &back), SAGO_E_INPUT);
            assert_non_null(strstr(sago_message(), keys[i]));
            json_decref(without);
        }
        json_decref(json);
    }
}

static void impossible_shapes_are_refused(void **state) {
    (void)state;
    sago_model_shape shape = small_shape(true);
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_OK);
    assert_int_equal(sago_model_shape_check(&shape, 2), SAGO_E_SHAPE); /* three heads */
    assert_non_null(strstr(sago_message(), "3 heads"));
    shape.d_model = 0;
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "d_model"));
    shape = small_shape(true);
    shape.relative_buckets = 7;
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "relative_buckets"));
    shape = small_shape(true);
    shape.relative_max_distance = 4;
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "relative_max_distance"));
    shape = small_shape(true);
    strcpy(shape.family, "t6");
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_E_CONFIG);
    sago_registry registry = {0};
    assert_int_equal(sago_model_declare(&shape, &registry), SAGO_E_CONFIG);
    sago_registry_free(&registry);
}

/* A model of one layer a stack, counted by hand. */
static void flops_are_those_of_the_products(void **state) {
    (void)state;
    sago_model_shape shape = small_shape(true); /* d 20, heads 3 x 8, ff 28, 2 + 1 layers, vocabulary 53 */
    double encoder = 2 * (10.0 * (4 * 20 * 24 + 3 * 20 * 28) + 2 * 40.0 * 24);
    double decoder = 5.0 * (6 * 20 * 24 + 3 * 20 * 28) + 10.0 * 2 * 20 * 24 + 2 * (15.0 + 50.0) * 24;
    double logits = 5.0 * 20 * 53;
    assert_true(sago_model_flops(&shape, 10, 5, 40, 15, 50) == 6 * (encoder + decoder + logits));
}

static void a_batch_that_does_not_fit_is_refused(void **state) {
    (void)state;
    small_t5 t5;
    small_open(&t5, true, (small_options){.max_rows = 1});
    sago_batch batch = small_batch(2, (int[]){1, 1}, (int[]){3, 4}, (int[]){2, 3}, 1);
    const sago_loss_args args = {.scale = 1};
    sago_loss_sums loss = {0};
    assert_int_equal(sago_model_loss(t5.model, t5.values, t5.gradients, &batch, 0, 2, &args, &loss),
                     SAGO_E_SHAPE);
    batch.inputs[1] = 53;
    assert_int_equal(sago_model_loss(t5.model, t5.values, t5.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "53"));
    batch.inputs[1] = 5;
    batch.targets[0] = -1;
    assert_int_equal(sago_model_loss(t5.model, t5.values, t5.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INPUT);
    small_batch_free(&batch);
    small_close(&t5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes_have_their_parameters),
        cmocka_unit_test(shape_survives_json),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(flops_are_those_of_the_products),
        cmocka_unit_test(a_batch_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
