// SPDX-License-Identifier: Apache-2.0
/*
 * One model on all ranks that mpirun gives, beside the same one on each rank alone: loss, every gradient and
 * its norm, log-probabilities and generated ids, with dropout, packed rows and a number of tokens that the
 * ranks do not divide. What is compared with is the code of one rank, which tests/model compares with float64
 * formulas.
 */
#include "mesh.h"
#include "model.h"
#include "gradient_sums.h"
#include "ops.h"
#include "str.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "small_models.h"

static sago_mesh *mesh;
static int n_ranks;

/* A model with its weights; shared: over all ranks, else on this rank alone. */
typedef struct subject {
    sago_registry registry;
    sago_model *model;
    float *values, *gradients;
} subject;

static void open_subject(subject *s, const sago_model_shape *shape, sago_device *device, bool shared,
                         bool training, bool recompute) {
    *s = (subject){0};
    int rank = shared ? mesh->axis_rank[SAGO_MODEL_AXIS] : 0, size = shared ? n_ranks : 1;
    must(sago_model_declare(shape, &s->registry));
    must(sago_model_shard(shape, &s->registry, NULL, 0, rank, size));
    size_t bytes = (size_t)s->registry.n_elements * sizeof(float);
    s->values = sago_alloc(bytes);
    s->gradients = sago_alloc_zero(1, bytes);
    sago_registry_initialise(&s->registry, 5, s->values);
    const sago_model_options options = {.max_rows = ROWS,
                                        .input_length = INPUTS,
                                        .target_length = TARGETS,
                                        .training = training,
                                        .recompute = recompute,
                                        .prefix = true,
                                        .loss_chunk_tokens = 7,
                                        .generate_rows = training ? 0 : ROWS,
                                        .generate_inputs = INPUTS,
                                        .generate_tokens = NEW};
    must(sago_model_open(shape, &s->registry, device, shared ? mesh : NULL, &options, &s->model));
}

static void close_subject(subject *s) {
    sago_model_close(s->model);
    sago_registry_free(&s->registry);
    free(s->values);
    free(s->gradients);
}

/* The gradient of the rank's piece of every parameter beside the same elements of the whole one. */
static void compare_gradients(const subject *whole, const subject *part) {
    for (int i = 0; i < part->registry.n_params; i++) {
        const sago_param *p = &part->registry.params[i], *w = &whole->registry.params[i];
        double most = 0, off = 0;
        for (int64_t e = 0; e < w->local_shape[0] * w->local_shape[1]; e++)
            most = fmax(most, fabs((double)whole->gradients[w->offset + e]));
        assert_true(most > 0);
        for (int64_t r = 0; r < p->local_shape[0]; r++)
            for (int64_t c = 0; c < p->local_shape[1]; c++) {
                int64_t at = (p->global_offset[0] + r) * w->local_shape[1] + p->global_offset[1] + c;
                double difference = (double)part->gradients[p->offset + r * p->local_shape[1] + c] -
                                    (double)whole->gradients[w->offset + at];
                off = fmax(off, fabs(difference));
            }
        if (off > 3e-5 * most) fail_msg("%s: gradients differ by %.3g of the largest", p->name, off / most);
    }
}

static void check_training(const sago_model_shape *shape, bool recompute) {
    sago_device *device;
    must(sago_device_open("cpu", 1, &device));
    subject whole, part;
    open_subject(&whole, shape, device, false, true, false);
    open_subject(&part, shape, device, true, true, recompute);
    rows r;
    fill_rows(&r, sago_model_decoder_only(shape));
    const sago_loss_args args = {
        .dropout = 0.2f, .dropout_key = 31, .z_loss = 0.02f, .label_smoothing = 0.1f, .scale = 0.05};
    sago_loss_sums expected = {0}, got = {0};
    must(sago_model_loss(whole.model, whole.values, whole.gradients, &r.batch, 0, ROWS, &args, &expected));
    must(sago_model_loss(part.model, part.values, part.gradients, &r.batch, 0, ROWS, &args, &got));
    sago_gradient_sums *axis;
    must(sago_gradient_sums_open(&part.registry, mesh, device, &axis));
    must(sago_gradient_sums_join(axis, part.gradients));
    assert_true(got.tokens == expected.tokens && got.tokens > 10);
    assert_true(fabs(got.objective - expected.objective) <= 3e-6 * fabs(expected.objective));
    assert_true(fabs(got.z - expected.z) <= 3e-6 * fabs(expected.z));
    compare_gradients(&whole, &part);
    double squares, of_whole = 0;
    must(sago_gradient_sums_squares(axis, part.gradients, &squares));
    for (int64_t i = 0; i < whole.registry.n_elements; i++)
        of_whole += (double)whole.gradients[i] * (double)whole.gradients[i];
    assert_true(fabs(squares - of_whole) <= 1e-4 * of_whole);
    sago_gradient_sums_close(axis);
    close_subject(&whole);
    close_subject(&part);
    sago_device_close(device);
}

