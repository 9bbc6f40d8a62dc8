// SPDX-License-Identifier: Apache-2.0
#include "arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t round_up(size_t bytes) {
    return (bytes + SAGO_ARENA_ALIGN - 1) / SAGO_ARENA_ALIGN * SAGO_ARENA_ALIGN;
}

sago_arena sago_arena_measure(void) {
    return (sago_arena){0};
}

sago_status sago_arena_open(sago_arena *arena, size_t bytes) {
    *arena = (sago_arena){0};
    bytes = round_up(bytes ? bytes : 1);
    arena->base = aligned_alloc(SAGO_ARENA_ALIGN, bytes);
    if (!arena->base) return sago_fail(SAGO_E_MEMORY, "no memory for %.1f MiB", (double)bytes / 1048576.0);
    memset(arena->base, 0, bytes);
    arena->capacity_bytes = bytes;
    return SAGO_OK;
}

void sago_arena_over(sago_arena *arena, void *base, size_t bytes) {
    *arena = (sago_arena){.base = base, .capacity_bytes = bytes};
}

void sago_arena_close(sago_arena *arena) {
    free(arena->base);
    *arena = (sago_arena){0};
}

void *sago_arena_take(sago_arena *arena, size_t bytes) {
    size_t at = arena->used_bytes;
    arena->used_bytes += round_up(bytes);
    if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
    if (!arena->base) return NULL;
    if (arena->used_bytes > arena->capacity_bytes) {
        fprintf(stderr, "sago: internal: arena of %zu bytes asked for %zu\n", arena->capacity_bytes,
                arena->used_bytes);
        abort();
    }
    return arena->base + at;
}

sago_tensor sago_arena_tensor(sago_arena *arena, sago_dtype dtype, int n_dims, const int64_t shape[]) {
    sago_tensor t = sago_tensor_view((sago_tensor){.dtype = dtype}, n_dims, shape);
    t.data = sago_arena_take(arena, sago_tensor_bytes(t));
    return t;
}

size_t sago_arena_mark(const sago_arena *arena) {
    return arena->used_bytes;
}

void sago_arena_release(sago_arena *arena, size_t mark) {
    arena->used_bytes = mark;
}
