// SPDX-License-Identifier: Apache-2.0
/* The index cache: made once, reused, renewed file by file, rebuilt when it is damaged, and never needed. */
#include "files.h"
#include "index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const sago_source jsonl = {.format = SAGO_FORMAT_JSONL};
static const sago_string_list none;

static void write_task(const char *name, int first, int count) {
    sago_str text = {0};
    for (int i = first; i < first + count; i++)
        sago_str_printf(&text, "{\"inputs\": \"question %d\", \"targets\": \"%s\"}\n", i,
                        i % 2 ? "odd" : "even");
    test_write_bytes(name, text.data, text.length);
    sago_str_free(&text);
}

static sago_index *open_index(const char *folder, const char *cache, const sago_string_list *include) {
    sago_index *index = NULL;
    sago_status status = sago_index_open(&jsonl, folder, cache, include, &none, 2, &index);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
    return index;
}

static char *only_cache_file(const char *cache) {
    sago_names names;
    char *found = NULL;
    assert_int_equal(sago_dir_list(cache, &names), SAGO_OK);
    for (size_t i = 0; i < names.count; i++) {
        if (strcmp(names.names[i], "index.lock") == 0) continue;
        assert_null(found);
        found = sago_path_join(cache, names.names[i]);
    }
    sago_names_free(&names);
    assert_non_null(found);
    return found;
}

static void check_contents(const sago_index *index) {
    sago_str bytes = {0};
    assert_int_equal(sago_index_tasks(index), 3);
    assert_string_equal(sago_index_string(index, sago_index_task_at(index, 1)->name), "b");
    assert_int_equal(sago_index_task_at(index, 1)->n_examples, 20);
    assert_int_equal(sago_index_read(index, 1, 7, &bytes), SAGO_OK);
    assert_string_equal(bytes.data, "{\"inputs\": \"question 107\", \"targets\": \"odd\"}");
    assert_string_equal(sago_index_string(index, sago_index_task_at(index, 1)->labels), "even\nodd\n");
    assert_string_equal(sago_index_string(index, sago_index_task_at(index, 2)->labels), "");
    const sago_record *records = sago_index_records(index, 1);
    const uint32_t *order = sago_index_by_hash(index, 1);
    for (int i = 1; i < 20; i++) assert_true(records[order[i - 1]].hash <= records[order[i]].hash);
    sago_str_free(&bytes);
}

static void reuse_and_rebuild(void **state) {
    (void)state;
    write_task("set/a.jsonl", 0, 10);
    write_task("set/b.jsonl", 100, 20);
    write_task("set/c.jsonl", 200, 2);
    test_write("set/readme.txt", "not a task");
    const char *folder = test_path("set"), *cache = test_path("index");

    sago_index *index = open_index(folder, cache, &none);
    assert_int_equal(sago_index_scanned(index), 3);
    check_contents(index);
    sago_index_close(index);

    index = open_index(folder, cache, &none);
    assert_int_equal(sago_index_scanned(index), 0);
    check_contents(index);
    sago_index_close(index);

    /* One file changes: it alone is read again. */
    write_task("set/a.jsonl", 0, 11);
    index = open_index(folder, cache, &none);
    assert_int_equal(sago_index_scanned(index), 1);
    assert_int_equal(sago_index_task_at(index, 0)->n_examples, 11);
    check_contents(index);

    /* Nothing stands beside the data. */
    sago_names names;
    assert_int_equal(sago_dir_list(folder, &names), SAGO_OK);
    assert_int_equal(names.count, 4);
    sago_names_free(&names);

    /* A file that changes under an open index is not read as if it had not. */
    sago_str bytes = {0};
    write_task("set/a.jsonl", 0, 12);
    assert_int_equal(sago_index_read(index, 0, 0, &bytes), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "has changed"));
    sago_str_free(&bytes);
    sago_index_close(index);
    write_task("set/a.jsonl", 0, 11);
}

/* Whoever writes an index removes those that nobody opened for long; opening one counts. */
static void old_indices_are_removed(void **state) {
    (void)state;
    write_task("aged/a.jsonl", 0, 3);
    write_task("fresh/a.jsonl", 0, 3);
    const char *cache = test_path("aging");
    sago_index_close(open_index(test_path("aged"), cache, &none));
    char *file = only_cache_file(cache);
    const time_t old = time(NULL) - (SAGO_INDEX_KEPT_DAYS + 1) * 86400;
    const struct timespec then[2] = {{.tv_sec = old}, {.tv_sec = old}};
    assert_int_equal(utimensat(AT_FDCWD, file, then, 0), 0);
    sago_index *index = open_index(test_path("aged"), cache, &none);
    assert_int_equal(sago_index_scanned(index), 0);
    sago_index_close(index);
    sago_index_close(open_index(test_path("fresh"), cache, &none));
    assert_true(sago_is_file(file)); /* opened a moment ago */
    test_write("aging/keep-me", "not an index");
    assert_int_equal(utimensat(AT_FDCWD, file, then, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, test_path("aging/keep-me"), then, 0), 0);
    write_task("fresh/a.jsonl", 0, 4);
    sago_index_close(open_index(test_path("fresh"), cache, &none));
    assert_false(sago_is_file(file));
    assert_true(sago_is_file(test_path("aging/keep-me")));
    free(file);
}

