// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void reading(void **state) {
    (void)state;
    sago_str text = {0};
    const char *path = test_write("read", "a\0b", 3);
    assert_ok(sago_file_read(path, 0, &text));
    assert_int_equal(text.length, 3);
    assert_memory_equal(text.data, "a\0b", 4);
    assert_ok(sago_file_read(path, 3, &text));
    assert_fails(sago_file_read(path, 2, &text), SAGO_E_INPUT, "larger than 2 bytes");
    assert_fails(sago_file_read(test_path("none"), 0, &text), SAGO_E_IO, "none: cannot open: No such file");
    assert_fails(sago_file_read(test_folder, 0, &text), SAGO_E_IO, "is a folder");
    assert_ok(sago_file_read(test_write("empty", "", 0), 0, &text));
    assert_int_equal(text.length, 0);
    /* Larger than any block that is read at once. */
    size_t size = (40u << 20) + 1;
    char *bytes = sago_alloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 2654435761u >> 24);
    path = test_write("large", bytes, size);
    assert_ok(sago_file_read(path, 0, &text));
    assert_int_equal(text.length, size);
    assert_memory_equal(text.data, bytes, size);
    free(bytes);
    sago_str_free(&text);
}

static void replacing(void **state) {
    (void)state;
    sago_str text = {0};
    const char *path = test_write("replaced", "old", 3);
    assert_ok(sago_file_replace(path, "newer", 5));
    assert_ok(sago_file_read(path, 0, &text));
    assert_string_equal(sago_str_text(&text), "newer");
    assert_fails(sago_file_replace(test_path("none/x"), "a", 1), SAGO_E_IO, "cannot write");
    /* A folder in the way: the old thing stays, and nothing temporary. */
    assert_ok(sago_dir_make(test_path("way/inside")));
    assert_int_equal(sago_file_replace(test_path("way"), "a", 1), SAGO_E_IO);
    assert_true(sago_is_dir(test_path("way/inside")));
    /* A pipe, and a link as /dev/stdout is one, are no files that could be replaced. */
    struct stat info;
    assert_int_equal(mkfifo(test_path("pipe"), 0600), 0);
    assert_fails(sago_file_replace(test_path("pipe"), "a", 1), SAGO_E_IO, "no regular file");
    assert_int_equal(lstat(test_path("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(symlink("/proc/self/fd/1", test_path("standard-output")), 0);
    assert_fails(sago_file_replaceable(test_path("standard-output")), SAGO_E_IO, "no regular file");
    assert_fails(sago_file_replaceable(test_path("way")), SAGO_E_IO, "is a folder");
    assert_ok(sago_file_replaceable(test_path("replaced")));
    assert_ok(sago_file_replaceable(test_path("nothing-yet")));
    sago_names names;
    assert_ok(sago_dir_list(test_folder, &names));
    for (size_t i = 0; i < names.count; i++) assert_null(strstr(names.names[i], ".tmp-"));
    sago_names_free(&names);
    sago_str_free(&text);
}

static void full_disk(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) skip();
    FILE *file;
    assert_ok(sago_file_open("/dev/full", "wb", &file));
    assert_true(fputs("x", file) >= 0);
    assert_fails(sago_file_close_synced(file, "/dev/full"), SAGO_E_IO, "No space left");
}

static void folders(void **state) {
    (void)state;
    assert_ok(sago_dir_make(test_path("a/b/c")));
    assert_ok(sago_dir_make(test_path("a/b/c")));
    test_write("a/file", "x", 1);
    test_write("a/b/Zeta", "x", 1);
    test_write("a/b/alpha", "x", 1);
    assert_fails(sago_dir_make(test_path("a/file/d")), SAGO_E_IO, "a/file/d");
    assert_fails(sago_dir_make(test_path("a/file")), SAGO_E_IO, "in the way");
    assert_ok(sago_dir_sync(test_path("a")));
    sago_names names;
    assert_ok(sago_dir_list(test_path("a/b"), &names));
    assert_int_equal(names.count, 3);
    assert_string_equal(names.names[0], "Zeta");
    assert_string_equal(names.names[1], "alpha");
    assert_string_equal(names.names[2], "c");
    sago_names_free(&names);
    assert_fails(sago_dir_list(test_path("nowhere"), &names), SAGO_E_IO, "nowhere");
    assert_true(sago_is_dir(test_path("a")) && !sago_is_file(test_path("a")));
    assert_true(sago_is_file(test_path("a/file")) && !sago_is_dir(test_path("a/file")));
}

static void links_are_removed_and_not_followed(void **state) {
    (void)state;
    assert_ok(sago_dir_make(test_path("kept")));
    test_write("kept/precious", "x", 1);
    assert_ok(sago_dir_make(test_path("gone/deep")));
    assert_int_equal(symlink(test_path("kept"), test_path("gone/deep/link")), 0);
    assert_ok(sago_dir_remove(test_path("gone")));
    assert_false(sago_is_dir(test_path("gone")));
    assert_true(sago_is_file(test_path("kept/precious")));
    assert_int_equal(symlink(test_path("kept"), test_path("link")), 0);
    assert_ok(sago_dir_remove(test_path("link")));
    assert_true(sago_is_file(test_path("kept/precious")) && access(test_path("link"), F_OK) != 0);
}

static void line_is(sago_line_reader *reader, const char *text, size_t length, int64_t number,
                    int64_t offset) {
    bool more;
    assert_ok(sago_lines_next(reader, &more));
    assert_true(more);
    assert_int_equal(reader->line.length, length);
    assert_memory_equal(sago_str_text(&reader->line), text, length);
    assert_int_equal(reader->number, number);
    assert_int_equal(reader->offset, offset);
}

static void lines(void **state) {
    (void)state;
    static const char text[] = "one\r\n\ntwo\0x\nlast";
    sago_line_reader reader;
    bool more;
    assert_ok(sago_lines_open(&reader, test_write("lines", text, sizeof text - 1), 5));
    line_is(&reader, "one", 3, 1, 0);
    line_is(&reader, "", 0, 2, 5);
    line_is(&reader, "two\0x", 5, 3, 6);
    line_is(&reader, "last", 4, 4, 12);
    assert_ok(sago_lines_next(&reader, &more));
    assert_false(more);
    sago_lines_close(&reader);
    assert_ok(sago_lines_open(&reader, test_path("lines"), 4));
    line_is(&reader, "one", 3, 1, 0);
    line_is(&reader, "", 0, 2, 5);
    assert_fails(sago_lines_next(&reader, &more), SAGO_E_INPUT, "lines:3: the line is longer than 4 bytes");
    sago_lines_close(&reader);
    assert_fails(sago_lines_open(&reader, test_path("none"), 0), SAGO_E_IO, "none");
    sago_lines_close(&reader);
}

/* Lines of every length around the blocks that the reader takes, against a walk over the bytes themselves. */
static void lines_across_blocks(void **state) {
    (void)state;
    sago_str all = {0};
    uint64_t key = 1;
    for (int i = 0; i < 3000; i++) {
        key = key * 6364136223846793005u + 1442695040888963407u;
        size_t length = i % 100 == 0 ? 65530 + (size_t)(i / 100) : (size_t)(key >> 56);
        for (size_t j = 0; j < length; j++) sago_str_putc(&all, (char)('a' + (i + (int)j) % 26));
        sago_str_putc(&all, '\n');
    }
    sago_line_reader reader;
    assert_ok(sago_lines_open(&reader, test_write("blocks", all.data, all.length), 0));
    int64_t number = 0;
    for (const char *p = all.data, *end = all.data + all.length; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        line_is(&reader, p, (size_t)(newline - p), ++number, p - all.data);
        p = newline + 1;
    }
    bool more;
    assert_ok(sago_lines_next(&reader, &more));
    assert_false(more);
    sago_lines_close(&reader);
    sago_str_free(&all);
}

static void age(const char *path, time_t seconds) {
    const struct timespec then[2] = {{.tv_sec = time(NULL) - seconds}, {.tv_sec = time(NULL) - seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0);
}

/* A name for what will replace a file; killed writers' files of such names go, those of living ones stay. */
static void temporaries(void **state) {
    (void)state;
    pid_t gone = fork();
    if (gone == 0) _exit(0);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    char name[64];
    snprintf(name, sizeof name, "out.tmp-%ld", (long)gone);
    const char *dead = test_write(name, "half", 4);
    snprintf(name, sizeof name, "out.tmp-%ld", (long)getppid());
    const char *alive = test_write(name, "half", 4), *other = test_write("out.tmp-x1", "a", 1);
    age(alive, 3600), age(other, 3600);
    free(sago_file_temporary(test_path("out")));
    assert_true(sago_is_file(dead)); /* written to just now: by another node, for all we know */
    age(dead, 3600);
    char *mine = sago_file_temporary(test_path("out"));
    assert_false(sago_is_file(dead));
    assert_true(sago_is_file(alive));
    assert_true(sago_is_file(other));
    snprintf(name, sizeof name, "out.tmp-%ld", (long)getpid());
    assert_string_equal(mine, test_path(name));
    free(mine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading),
        cmocka_unit_test(replacing),
        cmocka_unit_test(temporaries),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(folders),
        cmocka_unit_test(links_are_removed_and_not_followed),
        cmocka_unit_test(lines),
        cmocka_unit_test(lines_across_blocks),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
