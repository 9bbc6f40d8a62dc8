// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor against its formula in float64, over several steps. Trajectories of another implementation:
 * test_adafactor_goldens.c.
 */
#include "adafactor_parameter.h"

enum { MAX_PARAMETERS = 10 };

static const struct {
    const char *what;
    int64_t rows, columns;
    bool factored;
    double size;
} shapes[] = {{"factored", 130, 190, true, 0.05},    {"wide", 5, 1300, true, 0.05},
              {"tall", 1100, 67, true, 0.05},        {"whole", 31, 257, false, 0.05},
              {"tiles", 70, 1028, true, 0.05},       {"whole tiles", 67, 500, false, 0.05},
              {"vector", 0, 193, false, 1},          {"one", 1, 1, false, 1},
              {"small values", 128, 128, true, 1e-5}};

static const struct {
    const char *what;
    double scale; /* of the gradient */
    sago_adafactor_args args;
    double learning_rate;
} settings[] = {
    {"plain", 1, {.clip_threshold = 1, .parameter_scale = true, .minimum_scale = 1e-3}, 1e-2},
    {"clipped gradient", 0.37, {.clip_threshold = 1, .parameter_scale = true, .minimum_scale = 1e-3}, 1e-2},
    {"no parameter scale", 1, {.clip_threshold = 0.5, .parameter_scale = false}, 1e-3},
    {"momentum and decay",
     1,
     {.clip_threshold = 1,
      .parameter_scale = true,
      .minimum_scale = 1e-3,
      .momentum = 0.9,
      .weight_decay = 1e-2},
     1e-2},
};

static float *gradients(int64_t n, int64_t columns, int step_number, int which) {
    float *g = suite_normal(n, sago_mix((uint64_t)step_number, (uint64_t)which));
    for (int64_t i = 0; i < n; i++) g[i] *= (float)(0.01 * exp((double)((step_number * 5 + which) % 4)));
    for (int64_t i = 0; i < n; i++) /* rows that get no gradient, as an embedding's */
        if ((i / columns + step_number) % 3 == 0) g[i] = 0;
    return g;
}

/** Runs the settings on a device with all shapes in one call; the values after the last step, one array a
 * shape. allowed: the share of the way that they may be off; 0 leaves them unchecked. */
static void run_all(sago_device *d, int setting, int kept, float *out[], double allowed) {
    parameter p[MAX_PARAMETERS];
    reference_parameter r[MAX_PARAMETERS];
    sago_adafactor_slot slots[MAX_PARAMETERS];
    float *before[MAX_PARAMETERS];
    sago_adafactor_args args = settings[setting].args;
    int n = LENGTH(shapes);
    for (int i = 0; i < n; i++) {
        int64_t rows = shapes[i].rows, count = (rows ? rows : 1) * shapes[i].columns;
        before[i] = suite_normal(count, (uint64_t)i + 100);
        for (int64_t j = 0; j < count; j++) before[i][j] *= (float)shapes[i].size;
        p[i] = open_parameter(d, before[i], rows, shapes[i].columns, rows, shapes[i].factored,
                              args.momentum > 0);
        if (kept == AS_HALVES) split_parameter(d, &p[i], before[i]);
        p[i].slot.learning_rate = (float)settings[setting].learning_rate;
        r[i] = reference_open(before[i], p[i].rows, p[i].columns, shapes[i].factored);
    }
    for (int t = 1; t <= STEPS; t++) {
        args.beta2 = 1 - pow(t, -0.8);
        for (int i = 0; i < n; i++) {
            int64_t count = p[i].rows * p[i].columns;
            float *g = gradients(count, p[i].columns, t, i);
            suite_ok(d->ops->upload(d, p[i].slot.gradient.data, g, (size_t)count * sizeof(float)));
            reference_step(&r[i], g, &args, settings[setting].scale, (double)p[i].slot.learning_rate);
            slots[i] = p[i].slot;
            free(g);
        }
        step(d, slots, n, &args, settings[setting].scale);
    }
    for (int i = 0; i < n; i++) {
        char what[128];
        snprintf(what, sizeof what, "%s, %s", settings[setting].what, shapes[i].what);
        out[i] = values_of(d, &p[i]);
        if (allowed > 0)
            expect_trajectory(what, out[i], r[i].value, before[i], p[i].rows * p[i].columns, allowed, 1e-7);
        free(before[i]);
        reference_close(&r[i]);
        close_parameter(d, &p[i]);
    }
}

