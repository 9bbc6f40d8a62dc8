// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ops.h"
#include "optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static sago_device *device;
static sago_registry registry;
static sago_config *config;
static float *values, *gradients;
static sago_weights weights;

static const struct {
    const char *name;
    int n_dims;
    int64_t shape[2];
} params[] = {{"shared.embedding", 2, {12, 8}},
              {"encoder.0.query", 2, {9, 8}},
              {"encoder.0.norm", 1, {8, 1}},
              {"decoder.0.bias", 2, {10, 2}}};
enum { PARAMS = sizeof params / sizeof *params };

static int setup(void **state) {
    (void)state;
    registry = (sago_registry){0};
    for (int i = 0; i < PARAMS; i++) {
        const sago_axis axes[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED};
        if (sago_registry_declare(&registry, i, params[i].name, params[i].n_dims, params[i].shape, axes,
                                  SAGO_INIT_NORMAL, 1) < 0)
            return -1;
    }
    if (sago_registry_shard(&registry, NULL, 0, 0, 1) != SAGO_OK) return -1;
    if (sago_device_open("cpu", 1, &device) != SAGO_OK) return -1;
    size_t n = (size_t)registry.n_elements;
    values = calloc(n, sizeof *values);
    gradients = calloc(n, sizeof *gradients);
    sago_registry_initialise(&registry, 1, values);
    weights = (sago_weights){.device = device, .registry = &registry, .values = values};
    sago_registry_initialise(&registry, 2, gradients);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(values);
    free(gradients);
    sago_config_free(config);
    config = NULL;
    sago_device_close(device);
    sago_registry_free(&registry);
    return 0;
}

static sago_optimizer *open_with(char *const sets[], int n) {
    sago_optimizer *o;
    sago_config_free(config);
    config = NULL;
    assert_int_equal(sago_config_load(NULL, sets, n, &config), SAGO_OK);
    assert_int_equal(sago_optimizer_open(config, &registry, NULL, device, &o), SAGO_OK);
    return o;
}

static const sago_piece *find(const sago_piece *pieces, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(pieces[i].name, name) == 0) return &pieces[i];
    return NULL;
}

static void test_state_of_each_kind(void **state) {
    (void)state;
    char *sets[] = {"optimizer.min_factored_dim=8", "optimizer.momentum=0.9",
                    "optimizer.groups=[{pattern: 'decoder*', multiplier: 0}]"};
    sago_optimizer *o = open_with(sets, 3);
    sago_piece pieces[3 * PARAMS];
    int n = sago_optimizer_count_pieces(o);
    assert_int_equal(n, 3 + 3 + 2); /* two factored, a vector, a frozen one */
    sago_optimizer_pieces(o, pieces);
    const struct {
        const char *name;
        int n_dims;
        int64_t shape[2];
    } wanted[] = {
        {"adafactor/row/shared.embedding", 1, {12, 1}},      {"adafactor/column/shared.embedding", 1, {8, 1}},
        {"adafactor/momentum/shared.embedding", 2, {12, 8}}, {"adafactor/row/encoder.0.query", 1, {9, 1}},
        {"adafactor/column/encoder.0.query", 1, {8, 1}},     {"adafactor/moment/encoder.0.norm", 1, {8, 1}},
        {"adafactor/momentum/encoder.0.norm", 1, {8, 1}}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const sago_piece *p = find(pieces, n, wanted[i].name);
        assert_non_null(p);
        assert_int_equal(p->n_dims, wanted[i].n_dims);
        assert_memory_equal(p->global_shape, wanted[i].shape, sizeof p->shape);
        assert_memory_equal(p->shape, wanted[i].shape, sizeof p->shape);
    }
    /* No two share memory, and all begin at zero. */
    for (int i = 0; i < n; i++) {
        float *data = pieces[i].data;
        int64_t count = pieces[i].shape[0] * pieces[i].shape[1];
        for (int64_t e = 0; e < count; e++) {
            assert_true(data[e] == 0);
            data[e] = 1;
        }
    }
    sago_optimizer_close(o);
}

static void test_groups_scale_and_freeze(void **state) {
    (void)state;
    size_t n = (size_t)registry.n_elements;
    float *before = malloc(n * sizeof *before), *whole = malloc(n * sizeof *whole);
    memcpy(before, values, n * sizeof *before);
    sago_optimizer *o = open_with(NULL, 0);
    assert_int_equal(sago_optimizer_step(o, &weights, gradients, 1, 0.5, NULL), SAGO_OK);
    sago_optimizer_close(o);
    memcpy(whole, values, n * sizeof *whole);
    memcpy(values, before, n * sizeof *before);
    char *sets[] = {
        "optimizer.groups=[{pattern: '*.norm', multiplier: 0.25}, {pattern: 'encoder*', multiplier: 0}, "
        "{pattern: '*norm', multiplier: 7}]"};
    o = open_with(sets, 1);
    assert_int_equal(sago_optimizer_step(o, &weights, gradients, 1, 0.5, NULL), SAGO_OK);
    sago_optimizer_close(o);
    const double multipliers[PARAMS] = {1, 0, .25, 1};
    for (int i = 0; i < PARAMS; i++) {
        int64_t at = registry.params[i].offset;
        for (int64_t e = at; e < at + params[i].shape[0] * params[i].shape[1]; e++) {
            double full = (double)whole[e] - (double)before[e], got = (double)values[e] - (double)before[e];
            assert_true(fabs(full) > 1e-3);
            assert_true(fabs(got - multipliers[i] * full) <= 1e-6 * (1 + fabs(full)));
            if (multipliers[i] == 0) assert_true(values[e] == before[e]);
        }
    }
    free(before);
    free(whole);
}

