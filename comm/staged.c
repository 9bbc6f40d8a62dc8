// SPDX-License-Identifier: Apache-2.0
/*
 * Collectives on device memory through the host. Each is cut into rounds, every one with the same share of
 * every piece; round i goes through slot i mod SLOTS of pinned memory. One thread copies what this rank gives
 * down, each round when its mark has passed and its slot is free, and starts its collective on a channel of
 * the mesh's own; a second one waits for those in the same order and copies what they gave back. So copies
 * down, messages, and copies up of neighbouring rounds overlap with one another and with the device's work.
 */
#include "log.h"
#include "ops.h"
#include "str.h"
#include "transport.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4, SLOT_BYTES = 16 << 20 };

typedef struct staged_work {
    comm_kind kind;
    comm_dtype dtype; /* of a sum */
    sago_mesh_axis axis;
    const char *in; /* both on the device */
    char *out;
    int n_pieces, own; /* the own piece; all-reduce: 0 of 1 */
    int64_t *first;    /* piece m is [first[m], first[m + 1]), in elements */
    size_t element;    /* bytes of one */
    int64_t n_rounds, n_fetched, n_put;
    sago_mark mark;
    bool complete;
    sago_error failure; /* status SAGO_OK: none */
    struct staged_work *next;
} staged_work;

typedef struct slot {
    char *memory; /* the round's shares of all pieces, one after another */
    staged_work *work;
    int64_t round, *sizes;       /* of each share */
    sago_collective *collective; /* NULL: failed before it was started */
} slot;

typedef struct staged {
    sago_device *device;
    sago_mesh *mesh; /* a channel */
    slot slots[SLOTS];
    pthread_t down, up;
    int n_threads;
    int64_t exposed_ns; /* the caller's thread alone */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    staged_work *to_fetch, *last; /* those whose rounds have not all been fetched, in order */
    int64_t n_down, n_up;         /* rounds that have passed each thread */
    bool closing;
    sago_error failure; /* the first; what comes after it is not begun */
} staged;

/* Where the share of piece m in a round begins, in elements from the first piece. */
static int64_t share_begin(const staged_work *work, int m, int64_t round) {
    int64_t length = work->first[m + 1] - work->first[m], n = work->n_rounds;
    return work->first[m] + length / n * round + length % n * round / n;
}

/* Copies the round's share of a piece between the slot and the device, where its piece may lie alone. */
static sago_status copy_share(staged *s, const slot *at, int m, bool down) {
    const staged_work *work = at->work;
    int64_t from = share_begin(work, m, at->round), before = 0;
    size_t bytes = (size_t)at->sizes[m] * work->element;
    bool alone = m == work->own && work->kind == (down ? COMM_ALL_GATHER : COMM_REDUCE_SCATTER);
    for (int p = 0; p < m; p++) before += at->sizes[p];
    char *host = at->memory + (size_t)before * work->element;
    size_t offset = (size_t)(alone ? from - work->first[m] : from) * work->element;
    if (bytes == 0) return SAGO_OK;
    return down ? s->device->ops->fetch(s->device, host, work->in + offset, bytes, work->mark)
                : s->device->ops->put(s->device, work->out + offset, host, bytes);
}

/* Under the lock. */
static void note_failure(staged *s, staged_work *work, sago_status status) {
    if (status == SAGO_OK) return;
    sago_error_take(status, &work->failure);
    if (s->failure.status == SAGO_OK) s->failure = work->failure;
}

/* Also a rank that gives nothing waits for the mark: what it gets may be in use until then. */
static sago_status fetch_round(staged *s, const slot *at) {
    const staged_work *work = at->work;
    SAGO_TRY(s->device->ops->await(s->device, work->mark));
    for (int m = 0; m < work->n_pieces; m++)
        if (work->kind != COMM_ALL_GATHER || m == work->own) SAGO_TRY(copy_share(s, at, m, true));
    return SAGO_OK;
}

static sago_status begin_round(staged *s, slot *at) {
    const staged_work *work = at->work;
    float *numbers = (float *)at->memory;
    int64_t before = 0;
    for (int m = 0; m < work->n_pieces; m++)
        at->sizes[m] = share_begin(work, m, at->round + 1) - share_begin(work, m, at->round);
    comm_device_wait(true);
    sago_status status = fetch_round(s, at);
    comm_device_wait(false);
    SAGO_TRY(status);
    if (work->kind == COMM_ALL_REDUCE && work->dtype == COMM_F64)
        return sago_all_reduce_f64_start(s->mesh, work->axis, (double *)(void *)at->memory, at->sizes[0],
                                         &at->collective);
    if (work->kind == COMM_ALL_REDUCE)
        return sago_all_reduce_start(s->mesh, work->axis, numbers, at->sizes[0], &at->collective);
    for (int m = 0; m < work->own; m++) before += at->sizes[m];
    if (work->kind == COMM_REDUCE_SCATTER)
        return sago_reduce_scatter_start(s->mesh, work->axis, numbers, numbers + before, at->sizes,
                                         &at->collective);
    return sago_all_gather_start(s->mesh, work->axis, at->memory + before, at->memory,
                                 (const size_t *)at->sizes, &at->collective);
}