static void expect_same(const char *what, float *const a[], float *const b[]) {
    for (int i = 0; i < LENGTH(shapes); i++) {
        size_t count = (size_t)((shapes[i].rows ? shapes[i].rows : 1) * shapes[i].columns);
        if (memcmp(a[i], b[i], count * sizeof(float)) != 0)
            fail_msg("%s: %s gives other bits", shapes[i].what, what);
    }
}

static void free_all(float *values[]) {
    for (int i = 0; i < LENGTH(shapes); i++) free(values[i]);
}

/** All settings on the first device; every other one (more threads, another schedule) gives the same bits. */
static void test_formula(void **state) {
    (void)state;
    for (int s = 0; s < LENGTH(settings); s++) {
        float *first[MAX_PARAMETERS], *now[MAX_PARAMETERS];
        run_all(suite_device(0), s, AS_F32, first, 1e-6);
        bool others = !suite_is_sim() || s == LENGTH(settings) - 1;
        for (int k = 1; others && k < suite_n_devices(); k++) {
            run_all(suite_device(k), s, AS_F32, now, 0);
            expect_same(suite_device(k)->description, first, now);
            free_all(now);
        }
        free_all(first);
    }
}

/** Parameters in two halves are fp32 ones: the same bits after every step. */
static void test_halves(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    for (int s = 0; s < LENGTH(settings); s++) {
        float *whole[MAX_PARAMETERS], *halves[MAX_PARAMETERS];
        run_all(suite_device(0), s, AS_HALVES, halves, 1e-6);
        run_all(suite_device(0), s, AS_F32, whole, 0);
        expect_same("a half", whole, halves);
        free_all(whole);
        bool others = !suite_is_sim() || s == LENGTH(settings) - 1;
        for (int k = 1; others && k < suite_n_devices(); k++) {
            run_all(suite_device(k), s, AS_HALVES, whole, 0);
            expect_same(suite_device(k)->description, whole, halves);
            free_all(whole);
        }
        free_all(halves);
    }
}

/** Every kind of float goes through the halves and back, and an update of 0 leaves its bits. */
static void test_halves_of_edges(void **state) {
    (void)state;
    static const uint32_t bits[] = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x00007fff, 0x00008000,
                                    0x00008001, 0x007fffff, 0x00800000, 0x3f800000, 0x3f808000, 0x3f807fff,
                                    0x3f80ffff, 0xbf808000, 0x7f7fffff, 0xff7fffff, 0x7f7f8000, 0x7f7f7fff,
                                    0x7f800000, 0xff800000, 0x7fc00000, 0x7fffffff, 0xffc12345, 0x12348765};
    enum { N = LENGTH(bits) * 41 };
    suite_skip_unless_bf16();
    float *value = plain_floats(N);
    for (int i = 0; i < N; i++) {
        memcpy(&value[i], &bits[i % LENGTH(bits)], sizeof *value);
        float back = whole_value(upper_half(value[i]), lower_half(value[i]));
        assert_true(isnan(value[i]) ? isnan(back) : memcmp(&back, &value[i], sizeof back) == 0);
    }
    for (int k = 0; k < suite_n_devices(); k++)
        for (int factored = 0; factored <= 1; factored++) {
            sago_device *d = suite_device(k);
            sago_adafactor_args args = {.clip_threshold = 1}; /* no RMS of the values */
            parameter p = open_parameter(d, value, LENGTH(bits), 41, LENGTH(bits), factored, false);
            split_parameter(d, &p, value);
            p.slot.learning_rate = 1e-2f;
            step(d, &p.slot, 1, &args, 1); /* the gradient is 0 */
            float *now = values_of(d, &p);
            uint16_t *upper = malloc(N * sizeof *upper);
            assert_non_null(upper);
            suite_ok(d->ops->download(d, upper, p.slot.value.data, N * sizeof *upper));
            for (int i = 0; i < N; i++) {
                if (isnan(value[i]) ? !isnan(now[i]) : memcmp(&now[i], &value[i], sizeof *now) != 0)
                    fail_msg("%08x became %a", (unsigned)bits[i % LENGTH(bits)], (double)now[i]);
                assert_int_equal(upper[i], upper_half(value[i])); /* a NaN is one in the upper half alone */
            }
            free(now), free(upper);
            close_parameter(d, &p);
        }
    free(value);
}

