// SPDX-License-Identifier: Apache-2.0
/* Reduce-scatter and all-gather on however many ranks mpirun gives, and on one without it, in host memory and
 * in that of a device: SAGO_TEST_DEVICE says which, where it is not the cpu that says of itself that it is
 * asynchronous. */
#include "comm_internal.h"
#include "device.h"
#include "numbers.h"
#include "ops.h"

/* How long the pieces of an axis are: kind k of member m. Fully sharded parameters are cut in whole rows, so
 * the pieces of 128 rows over 3 ranks are 43, 43 and 42 rows. */
static const char *const kinds[] = {"even", "rows", "one has all", "last has none", "few", "nothing"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int64_t piece_of(int kind, int m, int size) {
    switch (kind) {
    case 0:
        return 70000;
    case 1:
        return (128 * (m + 1) / size - 128 * m / size) * 1537;
    case 2:
        return m == size / 2 ? 900001 : 0;
    case 3:
        return m == size - 1 ? 0 : 3001 + m;
    case 4:
        return 3;
    default:
        return 0;
    }
}

static int64_t sizes_of(int kind, int size, int64_t counts[], int me, int64_t *first) {
    int64_t total = 0;
    for (int m = 0; m < size; m++) {
        if (m == me) *first = total;
        total += counts[m] = piece_of(kind, m, size);
    }
    return total;
}

static void check_sums(const float *x, int64_t n, int64_t first, sago_mesh_axis axis, uint64_t salt) {
    for (int64_t i = 0; i < n; i++) {
        float expected = rank_order_sum(axis, first + i, salt);
        if (memcmp(&expected, &x[i], sizeof expected) != 0)
            fail_msg("axis %d, salt %d: element %lld is %.9g, not %.9g", (int)axis, (int)salt, (long long)i,
                     (double)x[i], (double)expected);
    }
}

static void test_reduce_scatter(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        int size = mesh->axis_size[axis];
        int64_t *counts = sago_alloc((size_t)size * sizeof *counts), first = 0;
        for (int kind = 0; kind < N_KINDS; kind++) {
            int64_t total = sizes_of(kind, size, counts, mesh->axis_rank[axis], &first);
            int64_t mine = counts[mesh->axis_rank[axis]];
            float *in = sago_alloc((size_t)(total + 1) * sizeof *in),
                  *out = sago_alloc((size_t)(mine + 1) * 4);
            for (int in_place = 0; in_place < 2; in_place++) {
                uint64_t salt = (uint64_t)(axis * 100 + kind * 2 + in_place);
                float *to = in_place ? in + first : out;
                for (int64_t i = 0; i < total; i++) in[i] = value_of(mesh->rank, i, salt);
                out[mine] = in[total] = 12345;
                dawdle(salt);
                sago_collective *started;
                assert_status_ok(
                    sago_reduce_scatter_start(mesh, (sago_mesh_axis)axis, in, to, counts, &started));
                memset(counts, 0x7f, (size_t)size * sizeof *counts); /* only the start reads them */
                assert_status_ok(sago_collective_wait(mesh, started));
                (void)sizes_of(kind, size, counts, 0, &(int64_t){0});
                check_sums(to, mine, first, (sago_mesh_axis)axis, salt);
                assert_true(out[mine] == 12345 && in[total] == 12345);
                for (int64_t i = 0; i < total; i++) /* the rest of the input is as it was */
                    if (!(in_place && i >= first && i < first + mine))
                        assert_true(in[i] == value_of(mesh->rank, i, salt));
            }
            free(in);
            free(out);
        }
        free(counts);
    }
}

static char byte_of(int rank, int64_t i) {
    return (char)sago_mix((uint64_t)rank, (uint64_t)i);
}

static void check_bytes(const char *out, const size_t bytes[], sago_mesh_axis axis) {
    for (int m = 0; m < mesh->axis_size[axis]; out += bytes[m++])
        for (size_t i = 0; i < bytes[m]; i++)
            if (out[i] != byte_of(world_rank(axis, m), (int64_t)i))
                fail_msg("axis %d: byte %zu of member %d differs", (int)axis, i, m);
}

