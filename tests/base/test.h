// SPDX-License-Identifier: Apache-2.0
/* What the tests of base share: cmocka with what it needs included before it, and a folder that goes at the
 * end. */
#ifndef SAGO_TEST_BASE_H
#define SAGO_TEST_BASE_H

#include "file.h"
#include "status.h"
#include "str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char test_folder[64];

static inline int make_test_folder(void **state) {
    (void)state;
    strcpy(test_folder, "/tmp/sago-test-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int remove_test_folder(void **state) {
    (void)state;
    return sago_dir_remove(test_folder) == SAGO_OK ? 0 : -1;
}

/* A path in the folder; valid until the fourth call after it. */
static inline const char *test_path(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

static inline const char *test_write(const char *name, const void *bytes, size_t length) {
    const char *path = test_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return path;
}

#define assert_ok(expression)                                                                                \
    do {                                                                                                     \
        if ((expression) != SAGO_OK) fail_msg("%s", sago_message());                                         \
    } while (0)

/* The call fails so, and its message has this in it. */
#define assert_fails(expression, wanted, part)                                                               \
    do {                                                                                                     \
        assert_int_equal(expression, wanted);                                                                \
        if (!strstr(sago_message(), part)) fail_msg("no \"%s\" in: %s", part, sago_message());               \
    } while (0)

#endif