static void *copy_down(void *argument) {
    staged *s = argument;
    pthread_setname_np(pthread_self(), "sago-down");
    pthread_mutex_lock(&s->lock);
    for (;;) {
        staged_work *work = s->to_fetch;
        if (!work && s->closing) break;
        if (!work || s->n_down - s->n_up == SLOTS) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        slot *at = &s->slots[s->n_down % SLOTS];
        at->work = work, at->round = work->n_fetched, at->collective = NULL;
        sago_status status = s->failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&s->failure);
        if (status == SAGO_OK) {
            pthread_mutex_unlock(&s->lock);
            status = begin_round(s, at);
            pthread_mutex_lock(&s->lock);
        }
        note_failure(s, work, status);
        s->n_down++;
        if (++work->n_fetched == work->n_rounds) s->to_fetch = work->next;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static sago_status end_round(staged *s, const slot *at) {
    const staged_work *work = at->work;
    if (!at->collective) return SAGO_OK; /* the failure is noted already */
    SAGO_TRY(sago_collective_wait(s->mesh, at->collective));
    for (int m = 0; m < work->n_pieces; m++)
        if (work->kind != COMM_REDUCE_SCATTER || m == work->own) SAGO_TRY(copy_share(s, at, m, false));
    return SAGO_OK;
}

static void *copy_up(void *argument) {
    staged *s = argument;
    pthread_setname_np(pthread_self(), "sago-up");
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (s->n_up == s->n_down) {
            if (s->closing && !s->to_fetch) break;
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        slot *at = &s->slots[s->n_up % SLOTS];
        pthread_mutex_unlock(&s->lock);
        sago_status status = end_round(s, at);
        pthread_mutex_lock(&s->lock);
        note_failure(s, at->work, status);
        if (++at->work->n_put == at->work->n_rounds) at->work->complete = true;
        s->n_up++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void staged_close(void *state) {
    staged *s = state;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->n_threads > 0) pthread_join(s->down, NULL);
    if (s->n_threads > 1) pthread_join(s->up, NULL);
    for (int i = 0; i < SLOTS; i++) {
        s->device->ops->release_host(s->device, s->slots[i].memory);
        free(s->slots[i].sizes);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    sago_mesh_close(s->mesh);
    free(s);
}

static sago_status start_threads(staged *s) {
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&s->down, NULL, copy_down, s);
    s->n_threads += !failed;
    if (!failed) failed = pthread_create(&s->up, NULL, copy_up, s);
    s->n_threads += !failed;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? sago_fail(SAGO_E_COMM, "no thread could be started to copy to and from the device: %s",
                              strerror(failed))
                  : SAGO_OK;
}

static sago_status staged_open(sago_mesh *mesh, sago_device *device, void **state) {
    staged *s = sago_alloc_zero(1, sizeof *s);
    s->device = device;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    sago_status status;
    SAGO_TRY_TO(failed, sago_mesh_channel(mesh, &s->mesh));
    for (int i = 0; i < SLOTS; i++) {
        s->slots[i].sizes = sago_alloc((size_t)mesh->size * sizeof(int64_t));
        SAGO_TRY_TO(failed, device->ops->allocate_host(device, (void **)&s->slots[i].memory, SLOT_BYTES));
    }
    SAGO_TRY_TO(failed, start_threads(s));
    *state = s;
    return SAGO_OK;
failed:
    staged_close(s);
    return status;
}

/* The pieces of a request, and as many rounds as its shares need to fit into a slot, rounded up each. */
static staged_work *new_work(const staged *s, const comm_request *request) {
    int n = request->n_pieces;
    staged_work *work = sago_alloc_zero(1, sizeof *work);
    *work = (staged_work){.kind = request->kind,
                          .dtype = request->dtype,
                          .axis = request->axis,
                          .in = request->in,
                          .out = request->out,
                          .n_pieces = n,
                          .own = n == 1 ? 0 : s->mesh->axis_rank[request->axis],
                          .first = sago_alloc_zero((size_t)n + 1, sizeof *work->first),
                          .element = request->kind == COMM_ALL_GATHER ? 1 : comm_dtype_bytes(request->dtype)};
    int64_t largest = 0, share = SLOT_BYTES / (int64_t)work->element / n;
    for (int m = 0; m < n; m++) {
        work->first[m + 1] = work->first[m] + request->sizes[m];
        if (request->sizes[m] > largest) largest = request->sizes[m];
    }
    work->n_rounds = (largest + share - 1) / share;
    return work;
}

static void free_work(staged_work *work) {
    free(work->first);
    free(work);
}

static sago_status staged_start(void *state, const comm_request *request, void **out) {
    staged *s = state;
    staged_work *work = new_work(s, request);
    sago_status status = s->device->ops->mark(s->device, &work->mark);
    if (status != SAGO_OK) {
        free_work(work);
        return status;
    }
    pthread_mutex_lock(&s->lock);
    if (s->to_fetch)
        s->last->next = work;
    else
        s->to_fetch = work;
    s->last = work;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    *out = work;
    return SAGO_OK;
}

static sago_status staged_wait(void *state, void *handle) {
    staged *s = state;
    staged_work *work = handle;
    int64_t since = sago_now_ns();
    pthread_mutex_lock(&s->lock);
    while (!work->complete) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    s->exposed_ns += sago_now_ns() - since;
    sago_status status = work->failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&work->failure);
    free_work(work);
    return status;
}

static double staged_exposed_seconds(void *state) {
    staged *s = state;
    int64_t ns = s->exposed_ns;
    s->exposed_ns = 0;
    return (double)ns * 1e-9;
}

const comm_transport comm_staged = {
    .name = "mpi",
    .open = staged_open,
    .close = staged_close,
    .start = staged_start,
    .wait = staged_wait,
    .exposed_seconds = staged_exposed_seconds,
};