static void test_all_gather(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        int size = mesh->axis_size[axis], me = mesh->axis_rank[axis];
        int64_t *counts = sago_alloc((size_t)size * sizeof *counts), first = 0;
        for (int kind = 0; kind < N_KINDS; kind++) {
            int64_t total = sizes_of(kind, size, counts, me, &first), mine = counts[me];
            char *in = sago_alloc((size_t)mine + 1), *out = sago_alloc((size_t)total + 1);
            for (int in_place = 0; in_place < 2; in_place++) {
                const char *from = in_place ? out + first : in;
                memset(out, 0, (size_t)total);
                for (int64_t i = 0; i < mine; i++) ((char *)from)[i] = byte_of(mesh->rank, i);
                out[total] = 77;
                dawdle((uint64_t)(axis * 100 + kind * 2 + in_place));
                sago_collective *started;
                assert_status_ok(sago_all_gather_start(mesh, (sago_mesh_axis)axis, from, out,
                                                       (const size_t *)counts, &started));
                assert_status_ok(sago_collective_wait(mesh, started));
                check_bytes(out, (const size_t *)counts, (sago_mesh_axis)axis);
                assert_int_equal(out[total], 77);
            }
            free(in);
            free(out);
        }
        free(counts);
    }
}

/* The statistics of a chunk of logits: maximum, sum, target. */
static void test_few_numbers(void **unused) {
    (void)unused;
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        int size = mesh->axis_size[axis];
        double mine[3] = {mesh->rank, .5 * mesh->rank, -mesh->rank},
               *all = sago_alloc((size_t)size * sizeof mine);
        assert_status_ok(sago_all_gather(mesh, (sago_mesh_axis)axis, mine, sizeof mine, all));
        for (int m = 0; m < size; m++) {
            double r = world_rank((sago_mesh_axis)axis, m);
            assert_true(all[3 * m] == r && all[3 * m + 1] == .5 * r && all[3 * m + 2] == -r);
        }
        free(all);
    }
}

/* A step's traffic: gathers ahead, scatters behind, sums between, on all axes at once; and the same bits
 * again. */
static void test_overlap(void **unused) {
    (void)unused;
    enum { MANY = 24, ROWS = 128, WIDTH = 257 };
    uint64_t hashes[2] = {0};
    for (int round = 0; round < 2; round++) {
        sago_collective *started[MANY];
        float *in[MANY], *out[MANY];
        size_t n_out[MANY];
        for (int j = 0; j < MANY; j++) {
            sago_mesh_axis axis = (sago_mesh_axis)(j % SAGO_N_AXES);
            int size = mesh->axis_size[axis], me = mesh->axis_rank[axis];
            int64_t counts[8], mine = ROWS * (me + 1) / size - ROWS * me / size, n = (int64_t)ROWS * WIDTH;
            in[j] = sago_alloc((size_t)n * sizeof **in);
            for (int64_t i = 0; i < n; i++) in[j][i] = value_of(mesh->rank, i, (uint64_t)j);
            for (int m = 0; m < size; m++)
                counts[m] =
                    (ROWS * (m + 1) / size - ROWS * m / size) * WIDTH * (j % 2 ? 1 : (int)sizeof(float));
            n_out[j] = (size_t)(j % 2 ? mine * WIDTH : n);
            out[j] = sago_alloc(n_out[j] * sizeof **out);
            if ((j + round) % 5 == 0) dawdle((uint64_t)(j + 31 * round));
            if (j % 2)
                assert_status_ok(sago_reduce_scatter_start(mesh, axis, in[j], out[j], counts, &started[j]));
            else
                assert_status_ok(
                    sago_all_gather_start(mesh, axis, in[j], out[j], (const size_t *)counts, &started[j]));
            if (j % 7 == 3) assert_status_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
        }
        for (int j = MANY - 1; j >= 0; j--) {
            assert_status_ok(sago_collective_wait(mesh, started[j]));
            hashes[round] = sago_mix(hashes[round], sago_hash_bytes(out[j], n_out[j] * sizeof **out));
            free(in[j]);
            free(out[j]);
        }
    }
    assert_true(hashes[0] == hashes[1]);
}

/* The same in a device's memory, more than a slot of the way through the host. What the device was told
 * before a start counts, and what it is told after a wait finds the result. */
