// SPDX-License-Identifier: Apache-2.0
#include "small_model.h"

#include <math.h>
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

/* Chowdhery et al. 2022, table 1: parameters in billions, rounded to the digits given there. They count
 * matrices: with the scales of its norms the largest would be 540.36. */
static void published_palms_have_their_parameters(void **state) {
    (void)state;
    const struct {
        int64_t layers, heads, d_model;
        double billions;
    } published[] = {{32, 16, 4096, 8.63}, {64, 32, 8192, 62.50}, {118, 48, 18432, 540.35}};
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        sago_model_shape shape = {.family = "palm",
                                  .vocab_size = 256000,
                                  .d_model = published[i].d_model,
                                  .n_heads = published[i].heads,
                                  .head_dim = 256,
                                  .d_ff = 4 * published[i].d_model,
                                  .decoder_layers = published[i].layers,
                                  .activation = SAGO_SWIGLU,
                                  .tied_embeddings = true,
                                  .norm_epsilon = 1e-6f};
        sago_model_shape_complete(&shape);
        assert_int_equal(shape.kv_heads, 1);
        assert_true(shape.rope_theta == 10000);
        sago_registry registry = {0};
        assert_int_equal(sago_model_declare(&shape, &registry), SAGO_OK);
        assert_int_equal(sago_registry_shard(&registry, NULL, 0, 0, 1), SAGO_OK);
        double scales = (double)((1 + published[i].layers) * published[i].d_model);
        double matrices = (double)registry.n_global_elements - scales;
        assert_true(fabs(matrices / 1e9 - published[i].billions) <= 0.005);
        assert_int_equal(registry.n_blocks, 1 + published[i].layers);
        sago_registry_free(&registry);
    }
}

static void shape_survives_json(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        sago_model_shape shape = small_shape(kind), back;
        json_t *json = sago_model_shape_to_json(&shape);
        assert_int_equal(sago_model_shape_from_json(json, &back), SAGO_OK);
        assert_memory_equal(&shape, &back, sizeof shape);
        static const char *const keys[] = {"family",          "d_model",      "activation",
                                           "tied_embeddings", "norm_epsilon", "kv_heads",
                                           "logit_scale",     "rope_theta",   "rope"};
        int n_keys =
            sago_model_decoder_only(&shape) ? 9 : 5; /* the first ones are those that every T5 states */
        for (int i = 0; i < n_keys; i++) {
            json_t *without = json_copy(json);
            json_object_del(without, keys[i]);
            assert_int_equal(sago_model_shape_from_json(without, &back), SAGO_E_INPUT);
            assert_non_null(strstr(sago_message(), keys[i]));
            json_decref(without);
        }
        json_object_set_new(json, "rope", json_string("neighbours"));
        assert_int_equal(sago_model_shape_from_json(json, &back),
                         sago_model_decoder_only(&shape) ? SAGO_E_INPUT : SAGO_OK);
        json_decref(json);
    }
}

/* T5s that were saved when there were no other models. */
static void old_json_is_read(void **state) {
    (void)state;
    for (small_kind kind = SMALL_T5_1_0; kind <= SMALL_T5_1_1; kind++) {
        sago_model_shape shape = small_shape(kind), back;
        json_t *json = sago_model_shape_to_json(&shape);
        json_object_del(json, "kv_heads");
        json_object_del(json, "logit_scale");
        assert_int_equal(sago_model_shape_from_json(json, &back), SAGO_OK);
        assert_memory_equal(&shape, &back, sizeof shape);
        json_decref(json);
    }
}

static void refuses(const sago_model_shape *shape, int model_axis, sago_status status, const char *part) {
    assert_int_equal(sago_model_shape_check(shape, model_axis), status);
    if (!strstr(sago_message(), part)) fail_msg("no %s in: %s", part, sago_message());
}