static void training_t5(void **state) {
    (void)state;
    const sago_model_shape shape = t5_shape();
    check_training(&shape, false);
    check_training(&shape, true);
}

static void training_palm(void **state) {
    (void)state;
    const int64_t kv_heads[] = {1, 4, 8};
    for (size_t i = 0; i < sizeof kv_heads / sizeof *kv_heads; i++) {
        const sago_model_shape shape = palm_shape(kv_heads[i]);
        check_training(&shape, i == 1);
    }
}

static void check_reading(const sago_model_shape *shape) {
    sago_device *device;
    must(sago_device_open("cpu", 1, &device));
    subject whole, part;
    open_subject(&whole, shape, device, false, false, false);
    open_subject(&part, shape, device, true, false, false);
    bool one = sago_model_decoder_only(shape);
    rows r;
    fill_rows(&r, one);
    float expected[ROWS * BOTH], got[ROWS * BOTH];
    must(sago_model_score(whole.model, whole.values, &r.batch, expected));
    must(sago_model_score(part.model, part.values, &r.batch, got));
    for (int i = 0; i < ROWS * (one ? BOTH : TARGETS); i++)
        assert_true(fabsf(expected[i] - got[i]) <= 2e-5f * (1 + fabsf(expected[i])));
    int32_t prompts[ROWS * INPUTS] = {0}, lengths[] = {5, 9, 2}, ids[2][ROWS * NEW], ends[2][ROWS];
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < lengths[row]; i++)
            prompts[row * INPUTS + i] = some_id((uint64_t)(1000 + row * 20 + i));
    double logprobs[2][ROWS];
    const sago_generate_args args = {
        .max_new_tokens = NEW, .eos_id = 1, .sample = {.top_p = 1}, .input_lengths = lengths};
    must(sago_model_generate(whole.model, whole.values, prompts, ROWS, INPUTS, &args, ids[0], ends[0],
                             logprobs[0]));
    must(sago_model_generate(part.model, part.values, prompts, ROWS, INPUTS, &args, ids[1], ends[1],
                             logprobs[1]));
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(ends[0], ends[1], sizeof ends[0]);
    for (int row = 0; row < ROWS; row++) assert_true(fabs(logprobs[0][row] - logprobs[1][row]) <= 1e-4);
    close_subject(&whole);
    close_subject(&part);
    sago_device_close(device);
}

static void reading(void **state) {
    (void)state;
    const sago_model_shape t5 = t5_shape(), multi_query = palm_shape(1), grouped = palm_shape(4);
    check_reading(&t5);
    check_reading(&multi_query);
    check_reading(&grouped);
}

static void what_cannot_be_cut_is_refused(void **state) {
    (void)state;
    sago_model_shape shape = palm_shape(1);
    shape.n_heads = 3;
    assert_int_equal(sago_model_shape_check(&shape, 2), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "3 heads"));
    shape = palm_shape(2);
    assert_int_equal(sago_model_shape_check(&shape, 4), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "kv_heads"));
    shape = t5_shape();
    sago_registry registry = {0};
    must(sago_model_declare(&shape, &registry));
    const char *const embed[] = {"embed: model"};
    assert_int_equal(sago_model_shard(&shape, &registry, embed, 1, 0, 2), SAGO_E_CONFIG);
    assert_non_null(strstr(sago_message(), "mesh.rules"));
    const char *const same[] = {"vocab: model", "mlp: model", "heads: model", "kv: model"};
    must(sago_model_shard(&shape, &registry, same, 4, 1, 2));
    sago_registry_free(&registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_t5),
        cmocka_unit_test(training_palm),
        cmocka_unit_test(reading),
        cmocka_unit_test(what_cannot_be_cut_is_refused),
    };
    if (sago_mesh_start() != SAGO_OK) return 1;
    n_ranks = sago_mesh_world_size();
    if (sago_mesh_open(1, n_ranks, 60, &mesh) != SAGO_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sago_mesh_close(mesh);
    sago_mesh_finish(failed != 0);
    return failed;
}
