// SPDX-License-Identifier: Apache-2.0
/* Collectives of the mesh on however many ranks mpirun gives, and on one without it. */
#include "device.h"
#include "numbers.h"
#include "ops.h"

#include <unistd.h>

static const int64_t counts[] = {0, 1, 2, 3, 7, 4096, 10007, 262144, 1000003};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static void test_place(void **unused) {
    (void)unused;
    assert_int_equal(mesh->axis_size[SAGO_DATA_AXIS] * mesh->axis_size[SAGO_MODEL_AXIS], mesh->size);
    assert_int_equal(mesh->axis_rank[SAGO_DATA_AXIS] * mesh->axis_size[SAGO_MODEL_AXIS] +
                         mesh->axis_rank[SAGO_MODEL_AXIS],
                     mesh->rank);
    assert_int_equal(mesh->rank, sago_mesh_world_rank());
    assert_int_equal(mesh->size, sago_mesh_world_size());
    assert_true(mesh->local_rank < mesh->local_size && mesh->local_size <= mesh->size);
    assert_true(sago_mesh_cores(mesh) >= 1);
}

static void test_all_reduce(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        for (int c = 0; c < N_COUNTS; c++) {
            int64_t n = counts[c];
            uint64_t salt = (uint64_t)(axis * 100 + c);
            float *x = sago_alloc((size_t)(n + 1) * sizeof *x);
            for (int64_t i = 0; i < n; i++) x[i] = value_of(mesh->rank, i, salt);
            x[n] = 12345;
            dawdle(salt);
            sago_collective *reduction;
            assert_status_ok(sago_all_reduce_start(mesh, (sago_mesh_axis)axis, x, n, &reduction));
            assert_status_ok(sago_collective_wait(mesh, reduction));
            for (int64_t i = 0; i < n; i++) {
                float expected = rank_order_sum((sago_mesh_axis)axis, i, salt);
                if (memcmp(&expected, &x[i], sizeof expected) != 0)
                    fail_msg("axis %d, count %lld: element %lld is %.9g, not %.9g", axis, (long long)n,
                             (long long)i, x[i], expected);
            }
            assert_true(x[n] == 12345);
            free(x);
        }
    }
}

/* Many at once, waited for in the opposite order, between other collectives. */
static void test_overlap(void **unused) {
    (void)unused;
    enum { MANY = 40 };
    float *x[MANY];
    sago_collective *reductions[MANY];
    for (int j = 0; j < MANY; j++) {
        int64_t n = 1 + (j * 7919) % 300000;
        x[j] = sago_alloc((size_t)n * sizeof **x);
        for (int64_t i = 0; i < n; i++) x[j][i] = (float)((mesh->rank + 1) * (i % 1000 + j));
        if (j % 5 == 0) dawdle((uint64_t)j);
        assert_status_ok(
            sago_all_reduce_start(mesh, (sago_mesh_axis)(j % SAGO_N_AXES), x[j], n, &reductions[j]));
        if (j % 11 == 3) assert_status_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
    }
    for (int j = MANY - 1; j >= 0; j--) {
        int64_t n = 1 + (j * 7919) % 300000;
        sago_mesh_axis axis = (sago_mesh_axis)(j % SAGO_N_AXES);
        assert_status_ok(sago_collective_wait(mesh, reductions[j]));
        int64_t ranks = 0;
        for (int m = 0; m < mesh->axis_size[axis]; m++) ranks += world_rank(axis, m) + 1;
        for (int64_t i = 0; i < n; i++)
            if (x[j][i] != (float)(ranks * (i % 1000 + j)))
                fail_msg("reduction %d: element %lld is %.9g", j, (long long)i, x[j][i]);
        free(x[j]);
    }
}

/* Sums of doubles lose nothing of them, on any axis. */
static void test_device_doubles(sago_device *device) {
    enum { N = 5000 };
    double *memory, x[N];
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        sago_collective *sum;
        for (int i = 0; i < N; i++) x[i] = 1.0 / (i + 1) + mesh->rank;
        assert_status_ok(device->ops->allocate(device, (void **)&memory, sizeof x));
        assert_status_ok(device->ops->upload(device, memory, x, sizeof x));
        assert_status_ok(sago_all_reduce_f64_start(mesh, (sago_mesh_axis)axis, memory, N, &sum));
        assert_status_ok(sago_collective_wait(mesh, sum));
        assert_status_ok(device->ops->download(device, x, memory, sizeof x));
        for (int i = 0; i < N; i++) {
            double expected = 0;
            for (int m = 0; m < mesh->axis_size[axis]; m++)
                expected += 1.0 / (i + 1) + world_rank((sago_mesh_axis)axis, m);
            assert_true(x[i] == expected);
        }
        device->ops->release(device, memory);
    }
}

