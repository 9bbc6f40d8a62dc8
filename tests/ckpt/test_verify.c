// SPDX-License-Identifier: Apache-2.0
/* Damage of every kind to every file of a step directory: it is found, that file is named, and no other. */
#include "sample.h"

#include "shard.h"
#include "steps.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *const files[] = {"MANIFEST.json", "shard-00000-of-00001.h5", "tokenizer.model"};
enum { N_FILES = 3 };

typedef struct reports {
    int count;
    char text[4][512];
} reports;

static void collect(const char *text, void *context) {
    reports *r = context;
    if (r->count < 4) snprintf(r->text[r->count], sizeof r->text[0], "%s", text);
    r->count++;
}

static const char *step_dir(void) {
    return test_path("run/step-000001");
}

static reports verify(void) {
    reports r = {0};
    sago_status status = sago_ckpt_verify(step_dir(), collect, &r);
    assert_int_equal(status, r.count ? SAGO_E_CORRUPT : SAGO_OK);
    return r;
}

static void assert_only(const char *name, const char *part) {
    reports r = verify();
    assert_int_equal(r.count, 1);
    if (strncmp(r.text[0], name, strlen(name)) != 0 || !strstr(r.text[0], part))
        fail_msg("%s, %s: not said in: %s", name, part, r.text[0]);
    assert_null(strchr(r.text[0], '\n'));
    for (int i = 1; i < N_FILES; i++)
        if (strcmp(files[i], name) != 0) assert_null(strstr(r.text[0], files[i]));
}

/* A state so small that each byte of each file can be tried. */
static int save_small(void **unused) {
    (void)unused;
    if (make_test_folder(NULL) != 0) return -1;
    static float values[6] = {1, 2, 3, 4, 5, 6};
    sago_piece p[2] = {{"param/a", SAGO_F32, 1, {2, 1}, {0, 0}, {2, 1}, values},
                       {"param/b", SAGO_F32, 2, {2, 2}, {0, 0}, {2, 2}, values + 2}};
    const sago_side_file file = {SAGO_TOKENIZER_FILE, "tokens", 6};
    json_t *meta = json_object();
    const sago_ckpt_save save = {test_path("run"), 1, meta, p, 2, &file, 1, 0, 0};
    sago_ckpt_writer *writer;
    if (sago_ckpt_writer_open(NULL, false, &writer) != SAGO_OK) return -1;
    sago_status status = sago_ckpt_writer_start(writer, &save);
    sago_ckpt_writer_close(writer);
    json_decref(meta);
    return status == SAGO_OK ? 0 : -1;
}

static char *file_path(int i) {
    return sago_path_join(step_dir(), files[i]);
}

static void rewrite(const char *path, const void *bytes, size_t length) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

/* The tensor at a byte of the shard, or NULL. */
static const char *tensor_at(const sago_manifest *m, int64_t byte) {
    for (int i = 0; i < m->n_tensors; i++) {
        const sago_manifest_piece *p = &m->tensors[i].pieces[0];
        if (byte >= p->at && byte < p->at + sago_manifest_piece_bytes(&m->tensors[i], p))
            return m->tensors[i].name;
    }
    return NULL;
}

static void every_byte(void **unused) {
    (void)unused;
    assert_int_equal(verify().count, 0);
    sago_manifest m;
    char *manifest_path = file_path(0);
    assert_ok(sago_manifest_read(manifest_path, &m));
    int n_in_tensors = 0;
    for (int i = 0; i < N_FILES; i++) {
        char *path = file_path(i);
        sago_str whole = {0};
        assert_ok(sago_file_read(path, 0, &whole));
        for (size_t at = 0; at < whole.length; at++) {
            whole.data[at] ^= (char)(1 << at % 8);
            rewrite(path, whole.data, whole.length);
            const char *tensor = i == 1 ? tensor_at(&m, (int64_t)at) : NULL;
            assert_only(files[i], tensor ? tensor : i == 1 ? "the bytes of its tensors are whole" : "");
            n_in_tensors += tensor != NULL;
            whole.data[at] ^= (char)(1 << at % 8);
        }
        rewrite(path, whole.data, whole.length);
        sago_str_free(&whole);
        free(path);
    }
    assert_int_equal(n_in_tensors, 24);
    assert_int_equal(verify().count, 0);
    sago_manifest_free(&m);
    free(manifest_path);
}

static void sizes(void **unused) {
    (void)unused;
    for (int i = 0; i < N_FILES; i++) {
        char *path = file_path(i);
        sago_str whole = {0};
        assert_ok(sago_file_read(path, 0, &whole));
        const size_t cuts[] = {0, 1, whole.length / 2, whole.length - 1};
        for (int k = 0; k < 4; k++) {
            rewrite(path, whole.data, cuts[k]);
            assert_only(files[i], "");
        }
        sago_str_putc(&whole, '\0');
        rewrite(path, whole.data, whole.length);
        assert_only(files[i], "");
        assert_int_equal(unlink(path), 0);
        assert_only(files[i], i ? "missing" : "");
        assert_int_equal(mkdir(path, 0777), 0);
        assert_only(files[i], "");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(symlink("/dev/zero", path), 0);
        if (i) assert_only(files[i], "is no plain file");
        assert_int_equal(unlink(path), 0);
        rewrite(path, whole.data, whole.length - 1);
        sago_str_free(&whole);
        free(path);
    }
    assert_int_equal(verify().count, 0);
}

