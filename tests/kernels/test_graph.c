// SPDX-License-Identifier: Apache-2.0
/* Operations recorded and launched again beside the same operations one by one, on devices that have graphs. */
#include "suite.h"

#include <string.h>

enum { ROWS = 3, VOCABULARY = 17, WIDTH = 40, LAUNCHES = 5 };

typedef struct work {
    float *table, *scale, *x, *y, *rstd; /* the device's */
    double *square;
    int32_t *ids;
    int32_t *host_ids; /* of allocate_host */
    float *host_y;
} work;

static void *take(sago_device *device, const float *values, size_t bytes) {
    void *memory;
    suite_ok(device->ops->allocate(device, &memory, bytes));
    if (values) suite_ok(device->ops->upload(device, memory, values, bytes));
    return memory;
}

static work open_work(sago_device *device) {
    work w;
    float *table = suite_normal(VOCABULARY * WIDTH, 1), *scale = suite_normal(WIDTH, 2);
    w.table = take(device, table, VOCABULARY * WIDTH * sizeof(float));
    w.scale = take(device, scale, WIDTH * sizeof(float));
    w.x = take(device, NULL, ROWS * WIDTH * sizeof(float));
    w.y = take(device, NULL, ROWS * VOCABULARY * sizeof(float));
    w.rstd = take(device, NULL, ROWS * sizeof(float));
    w.square = take(device, NULL, sizeof(double));
    w.ids = take(device, NULL, ROWS * sizeof(int32_t));
    suite_ok(device->ops->allocate_host(device, (void **)&w.host_ids, ROWS * sizeof(int32_t)));
    suite_ok(device->ops->allocate_host(device, (void **)&w.host_y, ROWS * VOCABULARY * sizeof(float)));
    free(table), free(scale);
    return w;
}

static void close_work(sago_device *device, work *w) {
    void *taken[] = {w->table, w->scale, w->x, w->y, w->rstd, w->square, w->ids};
    for (int i = 0; i < LENGTH(taken); i++) device->ops->release(device, taken[i]);
    device->ops->release_host(device, w->host_ids);
    device->ops->release_host(device, w->host_y);
}

/* host_y = norm(table[host_ids]) table^T, and the sum of its squares, which takes scratch. */
static sago_status enqueue(sago_device *device, const work *w) {
    const sago_ops *ops = device->ops;
    const sago_matmul_args product = {.transpose_b = true, .alpha = 1};
    sago_tensor x = sago_tensor_2d(w->x, SAGO_F32, ROWS, WIDTH),
                y = sago_tensor_2d(w->y, SAGO_F32, ROWS, VOCABULARY),
                table = sago_tensor_2d(w->table, SAGO_F32, VOCABULARY, WIDTH);
    SAGO_TRY(ops->upload_async(device, w->ids, w->host_ids, ROWS * sizeof(int32_t)));
    SAGO_TRY(ops->embedding_forward(device, x, table, sago_tensor_1d(w->ids, SAGO_I32, ROWS), 1));
    SAGO_TRY(ops->rmsnorm_forward(device, x, sago_tensor_1d(w->rstd, SAGO_F32, ROWS), x,
                                  sago_tensor_1d(w->scale, SAGO_F32, WIDTH), 1e-6f));
    SAGO_TRY(ops->matmul(device, y, x, table, &product));
    SAGO_TRY(ops->sum_squares(device, w->square, &y, 1));
    return ops->download_async(device, w->host_y, w->y, ROWS * VOCABULARY * sizeof(float));
}

typedef struct outcome {
    float y[ROWS * VOCABULARY];
    double square;
} outcome;

static outcome outcome_of(sago_device *device, const work *w) {
    outcome out = {.square = 0};
    suite_ok(device->ops->download(device, &out.square, w->square, sizeof out.square)); /* waits */
    memcpy(out.y, w->host_y, sizeof out.y);
    return out;
}

static void set_ids(work *w, int launch) {
    for (int i = 0; i < ROWS; i++) w->host_ids[i] = (launch * 5 + i * 3) % VOCABULARY;
}

static sago_graph *record(sago_device *device, const work *w) {
    sago_graph *graph;
    suite_ok(device->graphs->begin(device));
    suite_ok(enqueue(device, w));
    suite_ok(device->graphs->end(device, &graph));
    return graph;
}

/* Every launch reads what the host has put there since, and scratch that others have grown and used meanwhile. */
static void test_launches_equal_operations(void **state) {
    (void)state;
    for (int d = 0; d < suite_n_devices(); d++) {
        sago_device *device = suite_device(d);
        if (!device->graphs) continue;
        work w = open_work(device);
        outcome expected[LAUNCHES];
        for (int i = 0; i < LAUNCHES; i++) {
            set_ids(&w, i);
            suite_ok(enqueue(device, &w));
            expected[i] = outcome_of(device, &w);
        }
        sago_graph *graph = record(device, &w);
        int64_t n = 1 << 21;
        float *large = take(device, NULL, (size_t)n * sizeof(float));
        double *square = take(device, NULL, sizeof(double));
        for (int i = 0; i < LAUNCHES; i++) {
            sago_tensor all = sago_tensor_1d(large, SAGO_F32, n >> (suite_is_sim() ? 8 : 0));
            set_ids(&w, i);
            suite_ok(device->graphs->launch(device, graph));
            outcome got = outcome_of(device, &w);
            assert_memory_equal(got.y, expected[i].y, sizeof got.y);
            assert_true(got.square == expected[i].square);
            if (i > 0) suite_ok(device->ops->sum_squares(device, square, &all, 1));
        }
        /* Handed over without a wait between them: one behind the other. */
        set_ids(&w, LAUNCHES - 1);
        for (int i = 0; i < 3; i++) suite_ok(device->graphs->launch(device, graph));
        outcome got = outcome_of(device, &w);
        assert_memory_equal(got.y, expected[LAUNCHES - 1].y, sizeof got.y);
        device->graphs->close(device, graph);
        device->graphs->close(device, NULL);
        device->ops->release(device, large);
        device->ops->release(device, square);
        close_work(device, &w);
    }
}

/* A wait in a recording ends it with an error, and the device goes on as before. */
static void test_waits_have_no_place(void **state) {
    (void)state;
    for (int d = 0; d < suite_n_devices(); d++) {
        sago_device *device = suite_device(d);
        if (!device->graphs) continue;
        work w = open_work(device);
        sago_graph *graph = (sago_graph *)&w;
        set_ids(&w, 1);
        suite_ok(enqueue(device, &w));
        outcome expected = outcome_of(device, &w);
        assert_int_equal(device->graphs->end(device, &graph), SAGO_E_INTERNAL);
        suite_ok(device->graphs->begin(device));
        assert_int_equal(device->graphs->begin(device), SAGO_E_INTERNAL);
        suite_ok(enqueue(device, &w));
        double square;
        assert_true(device->ops->download(device, &square, w.square, sizeof square) != SAGO_OK);
        assert_int_equal(device->graphs->end(device, &graph), SAGO_E_DEVICE);
        assert_null(graph);
        memset(w.host_y, 0, sizeof expected.y);
        suite_ok(enqueue(device, &w));
        outcome got = outcome_of(device, &w);
        assert_memory_equal(got.y, expected.y, sizeof got.y);
        graph = record(device, &w);
        device->graphs->close(device, graph);
        close_work(device, &w);
    }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_launches_equal_operations),
                                          cmocka_unit_test(test_waits_have_no_place)};
SUITE_MAIN(tests)
