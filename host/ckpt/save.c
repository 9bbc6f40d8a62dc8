// SPDX-License-Identifier: Apache-2.0
#include "save.h"

#include "file.h"
#include "log.h"
#include "manifest.h"
#include "rng.h"
#include "shard.h"
#include "steps.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VISIBLE_WAIT_MS = 10000 }; /* network file systems may show a new folder late */

static int rank_of(const sago_save_job *job) {
    return job->mesh ? job->mesh->rank : 0;
}
static bool alone(const sago_save_job *job) {
    return !job->mesh || job->mesh->size == 1;
}

static sago_status agree(const sago_save_job *job, sago_status mine) {
    return alone(job) ? mine : sago_agree(job->mesh, mine);
}

/* --- 1. a folder that every rank sees --- */

static sago_status make_temporary(const sago_save_job *job, uint64_t id, char **out) {
    const sago_ckpt_save *save = &job->save;
    SAGO_TRY(sago_dir_make(save->dir));
    if (job->sweep) SAGO_TRY(sago_steps_sweep(save->dir));
    char *final = sago_step_path(save->dir, save->step);
    *out = sago_format("%s.tmp-%016" PRIx64, final, id);
    free(final);
    if (mkdir(*out, 0777) != 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot make the folder", *out);
    return SAGO_OK;
}

static sago_status see_temporary(const sago_save_job *job, const char *path) {
    for (int waited_ms = 0; !sago_is_dir(path); waited_ms += 50) {
        if (waited_ms >= VISIBLE_WAIT_MS)
            return sago_fail(
                SAGO_E_IO,
                "%s: made by rank 0 but not seen by rank %d: all ranks must share the file system of "
                "checkpoints",
                path, rank_of(job));
        usleep(50000);
    }
    return SAGO_OK;
}

static sago_status open_temporary(const sago_save_job *job, char **out) {
    uint64_t id = sago_mix(sago_mix((uint64_t)sago_now_ns(), (uint64_t)getpid()), (uint64_t)job->save.step);
    sago_status status = SAGO_OK;
    *out = NULL;
    if (rank_of(job) == 0) status = make_temporary(job, id, out);
    SAGO_TRY(agree(job, status));
    if (alone(job)) return SAGO_OK;
    SAGO_TRY(sago_broadcast(job->mesh, SAGO_WORLD_AXIS, &id, sizeof id, 0));
    if (rank_of(job) != 0) {
        char *final = sago_step_path(job->save.dir, job->save.step);
        *out = sago_format("%s.tmp-%016" PRIx64, final, id);
        free(final);
    }
    return agree(job, see_temporary(job, *out));
}

/* --- 2. this rank's shard --- */

static bool has_elements(const sago_piece *p) {
    return p->shape[0] > 0 && (p->n_dims == 1 || p->shape[1] > 0);
}

/* Numbers the ranks that have something to write. */
static sago_status number_writers(const sago_save_job *job, int *number, int *count) {
    int64_t mine = 0;
    for (int i = 0; i < job->save.n_pieces && !mine; i++) mine = has_elements(&job->save.pieces[i]);
    *number = 0;
    *count = (int)mine;
    if (alone(job)) {
        *count = 1;
        return SAGO_OK;
    }
    int64_t *all = sago_alloc((size_t)job->mesh->size * sizeof *all);
    sago_status status = sago_all_gather_i64(job->mesh, SAGO_WORLD_AXIS, mine, all);
    *count = 0;
    for (int r = 0; status == SAGO_OK && r < job->mesh->size; r++) {
        if (r == job->mesh->rank) *number = all[r] ? *count : -1;
        *count += (int)all[r];
    }
    free(all);
    return status;
}

/* Writes the shard and returns its part of the MANIFEST as text, which other ranks can be sent. */
static sago_status write_shard(const sago_save_job *job, const char *dir, int number, int count,
                               sago_str *part_text) {
    const sago_ckpt_save *save = &job->save;
    char *path = sago_format("%s/shard-%05d-of-%05d.h5", dir, number, count);
    sago_manifest_piece *entries = sago_alloc_zero((size_t)save->n_pieces, sizeof *entries);
    sago_manifest_file file = {0};
    sago_manifest part = {.step = save->step};
    sago_status status = sago_shard_write(path, save->step, save->pieces, save->n_pieces, &file, entries);
    if (status == SAGO_OK) sago_manifest_add_file(&part, file.name, file.bytes, file.hash);
    for (int i = 0; i < save->n_pieces; i++) {
        const sago_piece *p = &save->pieces[i];
        const int64_t shape[2] = {p->global_shape[0], p->n_dims == 2 ? p->global_shape[1] : 1};
        if (status == SAGO_OK && entries[i].dataset)
            status = sago_manifest_add_piece(&part, p->name, p->dtype, p->n_dims, shape, entries[i]);
        else
            sago_manifest_piece_free(&entries[i]);
    }
    if (status == SAGO_OK) sago_manifest_write(&part, part_text);
    sago_manifest_free(&part);
    sago_manifest_file_free(&file);
    free(entries);
    free(path);
    return status;
}

/* --- 3. MANIFEST and side files, rank 0 --- */

static sago_status merge_parts(const char *texts, const size_t sizes[], int n, sago_manifest *manifest) {
    sago_status status = SAGO_OK;
    for (int r = 0; r < n && status == SAGO_OK; texts += sizes[r++]) {
        sago_manifest part = {0};
        if (sizes[r] == 0) continue;
        status = sago_manifest_parse(texts, sizes[r], "part of MANIFEST.json", false, &part);
        if (status == SAGO_OK) status = sago_manifest_merge(manifest, &part);
        sago_manifest_free(&part);
    }
    return status;
}

static sago_status write_synced(const char *dir, const char *name, const void *bytes, size_t size) {
    char *path = sago_path_join(dir, name);
    FILE *file = NULL;
    sago_status status = sago_file_open(path, "wbx", &file);
    if (status == SAGO_OK) {
        bool short_write = size && fwrite(bytes, 1, size, file) != size;
        int error = errno;
        status = sago_file_close_synced(file, path);
        if (short_write && status == SAGO_OK) {
            errno = error;
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
        }
    }
    free(path);
    return status;
}

static sago_status write_manifest(const sago_save_job *job, const char *dir, sago_manifest *manifest) {
    const sago_ckpt_save *save = &job->save;
    sago_str text = {0};
    for (int i = 0; i < save->n_files; i++) {
        const sago_side_file *f = &save->files[i];
        SAGO_TRY(write_synced(dir, f->name, f->bytes, f->size));
        sago_manifest_add_file(manifest, f->name, (int64_t)f->size, sago_hash_bytes(f->bytes, f->size));
    }
    SAGO_TRY(sago_manifest_check_cover(manifest));
    manifest->step = save->step;
    manifest->meta = json_incref((json_t *)save->meta);
    sago_manifest_write(manifest, &text);
    sago_status status = write_synced(dir, SAGO_MANIFEST_NAME, text.data, text.length);
    sago_str_free(&text);
    return status == SAGO_OK ? sago_dir_sync(dir) : status;
}

/* --- 4. the rename --- */

/* Puts the finished folder under its name. What stood there before is exchanged with it where the system can
 * do that in one step, so that a crash leaves the old or the new; *aside is then where the old one lies. */
static sago_status rename_into_place(const char *temporary, const char *final, char **aside) {
    *aside = NULL;
    if (access(final, F_OK) != 0) {
        if (rename(temporary, final) == 0) return SAGO_OK;
        return sago_fail_errno(SAGO_E_IO, "%s: cannot rename to %s", temporary, final);
    }
#ifdef RENAME_EXCHANGE
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE) == 0) {
        *aside = sago_strdup(temporary);
        return SAGO_OK;
    }