static void foreign_files(void **unused) {
    (void)unused;
    char *extra = sago_path_join(step_dir(), "notes.txt"), *hidden = sago_path_join(step_dir(), ".x");
    rewrite(extra, "", 0);
    assert_only("notes.txt", "does not belong");
    assert_int_equal(unlink(extra), 0);
    assert_ok(sago_dir_make(hidden));
    assert_only(".x", "does not belong");
    assert_int_equal(rmdir(hidden), 0);
    free(extra);
    free(hidden);
}

/* A MANIFEST that vouches for an HDF5 file of somebody else, or for no HDF5 at all, does not make it a shard.
 */
static void hdf5_from_elsewhere(void **unused) {
    (void)unused;
    sago_manifest m;
    char *path = file_path(0), *shard = file_path(1);
    assert_ok(sago_manifest_read(path, &m));
    assert_ok(sago_shard_check(shard, &m, 0));
    m.tensors[0].pieces[0].at += 4;
    assert_fails(sago_shard_check(shard, &m, 0), SAGO_E_CORRUPT, "dataset /param/a is not what");
    m.tensors[0].pieces[0].at -= 4;
    m.tensors[0].dtype = SAGO_BF16;
    assert_fails(sago_shard_check(shard, &m, 0), SAGO_E_CORRUPT, "dataset /param/a is not what");
    m.tensors[0].dtype = SAGO_F32;
    m.tensors[1].pieces[0].shape[1] = 3;
    assert_fails(sago_shard_check(shard, &m, 0), SAGO_E_CORRUPT, "dataset /param/b is not what");
    assert_fails(sago_shard_check(path, &m, 0), SAGO_E_CORRUPT, "not a shard");
    sago_manifest_free(&m);
    free(path);
    free(shard);
}

/* Loading checks what it reads, and opening falls back to the step before. */
static void loading_damage(void **unused) {
    (void)unused;
    const char *dir = test_path("fallback");
    assert_ok(sample_save(dir, 1, 1, 0, 0));
    assert_ok(sample_save(dir, 2, 2, 0, 0));
    char *shard = sago_format("%s/step-000002/%s", dir, files[1]),
         *manifest = sago_format("%s/step-000002/MANIFEST.json", dir);
    sago_manifest m;
    assert_ok(sago_manifest_read(manifest, &m));
    const sago_manifest_piece *p = &m.tensors[sago_manifest_find(&m, "param/shared.embedding")].pieces[0];
    sago_str whole = {0};
    assert_ok(sago_file_read(shard, 0, &whole));
    whole.data[p->at + SAGO_HASH_BLOCK_BYTES + 5] ^= 1;
    rewrite(shard, whole.data, whole.length);
    sago_ckpt *ckpt;
    assert_ok(sago_ckpt_open(dir, false, &ckpt)); /* sizes hold */
    assert_int_equal(sago_ckpt_step(ckpt), 2);
    sago_piece low = sample_piece(0, 0, 10, 0, 1009, 2, false),
               high = sample_piece(0, 1200, 1201, 3, 9, 2, false);
    assert_ok(sago_ckpt_load(ckpt, &low, 1)); /* its block is whole: only the bytes needed are read */
    sample_assert_piece(&low, 2);
    assert_fails(sago_ckpt_load(ckpt, &high, 1), SAGO_E_CORRUPT, "damaged: tensor param/shared.embedding");
    free(low.data);
    free(high.data);
    sago_ckpt_close(ckpt);
    assert_ok(sago_ckpt_open(dir, true, &ckpt));
    assert_int_equal(sago_ckpt_step(ckpt), 1);
    sample_assert_loads(ckpt, 3, 0, 1, 1);
    sago_ckpt_close(ckpt);
    rewrite(shard, whole.data, whole.length / 2);
    assert_ok(sago_ckpt_open(dir, false, &ckpt)); /* a wrong size shows at once */
    assert_int_equal(sago_ckpt_step(ckpt), 1);
    sago_ckpt_close(ckpt);
    /* The damaged step is in the way of the run's next save of it. */
    assert_ok(sample_save(dir, 2, 5, 0, 0));
    assert_ok(sago_ckpt_open(dir, true, &ckpt));
    assert_int_equal(sago_ckpt_step(ckpt), 2);
    sample_assert_loads(ckpt, 3, 0, 1, 5);
    sago_ckpt_close(ckpt);
    /* Nothing whole is left. */
    for (int step = 1; step <= 2; step++) {
        char *name = sago_format("%s/step-%06d/MANIFEST.json", dir, step);
        rewrite(name, "{}", 2);
        free(name);
    }
    assert_fails(sago_ckpt_open(dir, true, &ckpt), SAGO_E_CORRUPT, "step-000001/MANIFEST.json: damaged");
    sago_manifest_free(&m);
    sago_str_free(&whole);
    free(shard);
    free(manifest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte),     cmocka_unit_test(sizes),
        cmocka_unit_test(foreign_files),  cmocka_unit_test(hdf5_from_elsewhere),
        cmocka_unit_test(loading_damage),
    };
    return cmocka_run_group_tests(tests, save_small, remove_test_folder);
}
