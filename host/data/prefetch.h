// SPDX-License-Identifier: Apache-2.0
/**
 * Prefetch: a thread that keeps items ready in a ring, made one after another by a function of the owner's.
 *
 * The thread runs from start (or the first take) to stop or close, at whatever moment. What it fails with
 * arrives at the taker, in its place: items made before the failure come first.
 */
#ifndef SAGO_PREFETCH_H
#define SAGO_PREFETCH_H

#include "status.h"

#include <stdbool.h>

typedef struct sago_prefetch sago_prefetch;

/** Makes the next item in place; *end true (and no item) when there are no more. One call at a time. */
typedef sago_status (*sago_prefetch_make)(void *context, void *item, bool *end);

/** items[n_items]: the ring's items, at least 2: one is the taker's, the others are made ready. */
sago_status sago_prefetch_open(void *const items[], int n_items, sago_prefetch_make make, void *context,
                               sago_prefetch **out) SAGO_MUST_CHECK;

/** Starts making items, unless that is going on. */
sago_status sago_prefetch_start(sago_prefetch *prefetch) SAGO_MUST_CHECK;

/** The next item, the caller's until the next take; NULL at the end. *waited_seconds: while none was ready.
 */
sago_status sago_prefetch_take(sago_prefetch *prefetch, void **item, double *waited_seconds) SAGO_MUST_CHECK;

/** Stops the thread, after the item in the making, and forgets what is ready; start or take begin anew. */
void sago_prefetch_stop(sago_prefetch *prefetch);
void sago_prefetch_close(sago_prefetch *prefetch);

#endif
