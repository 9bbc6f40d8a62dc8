// SPDX-License-Identifier: Apache-2.0
#include "sample.h"

#include "steps.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whatever cut was saved, any other cut of any number of ranks loads the same bytes. One process stands for
 * all ranks: it gives all their pieces, as a rank with several pieces of a tensor would. */
static void resharding(void **unused) {
    (void)unused;
    static const struct {
        int cut, ranks;
    } layouts[] = {{3, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {1, 4}, {1, 5}, {2, 4}, {0, 16}};
    for (size_t s = 0; s < sizeof layouts / sizeof layouts[0]; s++) {
        const char *dir = test_path("resharding");
        sago_piece pieces[SAMPLE_MAX_PIECES];
        int n = 0;
        for (int r = 0; r < layouts[s].ranks; r++)
            n += sample_cut(layouts[s].cut, r, layouts[s].ranks, s, true, pieces + n);
        sago_ckpt_writer *writer;
        assert_ok(sago_ckpt_writer_open(NULL, s % 2 == 0, &writer));
        const sago_ckpt_save save = {
            .dir = dir, .step = (int64_t)s, .pieces = pieces, .n_pieces = n, .keep = 1};
        assert_ok(sago_ckpt_writer_start(writer, &save));
        int64_t step = -2;
        assert_ok(sago_ckpt_writer_wait(writer, &step));
        assert_int_equal(step, s);
        sago_ckpt_writer_close(writer);
        sample_free(pieces, n);
        sago_ckpt *ckpt;
        assert_ok(sago_ckpt_open(dir, true, &ckpt));
        assert_int_equal(sago_ckpt_step(ckpt), s);
        assert_int_equal(sago_ckpt_count(ckpt), SAMPLE_TENSORS);
        for (size_t l = 0; l < sizeof layouts / sizeof layouts[0]; l++)
            for (int r = 0; r < layouts[l].ranks; r++)
                sample_assert_loads(ckpt, layouts[l].cut, r, layouts[l].ranks, s);
        sago_ckpt_close(ckpt);
    }
}

static int count_steps(const char *dir, int64_t expected[], int most) {
    int64_t *steps;
    int n;
    assert_ok(sago_steps_list(dir, &steps, &n));
    for (int i = 0; i < n && i < most; i++) assert_int_equal(steps[i], expected[i]);
    free(steps);
    return n;
}

static void retention(void **unused) {
    (void)unused;
    const char *dir = test_path("retention");
    for (int64_t step = 10; step <= 100; step += 10) assert_ok(sample_save(dir, step, (uint64_t)step, 2, 40));
    assert_int_equal(count_steps(dir, (int64_t[]){40, 80, 90, 100}, 4), 4);
    assert_ok(sample_save(dir, 110, 110, 0, 0)); /* 0 keeps all */
    assert_int_equal(count_steps(dir, (int64_t[]){40, 80, 90, 100, 110}, 5), 5);
    /* A step before others, as after a rewind: those after it are not its business. */
    assert_ok(sample_save(dir, 95, 95, 1, 0));
    assert_int_equal(count_steps(dir, (int64_t[]){95, 100, 110}, 3), 3);
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(dir, true, &ckpt));
    assert_int_equal(sago_ckpt_step(ckpt), 110);
    sample_assert_loads(ckpt, 0, 1, 2, 110);
    sago_ckpt_close(ckpt);
}

static void same_step_again(void **unused) {
    (void)unused;
    const char *dir = test_path("again");
    assert_ok(sample_save(dir, 5, 1, 3, 0));
    assert_ok(sample_save(dir, 5, 2, 3, 0));
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(dir, true, &ckpt));
    sample_assert_loads(ckpt, 3, 0, 1, 2);
    assert_int_equal(json_integer_value(json_object_get(sago_ckpt_meta(ckpt), "state")), 2);
    sago_ckpt_close(ckpt);
    sago_names names;
    assert_ok(sago_dir_list(dir, &names));
    assert_int_equal(names.count, 1); /* nothing aside */
    sago_names_free(&names);
}

/* The same state gives the same bytes, so that copies of checkpoints can be compared. */
static void reproducible(void **unused) {
    (void)unused;
    const char *names[] = {"MANIFEST.json", "shard-00000-of-00001.h5", "tokenizer.model"};
    assert_ok(sample_save(test_path("a"), 7, 3, 0, 0));
    sleep(1); /* a clock in the file would show */
    assert_ok(sample_save(test_path("b"), 7, 3, 0, 0));
    for (int i = 0; i < 3; i++) {
        char *a = sago_format("%s/a/step-000007/%s", test_folder, names[i]);
        char *b = sago_format("%s/b/step-000007/%s", test_folder, names[i]);
        sago_str x = {0}, y = {0};
        assert_ok(sago_file_read(a, 0, &x));
        assert_ok(sago_file_read(b, 0, &y));
        assert_int_equal(x.length, y.length);
        assert_memory_equal(x.data, y.data, x.length);
        sago_str_free(&x);
        sago_str_free(&y);
        free(a);
        free(b);
    }
}

