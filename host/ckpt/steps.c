// SPDX-License-Identifier: Apache-2.0
#include "steps.h"

#include "file.h"
#include "str.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_DIGITS = 18 }; /* what fits an int64_t whatever the digits are */

char *sago_step_path(const char *dir, int64_t step) {
    return sago_format("%s/step-%06lld", dir, (long long)step);
}

static size_t count_digits(const char *text) {
    size_t n = 0;
    while (isdigit((unsigned char)text[n])) n++;
    return n;
}

bool sago_step_parse(const char *name, int64_t *step) {
    if (!sago_starts_with(name, "step-")) return false;
    size_t digits = count_digits(name + 5);
    if (digits == 0 || digits > MOST_DIGITS || name[5 + digits] != '\0') return false;
    *step = strtoll(name + 5, NULL, 10);
    return true;
}

static bool is_leftover(const char *name) {
    if (!sago_starts_with(name, "step-")) return false;
    size_t digits = count_digits(name + 5);
    return digits > 0 && sago_starts_with(name + 5 + digits, ".tmp-");
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

sago_status sago_steps_list(const char *dir, int64_t **steps, int *n_steps) {
    sago_names names;
    *steps = NULL;
    *n_steps = 0;
    SAGO_TRY(sago_dir_list(dir, &names));
    *steps = sago_alloc(names.count * sizeof **steps);
    for (size_t i = 0; i < names.count; i++) {
        int64_t step;
        if (!sago_step_parse(names.names[i], &step)) continue;
        char *manifest = sago_format("%s/%s/" SAGO_MANIFEST_NAME, dir, names.names[i]);
        /* A number may stand there twice, padded in two ways; the name that this program writes is the one.
         */
        char *path = sago_step_path(dir, step);
        if (sago_is_file(manifest) && strcmp(sago_path_base(path), names.names[i]) == 0)
            (*steps)[(*n_steps)++] = step;
        free(path);
        free(manifest);
    }
    sago_names_free(&names);
    qsort(*steps, (size_t)*n_steps, sizeof **steps, ascending);
    return SAGO_OK;
}

sago_status sago_steps_sweep(const char *dir) {
    sago_names names;
    SAGO_TRY(sago_dir_list(dir, &names));
    sago_status status = SAGO_OK;
    for (size_t i = 0; i < names.count && status == SAGO_OK; i++) {
        if (!is_leftover(names.names[i])) continue;
        char *path = sago_path_join(dir, names.names[i]);
        status = sago_dir_remove(path);
        free(path);
    }
    sago_names_free(&names);
    return status;
}

sago_status sago_step_remove(const char *dir, int64_t step) {
    char *path = sago_step_path(dir, step);
    char *going = sago_format("%s.tmp-removed-%ld", path, (long)getpid());
    sago_status status = SAGO_OK;
    if (rename(path, going) != 0)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot remove", path);
    else
        status = sago_dir_remove(going);
    free(going);
    free(path);
    return status;
}

sago_status sago_steps_retain(const char *dir, int64_t newest, int64_t keep, int64_t keep_every, bool remove,
                              int *n_going) {
    int64_t *steps;
    int n_steps;
    *n_going = 0;
    if (keep <= 0) return SAGO_OK;
    sago_status status = sago_steps_list(dir, &steps, &n_steps);
    int n_older = 0;
    while (n_older < n_steps && steps[n_older] < newest) n_older++;
    /* The newest itself is one of the `keep`. */
    for (int i = 0; status == SAGO_OK && i < n_older - (keep - 1); i++) {
        if (keep_every > 0 && steps[i] % keep_every == 0) continue;
        ++*n_going;
        if (remove) status = sago_step_remove(dir, steps[i]);
    }
    free(steps);
    return status;
}