static void test_device(void **unused) {
    (void)unused;
    const char *name = getenv("SAGO_TEST_DEVICE");
    sago_device *opened;
    assert_status_ok(sago_device_open(name ? name : "cpu", 1, &opened));
    sago_device device = *opened;
    device.asynchronous = true;
    const sago_ops *ops = device.ops;
    assert_status_ok(sago_mesh_use_device(mesh, &device));
    for (int axis = 0; axis < SAGO_N_AXES; axis++) {
        int size = mesh->axis_size[axis], me = mesh->axis_rank[axis];
        int64_t *counts = sago_alloc((size_t)size * sizeof *counts), first = 0;
        for (int kind = 0; kind < 4; kind++) {
            int64_t scale = kind == 1 && axis == SAGO_DATA_AXIS ? 23 : 1, total = 0;
            (void)sizes_of(kind, size, counts, me, &first);
            for (int m = 0; m < size; m++) total += counts[m] *= scale;
            first *= scale;
            float *host = sago_alloc((size_t)total * 4), *memory, *piece;
            assert_status_ok(ops->allocate(&device, (void **)&memory, (size_t)(total + 1) * 4));
            assert_status_ok(ops->allocate(&device, (void **)&piece, (size_t)(counts[me] + 1) * 4));
            for (int64_t i = 0; i < total; i++) host[i] = value_of(mesh->rank, i, (uint64_t)kind) / 4;
            assert_status_ok(ops->upload(&device, memory, host, (size_t)total * 4));
            assert_status_ok(ops->scale(&device, sago_tensor_1d(memory, SAGO_F32, total), 4));
            sago_collective *started;
            assert_status_ok(
                sago_reduce_scatter_start(mesh, (sago_mesh_axis)axis, memory, piece, counts, &started));
            assert_status_ok(sago_collective_wait(mesh, started));
            if (counts[me])
                assert_status_ok(ops->scale(&device, sago_tensor_1d(piece, SAGO_F32, counts[me]), 2));
            for (int m = 0; m < size; m++) counts[m] *= 4;
            assert_status_ok(sago_all_gather_start(mesh, (sago_mesh_axis)axis, piece, memory,
                                                   (const size_t *)counts, &started));
            assert_status_ok(sago_collective_wait(mesh, started));
            assert_status_ok(ops->scale(&device, sago_tensor_1d(memory, SAGO_F32, total), .5f));
            assert_status_ok(ops->download(&device, host, memory, (size_t)total * 4));
            check_sums(host, total, 0, (sago_mesh_axis)axis, (uint64_t)kind);
            ops->release(&device, memory);
            ops->release(&device, piece);
            free(host);
        }
        free(counts);
    }
    assert_status_ok(sago_mesh_use_device(mesh, NULL));
    sago_device_close(opened);
}

static void test_wrong(void **unused) {
    (void)unused;
    int64_t counts[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    sago_collective *started;
    float x = 0;
    assert_int_equal(sago_reduce_scatter_start(mesh, SAGO_WORLD_AXIS, &x, &x, counts, &started),
                     SAGO_E_INTERNAL);
    assert_null(started);
    assert_status_ok(sago_collective_wait(mesh, started));
}

/* Two nodes of four ranks: in the order of slots, then rank by rank on either node. */
static void test_split_axis(void **unused) {
    (void)unused;
    comm_identity ranks[8] = {0};
    for (int r = 0; r < 8; r++) ranks[r].node = (uint64_t)(r / 4);
    assert_int_equal(comm_split_model_axis(ranks, 8, 1), -1);
    assert_int_equal(comm_split_model_axis(ranks, 8, 2), -1);
    assert_int_equal(comm_split_model_axis(ranks, 8, 4), -1);
    assert_int_equal(comm_split_model_axis(ranks, 8, 8), 0);
    assert_int_equal(comm_split_model_axis(ranks, 6, 3), 3);
    for (int r = 0; r < 8; r++) ranks[r].node = (uint64_t)(r % 2);
    assert_int_equal(comm_split_model_axis(ranks, 8, 1), -1);
    assert_int_equal(comm_split_model_axis(ranks, 8, 2), 0);
}

int main(int n_arguments, char **arguments) {
    int model = n_arguments > 1 ? atoi(arguments[1]) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reduce_scatter), cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_few_numbers),    cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_device),         cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_split_axis),
    };
    int failures = 1;
    if (sago_mesh_start() != SAGO_OK || sago_mesh_open(0, model, 45, &mesh) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
    } else {
        sago_mesh_check(mesh, n_arguments > 2 && strcmp(arguments[2], "check") == 0);
        failures = cmocka_run_group_tests(tests, NULL, NULL);
    }
    sago_mesh_close(mesh);
    sago_mesh_finish(failures != 0);
    return failures != 0;
}