static void leftovers(void **unused) {
    (void)unused;
    const char *dir = test_path("leftovers");
    assert_ok(sample_save(dir, 1, 1, 0, 0));
    char *stale = sago_format("%s/step-000002.tmp-00ff", dir), *other = sago_format("%s/step-2-notes", dir);
    assert_ok(sago_dir_make(stale));
    assert_ok(sago_dir_make(other));
    assert_true(sago_ckpt_exists(dir));
    assert_ok(sample_save(dir, 3, 3, 0, 0));
    assert_false(sago_is_dir(stale));
    assert_true(sago_is_dir(other)); /* not sago's */
    free(stale);
    free(other);
}

static void empty_and_absent(void **unused) {
    (void)unused;
    sago_ckpt *ckpt;
    const char *dir = test_path("empty");
    assert_ok(sago_dir_make(dir));
    assert_false(sago_ckpt_exists(dir));
    assert_fails(sago_ckpt_open(dir, true, &ckpt), SAGO_E_INPUT, "holds no checkpoint");
    assert_fails(sago_ckpt_open(test_path("absent"), true, &ckpt), SAGO_E_IO, "no such folder");
    char *step = sago_format("%s/step-000001", dir);
    assert_ok(sago_dir_make(step)); /* no MANIFEST: not committed */
    assert_false(sago_ckpt_exists(dir));
    assert_fails(sago_ckpt_open(step, true, &ckpt), SAGO_E_IO, "MANIFEST.json");
    free(step);
}

static void wrong_requests(void **unused) {
    (void)unused;
    const char *dir = test_path("requests");
    assert_ok(sample_save(dir, 1, 1, 0, 0));
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(dir, false, &ckpt));
    float values[200];
    sago_piece p = {"param/none", SAGO_F32, 1, {7, 1}, {0, 0}, {7, 1}, values};
    assert_fails(sago_ckpt_load(ckpt, &p, 1), SAGO_E_INPUT, "no tensor param/none");
    p.name = "param/encoder.0.norm";
    p.global_shape[0] = 8;
    assert_fails(sago_ckpt_load(ckpt, &p, 1), SAGO_E_SHAPE,
                 "tensor param/encoder.0.norm is f32[7] in the checkpoint, f32[8] in the model");
    p.global_shape[0] = 7;
    p.dtype = SAGO_I32;
    assert_fails(sago_ckpt_load(ckpt, &p, 1), SAGO_E_SHAPE, "i32[7] in the model");
    p.dtype = SAGO_F32;
    p.offset[0] = 1;
    assert_fails(sago_ckpt_load(ckpt, &p, 1), SAGO_E_INTERNAL, "outside of tensor");
    sago_str text = {0};
    assert_ok(sago_ckpt_read_file(ckpt, SAGO_TOKENIZER_FILE, &text));
    assert_string_equal(sago_str_text(&text), "a tokenizer");
    assert_false(sago_ckpt_has_file(ckpt, "other"));
    assert_fails(sago_ckpt_read_file(ckpt, "other", &text), SAGO_E_INPUT, "no file other");
    sago_str_free(&text);
    sago_ckpt_close(ckpt);
}

/* Pieces that do not make up their tensor are a defect of the caller, found before anything is committed. */
/* Memory that only copies reach; what copies may not touch stays 0x5A. */
typedef struct far_memory {
    float *elements;
    int64_t count, most_at_once;
} far_memory;

static sago_status read_far(const void *context, void *to_host, int64_t first, int64_t count) {
    const far_memory *far = context;
    assert_true(first >= 0 && first + count <= far->count);
    memcpy(to_host, far->elements + first, (size_t)count * sizeof(float));
    return SAGO_OK;
}

static sago_status write_far(void *context, int64_t first, const void *from_host, int64_t count) {
    far_memory *far = context;
    assert_true(first >= 0 && first + count <= far->count);
    memcpy(far->elements + first, from_host, (size_t)count * sizeof(float));
    if (count > far->most_at_once) far->most_at_once = count;
    return SAGO_OK;
}

static sago_status break_down(const void *context, void *to_host, int64_t first, int64_t count) {
    (void)context, (void)to_host, (void)first, (void)count;
    return sago_fail(SAGO_E_DEVICE, "the bus is on fire");
}

