// SPDX-License-Identifier: Apache-2.0
#include "file.h"
#include "open.h"
#include "rng.h"
#include "shard.h"
#include "steps.h"
#include "str.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { MOST_NAMED_TENSORS = 8 };

typedef struct verification {
    const char *dir;
    sago_manifest manifest;
    void (*report)(const char *text, void *context);
    void *context;
    int n_damaged;
    char *buffer; /* SAGO_HASH_BLOCK_BYTES */
} verification;

static void report(verification *v, const char *text) {
    v->n_damaged++;
    if (v->report) v->report(text, v->context);
}

static bool file_hash_holds(verification *v, int fd, const char *path, const sago_manifest_file *file) {
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    sago_status status = SAGO_OK;
    for (int64_t at = 0; at < file->bytes && status == SAGO_OK;) {
        int64_t left = file->bytes - at;
        size_t count = left < SAGO_HASH_BLOCK_BYTES ? (size_t)left : SAGO_HASH_BLOCK_BYTES;
        status = sago_read_at(fd, path, v->buffer, count, at);
        if (status == SAGO_OK) XXH3_64bits_update(hash, v->buffer, count);
        at += (int64_t)count;
    }
    uint64_t got = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return status == SAGO_OK && got == file->hash;
}

static bool piece_hashes_hold(verification *v, int fd, const sago_manifest_tensor *t,
                              const sago_manifest_piece *p) {
    int64_t bytes = sago_manifest_piece_bytes(t, p);
    for (int64_t i = 0; i < p->n_hashes; i++) {
        int64_t from = i * SAGO_HASH_BLOCK_BYTES;
        size_t count = bytes - from < SAGO_HASH_BLOCK_BYTES ? (size_t)(bytes - from) : SAGO_HASH_BLOCK_BYTES;
        if (sago_read_at(fd, "", v->buffer, count, p->at + from) != SAGO_OK) return false;
        if (sago_hash_bytes(v->buffer, count) != p->hashes[i]) return false;
    }
    return true;
}

/* Adds which tensors lie in the damaged bytes of a file. */
static void name_tensors(verification *v, int fd, int file, sago_str *text) {
    int n_named = 0, n_more = 0, n_pieces = 0;
    for (int i = 0; i < v->manifest.n_tensors; i++) {
        const sago_manifest_tensor *t = &v->manifest.tensors[i];
        for (int k = 0; k < t->n_pieces; k++) {
            if (t->pieces[k].file != file) continue;
            n_pieces++;
            if (piece_hashes_hold(v, fd, t, &t->pieces[k])) continue;
            if (n_named == MOST_NAMED_TENSORS) {
                n_more++;
                continue;
            }
            sago_str_printf(text, "%s%s", n_named++ ? ", " : "; damaged tensors: ", t->name);
        }
    }
    if (n_more) sago_str_printf(text, " and %d more", n_more);
    if (n_pieces && n_named == 0) sago_str_puts(text, "; the bytes of its tensors are whole");
}

static void check_file(verification *v, int number) {
    const sago_manifest_file *file = &v->manifest.files[number];
    char *path = sago_path_join(v->dir, file->name);
    sago_str text = {0};
    int fd = -1;
    sago_status status = sago_step_check_size(v->dir, file);
    bool good = status == SAGO_OK;
    if (!good) sago_str_puts(&text, sago_message() + strlen(path) - strlen(file->name));
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (good && fd < 0) {
        good = false;
        sago_str_printf(&text, "%s: cannot be opened", file->name);
    }
    if (good && !file_hash_holds(v, fd, path, file)) {
        good = false;
        sago_str_printf(&text, "%s: its bytes are not those that were written", file->name);
    }
    if (!good && fd >= 0) name_tensors(v, fd, number, &text);
    if (good && sago_ends_with(file->name, ".h5") &&
        sago_shard_check(path, &v->manifest, number) != SAGO_OK) {
        good = false;
        sago_str_printf(&text, "%s: its hash holds, but HDF5 reads something else in it: %s", file->name,
                        sago_message());
    }
    if (!good) report(v, sago_str_text(&text));
    if (fd >= 0) close(fd);
    sago_str_free(&text);
    free(path);
}

static sago_status check_extra(verification *v) {
    sago_names names;
    SAGO_TRY(sago_dir_list(v->dir, &names));
    for (size_t i = 0; i < names.count; i++) {
        bool known = strcmp(names.names[i], SAGO_MANIFEST_NAME) == 0;
        for (int k = 0; k < v->manifest.n_files && !known; k++)
            known = strcmp(names.names[i], v->manifest.files[k].name) == 0;
        if (known) continue;
        char *text = sago_format("%s: does not belong to this checkpoint", names.names[i]);
        report(v, text);
        free(text);
    }
    sago_names_free(&names);
    return SAGO_OK;
}

sago_status sago_ckpt_verify(const char *step_dir, void (*report_line)(const char *text, void *context),
                             void *context) {
    verification v = {.dir = step_dir,
                      .report = report_line,
                      .context = context,
                      .buffer = sago_alloc(SAGO_HASH_BLOCK_BYTES)};
    char *path = sago_path_join(step_dir, SAGO_MANIFEST_NAME);
    sago_status status = sago_manifest_read(path, &v.manifest);
    if (status != SAGO_OK) {
        /* The message begins with the path; a report begins with the file's name. */
        const char *message = sago_message();
        report(&v, sago_starts_with(message, path) ? message + strlen(path) - strlen(SAGO_MANIFEST_NAME)
                                                   : message);
    } else {
        for (int i = 0; i < v.manifest.n_files; i++) check_file(&v, i);
        status = check_extra(&v);
    }
    if (v.n_damaged)
        status = sago_fail(SAGO_E_CORRUPT, "%s: %d damaged, missing or foreign file%s", step_dir, v.n_damaged,
                           v.n_damaged > 1 ? "s" : "");
    sago_manifest_free(&v.manifest);
    free(v.buffer);
    free(path);
    return status;
}