/**
 * A gradient that is no number leaves values that are none, whichever NaN it is: in fp32, and in the upper half alone,
 * which is what the model reads.
 */
static void test_not_a_number(void **state) {
    (void)state;
    static const uint32_t bits[] = {0x7fffffff, 0xffffffff, 0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffc000, 0xffff8000};
    enum { ROWS = LENGTH(bits) + 1, COLUMNS = 36, N = ROWS * COLUMNS };
    float *value = suite_normal(N, 1), *g = suite_normal(N, 2);
    for (int i = 0; i < LENGTH(bits); i++) memcpy(&g[i * COLUMNS + i], &bits[i], sizeof *g);
    for (int k = 0; k < suite_n_devices(); k++)
        for (int factored = 0; factored <= 1; factored++) {
            sago_device *d = suite_device(k);
            sago_adafactor_args args = {.clip_threshold = 1};
            parameter p = open_parameter(d, value, ROWS, COLUMNS, ROWS, factored, false);
            if (d->stores_bf16) split_parameter(d, &p, value);
            p.slot.learning_rate = 1e-2f;
            suite_ok(d->ops->upload(d, p.slot.gradient.data, g, N * sizeof *g));
            step(d, &p.slot, 1, &args, 1);
            float *now = values_of(d, &p);
            uint16_t upper[N] = {0};
            if (d->stores_bf16) suite_ok(d->ops->download(d, upper, p.slot.value.data, sizeof upper));
            for (int i = 0; i < N; i++) {
                if (!isnan(g[i])) continue;
                assert_true(isnan(now[i]));
                if (d->stores_bf16) assert_int_equal(upper[i], 0x7fc0);
            }
            free(now);
            close_parameter(d, &p);
        }
    free(value), free(g);
}

static double *doubles_of(sago_device *d, const double *from, int64_t n) {
    double *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    suite_ok(d->ops->download(d, values, from, (size_t)n * sizeof *values));
    return values;
}

/** The sums that ranks add: rows and columns without gradient too, whose sums are of the 1e-30s alone. */
static void test_sums(void **state) {
    (void)state;
    static const int64_t sizes[][2] = {{70, 90}, {140, 516}, {3, 1030}, {130, 5}};
    for (int k = 0; k < suite_n_devices(); k++)
        for (int i = 0; i < LENGTH(sizes); i++) {
            sago_device *d = suite_device(k);
            int64_t rows = sizes[i][0], columns = sizes[i][1], n = rows * columns;
            float *value = suite_normal(n, 1), *g = suite_normal(n, 2);
            for (int64_t j = 0; j < n; j++)
                if (j / columns % 3 == 1 || j % columns % 4 == 2) g[j] = 0;
            parameter p = open_parameter(d, value, rows, columns, rows, true, false);
            suite_ok(d->ops->upload(d, p.slot.gradient.data, g, (size_t)n * sizeof *g));
            sago_adafactor_args args = {.clip_threshold = 1};
            suite_ok(d->ops->adafactor_statistics(d, &p.slot, 1, &args));
            double *row = doubles_of(d, p.slot.row_sum, rows),
                   *column = doubles_of(d, p.slot.column_sum, columns),
                   *square = doubles_of(d, p.slot.value_square, 1), exact_square = 0;
            double *exact_row = reference_array(rows), *exact_column = reference_array(columns);
            for (int64_t j = 0; j < n; j++) {
                double s = (double)g[j] * (double)g[j] + 1e-30;
                exact_row[j / columns] += s, exact_column[j % columns] += s;
                exact_square += (double)value[j] * (double)value[j];
            }
            /* fp32 sums of n terms that are not negative are off by n half units at most, in any order. */
            double by_row = (double)(columns + 2) * 0x1p-24, by_column = (double)(rows + 2) * 0x1p-24;
            for (int64_t r = 0; r < rows; r++) assert_true(fabs(row[r] / exact_row[r] - 1) < by_row);
            for (int64_t j = 0; j < columns; j++)
                assert_true(fabs(column[j] / exact_column[j] - 1) < by_column);
            assert_true(fabs(*square / exact_square - 1) < by_row);
            free(row), free(column), free(square), free(exact_row), free(exact_column);
            free(value), free(g);
            close_parameter(d, &p);
        }
}