/* A matrix of more than a copy may hold at once, and a vector after it, from and to such memory. */
static void pieces_in_memory_far_away(void **unused) {
    (void)unused;
    enum { ROWS = 2200, COLUMNS = 8001, VECTOR = 77, AT = 16, N = AT + ROWS * COLUMNS + VECTOR };
    for (int background = 0; background < 2; background++) {
        const char *dir = test_path(background ? "far-background" : "far");
        far_memory far = {sago_alloc(N * sizeof(float)), N, 0};
        for (int64_t i = 0; i < N; i++) far.elements[i] = (float)(i % 100003);
        sago_remote remote = {read_far, write_far, &far};
        sago_piece pieces[] = {{.name = "a",
                                .dtype = SAGO_F32,
                                .n_dims = 2,
                                .global_shape = {ROWS, COLUMNS},
                                .shape = {ROWS, COLUMNS},
                                .remote = &remote,
                                .first_remote = AT},
                               {.name = "b",
                                .dtype = SAGO_F32,
                                .n_dims = 1,
                                .global_shape = {VECTOR, 1},
                                .shape = {VECTOR, 1},
                                .remote = &remote,
                                .first_remote = AT + ROWS * COLUMNS}};
        json_t *meta = json_object();
        const sago_ckpt_save save = {.dir = dir, .step = 1, .meta = meta, .pieces = pieces, .n_pieces = 2};
        sago_ckpt_writer *writer;
        assert_ok(sago_ckpt_writer_open(NULL, background, &writer));
        assert_ok(sago_ckpt_writer_start(writer, &save));
        /* A snapshot was taken. */
        memset(far.elements, 0x5A, N * sizeof(float));
        int64_t step;
        assert_ok(sago_ckpt_writer_wait(writer, &step));
        sago_ckpt *ckpt;
        assert_ok(sago_ckpt_open(dir, true, &ckpt));
        assert_ok(sago_ckpt_load(ckpt, pieces, 2));
        for (int64_t i = AT; i < N; i++) assert_true(far.elements[i] == (float)(i % 100003));
        for (int64_t i = 0; i < AT; i++) assert_memory_equal(&far.elements[i], "ZZZZ", 4);
        assert_true(far.most_at_once * (int64_t)sizeof(float) <= 64 << 20 &&
                    far.most_at_once < ROWS * COLUMNS);
        sago_ckpt_close(ckpt);
        remote.read = break_down;
        assert_int_equal(sago_ckpt_writer_start(writer, &save), SAGO_E_DEVICE);
        assert_non_null(strstr(sago_message(), "on fire"));
        sago_ckpt_writer_close(writer);
        json_decref(meta);
        free(far.elements);
    }
}

static void pieces_that_do_not_fit(void **unused) {
    (void)unused;
    const char *dir = test_path("unfit");
    float values[64] = {0};
    sago_piece p[2] = {{"x", SAGO_F32, 2, {4, 4}, {0, 0}, {2, 4}, values},
                       {"x", SAGO_F32, 2, {4, 4}, {2, 0}, {1, 4}, values}};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(NULL, false, &writer));
    const sago_ckpt_save save = {.dir = dir, .step = 1, .pieces = p, .n_pieces = 2};
    assert_fails(sago_ckpt_writer_start(writer, &save), SAGO_E_SHAPE, "pieces of tensor x do not cover");
    sago_ckpt_writer_close(writer);
    assert_ok(sago_ckpt_writer_open(NULL, false, &writer));
    p[1].shape[0] = 2;
    p[1].global_shape[1] = 5;
    assert_fails(sago_ckpt_writer_start(writer, &save), SAGO_E_SHAPE, "disagree");
    sago_ckpt_writer_close(writer);
    sago_names names;
    assert_ok(sago_dir_list(dir, &names));
    assert_int_equal(names.count, 0);
    sago_names_free(&names);
}

/* --- a disk that fails: the n-th of the calls that reach it says so --- */

static int n_calls, failing_call; /* 0: none fails */

static bool call_fails(void) {
    if (failing_call == 0 || ++n_calls != failing_call) return false;
    errno = ENOSPC;
    return true;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    if (call_fails()) return -1;
    if (failing_call && n > 1000000) n /= 2; /* and writes come out short, as they may */
    return syscall(SYS_pwrite64, fd, bytes, n, at);
}