static void impossible_shapes_are_refused(void **state) {
    (void)state;
    sago_model_shape shape = small_shape(SMALL_T5_1_1);
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_OK);
    refuses(&shape, 2, SAGO_E_SHAPE, "3 heads");
    shape.d_model = 0;
    refuses(&shape, 1, SAGO_E_SHAPE, "d_model");
    shape = small_shape(SMALL_T5_1_1), shape.relative_buckets = 7;
    refuses(&shape, 1, SAGO_E_SHAPE, "relative_buckets");
    shape = small_shape(SMALL_T5_1_1), shape.relative_max_distance = 4;
    refuses(&shape, 1, SAGO_E_SHAPE, "relative_max_distance");
    shape = small_shape(SMALL_T5_1_1), shape.activation = SAGO_SWIGLU; /* UL2's */
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_OK);
    shape = small_shape(SMALL_T5_1_1), shape.kv_heads = 1;
    refuses(&shape, 1, SAGO_E_SHAPE, "kv_heads is 1");
    shape = small_shape(SMALL_T5_1_1), shape.encoder_layers = 0;
    refuses(&shape, 1, SAGO_E_SHAPE, "encoder_layers");
    shape = small_shape(SMALL_T5_1_1), strcpy(shape.family, "t6");
    refuses(&shape, 1, SAGO_E_CONFIG, "\"t6\" is not known");
    sago_registry registry = {0};
    assert_int_equal(sago_model_declare(&shape, &registry), SAGO_E_CONFIG);
    sago_registry_free(&registry);
}

static void impossible_palms_are_refused(void **state) {
    (void)state;
    sago_model_shape shape = small_shape(SMALL_PALM);
    assert_int_equal(sago_model_shape_check(&shape, 1), SAGO_OK);
    assert_int_equal(sago_model_shape_check(&shape, 3), SAGO_E_SHAPE); /* d_ff 28 */
    shape.head_dim = 7;
    refuses(&shape, 1, SAGO_E_SHAPE, "head_dim is 7");
    shape = small_shape(SMALL_PALM_GROUPED), shape.kv_heads = 3;
    refuses(&shape, 1, SAGO_E_SHAPE, "3 key/value heads do not divide 4 heads");
    shape = small_shape(SMALL_PALM_GROUPED);
    assert_int_equal(sago_model_shape_check(&shape, 2), SAGO_OK);
    refuses(&shape, 4, SAGO_E_SHAPE, "2 key/value heads do not divide by mesh.model=4");
    shape = small_shape(SMALL_PALM), shape.tied_embeddings = false;
    refuses(&shape, 1, SAGO_E_CONFIG, "tied_embeddings");
    shape = small_shape(SMALL_PALM), shape.encoder_layers = 1;
    refuses(&shape, 1, SAGO_E_SHAPE, "encoder_layers is 1");
    shape = small_shape(SMALL_PALM), shape.activation = SAGO_GATED_GELU;
    refuses(&shape, 1, SAGO_E_CONFIG, "palm takes swiglu, not gated-gelu");
    shape = small_shape(SMALL_PALM), shape.rope_theta = 1;
    refuses(&shape, 1, SAGO_E_SHAPE, "rope_theta");
    shape = small_shape(SMALL_PALM), shape.relative_buckets = 32;
    refuses(&shape, 1, SAGO_E_SHAPE, "relative_buckets");
    shape = small_shape(SMALL_PALM), shape.logit_scale = 0;
    refuses(&shape, 1, SAGO_E_SHAPE, "logit_scale");
}

/* A model of one layer a stack, counted by hand. */
static void flops_are_those_of_the_products(void **state) {
    (void)state;
    sago_model_shape shape =
        small_shape(SMALL_T5_1_1); /* d 20, heads 3 x 8, ff 28, 2 + 1 layers, vocabulary 53 */
    double encoder = 2 * (10.0 * (4 * 20 * 24 + 3 * 20 * 28) + 2 * 40.0 * 24);
    double decoder = 5.0 * (6 * 20 * 24 + 3 * 20 * 28) + 10.0 * 2 * 20 * 24 + 2 * (15.0 + 50.0) * 24;
    double logits = 5.0 * 20 * 53;
    assert_true(sago_model_flops(&shape, 10, 5, 40, 15, 50) == 6 * (encoder + decoder + logits));
}