/*
 * Sums of device memory, several at once and larger than a piece, between sums of the host's. What the device
 * was told before a start counts, and what it is told after a wait finds the sum. The cpu device says here
 * that it is asynchronous, so that its sums take the way through the host; sim is (SAGO_TEST_DEVICE=sim).
 */
static void test_device_sums(void **unused) {
    (void)unused;
    static const int64_t lengths[] = {1, 4096, 9000001, 3, 262144};
    enum { MANY = sizeof lengths / sizeof *lengths };
    const char *name = getenv("SAGO_TEST_DEVICE");
    sago_device *opened;
    assert_status_ok(sago_device_open(name ? name : "cpu", 1, &opened));
    sago_device device = *opened;
    device.asynchronous = true;
    const sago_ops *ops = device.ops;
    float *on_device[MANY];
    sago_collective *reductions[MANY];
    assert_status_ok(sago_mesh_use_device(mesh, &device));
    for (int round = 0; round < 2; round++) {
        for (int j = 0; j < MANY; j++) {
            size_t bytes = (size_t)lengths[j] * sizeof(float);
            float *x = sago_alloc(bytes);
            for (int64_t i = 0; i < lengths[j]; i++) x[i] = value_of(mesh->rank, i, (uint64_t)j) / 4;
            assert_status_ok(ops->allocate(&device, (void **)&on_device[j], bytes));
            assert_status_ok(ops->upload(&device, on_device[j], x, bytes));
            assert_status_ok(ops->scale(&device, sago_tensor_1d(on_device[j], SAGO_F32, lengths[j]), 4));
            dawdle((uint64_t)j);
            assert_status_ok(
                sago_all_reduce_start(mesh, SAGO_DATA_AXIS, on_device[j], lengths[j], &reductions[j]));
            double one = 1;
            assert_status_ok(sago_all_reduce_f64(mesh, SAGO_WORLD_AXIS, &one, 1));
            assert_true(one == mesh->size);
            free(x);
        }
        for (int j = MANY - 1; j >= 0; j--) {
            size_t bytes = (size_t)lengths[j] * sizeof(float);
            float *x = sago_alloc(bytes);
            assert_status_ok(sago_collective_wait(mesh, reductions[j]));
            assert_status_ok(ops->scale(&device, sago_tensor_1d(on_device[j], SAGO_F32, lengths[j]), 0.5f));
            assert_status_ok(ops->download(&device, x, on_device[j], bytes));
            for (int64_t i = 0; i < lengths[j]; i++) {
                float expected = rank_order_sum(SAGO_DATA_AXIS, i, (uint64_t)j) / 2;
                if (memcmp(&expected, &x[i], sizeof expected) != 0)
                    fail_msg("sum %d: element %lld is %.9g, not %.9g", j, (long long)i, (double)x[i],
                             (double)expected);
            }
            ops->release(&device, on_device[j]);
            free(x);
        }
    }
    test_device_doubles(&device);
    assert_status_ok(sago_mesh_use_device(mesh, NULL));
    sago_device_close(opened);
}

/* A device that fails to copy fails the sum where it is waited for, and the next ones, and holds nobody. */
static sago_status broken_fetch(sago_device *device, void *to, const void *from, size_t bytes,
                                sago_mark after) {
    (void)device, (void)to, (void)from, (void)bytes, (void)after;
    return sago_fail(SAGO_E_DEVICE, "the bus is on fire");
}

static void test_device_fails(void **unused) {
    (void)unused;
    sago_device *opened;
    assert_status_ok(sago_device_open("cpu", 1, &opened));
    sago_ops ops = *opened->ops;
    ops.fetch = broken_fetch;
    sago_device device = *opened;
    device.ops = &ops, device.asynchronous = true;
    float x[8] = {0};
    sago_collective *reduction;
    assert_status_ok(sago_mesh_use_device(mesh, &device));
    for (int again = 0; again < 2 && mesh->axis_size[SAGO_DATA_AXIS] > 1; again++) {
        assert_status_ok(sago_all_reduce_start(mesh, SAGO_DATA_AXIS, x, 8, &reduction));
        assert_int_equal(sago_collective_wait(mesh, reduction), SAGO_E_DEVICE);
        assert_string_equal(sago_message(), "the bus is on fire");
    }
    assert_status_ok(sago_mesh_use_device(mesh, NULL));
    sago_device_close(opened);
}