static void damaged_cache(void **state) {
    (void)state;
    const char *folder = test_path("set"), *cache = test_path("index");
    sago_index_close(open_index(folder, cache, &none));
    char *file = only_cache_file(cache);
    sago_str good = {0};
    assert_int_equal(sago_file_read(file, 0, &good), SAGO_OK);
    /* Every kind of damage: cut short at many lengths, any one byte flipped, foreign bytes, empty. */
    for (size_t at = 0; at < good.length; at += 1 + good.length / 60) {
        sago_str bad = {0};
        sago_str_add(&bad, good.data, good.length);
        bad.data[at] ^= 0x40;
        assert_int_equal(sago_file_replace(file, bad.data, bad.length), SAGO_OK);
        sago_index *index = open_index(folder, cache, &none);
        assert_int_equal(sago_index_scanned(index), 3);
        check_contents(index);
        sago_index_close(index);
        assert_int_equal(sago_file_replace(file, good.data, at), SAGO_OK);
        index = open_index(folder, cache, &none);
        assert_int_equal(sago_index_scanned(index), 3);
        sago_index_close(index);
        sago_str_free(&bad);
    }
    sago_str now = {0};
    assert_int_equal(sago_file_read(file, 0, &now), SAGO_OK);
    assert_int_equal(now.length, good.length);
    assert_memory_equal(now.data, good.data, good.length);
    sago_str_free(&now);
    sago_str_free(&good);
    free(file);
}

static void selection(void **state) {
    (void)state;
    const char *folder = test_path("set"), *cache = test_path("selected");
    char *patterns[] = {"b", "c*"};
    sago_string_list include = {patterns, 2};
    sago_index *index = open_index(folder, cache, &include);
    assert_int_equal(sago_index_tasks(index), 2);
    assert_int_equal(sago_index_scanned(index), 2);
    assert_string_equal(sago_path_base(sago_index_path(index, 0)), "b.jsonl");
    sago_index_close(index);
    /* The other file joins; the two stay known. */
    index = open_index(folder, cache, &none);
    assert_int_equal(sago_index_scanned(index), 1);
    check_contents(index);
    sago_index_close(index);
    index = open_index(folder, cache, &include);
    assert_int_equal(sago_index_scanned(index), 0);
    sago_index_close(index);
    char *nothing[] = {"zzz"};
    include = (sago_string_list){nothing, 1};
    assert_int_equal(sago_index_open(&jsonl, folder, cache, &include, &none, 1, &index), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "leave none"));
}

static void without_cache(void **state) {
    (void)state;
    /* A file stands where the cache folder would be. */
    const char *folder = test_path("set"), *cache = test_write("blocked", "x");
    sago_index *index = open_index(folder, cache, &none);
    check_contents(index);
    sago_index_close(index);
}

static void errors(void **state) {
    (void)state;
    sago_index *index;
    test_write("bad/a.jsonl", "{\"inputs\": \"a\", \"targets\": \"b\"}\n");
    test_write("bad/b.jsonl", "");
    assert_int_equal(sago_index_open(&jsonl, test_path("bad"), test_path("index"), &none, &none, 2, &index),
                     SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "bad/b.jsonl:1: the file is empty"));
    assert_int_equal(
        sago_index_open(&jsonl, test_path("nowhere"), test_path("index"), &none, &none, 2, &index),
        SAGO_E_IO);
    assert_non_null(strstr(sago_message(), "nowhere"));
    /* A pipe would never end; as a member it is refused, in a folder passed over. */
    assert_int_equal(mkfifo(test_path("pipe"), 0666), 0);
    assert_int_equal(sago_index_open(&jsonl, test_path("pipe"), test_path("index"), &none, &none, 1, &index),
                     SAGO_E_IO);
    assert_non_null(strstr(sago_message(), "not a regular file"));
    assert_int_equal(mkfifo(test_path("set/pipe.jsonl"), 0666), 0);
    index = open_index(test_path("set"), test_path("index"), &none);
    assert_int_equal(sago_index_tasks(index), 3);
    sago_index_close(index);
    assert_int_equal(mkdir(test_path("hollow"), 0777), 0);
    assert_int_equal(
        sago_index_open(&jsonl, test_path("hollow"), test_path("index"), &none, &none, 2, &index),
        SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "no files"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reuse_and_rebuild), cmocka_unit_test(old_indices_are_removed),
        cmocka_unit_test(damaged_cache), cmocka_unit_test(selection),
        cmocka_unit_test(without_cache),     cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
