// SPDX-License-Identifier: Apache-2.0
#include "open.h"

#include "file.h"
#include "log.h"
#include "rng.h"
#include "steps.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sago_status sago_read_at(int fd, const char *path, void *out, size_t bytes, int64_t at) {
    for (size_t done = 0; done < bytes;) {
        ssize_t got = pread(fd, (char *)out + done, bytes - done, at + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot read", path);
        if (got == 0) return sago_fail(SAGO_E_CORRUPT, "%s: cut short", path);
        done += (size_t)got;
    }
    return SAGO_OK;
}

sago_status sago_step_check_size(const char *dir, const sago_manifest_file *file) {
    struct stat info;
    char *path = sago_path_join(dir, file->name);
    sago_status status = SAGO_OK;
    if (lstat(path, &info) != 0)
        status = errno == ENOENT ? sago_fail(SAGO_E_CORRUPT, "%s: missing", path)
                                 : sago_fail_errno(SAGO_E_IO, "%s: cannot look at it", path);
    else if (!S_ISREG(info.st_mode))
        status = sago_fail(SAGO_E_CORRUPT, "%s: is no plain file", path);
    else if ((int64_t)info.st_size != file->bytes)
        status = sago_fail(SAGO_E_CORRUPT, "%s: is %lld bytes long, " SAGO_MANIFEST_NAME " says %lld", path,
                           (long long)info.st_size, (long long)file->bytes);
    free(path);
    return status;
}

static void name_first(const char *text, void *context) {
    sago_str *first = context;
    if (first->length == 0) sago_str_puts(first, text);
}

static sago_status verify_step(const char *dir) {
    sago_str first = {0};
    sago_status status = sago_ckpt_verify(dir, name_first, &first);
    if (status != SAGO_OK && first.length) status = sago_fail(status, "%s/%s", dir, sago_str_text(&first));
    sago_str_free(&first);
    return status;
}

static sago_status open_step(const char *dir, bool verify_all, sago_ckpt **out) {
    sago_ckpt *ckpt = sago_alloc_zero(1, sizeof *ckpt);
    char *path = sago_path_join(dir, SAGO_MANIFEST_NAME);
    ckpt->dir = sago_strdup(dir);
    sago_status status = sago_manifest_read(path, &ckpt->manifest);
    for (int i = 0; i < ckpt->manifest.n_files && status == SAGO_OK; i++)
        status = sago_step_check_size(dir, &ckpt->manifest.files[i]);
    if (status == SAGO_OK && verify_all) status = verify_step(dir);
    ckpt->fds = sago_alloc((size_t)ckpt->manifest.n_files * sizeof *ckpt->fds);
    for (int i = 0; i < ckpt->manifest.n_files; i++) ckpt->fds[i] = -1;
    free(path);
    *out = ckpt;
    if (status != SAGO_OK) {
        sago_ckpt_close(ckpt);
        *out = NULL;
    }
    return status;
}

static bool holds_steps(const char *folder) {
    int64_t *steps = NULL;
    int n_steps = 0;
    bool holds = sago_is_dir(folder) && sago_steps_list(folder, &steps, &n_steps) == SAGO_OK && n_steps > 0;
    free(steps);
    return holds;
}

/* A step directory is one by its name or its MANIFEST, even when the other is damaged or gone. */
static bool is_step(const char *absolute) {
    int64_t step;
    char *manifest = sago_path_join(absolute, SAGO_MANIFEST_NAME);
    bool found = sago_is_file(manifest) || sago_step_parse(sago_path_base(absolute), &step);
    free(manifest);
    return found;
}

char *sago_ckpt_steps_folder(const char *path) {
    char *absolute = sago_path_absolute(path), *folder = NULL;
    if (!is_step(absolute)) {
        char *below = sago_path_join(absolute, "checkpoints");
        folder = sago_strdup(!holds_steps(absolute) && sago_is_dir(below) ? below : absolute);
        free(below);
    }
    free(absolute);
    return folder;
}

bool sago_ckpt_exists(const char *path) {
    char *manifest = sago_path_join(path, SAGO_MANIFEST_NAME), *folder = sago_ckpt_steps_folder(path);
    bool found = sago_is_file(manifest) || (folder && holds_steps(folder));
    free(folder);
    free(manifest);
    return found;
}