static void test_few_numbers(void **unused) {
    (void)unused;
    enum { N = 5000 };
    static double f[N];
    static int64_t k[N];
    for (int n = 0; n <= N; n = n * 3 + 1) {
        for (int i = 0; i < n; i++) {
            f[i] = (double)value_of(mesh->rank, i, 5) / 3;
            k[i] = (int64_t)1 << (i % 61);
        }
        assert_status_ok(sago_all_reduce_f64(mesh, SAGO_WORLD_AXIS, f, n));
        assert_status_ok(sago_all_reduce_i64(mesh, SAGO_DATA_AXIS, k, n));
        for (int i = 0; i < n; i++) {
            double expected = (double)value_of(0, i, 5) / 3;
            for (int r = 1; r < mesh->size; r++) expected += (double)value_of(r, i, 5) / 3;
            assert_memory_equal(&expected, &f[i], sizeof expected);
            assert_int_equal(k[i], ((int64_t)1 << (i % 61)) * mesh->axis_size[SAGO_DATA_AXIS]);
        }
    }
}

static void test_broadcast(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        for (int root = 0; root < mesh->axis_size[axis]; root++) {
            for (int c = 0; c < N_COUNTS; c++) {
                size_t n = (size_t)counts[c] * 5;
                char *bytes = sago_alloc(n + 1);
                for (size_t i = 0; i < n; i++)
                    bytes[i] =
                        (char)(mesh->axis_rank[axis] == root ? sago_mix(i, (uint64_t)world_rank(axis, root))
                                                             : 0);
                dawdle(n);
                assert_status_ok(sago_broadcast(mesh, (sago_mesh_axis)axis, bytes, n, root));
                for (size_t i = 0; i < n; i++)
                    if (bytes[i] != (char)sago_mix(i, (uint64_t)world_rank(axis, root)))
                        fail_msg("axis %d, root %d, %zu bytes: byte %zu differs", axis, root, n, i);
                free(bytes);
            }
        }
    }
}

static void test_gathers(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        int size = mesh->axis_size[axis];
        int64_t *values = sago_alloc((size_t)size * sizeof *values);
        size_t *sizes = sago_alloc((size_t)size * sizeof *sizes);
        assert_status_ok(sago_all_gather_i64(mesh, (sago_mesh_axis)axis, -7 * (int64_t)mesh->rank, values));
        for (int m = 0; m < size; m++) assert_int_equal(values[m], -7 * (int64_t)world_rank(axis, m));
        for (int root = 0; root < size; root++) {
            for (int scale = 0; scale <= 3000000; scale = scale * 1000 + 3) {
                /* Sizes differ, and rank 0 gives nothing. */
                size_t n = (size_t)mesh->rank * (size_t)scale, at = 0;
                char *mine = sago_alloc(n + 1), *all;
                for (size_t i = 0; i < n; i++) mine[i] = (char)(i * 31 + (size_t)mesh->rank);
                assert_status_ok(sago_gather_bytes(mesh, (sago_mesh_axis)axis, mine, n, root, &all, sizes));
                if (mesh->axis_rank[axis] != root) {
                    assert_null(all);
                } else {
                    for (int m = 0; m < size; m++) {
                        int r = world_rank(axis, m);
                        assert_int_equal(sizes[m], (size_t)r * (size_t)scale);
                        for (size_t i = 0; i < sizes[m]; i++)
                            if (all[at + i] != (char)(i * 31 + (size_t)r))
                                fail_msg("member %d, byte %zu", m, i);
                        at += sizes[m];
                    }
                }
                free(all);
                free(mine);
            }
        }
        free(sizes);
        free(values);
    }
}

static void test_agree(void **unused) {
    (void)unused;
    assert_status_ok(sago_agree(mesh, SAGO_OK));
    for (int failing = 0; failing < mesh->size; failing++) {
        /* This rank and all above it fail: the lowest one's message counts. */
        sago_status mine = SAGO_OK;
        if (mesh->rank >= failing) mine = sago_fail(SAGO_E_IO, "disk %d is full", mesh->rank);
        assert_int_equal(sago_agree(mesh, mine), SAGO_E_IO);
        char expected[64];
        snprintf(expected, sizeof expected, mesh->size > 1 ? "rank %d: disk %d is full" : "disk %d is full",
                 failing, failing);
        assert_string_equal(sago_message(), expected);
        if (mesh->size > 1) assert_true(sago_mesh_failure_is_shared());
        assert_status_ok(sago_agree(mesh, SAGO_OK));
    }
    (void)sago_fail(SAGO_E_IO, "something else");
    assert_false(sago_mesh_failure_is_shared());
}

static void test_channel(void **unused) {
    (void)unused;
    sago_mesh *other;
    assert_status_ok(sago_mesh_channel(mesh, &other));
    /* Odd and even ranks use the two in opposite orders, which one channel would not survive. */
    float a[3] = {1, 2, 3}, b[2] = {(float)mesh->rank, 1};
    sago_collective *ra, *rb;
    if (mesh->rank % 2) assert_status_ok(sago_all_reduce_start(other, SAGO_WORLD_AXIS, b, 2, &rb));
    if (mesh->rank % 2) assert_status_ok(sago_collective_wait(other, rb));
    assert_status_ok(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, a, 3, &ra));
    if (mesh->rank % 2 == 0) assert_status_ok(sago_all_reduce_start(other, SAGO_WORLD_AXIS, b, 2, &rb));
    assert_status_ok(sago_collective_wait(mesh, ra));
    if (mesh->rank % 2 == 0) assert_status_ok(sago_collective_wait(other, rb));
    assert_true(a[2] == 3 * (float)mesh->size);
    assert_true(b[0] == (float)(mesh->size * (mesh->size - 1) / 2) && b[1] == (float)mesh->size);
    sago_mesh_close(other);
}