/* Second moments of the first step are the squares of the gradient, times the square of what the clip makes
 * of it. */
static void test_clip_norm(void **state) {
    (void)state;
    char *sets[] = {"optimizer.clip_norm=2", "optimizer.factored=false"};
    for (int clipped = 0; clipped < 2; clipped++) {
        sago_optimizer *o = open_with(sets, 2);
        double norm = clipped ? 8 : 1.5, squares = 0, wanted = 0;
        const sago_loss_sums sums = {0};
        const double norm_square = norm * norm;
        sago_step_control control;
        assert_int_equal(device->ops->step_control(device, &control, &norm_square, &sums, 2), SAGO_OK);
        assert_true(control.apply && control.gradient_squares == norm_square);
        assert_int_equal(sago_optimizer_step(o, &weights, gradients, 1, 0, &control), SAGO_OK);
        sago_piece pieces[PARAMS];
        assert_int_equal(sago_optimizer_count_pieces(o), PARAMS);
        sago_optimizer_pieces(o, pieces);
        for (int i = 0; i < PARAMS; i++)
            for (int64_t e = 0; e < pieces[i].shape[0] * pieces[i].shape[1]; e++)
                squares += (double)((float *)pieces[i].data)[e];
        for (int64_t e = 0; e < registry.n_elements; e++)
            wanted += (double)gradients[e] * (double)gradients[e];
        if (clipped) wanted /= 16;
        assert_true(fabs(squares - wanted) < 1e-5 * wanted);
        sago_optimizer_close(o);
    }
}

/* The step with decay less the step without it is what the decay takes away: share x value. */
static void test_weight_decay(void **state) {
    (void)state;
    static const struct {
        char *by_rate, *power;
        double share; /* of a weight, at a rate of .25 and a decay of .5 */
    } cases[] = {{"optimizer.weight_decay_by_rate=false", "optimizer.weight_decay_power=2", .5},
                 {"optimizer.weight_decay_by_rate=true", "optimizer.weight_decay_power=1", .125},
                 {"optimizer.weight_decay_by_rate=true", "optimizer.weight_decay_power=2", .03125}};
    size_t n = (size_t)registry.n_elements;
    float *before = malloc(n * sizeof *before), *without = malloc(n * sizeof *without);
    memcpy(before, values, n * sizeof *before);
    sago_optimizer *o = open_with(NULL, 0);
    assert_int_equal(sago_optimizer_step(o, &weights, gradients, 1, .25, NULL), SAGO_OK);
    sago_optimizer_close(o);
    memcpy(without, values, n * sizeof *without);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *sets[] = {"optimizer.weight_decay=0.5", cases[i].by_rate, cases[i].power};
        memcpy(values, before, n * sizeof *before);
        o = open_with(sets, 3);
        assert_int_equal(sago_optimizer_step(o, &weights, gradients, 1, .25, NULL), SAGO_OK);
        sago_optimizer_close(o);
        for (size_t e = 0; e < n; e++) {
            double taken = (double)without[e] - (double)values[e];
            assert_true(fabs(taken - cases[i].share * (double)before[e]) < 1e-6 * (1 + fabs((double)before[e])));
        }
    }
    free(before);
    free(without);
}

/*
 * Steps that go by the squares that the step before left, over values that were written in between, against
 * steps that read them. Squares of other values would show: the last step proves it.
 */
static void test_squares_of_written_values(void **state) {
    (void)state;
    size_t n = (size_t)registry.n_elements;
    float *other = malloc(n * sizeof *other);
    sago_registry_initialise(&registry, 3, other);
    for (size_t i = 0; i < n; i++) other[i] *= 5;
    sago_weights keeps;
    assert_int_equal(sago_weights_open(&registry, device, SAGO_F32, true, &keeps), SAGO_OK);
    assert_int_equal(sago_weights_write(&keeps, 0, values, (int64_t)n), SAGO_OK);
    sago_optimizer *a = open_with(NULL, 0), *b;
    assert_int_equal(sago_optimizer_open(config, &registry, NULL, device, &b), SAGO_OK);
    for (int t = 1; t <= 6; t++) {
        if (t == 3) { /* as a checkpoint's load writes on other devices, and on this one */
            assert_int_equal(sago_weights_write(&keeps, 0, other, (int64_t)n), SAGO_OK);
            memcpy(values, other, n * sizeof *values);
        }
        for (int i = 0; t == 5 && i < PARAMS; i++) {
            size_t bytes = (size_t)(params[i].shape[0] * params[i].shape[1]) * sizeof *values;
            memset(sago_weights_reach(&keeps, &registry.params[i]), 0, bytes);
            memset(values + registry.params[i].offset, 0, bytes);
        }
        if (t == 6) /* stale ones */
            for (int i = 0; i < PARAMS; i++) assert_true(keeps.squares[i] > 0), keeps.squares[i] *= 9;
        assert_int_equal(sago_optimizer_step(a, &keeps, gradients, t, 0.5, NULL), SAGO_OK);
        assert_int_equal(sago_optimizer_step(b, &weights, gradients, t, 0.5, NULL), SAGO_OK);
        for (int i = 0; i < PARAMS; i++) {
            size_t at = (size_t)registry.params[i].offset,
                   bytes = (size_t)(params[i].shape[0] * params[i].shape[1]) * sizeof *values;
            bool same = memcmp((float *)keeps.values + at, values + at, bytes) == 0;
            if (same != (t < 6)) fail_msg("%s, step %d", params[i].name, t);
        }
    }
    sago_optimizer_close(a);
    sago_optimizer_close(b);
    sago_weights_close(&keeps);
    free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_weight_decay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_squares_of_written_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_of_each_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_groups_scale_and_freeze, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clip_norm, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