typedef struct state_copy {
    size_t n;
    const void *from[8];
    size_t bytes[8];
    char *copy[8];
} state_copy;

static state_copy copy_state(sago_device *d, const parameter *p) {
    const sago_adafactor_slot *s = &p->slot;
    size_t n = (size_t)(p->rows * p->columns), size = s->remainder ? 2 : 4;
    state_copy out = {
        .n = 7,
        .from = {s->value.data, s->remainder, s->row, s->column, s->moment, s->momentum, s->kept_square},
        .bytes = {n * size, n * 2, (size_t)p->rows * 4, (size_t)p->columns * 4, n * 4, n * 4,
                  sizeof(double)}};
    for (size_t i = 0; i < out.n; i++) {
        if (!out.from[i]) continue;
        out.copy[i] = malloc(out.bytes[i]);
        assert_non_null(out.copy[i]);
        suite_ok(d->ops->download(d, out.copy[i], out.from[i], out.bytes[i]));
    }
    return out;
}

/** A step that is not to be applied changes no byte, whatever its gradient is; the next one goes on from
 * there. */
static void test_no_trace(void **state) {
    (void)state;
    enum { ROWS = 70, COLUMNS = 90, N = ROWS * COLUMNS };
    float *value = suite_normal(N, 1), *g = suite_normal(N, 2);
    for (int k = 0; k < suite_n_devices(); k++)
        for (int kind = 0; kind < 8; kind++) {
            sago_device *d = suite_device(k);
            if (kind & 4 && !d->stores_bf16) continue;
            parameter p = open_parameter(d, value, ROWS, COLUMNS, ROWS, kind & 1, kind & 2);
            if (kind & 4) split_parameter(d, &p, value);
            keep_square(d, &p);
            p.slot.learning_rate = 1e-2f;
            sago_adafactor_args args = {0.5, NULL, 1, true, 1e-3, kind & 2 ? 0.9 : 0, 0.1};
            suite_ok(d->ops->upload(d, p.slot.gradient.data, g, N * sizeof(float)));
            step(d, &p.slot, 1, &args, 0.5);
            state_copy before = copy_state(d, &p);
            float *broken = suite_normal(N, 3);
            broken[0] = NAN, broken[N / 2] = INFINITY;
            suite_ok(d->ops->upload(d, p.slot.gradient.data, broken, N * sizeof(float)));
            free(broken);
            const sago_step_control control = {.gradient_squares = NAN, .gradient_scale = 1, .apply = 0};
            sago_step_control *memory = on_device(d, &control, sizeof control);
            args.control = memory;
            suite_ok(d->ops->adafactor_statistics(d, &p.slot, 1, &args));
            suite_ok(d->ops->adafactor_moments(d, &p.slot, 1, &args));
            suite_ok(d->ops->adafactor_apply(d, &p.slot, 1, &args));
            state_copy after = copy_state(d, &p);
            for (size_t i = 0; i < before.n; i++) {
                if (before.from[i]) assert_memory_equal(before.copy[i], after.copy[i], before.bytes[i]);
                free(before.copy[i]), free(after.copy[i]);
            }
            d->ops->release(d, memory);
            close_parameter(d, &p);
        }
    free(value), free(g);
}

