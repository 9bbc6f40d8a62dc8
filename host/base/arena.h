// SPDX-License-Identifier: Apache-2.0
/**
 * Arena: memory is planned, then taken once; nothing is allocated after step 1.
 *
 * The same layout code runs twice: over an arena without memory it measures (every take returns NULL and only
 * counts), over one with memory it hands out addresses. mark and release make a stack of it for scratch; the
 * peak is what such code needs at most.
 *
 *     sago_arena arena = sago_arena_measure();
 *     lay_out(&arena, &buffers);                           // counts
 *     SAGO_TRY(sago_arena_open(&arena, arena.peak_bytes)); // takes the memory
 *     lay_out(&arena, &buffers);                           // addresses
 */
#ifndef SAGO_ARENA_H
#define SAGO_ARENA_H

#include "status.h"
#include "tensor.h"

enum { SAGO_ARENA_ALIGN = 64 }; /* a cache line, and the widest vector of today's processors */

typedef struct sago_arena {
    char *base; /* NULL while measuring */
    size_t used_bytes, peak_bytes, capacity_bytes;
} sago_arena;

/** An arena that measures. */
sago_arena sago_arena_measure(void);

/** Takes memory from the host, zeroed, and starts at its beginning. SAGO_E_MEMORY names the size. */
sago_status sago_arena_open(sago_arena *arena, size_t bytes) SAGO_MUST_CHECK;

/** Starts over memory that somebody else owns (a device's). base is aligned to SAGO_ARENA_ALIGN. */
void sago_arena_over(sago_arena *arena, void *base, size_t bytes);

void sago_arena_close(sago_arena *arena); /* only what sago_arena_open took */

/** The next bytes, aligned. NULL while measuring; aborts past the capacity, which is a defect in the layout
 * code. */
void *sago_arena_take(sago_arena *arena, size_t bytes);

/** A tensor of the given dtype and dims, its memory from the arena. */
sago_tensor sago_arena_tensor(sago_arena *arena, sago_dtype dtype, int n_dims, const int64_t shape[]);

size_t sago_arena_mark(const sago_arena *arena);
void sago_arena_release(sago_arena *arena, size_t mark);

#endif
