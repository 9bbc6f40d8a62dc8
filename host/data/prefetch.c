// SPDX-License-Identifier: Apache-2.0
#include "prefetch.h"

#include "log.h"
#include "str.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct sago_prefetch {
    void **items;
    int n_items;
    sago_prefetch_make make;
    void *context;
    pthread_t thread;
    bool running;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    int first, n_ready; /* items [first, first + n_ready) of the ring are ready; the one before first is the
                           taker's */
    bool stop, ended;   /* ended: no item follows the ready ones, for want of data or by the failure below */
    sago_error failure;
};

static void *work(void *argument) {
    sago_prefetch *p = argument;
    pthread_mutex_lock(&p->lock);
    while (!p->stop && !p->ended) {
        if (p->n_ready == p->n_items - 1) {
            pthread_cond_wait(&p->changed, &p->lock);
            continue;
        }
        void *item = p->items[(p->first + p->n_ready) % p->n_items];
        pthread_mutex_unlock(&p->lock);
        bool end = false;
        sago_status status = p->make(p->context, item, &end);
        pthread_mutex_lock(&p->lock);
        if (status != SAGO_OK) sago_error_take(status, &p->failure);
        if (status != SAGO_OK || end)
            p->ended = true;
        else
            p->n_ready++;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

sago_status sago_prefetch_open(void *const items[], int n_items, sago_prefetch_make make, void *context,
                               sago_prefetch **out) {
    sago_prefetch *p = sago_alloc_zero(1, sizeof *p);
    *out = NULL;
    p->items = sago_alloc((size_t)n_items * sizeof *p->items);
    memcpy(p->items, items, (size_t)n_items * sizeof *p->items);
    p->n_items = n_items;
    p->make = make;
    p->context = context;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    *out = p;
    return SAGO_OK;
}

/* Signals are for the main thread, which saves and leaves: this one takes none. */
sago_status sago_prefetch_start(sago_prefetch *p) {
    if (p->running) return SAGO_OK;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&p->thread, NULL, work, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return sago_fail(SAGO_E_MEMORY, "data: no thread to prepare batches: %s", strerror(error));
    p->running = true;
    return SAGO_OK;
}

sago_status sago_prefetch_take(sago_prefetch *p, void **item, double *waited_seconds) {
    *item = NULL;
    *waited_seconds = 0;
    SAGO_TRY(sago_prefetch_start(p));
    sago_status status = SAGO_OK;
    pthread_mutex_lock(&p->lock);
    if (p->n_ready == 0 && !p->ended) {
        int64_t begin = sago_now_ns();
        while (p->n_ready == 0 && !p->ended) pthread_cond_wait(&p->changed, &p->lock);
        *waited_seconds = (double)(sago_now_ns() - begin) * 1e-9;
    }
    if (p->n_ready > 0) {
        *item = p->items[p->first];
        p->first = (p->first + 1) % p->n_items;
        p->n_ready--;
        pthread_cond_broadcast(&p->changed);
    } else {
        status = sago_error_give(&p->failure);
    }
    pthread_mutex_unlock(&p->lock);
    return status;
}

void sago_prefetch_stop(sago_prefetch *p) {
    if (p->running) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_broadcast(&p->changed);
        pthread_mutex_unlock(&p->lock);
        pthread_join(p->thread, NULL);
    }
    p->running = p->stop = p->ended = false;
    p->first = p->n_ready = 0;
    p->failure.status = SAGO_OK;
}

void sago_prefetch_close(sago_prefetch *p) {
    if (!p) return;
    sago_prefetch_stop(p);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->items);
    free(p);
}
