// SPDX-License-Identifier: Apache-2.0
#include "hf_folder.h"

#include "file.h"
#include "str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *sago_hf_part_name(int part, int n_parts) {
    if (n_parts == 1) return sago_strdup("model.safetensors");
    return sago_format("model-%05d-of-%05d.safetensors", part + 1, n_parts);
}

/* Would a reader of models take a file of this name for weights? */
static bool names_weights(const char *name) {
    int part, n_parts, end = 0;
    if (strcmp(name, "model.safetensors") == 0 || strcmp(name, "model.safetensors.index.json") == 0)
        return true;
    return sscanf(name, "model-%5d-of-%5d.safetensors%n", &part, &n_parts, &end) == 2 && end > 0 &&
           !name[end];
}

static void remove_leftovers(const char *dir, const sago_names *names) {
    for (size_t i = 0; i < names->count; i++) {
        char *name = sago_strdup(names->names[i]), *end = strstr(name, ".tmp-");
        if (end) *end = '\0';
        if (end && names_weights(name)) {
            char *path = sago_path_join(dir, name);
            free(sago_file_temporary(path)); /* looks after the dead on its way */
            free(path);
        }
        free(name);
    }
}

sago_status sago_hf_folder_open(const char *dir, sago_hf_folder *out) {
    *out = (sago_hf_folder){.dir = dir, .made = !sago_is_dir(dir)};
    sago_names names = {0};
    SAGO_TRY(sago_dir_make(dir));
    SAGO_TRY(sago_dir_list(dir, &names));
    remove_leftovers(dir, &names);
    sago_names_free(&names);
    return SAGO_OK;
}

const char *sago_hf_folder_add(sago_hf_folder *folder, const char *name) {
    int i = folder->n_files++;
    folder->paths = sago_realloc(folder->paths, (size_t)folder->n_files * sizeof *folder->paths);
    folder->temporary = sago_realloc(folder->temporary, (size_t)folder->n_files * sizeof *folder->temporary);
    folder->paths[i] = sago_path_join(folder->dir, name);
    folder->temporary[i] = sago_file_temporary(folder->paths[i]);
    return folder->temporary[i];
}

/* False when either cannot be read: then the rename says why. */
static bool differ(const char *a, const char *b) {
    static char left[1 << 16], right[sizeof left];
    FILE *first = fopen(a, "rb"), *second = fopen(b, "rb");
    bool other = false;
    for (size_t n = sizeof left; first && second && !other && n == sizeof left;) {
        n = fread(left, 1, sizeof left, first);
        other = fread(right, 1, sizeof right, second) != n || memcmp(left, right, n) != 0;
    }
    if (first) fclose(first);
    if (second) fclose(second);
    return other;
}

static bool is_ours(const sago_hf_folder *folder, const char *name) {
    for (int i = 0; i < folder->n_files; i++)
        if (strcmp(sago_path_base(folder->paths[i]), name) == 0) return true;
    return false;
}

/* Keeps of the names in the folder those of weights that are no part of this export. */
static sago_status list_stale(const sago_hf_folder *folder, sago_names *stale) {
    SAGO_TRY(sago_dir_list(folder->dir, stale));
    size_t n = 0;
    for (size_t i = 0; i < stale->count; i++)
        if (names_weights(stale->names[i]) && !is_ours(folder, stale->names[i]))
            stale->names[n++] = stale->names[i];
        else
            free(stale->names[i]);
    stale->count = n;
    return SAGO_OK;
}

/* What is there and says something else is somebody's work; the same export again changes nothing. */
static sago_status check_free(const sago_hf_folder *folder, const sago_names *stale) {
    for (int i = 0; i < folder->n_files; i++)
        if (sago_is_file(folder->paths[i]) && differ(folder->paths[i], folder->temporary[i]))
            return sago_fail(SAGO_E_BUSY, "%s: belongs to another model; give another folder, or --force",
                             folder->paths[i]);
    if (stale->count == 0) return SAGO_OK;
    return sago_fail(SAGO_E_BUSY, "%s/%s: belongs to another export; give another folder, or --force",
                     folder->dir, stale->names[0]);
}

static sago_status remove_file(const char *path) {
    if (unlink(path) == 0 || errno == ENOENT) return SAGO_OK;
    return sago_fail_errno(SAGO_E_IO, "%s: cannot remove", path);
}

static sago_status clear(const sago_hf_folder *folder, const sago_names *stale) {
    SAGO_TRY(remove_file(folder->paths[0]));
    SAGO_TRY(sago_dir_sync(folder->dir));
    for (size_t i = 0; i < stale->count; i++) {
        char *path = sago_path_join(folder->dir, stale->names[i]);
        sago_status status = remove_file(path);
        free(path);
        SAGO_TRY(status);
    }
    return SAGO_OK;
}

static sago_status name_file(sago_hf_folder *folder, int i) {
    if (rename(folder->temporary[i], folder->paths[i]) != 0)
        return sago_fail_errno(SAGO_E_IO, "%s: cannot replace", folder->paths[i]);
    free(folder->temporary[i]);
    folder->temporary[i] = NULL;
    return SAGO_OK;
}

sago_status sago_hf_folder_commit(sago_hf_folder *folder, bool replace) {
    sago_names stale = {0};
    sago_status status;
    SAGO_TRY_TO(done, list_stale(folder, &stale));
    SAGO_TRY_TO(done, replace ? clear(folder, &stale) : check_free(folder, &stale));
    for (int i = 1; i < folder->n_files; i++) SAGO_TRY_TO(done, name_file(folder, i));
    SAGO_TRY_TO(done, sago_dir_sync(folder->dir));
    SAGO_TRY_TO(done, name_file(folder, 0));
    SAGO_TRY_TO(done, sago_dir_sync(folder->dir));
    folder->made = false;
done:
    sago_names_free(&stale);
    return status;
}

void sago_hf_folder_close(sago_hf_folder *folder) {
    for (int i = 0; i < folder->n_files; i++) {
        if (folder->temporary[i]) unlink(folder->temporary[i]);
        free(folder->temporary[i]);
        free(folder->paths[i]);
    }
    if (folder->made) rmdir(folder->dir);
    free(folder->temporary);
    free(folder->paths);
    *folder = (sago_hf_folder){0};
}