static void test_wrong_size(void **unused) {
    (void)unused;
    sago_mesh *none;
    assert_int_equal(sago_mesh_open(mesh->size + 2, 3, 45, &none), SAGO_E_COMM);
    assert_null(none);
    char ranks[32];
    snprintf(ranks, sizeof ranks, "mesh.data=%d", mesh->size + 2);
    assert_non_null(strstr(sago_message(), ranks));
    assert_non_null(strstr(sago_message(), "mesh.model=3"));
    snprintf(ranks, sizeof ranks, "this run has %d", mesh->size);
    assert_non_null(strstr(sago_message(), ranks));
    assert_int_equal(sago_mesh_open(0, mesh->size + 1, 45, &none), SAGO_E_COMM);
    if (mesh->size > 1) assert_true(sago_mesh_failure_is_shared());
}

static void test_exposed(void **unused) {
    (void)unused;
    (void)sago_mesh_exposed_seconds(mesh);
    if (mesh->rank == mesh->size - 1) nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    assert_status_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
    double seconds = sago_mesh_exposed_seconds(mesh);
    if (mesh->size > 1 && mesh->rank == 0) assert_true(seconds > .1);
    if (mesh->size == 1) assert_true(seconds == 0);
    assert_true(sago_mesh_exposed_seconds(mesh) == 0);
    char text[256];
    sago_mesh_describe(mesh, text);
    assert_true(strlen(text) > 10);
}

static bool checked;

/* Everybody waits for the last rank of its axis, which comes late to sums of many numbers. Where collectives are checked it
   is waited for before them, and the sums themselves find everybody there. */
static void test_late(void **unused) {
    (void)unused;
    enum { COUNT = 1 << 18, ROUNDS = 5 };
    float *x = calloc(COUNT, sizeof *x);
    double *seconds = calloc((size_t)mesh->size, sizeof *seconds);
    int last = mesh->axis_size[SAGO_DATA_AXIS] - 1;
    sago_mesh_late_seconds(mesh, seconds);
    for (int i = 0; i < ROUNDS; i++) {
        sago_collective *sum;
        assert_status_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
        if (mesh->axis_rank[SAGO_DATA_AXIS] == last)
            nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        assert_status_ok(sago_all_reduce_start(mesh, SAGO_DATA_AXIS, x, COUNT, &sum));
        assert_status_ok(sago_collective_wait(mesh, sum));
    }
    sago_mesh_late_seconds(mesh, seconds);
    assert_true(seconds[mesh->rank] == 0);
    double of_last = seconds[world_rank(SAGO_DATA_AXIS, last)];
    for (int r = 0; r < mesh->size && !checked && mesh->axis_rank[SAGO_DATA_AXIS] != last; r++)
        assert_true(r == world_rank(SAGO_DATA_AXIS, last) ? seconds[r] > 0 : seconds[r] < of_last);
    sago_mesh_late_seconds(mesh, seconds);
    for (int r = 0; r < mesh->size; r++) assert_true(seconds[r] == 0);
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    if (mesh->size > 1) assert_string_equal(sago_mesh_host(mesh->size - 1), host);
    free(seconds);
    free(x);
}

int main(int n_arguments, char **arguments) {
    int model = n_arguments > 1 ? atoi(arguments[1]) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place),       cmocka_unit_test(test_all_reduce),
        cmocka_unit_test(test_overlap),     cmocka_unit_test(test_few_numbers),
        cmocka_unit_test(test_device_sums), cmocka_unit_test(test_device_fails),
        cmocka_unit_test(test_broadcast),   cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_agree),       cmocka_unit_test(test_channel),
        cmocka_unit_test(test_wrong_size),  cmocka_unit_test(test_exposed),
        cmocka_unit_test(test_late),
    };
    int failures = 1;
    if (sago_mesh_start() != SAGO_OK || sago_mesh_open(0, model, 45, &mesh) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
    } else {
        checked = n_arguments > 2 && strcmp(arguments[2], "check") == 0;
        sago_mesh_check(mesh, checked);
        failures = cmocka_run_group_tests(tests, NULL, NULL);
    }
    sago_mesh_close(mesh);
    sago_mesh_finish(failures != 0);
    return failures != 0;
}
