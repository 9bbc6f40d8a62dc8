// SPDX-License-Identifier: Apache-2.0
/* Files of a test in a folder of its own, which goes away at the end of the program. */
#ifndef SAGO_TEST_FILES_H
#define SAGO_TEST_FILES_H

#include "config.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char test_folder[64];

static inline void test_folder_remove(void) {
    if (sago_dir_remove(test_folder) != SAGO_OK) fprintf(stderr, "%s stays behind\n", test_folder);
}

/* "FOLDER/NAME"; valid until the eighth call after it. */
static inline const char *test_path(const char *name) {
    static char paths[8][512];
    static int turn;
    if (!test_folder[0]) {
        snprintf(test_folder, sizeof test_folder, "/tmp/sago-test-XXXXXX");
        if (!mkdtemp(test_folder)) abort();
        atexit(test_folder_remove);
    }
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", test_folder, name);
    return paths[turn];
}

static inline const char *test_write_bytes(const char *name, const char *bytes, size_t length) {
    const char *path = test_path(name);
    char *dir = sago_path_dir(path);
    if (sago_dir_make(dir) != SAGO_OK || sago_file_replace(path, bytes, length) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
        abort();
    }
    free(dir);
    return path;
}

static inline const char *test_write(const char *name, const char *text) {
    return test_write_bytes(name, text, strlen(text));
}

/* A configuration of these lines; its cache stands in the folder too. Free it with sago_config_free. */
static inline sago_config *test_config(const char *text) {
    static const char *set;
    sago_config *config = NULL;
    char *cache = sago_format("data.cache_dir=%s", test_path("cache"));
    char *sets[] = {cache};
    set = test_write("config.yaml", text);
    if (sago_config_load(set, sets, 1, &config) != SAGO_OK) {
        fprintf(stderr, "%s\n", sago_message());
        abort();
    }
    free(cache);
    return config;
}

#endif