static sago_status open_newest(const char *folder, bool verify_all, sago_ckpt **out) {
    int64_t *steps;
    int n_steps;
    SAGO_TRY(sago_steps_list(folder, &steps, &n_steps));
    sago_status status =
        n_steps
            ? SAGO_OK
            : sago_fail(SAGO_E_INPUT, "%s: holds no checkpoint (no step-N/" SAGO_MANIFEST_NAME ")", folder);
    for (int i = n_steps - 1; i >= 0; i--) {
        char *dir = sago_step_path(folder, steps[i]);
        status = open_step(dir, verify_all, out);
        free(dir);
        if (status == SAGO_OK || i == 0) break;
        if (sago_mesh_world_rank() == 0)
            sago_warn("%s; going back to step %lld", sago_message(), (long long)steps[i - 1]);
    }
    free(steps);
    return status;
}

sago_status sago_ckpt_open(const char *path, bool verify_all, sago_ckpt **out) {
    *out = NULL;
    if (!sago_is_dir(path)) return sago_fail(SAGO_E_IO, "%s: no such folder", path);
    char *absolute = sago_path_absolute(path), *folder = sago_ckpt_steps_folder(path);
    sago_status status = folder ? open_newest(folder, verify_all, out) : open_step(absolute, verify_all, out);
    free(folder);
    free(absolute);
    return status;
}

void sago_ckpt_close(sago_ckpt *ckpt) {
    if (!ckpt) return;
    for (int i = 0; ckpt->fds && i < ckpt->manifest.n_files; i++)
        if (ckpt->fds[i] >= 0) close(ckpt->fds[i]);
    free(ckpt->fds);
    sago_manifest_free(&ckpt->manifest);
    free(ckpt->dir);
    free(ckpt);
}

int64_t sago_ckpt_step(const sago_ckpt *ckpt) {
    return ckpt->manifest.step;
}
const char *sago_ckpt_dir(const sago_ckpt *ckpt) {
    return ckpt->dir;
}
const json_t *sago_ckpt_meta(const sago_ckpt *ckpt) {
    return ckpt->manifest.meta;
}
int sago_ckpt_count(const sago_ckpt *ckpt) {
    return ckpt->manifest.n_tensors;
}

sago_ckpt_tensor sago_ckpt_at(const sago_ckpt *ckpt, int index) {
    const sago_manifest_tensor *t = &ckpt->manifest.tensors[index];
    return (sago_ckpt_tensor){t->name, t->dtype, t->n_dims, {t->shape[0], t->shape[1]}, t->n_pieces};
}

bool sago_ckpt_find(const sago_ckpt *ckpt, const char *name, sago_dtype *dtype, int *n_dims,
                    int64_t shape[2]) {
    int at = sago_manifest_find(&ckpt->manifest, name);
    if (at < 0) return false;
    const sago_manifest_tensor *t = &ckpt->manifest.tensors[at];
    *dtype = t->dtype;
    *n_dims = t->n_dims;
    shape[0] = t->shape[0];
    shape[1] = t->shape[1];
    return true;
}

static const sago_manifest_file *find_file(const sago_ckpt *ckpt, const char *name) {
    for (int i = 0; i < ckpt->manifest.n_files; i++)
        if (strcmp(ckpt->manifest.files[i].name, name) == 0) return &ckpt->manifest.files[i];
    return NULL;
}

bool sago_ckpt_has_file(const sago_ckpt *ckpt, const char *name) {
    return find_file(ckpt, name) != NULL;
}

sago_status sago_ckpt_read_file(sago_ckpt *ckpt, const char *name, sago_str *out) {
    const sago_manifest_file *file = find_file(ckpt, name);
    if (!file) return sago_fail(SAGO_E_INPUT, "%s: the checkpoint has no file %s", ckpt->dir, name);
    char *path = sago_path_join(ckpt->dir, name);
    sago_status status = sago_file_read(path, 0, out);
    if (status == SAGO_OK &&
        ((int64_t)out->length != file->bytes || sago_hash_bytes(out->data, out->length) != file->hash))
        status =
            sago_fail(SAGO_E_CORRUPT, "%s: damaged: its hash is not the one in " SAGO_MANIFEST_NAME, path);
    free(path);
    return status;
}
