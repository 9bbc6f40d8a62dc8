// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "suite.h"

#include <pthread.h>
#include <unistd.h>

/* One line, whatever the loader or the runtime had to say. */
static void expect_one_line(void) {
    assert_true(sago_message()[0] != '\0');
    assert_null(strchr(sago_message(), '\n'));
}

static void test_names(void **state) {
    (void)state;
    sago_device *device = (sago_device *)&device;
    assert_int_equal(sago_device_open("abacus", 1, &device), SAGO_E_DEVICE);
    assert_null(device);
    assert_non_null(strstr(sago_message(), "abacus"));
    assert_non_null(strstr(sago_message(), "auto, cuda, cpu, sim"));
    assert_int_equal(sago_device_open("cpu:v9", 1, &device), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "v9"));
    assert_int_equal(sago_device_open("sim:upside-down", 1, &device), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "upside-down"));
    assert_int_equal(sago_device_open("cpux", 1, &device), SAGO_E_DEVICE);
    assert_int_equal(sago_device_open("", 1, &device), SAGO_E_DEVICE);
    assert_int_equal(sago_device_open("cpu", -1, &device), SAGO_E_DEVICE);
}

static bool library_is_built(void) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, 4000);
    assert_true(length > 0);
    path[length] = '\0';
    for (int i = 0; i < 3; i++) *strrchr(path, '/') = '\0'; /* the program, tests/kernels */
    strcat(path, "/libsago_cuda.so");
    return access(path, F_OK) == 0;
}

/* Comes before anything opens the library: it is opened once a process. */
static void test_missing_cuda(void **state) {
    (void)state;
    sago_device *device;
    char path[] = "/tmp/sago-not-a-library-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "not an ELF file\n", 16), 16);
    close(file);
    const char *const libraries[] = {"/nowhere/libsago_cuda.so", path};
    for (int i = 0; i < LENGTH(libraries); i++) {
        setenv("SAGO_CUDA_LIBRARY", libraries[i], 1);
        assert_int_equal(sago_device_open("cuda", 1, &device), SAGO_E_DEVICE);
        assert_null(device);
        assert_non_null(strstr(sago_message(), libraries[i]));
        expect_one_line();
        suite_ok(sago_device_open("auto", 1, &device));
        assert_string_equal(device->name, "cpu");
        sago_device_close(device);
    }
    unsetenv("SAGO_CUDA_LIBRARY");
    unlink(path);
    /* A build with CUDA has one two folders up, and lacks a GPU at most. */
    if (sago_device_open("cuda", 1, &device) == SAGO_OK) {
        sago_device_close(device);
        return;
    }
    assert_true((strstr(sago_message(), "no libsago_cuda.so") == NULL) == library_is_built());
    expect_one_line();
}

static void test_open(void **state) {
    (void)state;
    static const char *const names[] = {"cpu", "cpu:base"};
    for (int i = 0; i < LENGTH(names); i++) {
        sago_device *device;
        suite_ok(sago_device_open(names[i], 2, &device));
        assert_string_equal(device->name, "cpu");
        assert_int_equal(device->n_threads, 2);
        assert_false(device->asynchronous || device->stores_bf16);
        assert_non_null(strstr(device->description, "cpu: "));
        assert_non_null(strstr(device->description, "2 threads"));
        assert_non_null(strstr(device->description, "oneDNN "));
        sago_device_close(device);
        suite_ok(sago_device_open(names[i], 0, &device));
        assert_true(device->n_threads >= 1);
        sago_device_close(device);
    }
    sago_device_close(NULL);
}

static void test_open_sim(void **state) {
    (void)state;
    sago_device *device;
    suite_ok(sago_device_open("sim", 2, &device));
    assert_string_equal(device->name, "sim");
    assert_true(device->asynchronous && device->stores_bf16);
    assert_non_null(strstr(device->description, "sim: "));
    assert_non_null(strstr(device->description, "products by cpu with 2 threads"));
    sago_device_close(device);
}

/* A table with holes is refused, and every hole is named. */
static void test_missing_operations(void **state) {
    (void)state;
    sago_device *device;
    suite_ok(sago_device_open_partial("cpu", 1, &device));
    sago_ops ops = *device->ops;
    suite_ok(sago_device_check_table("cpu", &ops));
    ops.allocate = NULL;
    ops.geglu_backward = NULL;
    ops.sample = NULL;
    assert_int_equal(sago_device_check_table("sieve", &ops), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "sieve"));
    assert_non_null(strstr(sago_message(), "allocate, geglu_backward, sample"));
    sago_device_close(device);
}

