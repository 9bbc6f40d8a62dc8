// SPDX-License-Identifier: Apache-2.0
/**
 * A parameter cut into pieces, as ranks hold it, whose partial sums are added up between the phases, against
 * the formula of the whole in float64: cut by rows (data axis), by columns (model axis), and both ways at
 * once, where no piece has a whole row or a whole column. A piece may have no rows at all. Each piece keeps
 * the sum of its own squares between steps, which is not to be mixed up with the sum over all of them.
 */
#include "adafactor_parameter.h"

enum { ROWS = 70, COLUMNS = 1100, MOST = 3 }; /* pieces of more than a tile of 512 columns */

typedef struct grid {
    const char *what;
    int n_rows, n_columns;
    int64_t row[MOST + 1], column[MOST + 1]; /* where pieces begin, and the end */
} grid;

static const grid grids[] = {{"two pieces of rows", 2, 1, {0, 31, ROWS}, {0, COLUMNS}},
                             {"two pieces of columns", 1, 2, {0, ROWS}, {0, 570, COLUMNS}},
                             {"cut both ways", 3, 2, {0, 31, 69, ROWS}, {0, 570, COLUMNS}},
                             {"a piece without rows", 3, 1, {0, 31, 31, ROWS}, {0, COLUMNS}},
                             {"pieces without rows, both ways", 3, 2, {0, 31, 31, ROWS}, {0, 570, COLUMNS}}};

typedef struct pieces {
    sago_device *d;
    const grid *g;
    parameter of[MOST][MOST];
} pieces;

/* Rows and columns of a piece, out of or into the whole. */
static void copy_piece(const grid *g, int i, int j, float *piece, float *whole, bool out) {
    int64_t columns = g->column[j + 1] - g->column[j];
    for (int64_t r = g->row[i]; r < g->row[i + 1]; r++) {
        float *a = piece + (r - g->row[i]) * columns, *b = whole + r * COLUMNS + g->column[j];
        memcpy(out ? a : b, out ? b : a, (size_t)columns * sizeof *a);
    }
}

static void open_pieces(pieces *p, sago_device *d, const grid *g, float *value, bool factored) {
    *p = (pieces){.d = d, .g = g};
    for (int i = 0; i < g->n_rows; i++)
        for (int j = 0; j < g->n_columns; j++) {
            int64_t rows = g->row[i + 1] - g->row[i], columns = g->column[j + 1] - g->column[j];
            float *own = plain_floats((rows ? rows : 1) * columns);
            copy_piece(g, i, j, own, value, true);
            parameter *one = &p->of[i][j];
            *one = open_parameter(d, own, rows ? rows : 1, columns, ROWS, factored, false);
            one->rows = rows, one->slot.value.shape[0] = one->slot.gradient.shape[0] = rows;
            one->slot.global_columns = COLUMNS;
            keep_square(d, one);
            one->slot.learning_rate = 1e-2f;
            if (g->n_rows > 1 && g->n_columns > 1) {
                one->slot.mean_parts = on_device(d, NULL, 2 * sizeof(double));
                one->slot.row_copies = g->n_columns;
            }
            free(own);
        }
}

/* Every one of these arrays becomes their sum, as an all-reduce leaves it. */
static void add_up(sago_device *d, double *arrays[], int n, int64_t count) {
    double *sum = calloc((size_t)count, sizeof *sum), *one = calloc((size_t)count, sizeof *one);
    assert_true(sum && one);
    for (int k = 0; k < n; k++) {
        suite_ok(d->ops->download(d, one, arrays[k], (size_t)count * sizeof *one));
        for (int64_t i = 0; i < count; i++) sum[i] += one[i];
    }
    for (int k = 0; k < n; k++) suite_ok(d->ops->upload(d, arrays[k], sum, (size_t)count * sizeof *sum));
    free(sum), free(one);
}

static void add_up_all(pieces *p, size_t member, int64_t count) {
    double *all[MOST * MOST] = {0};
    int n = 0;
    for (int i = 0; i < p->g->n_rows; i++)
        for (int j = 0; j < p->g->n_columns; j++)
            all[n++] = *(double **)(void *)((char *)&p->of[i][j].slot + member);
    if (all[0]) add_up(p->d, all, n, count);
}