typedef struct twins {
    parameter keeps, reads; /* the same values; one keeps the sum of their squares between steps */
} twins;

static twins open_twins(sago_device *d, int shape, int kept, bool momentum) {
    int64_t rows = shapes[shape].rows, columns = shapes[shape].columns, count = (rows ? rows : 1) * columns;
    float *value = suite_normal(count, (uint64_t)shape + 100);
    twins t;
    parameter *both[] = {&t.keeps, &t.reads};
    for (int i = 0; i < 2; i++) {
        *both[i] = open_parameter(d, value, rows, columns, rows, shapes[shape].factored, momentum);
        if (kept == AS_HALVES) split_parameter(d, both[i], value);
    }
    keep_square(d, &t.keeps);
    free(value);
    return t;
}

/** A step of both. How they come out, and whether what one keeps is what statistics finds in the other. */
static void step_twins(sago_device *d, twins *t, int number, int shape, sago_adafactor_args *args, bool *same,
                       bool *holds) {
    int64_t count = t->keeps.rows * t->keeps.columns;
    float *g = gradients(count, t->keeps.columns, number, shape);
    parameter *both[] = {&t->keeps, &t->reads};
    for (int i = 0; i < 2; i++) {
        suite_ok(d->ops->upload(d, both[i]->slot.gradient.data, g, (size_t)count * sizeof *g));
        suite_ok(d->ops->adafactor_statistics(d, &both[i]->slot, 1, args));
        suite_ok(d->ops->adafactor_moments(d, &both[i]->slot, 1, args));
        suite_ok(d->ops->adafactor_apply(d, &both[i]->slot, 1, args));
    }
    float *a = values_of(d, &t->keeps), *b = values_of(d, &t->reads);
    *same = memcmp(a, b, (size_t)count * sizeof *a) == 0;
    sago_adafactor_args look = *args;
    look.control = NULL;
    suite_ok(d->ops->adafactor_statistics(d, &t->reads.slot, 1, &look));
    double *kept = doubles_of(d, t->keeps.slot.kept_square, 1),
           *read = doubles_of(d, t->reads.slot.value_square, 1);
    *holds = memcmp(kept, read, sizeof *kept) == 0;
    free(a), free(b), free(g), free(kept), free(read);
}

/**
 * The sum that apply leaves is the one that the values would give, bit for bit, so that a run that was loaded
 * goes on as one that was not: also past a step without effect, one without a rate, and after the sum was
 * forgotten. A sum of other values shows.
 */
