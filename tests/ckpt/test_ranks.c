// SPDX-License-Identifier: Apache-2.0
/* Several ranks save together: mpirun -n N test_ranks FOLDER. Each then loads what any rank of any number
 * would. */
#include "sample.h"

#include "steps.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static sago_mesh *mesh;
static const char *folder;

static bool fails_here; /* this rank's disk is full */

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    if (fails_here) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, n, at);
}

static sago_status save(int cut, int64_t step, bool background, int64_t keep, int64_t *committed) {
    sago_piece pieces[SAMPLE_TENSORS];
    int n = sample_cut(cut, mesh->rank, mesh->size, (uint64_t)step, true, pieces);
    json_t *meta = json_pack("{s:I}", "state", (json_int_t)step);
    const sago_side_file file = {SAGO_TOKENIZER_FILE, "a tokenizer", 11};
    const sago_ckpt_save request = {folder, step, meta, pieces, n, &file, mesh->rank == 0, keep, 0};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(mesh, background, &writer));
    sago_status status = sago_ckpt_writer_start(writer, &request);
    sample_free(pieces, n);
    json_decref(meta);
    /* The trainer's own collectives go on while the writer's are under way. */
    for (int i = 0; i < 50; i++) {
        double sum = 1;
        assert_ok(sago_all_reduce_f64(mesh, SAGO_WORLD_AXIS, &sum, 1));
        assert_true(sum == mesh->size);
    }
    if (status == SAGO_OK) status = sago_ckpt_writer_wait(writer, committed);
    sago_ckpt_writer_close(writer);
    return status;
}

static void assert_state(int64_t step) {
    sago_ckpt *ckpt;
    assert_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
    assert_ok(sago_ckpt_open(folder, true, &ckpt));
    assert_int_equal(sago_ckpt_step(ckpt), step);
    for (int n = 1; n <= 5; n++)
        for (int cut = 0; cut < 2; cut++)
            sample_assert_loads(ckpt, cut, (mesh->rank + n) % n, n, (uint64_t)step);
    sample_assert_loads(ckpt, 2, mesh->rank % 4, 4, (uint64_t)step);
    sago_ckpt_close(ckpt);
    assert_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
}

static void saving(void **unused) {
    (void)unused;
    int64_t committed = -1;
    assert_ok(save(0, 1, false, 0, &committed));
    assert_int_equal(committed, 1);
    assert_state(1);
    assert_ok(save(1, 2, true, 2, &committed));
    assert_int_equal(committed, 2);
    assert_state(2);
    assert_ok(save(3, 3, true, 2, &committed)); /* whole tensors dealt out */
    assert_state(3);
    int64_t *steps;
    int n;
    assert_ok(sago_steps_list(folder, &steps, &n));
    assert_int_equal(n, 2);
    free(steps);
}

/* One rank's full disk is every rank's SAGO_E_IO, and costs nothing that was there. */
static void one_rank_fails(void **unused) {
    (void)unused;
    for (int bad = 0; bad < mesh->size; bad++) {
        int64_t committed = -1;
        fails_here = mesh->rank == bad;
        sago_status status = save(0, 9, bad % 2 == 0, 1, &committed);
        fails_here = false;
        assert_int_equal(status, SAGO_E_IO);
        assert_int_equal(committed, -1);
        char part[32];
        snprintf(part, sizeof part, "rank %d: ", bad);
        if (mesh->size > 1 && !strstr(sago_message(), part)) fail_msg("no %s in: %s", part, sago_message());
        assert_state(3);
        sago_names names;
        assert_ok(sago_dir_list(folder, &names));
        assert_int_equal(names.count, 2); /* steps 2 and 3, nothing of step 9 */
        sago_names_free(&names);
        assert_ok(sago_barrier(mesh, SAGO_WORLD_AXIS));
    }
    int64_t committed = -1;
    assert_ok(save(0, 9, true, 1, &committed));
    assert_state(9);
}

static void one_rank_has_all(void **unused) {
    (void)unused;
    float value = 5, got = 0;
    sago_piece piece = {"x", SAGO_F32, 1, {1, 1}, {0, 0}, {1, 1}, &value};
    const sago_ckpt_save request = {
        .dir = folder, .step = 20, .pieces = &piece, .n_pieces = mesh->rank == mesh->size - 1};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(mesh, true, &writer));
    assert_ok(sago_ckpt_writer_start(writer, &request));
    assert_ok(sago_ckpt_writer_wait(writer, NULL));
    sago_ckpt_writer_close(writer);
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(folder, true, &ckpt));
    char *shard = sago_format("%s/shard-00000-of-00001.h5", sago_ckpt_dir(ckpt));
    assert_true(sago_is_file(shard));
    free(shard);
    piece.data = &got;
    assert_ok(sago_ckpt_load(ckpt, &piece, 1));
    assert_true(got == 5);
    sago_ckpt_close(ckpt);
}

int main(int argc, char *argv[]) {
    if (argc != 2 || sago_mesh_start() != SAGO_OK || sago_mesh_open(0, 1, 60, &mesh) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
        return 2;
    }
    folder = argv[1];
    if (mesh->rank == 0 && sago_is_dir(folder) && sago_dir_remove(folder) != SAGO_OK) return 2;
    if (sago_barrier(mesh, SAGO_WORLD_AXIS) != SAGO_OK) return 2;
    const struct CMUnitTest tests[] = {cmocka_unit_test(saving), cmocka_unit_test(one_rank_fails),
                                       cmocka_unit_test(one_rank_has_all)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sago_mesh_close(mesh);
    sago_mesh_finish(failed ? 1 : 0);
    return failed ? 1 : 0;
}