/* Memory that ends says for what it was wanted, what holds the rest, and what helps; the device goes on. */
static void test_no_memory(void **state) {
    (void)state;
    sago_device *device;
    void *parameters, *first, *second, *more;
    setenv("SAGO_SIM_MEMORY_BYTES", "100000000", 1);
    suite_ok(sago_device_open("sim", 1, &device));
    device->purpose = "parameters";
    suite_ok(device->ops->allocate(device, &parameters, 30000000));
    device->purpose = "gradients";
    suite_ok(device->ops->allocate(device, &first, 20000000));
    suite_ok(device->ops->allocate(device, &second, 10000000));
    device->purpose = "optimizer state";
    assert_int_equal(device->ops->allocate(device, &more, 50000000), SAGO_E_MEMORY);
    assert_null(more);
    assert_string_equal(sago_message(),
                        "sim: no memory for 0.05 GB of optimizer state: 0.04 of 0.1 GB are free, taken are "
                        "parameters 0.03 GB, gradients 0.03 GB, scratch 0 GB; lower train.micro_batch or "
                        "train.loss_chunk, or set train.recompute=true");
    assert_int_equal(device->allocated_bytes, 60000000);
    device->ops->release(device, first);
    suite_ok(device->ops->allocate(device, &more, 50000000));
    assert_int_equal(device->allocated_bytes, 90000000);
    device->ops->release(device, more);
    device->ops->release(device, second);
    device->ops->release(device, parameters);
    assert_int_equal(device->allocated_bytes, 0);
    assert_int_equal(device->most_allocated_bytes, 90000000);
    sago_device_close(device);
    unsetenv("SAGO_SIM_MEMORY_BYTES");
}

typedef struct copier {
    sago_device *device;
    const float *from;
    float *to;
    size_t bytes;
    sago_mark after;
    sago_status status;
} copier;

static void *copy_beside(void *argument) {
    copier *c = argument;
    c->status = c->device->ops->fetch(c->device, c->to, c->from, c->bytes, c->after);
    return NULL;
}

/* What a fetch takes is what the work before its mark left, whoever calls it, and later work waits for
 * nobody. */
static void test_marks(void **state) {
    const char *name = *state;
    enum { N = 1000 };
    sago_device *device;
    float *memory, *pinned, fetched[N], put[N];
    sago_mark filled, later;
    suite_ok(sago_device_open(name, 1, &device));
    const sago_ops *ops = device->ops;
    suite_ok(ops->allocate(device, (void **)&memory, 2 * sizeof fetched));
    suite_ok(ops->allocate_host(device, (void **)&pinned, sizeof fetched));
    for (int i = 0; i < N; i++) assert_true(pinned[i] == 0.0f);
    suite_ok(ops->await(device, 0));
    assert_true(ops->await(device, 1) != SAGO_OK || !device->asynchronous);
    sago_tensor x = sago_tensor_1d(memory, SAGO_F32, N);
    for (int i = 0; i < N; i++) pinned[i] = (float)i;
    suite_ok(ops->upload_async(device, memory, pinned, sizeof fetched));
    suite_ok(ops->scale(device, x, 2.0f));
    suite_ok(ops->mark(device, &filled));
    copier c = {device, memory, fetched, sizeof fetched, filled, SAGO_OK};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, copy_beside, &c), 0);
    pthread_join(thread, NULL);
    suite_ok(c.status);
    for (int i = 0; i < N; i++) assert_true(fetched[i] == 2.0f * (float)i);
    for (int i = 0; i < N; i++) put[i] = (float)-i;
    suite_ok(ops->put(device, memory + N, put, sizeof put));
    suite_ok(ops->add_scaled(device, x, sago_tensor_1d(memory + N, SAGO_F32, N), 1.0f));
    suite_ok(ops->download_async(device, pinned, memory, sizeof fetched));
    /* More marks than a device keeps events for: an old one still holds. */
    for (int i = 0; i < 600; i++) suite_ok(ops->mark(device, &later));
    assert_true(!device->asynchronous || later > filled);
    suite_ok(ops->await(device, filled));
    suite_ok(ops->await(device, later));
    for (int i = 0; i < N; i++) assert_true(pinned[i] == (float)i);
    suite_ok(ops->synchronize(device));
    ops->release_host(device, pinned);
    ops->release(device, memory);
    sago_device_close(device);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_missing_cuda),
    cmocka_unit_test(test_open),
    cmocka_unit_test(test_open_sim),
    cmocka_unit_test(test_missing_operations),
    cmocka_unit_test(test_no_memory),
    {"test_marks cpu", test_marks, NULL, NULL, (void *)"cpu"},
    {"test_marks sim", test_marks, NULL, NULL, (void *)"sim"},
};
int main(void) {
    return _cmocka_run_group_tests("device", tests, LENGTH(tests), NULL, NULL);
}