#endif
    *aside = sago_format("%s.tmp-aside-%ld", final, (long)getpid());
    if (rename(final, *aside) != 0)
        return sago_fail_errno(SAGO_E_IO, "%s: cannot rename to %s", final, *aside);
    if (rename(temporary, final) == 0) return SAGO_OK;
    int error = errno;
    if (rename(*aside, final) != 0) sago_warn("%s: the step before now lies there", *aside);
    errno = error;
    return sago_fail_errno(SAGO_E_IO, "%s: cannot rename to %s", temporary, final);
}

static sago_status commit(sago_save_job *job, const char *temporary, char **aside) {
    char *final = sago_step_path(job->save.dir, job->save.step);
    sago_status status = rename_into_place(temporary, final, aside);
    if (status == SAGO_OK) status = sago_dir_sync(job->save.dir);
    free(final);
    return status;
}

/* --- 5. afterwards: old steps go once the new one has verified --- */

static void keep_first_report(const char *text, void *context) {
    char **first = context;
    if (!*first) *first = sago_strdup(text);
}

static sago_status retire(const sago_save_job *job, const char *aside) {
    const sago_ckpt_save *save = &job->save;
    int n_going = 0;
    SAGO_TRY(sago_steps_retain(save->dir, save->step, save->keep, save->keep_every, false, &n_going));
    if (n_going == 0 && !aside) return SAGO_OK;
    char *final = sago_step_path(save->dir, save->step), *first = NULL;
    sago_status status = sago_ckpt_verify(final, keep_first_report, &first);
    if (status != SAGO_OK)
        status = sago_fail(SAGO_E_IO,
                           "%s: does not verify right after it was written (%s); no older step was removed",
                           final, first ? first : "cause unknown");
    if (status == SAGO_OK && aside) status = sago_dir_remove(aside);
    if (status == SAGO_OK)
        status = sago_steps_retain(save->dir, save->step, save->keep, save->keep_every, true, &n_going);
    free(first);
    free(final);
    return status;
}

