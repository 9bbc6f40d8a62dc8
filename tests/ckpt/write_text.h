// SPDX-License-Identifier: Apache-2.0
/* A text file of a test, for config.json and its like. Included after test.h. */
#ifndef SAGO_TEST_WRITE_TEXT_H
#define SAGO_TEST_WRITE_TEXT_H

#include "file.h"

#include <stdio.h>
#include <stdlib.h>

static inline void write_text(const char *dir, const char *name, const char *text) {
    char *path = sago_path_join(dir, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    free(path);
}

#endif
