// SPDX-License-Identifier: Apache-2.0
/*
 * Sums of device memory through the host. A sum is cut into pieces; piece i goes through slot i mod SLOTS of
 * pinned memory. One thread copies pieces down, each when its mark has passed and its slot is free, and
 * starts their sum on a channel of the mesh's own; a second one waits for the sums in the same order and
 * copies them back. So copies down, messages, and copies up of neighbouring pieces overlap with one another
 * and with the device's work.
 */
#include "comm_internal.h"
#include "log.h"
#include "ops.h"
#include "str.h"
#include "transport.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4, PIECE_ELEMENTS = 4 << 20 };

typedef struct staged_sum {
    float *buffer; /* on the device */
    int64_t count, n_pieces, n_fetched, n_put;
    sago_mesh_axis axis;
    sago_mark mark;
    bool complete;
    sago_error failure; /* status SAGO_OK: none */
    struct staged_sum *next;
} staged_sum;

typedef struct slot {
    float *memory;
    staged_sum *sum;
    int64_t first, count;
    sago_reduction *reduction; /* NULL: failed before it was started */
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
    staged_sum *to_fetch, *last; /* sums whose pieces have not all been fetched, in order */
    int64_t n_down, n_up;        /* pieces that have passed each thread */
    bool closing;
    sago_error failure; /* the first; what comes after it is not begun */
} staged;

static int64_t piece_count(int64_t count) {
    return (count + PIECE_ELEMENTS - 1) / PIECE_ELEMENTS;
}

/* Under the lock. */
static void note_failure(staged *s, staged_sum *sum, sago_status status) {
    if (status == SAGO_OK) return;
    sago_error_take(status, &sum->failure);
    if (s->failure.status == SAGO_OK) s->failure = sum->failure;
}

static sago_status begin_piece(staged *s, slot *at, sago_mark mark, sago_mesh_axis axis) {
    size_t bytes = (size_t)at->count * sizeof(float);
    comm_device_wait(true);
    sago_status status =
        s->device->ops->fetch(s->device, at->memory, at->sum->buffer + at->first, bytes, mark);
    comm_device_wait(false);
    SAGO_TRY(status);
    return sago_all_reduce_start(s->mesh, axis, at->memory, at->count, &at->reduction);
}

static void *copy_down(void *argument) {
    staged *s = argument;
    pthread_setname_np(pthread_self(), "sago-down");
    pthread_mutex_lock(&s->lock);
    for (;;) {
        staged_sum *sum = s->to_fetch;
        if (!sum && s->closing) break;
        if (!sum || s->n_down - s->n_up == SLOTS) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        slot *at = &s->slots[s->n_down % SLOTS];
        at->sum = sum, at->reduction = NULL;
        at->first = sum->n_fetched * PIECE_ELEMENTS;
        at->count = sum->count - at->first < PIECE_ELEMENTS ? sum->count - at->first : PIECE_ELEMENTS;
        sago_status status = s->failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&s->failure);
        if (status == SAGO_OK) {
            pthread_mutex_unlock(&s->lock);
            status = begin_piece(s, at, sum->mark, sum->axis);
            pthread_mutex_lock(&s->lock);
        }
        note_failure(s, sum, status);
        s->n_down++;
        if (++sum->n_fetched == sum->n_pieces) s->to_fetch = sum->next;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static sago_status end_piece(staged *s, const slot *at) {
    if (!at->reduction) return SAGO_OK; /* the failure is noted already */
    SAGO_TRY(sago_all_reduce_wait(s->mesh, at->reduction));
    return s->device->ops->put(s->device, at->sum->buffer + at->first, at->memory,
                               (size_t)at->count * sizeof(float));
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
        sago_status status = end_piece(s, at);
        pthread_mutex_lock(&s->lock);
        note_failure(s, at->sum, status);
        if (++at->sum->n_put == at->sum->n_pieces) at->sum->complete = true;
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
    for (int i = 0; i < SLOTS; i++) s->device->ops->release_host(s->device, s->slots[i].memory);
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
    return failed
               ? sago_fail(SAGO_E_COMM, "no thread could be started to copy gradients: %s", strerror(failed))
               : SAGO_OK;
}

static sago_status staged_open(sago_mesh *mesh, sago_device *device, void **state) {
    staged *s = sago_alloc_zero(1, sizeof *s);
    s->device = device;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    sago_status status;
    SAGO_TRY_TO(failed, sago_mesh_channel(mesh, &s->mesh));
    s->mesh->state->background = true;
    for (int i = 0; i < SLOTS; i++)
        SAGO_TRY_TO(failed, device->ops->allocate_host(device, (void **)&s->slots[i].memory,
                                                       PIECE_ELEMENTS * sizeof(float)));
    SAGO_TRY_TO(failed, start_threads(s));
    *state = s;
    return SAGO_OK;
failed:
    staged_close(s);
    return status;
}

static sago_status staged_start(void *state, sago_mesh_axis axis, float *buffer, int64_t count, void **out) {
    staged *s = state;
    staged_sum *sum = sago_alloc_zero(1, sizeof *sum);
    *sum = (staged_sum){.buffer = buffer, .count = count, .n_pieces = piece_count(count), .axis = axis};
    sago_status status = s->device->ops->mark(s->device, &sum->mark);
    if (status != SAGO_OK) {
        free(sum);
        return status;
    }
    pthread_mutex_lock(&s->lock);
    if (s->to_fetch)
        s->last->next = sum;
    else
        s->to_fetch = sum;
    s->last = sum;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    *out = sum;
    return SAGO_OK;
}

static sago_status staged_wait(void *state, void *handle) {
    staged *s = state;
    staged_sum *sum = handle;
    int64_t since = sago_now_ns();
    pthread_mutex_lock(&s->lock);
    while (!sum->complete) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    s->exposed_ns += sago_now_ns() - since;
    sago_status status = sum->failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&sum->failure);
    free(sum);
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