static void flops_of_palm_are_those_of_its_products(void **state) {
    (void)state;
    sago_model_shape shape =
        small_shape(SMALL_PALM_GROUPED); /* d 20, heads 4 x 6, 2 of keys, ff 28, 3 layers */
    double token = 20 * 24 + 2 * 20 * 12 + 24 * 20 + 3 * 20 * 28;
    double layers = 3 * (15.0 * token + 2 * 70.0 * 24), logits = 5.0 * 20 * 53;
    assert_true(sago_model_flops(&shape, 10, 5, 0, 70, 0) == 6 * (layers + logits));
}

static void a_batch_that_does_not_fit_is_refused(void **state) {
    (void)state;
    small_model small;
    small_open(&small, SMALL_T5_1_1, (small_options){.max_rows = 1});
    sago_batch batch = small_batch(&small.shape, 2, (int[]){1, 1}, (int[]){3, 4}, (int[]){2, 3}, 1);
    const sago_loss_args args = {.scale = 1};
    sago_loss_sums loss = {0};
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 2, &args, &loss),
                     SAGO_E_SHAPE);
    batch.inputs[1] = 53;
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "53"));
    batch.inputs[1] = 5;
    batch.targets[0] = -1;
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INPUT);
    small_batch_free(&batch);
    small_close(&small);
}

static void palm_refuses_rows_of_other_models(void **state) {
    (void)state;
    small_model small;
    small_open(&small, SMALL_PALM, (small_options){.max_rows = 1});
    const sago_model_shape t5 = small_shape(SMALL_T5_1_1);
    const sago_loss_args args = {.scale = 1};
    sago_loss_sums loss = {0};
    sago_batch batch = small_batch(&t5, 1, (int[]){1}, (int[]){3}, (int[]){2}, 1);
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INTERNAL);
    small_batch_free(&batch);
    batch = small_batch(&small.shape, 2, (int[]){1, 1}, (int[]){3, 4}, (int[]){2, 3}, 1);
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 2, &args, &loss),
                     SAGO_E_SHAPE);
    batch.decoder_inputs[1] = SMALL_VOCABULARY;
    assert_int_equal(sago_model_loss(small.model, small.values, small.gradients, &batch, 0, 1, &args, &loss),
                     SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "53"));
    small_batch_free(&batch);
    small_close(&small);
}

/* Before any step, and what does not train may be as wide as ever. */
static void heads_that_a_gpu_cannot_train_are_refused(void **state) {
    (void)state;
    sago_model_shape shape = small_shape(SMALL_PALM);
    sago_registry registry = {0};
    sago_device *sim;
    sago_model *model;
    sago_model_options options = {.max_rows = 1,
                                  .input_length = SMALL_INPUTS,
                                  .target_length = SMALL_TARGETS,
                                  .training = true,
                                  .dtype = SAGO_BF16,
                                  .loss_chunk_tokens = 7};
    shape.head_dim = 256;
    assert_int_equal(sago_model_declare(&shape, &registry), SAGO_OK);
    assert_int_equal(sago_registry_shard(&registry, NULL, 0, 0, 1), SAGO_OK);
    setenv("SAGO_SIM_SHARED_BYTES", "101376", 1); /* an L40S's, or an RTX's */
    assert_int_equal(sago_device_open("sim", 1, &sim), SAGO_OK);
    unsetenv("SAGO_SIM_SHARED_BYTES");
    assert_int_equal(sago_model_open(&shape, &registry, sim, NULL, &options, &model), SAGO_E_SHAPE);
    assert_null(model);
    assert_non_null(strstr(sago_message(), "140352"));
    options.training = false;
    assert_int_equal(sago_model_open(&shape, &registry, sim, NULL, &options, &model), SAGO_OK);
    sago_model_close(model);
    sago_device_close(sim);
    sago_registry_free(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes_have_their_parameters),
        cmocka_unit_test(published_palms_have_their_parameters),
        cmocka_unit_test(shape_survives_json),
        cmocka_unit_test(old_json_is_read),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(impossible_palms_are_refused),
        cmocka_unit_test(flops_are_those_of_the_products),
        cmocka_unit_test(flops_of_palm_are_those_of_its_products),
        cmocka_unit_test(a_batch_that_does_not_fit_is_refused),
        cmocka_unit_test(palm_refuses_rows_of_other_models),
        cmocka_unit_test(heads_that_a_gpu_cannot_train_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