static void add_up_statistics(pieces *p) {
    const grid *g = p->g;
    double *along[MOST] = {0};
    for (int i = 0; i < g->n_rows; i++) {
        for (int j = 0; j < g->n_columns; j++) along[j] = p->of[i][j].slot.row_sum;
        if (along[0] && p->of[i][0].rows) add_up(p->d, along, g->n_columns, p->of[i][0].rows);
    }
    for (int j = 0; j < g->n_columns; j++) {
        for (int i = 0; i < g->n_rows; i++) along[i] = p->of[i][j].slot.column_sum;
        if (along[0]) add_up(p->d, along, g->n_rows, p->of[0][j].columns);
    }
    add_up_all(p, offsetof(sago_adafactor_slot, value_square), 1);
    add_up_all(p, offsetof(sago_adafactor_slot, mean_parts), 2);
}

typedef sago_status (*phase)(sago_device *, sago_adafactor_slot[], int, const sago_adafactor_args *);

/* One call a rank: each has one piece. */
static void on_each(pieces *p, phase run, const sago_adafactor_args *args) {
    for (int i = 0; i < p->g->n_rows; i++)
        for (int j = 0; j < p->g->n_columns; j++) suite_ok(run(p->d, &p->of[i][j].slot, 1, args));
}

static void step_pieces(pieces *p, float *gradient, const sago_adafactor_args *args) {
    for (int i = 0; i < p->g->n_rows; i++)
        for (int j = 0; j < p->g->n_columns; j++) {
            int64_t count = p->of[i][j].rows * p->of[i][j].columns;
            float *own = plain_floats(count ? count : 1);
            copy_piece(p->g, i, j, own, gradient, true);
            suite_ok(
                p->d->ops->upload(p->d, p->of[i][j].slot.gradient.data, own, (size_t)count * sizeof *own));
            free(own);
        }
    on_each(p, p->d->ops->adafactor_statistics, args);
    add_up_statistics(p);
    on_each(p, p->d->ops->adafactor_moments, args);
    add_up_all(p, offsetof(sago_adafactor_slot, update_square), 1);
    on_each(p, p->d->ops->adafactor_apply, args);
}

static float *gradient_of(int t) {
    float *g = suite_normal(ROWS * COLUMNS, (uint64_t)t + 40);
    for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
        g[i] *= 0.01f * (float)(1 + (i / COLUMNS) % 7) *
                (float)(1 + i % COLUMNS % 5); /* rows and columns differ */
        if ((i / COLUMNS + t) % 3 == 0) g[i] = 0;
    }
    return g;
}

static void check(sago_device *d, const grid *g, bool factored) {
    float *value = suite_normal(ROWS * COLUMNS, 1), *got = plain_floats(ROWS * COLUMNS);
    pieces p;
    open_pieces(&p, d, g, value, factored);
    reference_parameter whole = reference_open(value, ROWS, COLUMNS, factored);
    for (int t = 1; t <= 4; t++) {
        sago_adafactor_args args = {1 - pow(t, -0.8), NULL, 1, true, 1e-3, 0, 0};
        float *gradient = gradient_of(t);
        step_pieces(&p, gradient, &args);
        reference_step(&whole, gradient, &args, 1, 1e-2);
        free(gradient);
    }
    for (int i = 0; i < g->n_rows; i++)
        for (int j = 0; j < g->n_columns; j++) {
            float *own = p.of[i][j].rows ? values_of(d, &p.of[i][j]) : NULL;
            copy_piece(g, i, j, own, got, false);
            free(own);
            close_parameter(d, &p.of[i][j]);
        }
    expect_trajectory(g->what, got, whole.value, value, ROWS * COLUMNS, 1e-6, 1e-7);
    reference_close(&whole);
    free(value), free(got);
}

static void test_grids(void **state) {
    (void)state;
    for (int k = 0; k < suite_n_devices(); k++)
        for (int i = 0; i < LENGTH(grids); i++)
            for (int factored = 0; factored <= 1; factored++) check(suite_device(k), &grids[i], factored);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_grids)};
SUITE_MAIN(tests)