/* Everything up to the rename, in an order that is the same on every rank. */
static sago_status save_into(sago_save_job *job, const char *temporary, sago_manifest *manifest) {
    int number, count;
    sago_str part = {0};
    char *parts = NULL;
    size_t *sizes = sago_alloc_zero(job->mesh ? (size_t)job->mesh->size : 1, sizeof *sizes);
    sago_status status = number_writers(job, &number, &count);
    SAGO_TRY_TO(done, agree(job, status));
    if (number >= 0) status = write_shard(job, temporary, number, count, &part);
    SAGO_TRY_TO(done, agree(job, status));
    if (alone(job)) {
        sizes[0] = part.length;
        status = merge_parts(sago_str_text(&part), sizes, 1, manifest);
    } else {
        SAGO_TRY_TO(done, sago_gather_bytes(job->mesh, SAGO_WORLD_AXIS, sago_str_text(&part), part.length, 0,
                                            &parts, sizes));
        if (rank_of(job) == 0) status = merge_parts(parts, sizes, job->mesh->size, manifest);
    }
    if (status == SAGO_OK && rank_of(job) == 0) status = write_manifest(job, temporary, manifest);
    status = agree(job, status);
done:
    sago_str_free(&part);
    free(parts);
    free(sizes);
    return status;
}

sago_status sago_save_run(sago_save_job *job) {
    char *temporary = NULL, *aside = NULL;
    sago_manifest manifest = {0};
    job->committed = false;
    sago_status status = open_temporary(job, &temporary);
    if (status == SAGO_OK) status = save_into(job, temporary, &manifest);
    if (status == SAGO_OK) {
        if (rank_of(job) == 0) status = commit(job, temporary, &aside);
        status = agree(job, status);
        job->committed = status == SAGO_OK;
    }
    if (job->committed) {
        if (rank_of(job) == 0) status = retire(job, aside);
        status = agree(job, status);
    } else if (rank_of(job) == 0 && temporary) {
        sago_error failure;
        sago_error_take(status, &failure);
        if (sago_is_dir(temporary) && sago_dir_remove(temporary) != SAGO_OK)
            sago_warn("%s: what is left of a save that failed could not be removed", temporary);
        status = sago_error_give(&failure);
    }
    sago_manifest_free(&manifest);
    free(aside);
    free(temporary);
    return status;
}