static void test_kept_square(void **state) {
    (void)state;
    static const int which[] = {0, 3, 4, 5, 6}; /* of the shapes: factored and whole, full tiles and parts */
    for (int k = 0; k < suite_n_devices(); k++)
        for (int i = 0; i < LENGTH(which) * 2; i++) {
            sago_device *d = suite_device(k);
            int shape = which[i / 2], kept = i % 2 ? AS_HALVES : AS_F32;
            if (kept == AS_HALVES && !d->stores_bf16) continue;
            bool momentum = shape == 4, same, holds;
            sago_adafactor_args args = {0, NULL, 1, true, 1e-3, momentum ? 0.9 : 0, 1e-2};
            const sago_step_control none = {.gradient_scale = 1, .apply = 0};
            sago_step_control *no_step = on_device(d, &none, sizeof none);
            twins t = open_twins(d, shape, kept, momentum);
            enum { NO_STEP_AT_FIRST = 1, NO_RATE = 3, NO_STEP = 4, FORGOTTEN = 5, LAST = 6 };
            for (int number = 1; number <= LAST; number++) {
                args.beta2 = 1 - pow(number, -0.8);
                args.control = number == NO_STEP_AT_FIRST || number == NO_STEP ? no_step : NULL;
                t.keeps.slot.learning_rate = t.reads.slot.learning_rate = number == NO_RATE ? 0 : 1e-1f;
                const double unknown = 0;
                if (number == FORGOTTEN)
                    suite_ok(d->ops->upload(d, t.keeps.slot.kept_square, &unknown, sizeof unknown));
                step_twins(d, &t, number, shape, &args, &same, &holds);
                if (!same) fail_msg("%s, step %d: other values", shapes[shape].what, number);
                if (!holds && number != NO_STEP_AT_FIRST)
                    fail_msg("%s, step %d: keeps another sum than the values have", shapes[shape].what,
                             number);
            }
            double *stale = doubles_of(d, t.keeps.slot.kept_square, 1);
            *stale *= 4;
            suite_ok(d->ops->upload(d, t.keeps.slot.kept_square, stale, sizeof *stale));
            step_twins(d, &t, LAST + 1, shape, &args, &same, &holds);
            if (same) fail_msg("%s: the sum is not what the step goes by", shapes[shape].what);
            free(stale);
            d->ops->release(d, no_step);
            close_parameter(d, &t.keeps), close_parameter(d, &t.reads);
        }
}

static void test_frozen(void **state) {
    (void)state;
    enum { ROWS = 40, COLUMNS = 50 };
    sago_device *d = suite_device(0);
    float *value = suite_normal(ROWS * COLUMNS, 1), *g = suite_normal(ROWS * COLUMNS, 2);
    value[3] = -0.0f, value[4] = 1e-42f;
    for (int kind = 0; kind < 4; kind++) {
        parameter p = open_parameter(d, value, ROWS, COLUMNS, ROWS, kind & 1, kind & 2);
        sago_adafactor_args args = {0.5, NULL, 1, true, 1e-3, kind & 2 ? 0.9 : 0, 0.1};
        suite_ok(d->ops->upload(d, p.slot.gradient.data, g, ROWS * COLUMNS * sizeof(float)));
        step(d, &p.slot, 1, &args, 1);
        float *now = values_of(d, &p);
        assert_memory_equal(now, value, ROWS * COLUMNS * sizeof(float));
        free(now);
        close_parameter(d, &p);
    }
    free(value), free(g);
}

static void test_errors(void **state) {
    (void)state;
    sago_device *d = suite_device(0);
    float value[12] = {0};
    sago_adafactor_args args = {0, NULL, 1, true, 1e-3, 0, 0};
    parameter p = open_parameter(d, value, 3, 4, 3, true, false);
    sago_adafactor_slot wrong = p.slot;
    wrong.gradient = sago_tensor_2d(p.slot.gradient.data, SAGO_F32, 4, 3);
    suite_expect_shape_error(d->ops->adafactor_statistics(d, &wrong, 1, &args), "adafactor_statistics");
    wrong = p.slot, wrong.global_rows = 2;
    suite_expect_shape_error(d->ops->adafactor_moments(d, &wrong, 1, &args), "adafactor_moments");
    wrong = p.slot, wrong.global_rows = 6, wrong.global_columns = 8;
    assert_int_equal(d->ops->adafactor_apply(d, &wrong, 1, &args),
                     SAGO_E_INTERNAL); /* cut both ways, no mean_parts */
    wrong = p.slot, wrong.column = NULL;
    assert_int_equal(d->ops->adafactor_moments(d, &wrong, 1, &args), SAGO_E_INTERNAL);
    close_parameter(d, &p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_formula),     cmocka_unit_test(test_halves), cmocka_unit_test(test_halves_of_edges),
    cmocka_unit_test(test_no_trace),    cmocka_unit_test(test_sums),   cmocka_unit_test(test_frozen),
    cmocka_unit_test(test_kept_square), cmocka_unit_test(test_errors), cmocka_unit_test(test_not_a_number)};
SUITE_MAIN(tests)