int fsync(int fd) {
    return call_fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int mkdir(const char *path, mode_t mode) {
    return call_fails() ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to) {
    return call_fails() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static void assert_newest(const char *dir, int64_t step, uint64_t state) {
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(dir, true, &ckpt));
    assert_int_equal(sago_ckpt_step(ckpt), step);
    sample_assert_loads(ckpt, 3, 0, 1, state);
    sago_ckpt_close(ckpt);
}

/* Wherever the disk fails: one line, the step before stays whole, nothing lies about, and the next save
 * succeeds. */
static void failing_disk(void **unused) {
    (void)unused;
    const char *dir = test_path("failing");
    assert_ok(sample_save(dir, 1, 1, 1, 0));
    int n_failures = 0, n_after_commit = 0;
    for (bool failed = true; failed; n_failures += failed) {
        n_calls = 0;
        failing_call = n_failures + 1;
        sago_status status = sample_save(dir, 2, 2, 1, 0);
        failing_call = 0;
        failed = status != SAGO_OK;
        if (!failed) break;
        assert_int_equal(status, SAGO_E_IO);
        assert_non_null(strstr(sago_message(), "No space left on device"));
        int64_t *steps;
        int n;
        assert_ok(sago_steps_list(dir, &steps, &n));
        bool committed = steps[n - 1] == 2; /* only what comes after the commit has failed */
        n_after_commit += committed;
        free(steps);
        assert_newest(dir, committed ? 2 : 1, committed ? 2 : 1);
        sago_names names;
        assert_ok(sago_dir_list(dir, &names));
        assert_int_equal(names.count, n);
        sago_names_free(&names);
        if (committed) { /* from the start again */
            assert_ok(sago_dir_remove(dir));
            assert_ok(sample_save(dir, 1, 1, 1, 0));
        }
    }
    assert_in_range(n_failures, 20, 200);
    assert_in_range(n_after_commit, 1, 2); /* fsync of the parent, the first removal */
    assert_newest(dir, 2, 2);
}

/* In the background the failure is told by wait, and the next save may succeed. */
static void failing_disk_in_background(void **unused) {
    (void)unused;
    const char *dir = test_path("failing-background");
    sago_piece pieces[SAMPLE_TENSORS];
    int n = sample_cut(3, 0, 1, 9, true, pieces);
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(NULL, true, &writer));
    sago_ckpt_save save = {.dir = dir, .step = 1, .pieces = pieces, .n_pieces = n, .keep = 1};
    n_calls = 0;
    failing_call = 5;
    assert_ok(sago_ckpt_writer_start(writer, &save));
    int64_t step;
    assert_int_equal(sago_ckpt_writer_wait(writer, &step), SAGO_E_IO);
    assert_int_equal(step, -1);
    failing_call = 0;
    save.step = 2;
    assert_ok(sago_ckpt_writer_start(writer, &save));
    /* The snapshot is the writer's own: what the caller does next does not matter. */
    for (int i = 0; i < n; i++) memset(pieces[i].data, 0, 1);
    assert_ok(sago_ckpt_writer_wait(writer, &step));
    assert_int_equal(step, 2);
    sago_ckpt_writer_close(writer);
    sample_free(pieces, n);
    assert_newest(dir, 2, 9);
}

/* A limit on file sizes: the places of tensors can't even be laid out. */
static void failing_layout(void **unused) {
    (void)unused;
    const char *dir = test_path("layout");
    assert_ok(sample_save(dir, 1, 1, 1, 0));
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (int i = 0; i < 3; i++) {
        small = before;
        small.rlim_cur = (rlim_t[]){0, 1000, 100000}[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        sago_status status = sample_save(dir, 2, 2, 1, 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(status, SAGO_E_IO);
        assert_non_null(strstr(sago_message(), "File too large"));
        assert_newest(dir, 1, 1);
    }
    assert_ok(sample_save(dir, 2, 2, 1, 0));
    assert_newest(dir, 2, 2);
}

static void folder_in_the_way(void **unused) {
    (void)unused;
    const char *file = test_write("file", "x", 1);
    assert_fails(sample_save(file, 1, 1, 0, 0), SAGO_E_IO, "file: ");
    /* Root may write everywhere; /proc takes nothing from anyone. */
    assert_fails(sample_save("/proc/none", 1, 1, 0, 0), SAGO_E_IO, "/proc/none: cannot make the folder");
    if (geteuid() == 0) return;
    const char *dir = test_path("read-only");
    assert_ok(sample_save(dir, 1, 1, 0, 0));
    assert_int_equal(chmod(dir, 0555), 0);
    sago_status status = sample_save(dir, 2, 2, 1, 0);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(status, SAGO_E_IO);
    assert_non_null(strstr(sago_message(), "Permission denied"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resharding),
        cmocka_unit_test(retention),
        cmocka_unit_test(same_step_again),
        cmocka_unit_test(reproducible),
        cmocka_unit_test(leftovers),
        cmocka_unit_test(empty_and_absent),
        cmocka_unit_test(wrong_requests),
        cmocka_unit_test(pieces_in_memory_far_away),
        cmocka_unit_test(pieces_in_memory_far_away),
        cmocka_unit_test(pieces_that_do_not_fit),
        cmocka_unit_test(failing_disk),
        cmocka_unit_test(failing_disk_in_background),
        cmocka_unit_test(failing_layout),
        cmocka_unit_test(folder_in_the_way),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
