// SPDX-License-Identifier: Apache-2.0
#include "log.h"
#include "save.h"
#include "str.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct sago_ckpt_writer {
    sago_mesh *channel; /* its collectives do not mix with the trainer's; NULL: one rank */
    int rank;
    bool background;
    char *memory; /* the snapshot, kept between saves */
    size_t memory_bytes;
    sago_save_job job; /* the save in flight; what it points to is the writer's */
    bool in_flight;
    pthread_t thread;
    sago_error outcome;     /* of the last save that ended */
    int64_t last_committed; /* -1: none */
    char *swept;            /* the folder whose leftovers are gone */
};

sago_status sago_ckpt_writer_open(sago_mesh *mesh, bool background, sago_ckpt_writer **out) {
    sago_ckpt_writer *w = sago_alloc_zero(1, sizeof *w);
    w->background = background;
    w->last_committed = -1;
    *out = w;
    if (!mesh || mesh->size == 1) return SAGO_OK;
    w->rank = mesh->rank;
    sago_status status = sago_mesh_channel(mesh, &w->channel);
    if (status != SAGO_OK) {
        free(w);
        *out = NULL;
    }
    return status;
}

static void drop_job(sago_ckpt_writer *w) {
    sago_ckpt_save *save = &w->job.save;
    for (int i = 0; i < save->n_pieces; i++) free((void *)save->pieces[i].name);
    for (int i = 0; i < save->n_files; i++) {
        free((void *)save->files[i].name);
        free((void *)save->files[i].bytes);
    }
    free((void *)save->pieces);
    free((void *)save->files);
    free((void *)save->dir);
    json_decref((json_t *)save->meta);
    w->job = (sago_save_job){0};
}

static void *run_job(void *context) {
    sago_ckpt_writer *w = context;
    sago_status status = sago_save_run(&w->job);
    sago_error_take(status, &w->outcome);
    /* Said at once: the caller may not ask for a long time. */
    if (status == SAGO_E_IO && w->background && w->rank == 0)
        sago_warn("checkpoint of step %lld %s: %s", (long long)w->job.save.step,
                  w->job.committed ? "was saved, but" : "was not saved", sago_message());
    return NULL;
}

static void finish(sago_ckpt_writer *w) {
    if (!w->in_flight) return;
    if (w->background) pthread_join(w->thread, NULL);
    w->in_flight = false;
    if (w->job.committed) {
        w->last_committed = w->job.save.step;
        free(w->swept);
        w->swept = sago_strdup(w->job.save.dir);
    }
    drop_job(w);
}

static size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static sago_status reserve(sago_ckpt_writer *w, size_t bytes) {
    if (bytes <= w->memory_bytes) return SAGO_OK;
    if (w->memory) munmap(w->memory, w->memory_bytes);
    w->memory = NULL;
    w->memory_bytes = 0;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return sago_fail_errno(
            SAGO_E_MEMORY, "checkpoint: no memory for a copy of %zu bytes; set checkpoint.background=false",
            bytes);
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes,
            MADV_HUGEPAGE); /* the first copy touches every page; fewer of them make it faster */
#endif
    w->memory = memory;
    w->memory_bytes = bytes;
    return SAGO_OK;
}

/* Copies what a save points to: all of it in the background, else all but the tensors. */
static sago_status take_job(sago_ckpt_writer *w, const sago_ckpt_save *save) {
    size_t bytes = 0;
    for (int i = 0; i < save->n_pieces; i++) bytes += aligned(sago_piece_bytes(&save->pieces[i]));
    if (w->background) SAGO_TRY(reserve(w, bytes));
    sago_piece *pieces = sago_alloc((size_t)save->n_pieces * sizeof *pieces);
    sago_side_file *files = sago_alloc((size_t)save->n_files * sizeof *files);
    char *to = w->memory;
    sago_status copied = SAGO_OK;
    for (int i = 0; i < save->n_pieces; i++) {
        pieces[i] = save->pieces[i];
        pieces[i].name = sago_strdup(save->pieces[i].name);
        if (!w->background) continue;
        size_t size = sago_piece_bytes(&pieces[i]);
        if (size && pieces[i].remote && copied == SAGO_OK)
            copied = pieces[i].remote->read(pieces[i].remote->context, to, pieces[i].first_remote,
                                            sago_piece_count(&pieces[i]));
        else if (size && !pieces[i].remote)
            memcpy(to, pieces[i].data, size);
        pieces[i].data = to;
        pieces[i].remote = NULL;
        to += aligned(size);
    }
    for (int i = 0; i < save->n_files; i++) {
        void *copy = sago_alloc(save->files[i].size);
        if (save->files[i].size) memcpy(copy, save->files[i].bytes, save->files[i].size);
        files[i] = (sago_side_file){sago_strdup(save->files[i].name), copy, save->files[i].size};
    }
    w->job = (sago_save_job){.mesh = w->channel, .save = *save};
    w->job.save.dir = sago_strdup(save->dir);
    w->job.save.meta = json_deep_copy(save->meta); /* reference counts are not for two threads */
    w->job.save.pieces = pieces;
    w->job.save.files = files;
    w->job.sweep = !w->swept || strcmp(w->swept, save->dir) != 0;
    if (copied != SAGO_OK) drop_job(w);
    return copied;
}

/* Signals are the main thread's: the new thread starts with all of them blocked. */
static int start_thread(sago_ckpt_writer *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, run_job, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

sago_status sago_ckpt_writer_start(sago_ckpt_writer *w, const sago_ckpt_save *save) {
    finish(w);
    /* A full disk may have room again; anything else will not heal. */
    if (w->outcome.status != SAGO_OK && w->outcome.status != SAGO_E_IO) return sago_error_give(&w->outcome);
    w->outcome = (sago_error){0};
    SAGO_TRY(take_job(w, save));
    w->in_flight = true;
    if (!w->background) {
        run_job(w);
        finish(w);
        return sago_error_give(&w->outcome);
    }
    if (start_thread(w) != 0) {
        w->in_flight = false;
        drop_job(w);
        return sago_fail(SAGO_E_MEMORY, "checkpoint: cannot start a thread; set checkpoint.background=false");
    }
    return SAGO_OK;
}

sago_status sago_ckpt_writer_wait(sago_ckpt_writer *w, int64_t *step) {
    finish(w);
    if (step) *step = w->last_committed;
    return sago_error_give(&w->outcome);
}

void sago_ckpt_writer_close(sago_ckpt_writer *w) {
    if (!w) return;
    finish(w);
    sago_mesh_close(w->channel);
    if (w->memory) munmap(w->memory, w->memory_bytes);
    free(w->swept);
    free(w);
}
