// SPDX-License-Identifier: Apache-2.0
#include "adafactor_table.h"

#include "adafactor.h"
#include "gpu_ops.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

enum {
    /* Tables on their way to the device. A step changes the table once (learning rates); the host may be that
       many steps ahead before it waits here. */
    IN_FLIGHT = 4,
};

typedef struct tables {
    adafactor_entry *now; /* host: the table of this call */
    adafactor_entry *device;
    int room; /* entries, of all of these */
    int n;    /* entries on the device */
    struct {
        adafactor_entry *pinned;
        sago_event *copied;
    } flight[IN_FLIGHT];
    int newest;
} tables;

static int64_t parts(int64_t n, int64_t each) {
    return (n + each - 1) / each;
}

static bool aligned(const void *memory, size_t bytes) {
    return (uintptr_t)memory % bytes == 0;
}

static adafactor_entry entry_of(const sago_adafactor_slot *slot, adafactor_plan *plan, int64_t *partials) {
    int64_t rows, columns;
    adafactor_entry e;
    memset(&e, 0, sizeof e); /* padding too: tables are compared byte by byte */
    sago_adafactor_extent(slot, &rows, &columns);
    e.value = slot->value.data, e.remainder = slot->remainder, e.gradient = slot->gradient.data;
    e.row = slot->row, e.column = slot->column, e.moment = slot->moment, e.momentum = slot->momentum;
    e.row_sum = slot->row_sum, e.column_sum = slot->column_sum;
    e.value_square = slot->value_square, e.update_square = slot->update_square;
    e.kept_square = slot->kept_square;
    e.mean_parts = slot->factored ? slot->mean_parts : NULL;
    e.row_copies = slot->mean_parts ? slot->row_copies : 1;
    e.global_rows = (double)slot->global_rows, e.global_columns = (double)slot->global_columns;
    e.count = rows * columns;
    e.learning_rate = slot->learning_rate;
    e.factored = slot->factored;
    e.mean_of_columns = columns == slot->global_columns;
    e.rows = slot->factored ? rows : parts(e.count, ADAFACTOR_TILE_COLUMNS);
    e.columns = slot->factored ? columns : ADAFACTOR_TILE_COLUMNS;
    e.vector = e.columns % 4 == 0 && aligned(e.value, e.remainder ? 8 : 16) && aligned(e.remainder, 8) &&
               aligned(e.gradient, 16) && aligned(e.column, 16) && aligned(e.moment, 16) &&
               aligned(e.momentum, 16);
    int64_t row_tiles = parts(e.rows, ADAFACTOR_TILE_ROWS);
    e.column_tiles = parts(e.columns, ADAFACTOR_TILE_COLUMNS);
    e.first_tile = plan->n_tiles, e.first_sum = plan->n_sums, e.first_average = plan->n_averages;
    e.n_tiles = row_tiles * e.column_tiles;
    plan->n_tiles += e.n_tiles;
    plan->n_sums++;
    if (!slot->factored) return e;
    plan->n_sums += parts(e.rows, ADAFACTOR_BLOCK) + parts(e.columns, ADAFACTOR_SUM_COLUMNS);
    plan->n_averages += parts(e.rows + e.columns, ADAFACTOR_BLOCK);
    e.row_partial = *partials, *partials += e.column_tiles * e.rows;
    e.column_partial = *partials, *partials += row_tiles * e.columns;
    return e;
}

static void close_tables(sago_gpu *gpu, tables *t) {
    SAGO_GPU(release)(&gpu->device, t->device);
    for (int i = 0; i < IN_FLIGHT; i++) {
        SAGO_GPU(release_host)(&gpu->device, t->flight[i].pinned);
        if (t->flight[i].copied) SAGO_GPU(rt_event_close)(t->flight[i].copied);
    }
    free(t->now);
    memset(t, 0, sizeof *t);
}

static sago_status make_room(sago_gpu *gpu, tables *t, int n) {
    if (n <= t->room) return SAGO_OK;
    /* Kernels that are under way may still read the old table. */
    SAGO_TRY(SAGO_GPU(rt_stream_wait)(gpu->compute));
    close_tables(gpu, t);
    size_t bytes = (size_t)n * sizeof *t->now;
    t->now = sago_alloc(bytes);
    sago_status status = SAGO_GPU(allocate)(&gpu->device, (void **)&t->device, bytes);
    for (int i = 0; i < IN_FLIGHT && status == SAGO_OK; i++) {
        status = SAGO_GPU(allocate_host)(&gpu->device, (void **)&t->flight[i].pinned, bytes);
        if (status == SAGO_OK) status = SAGO_GPU(rt_event_open)(&t->flight[i].copied);
        if (status == SAGO_OK) status = SAGO_GPU(rt_event_record)(t->flight[i].copied, gpu->compute);
    }
    if (status != SAGO_OK)
        close_tables(gpu, t);
    else
        t->room = n;
    return status;
}

static sago_status send(sago_gpu *gpu, tables *t, int n) {
    size_t bytes = (size_t)n * sizeof *t->now;
    if (n == t->n && memcmp(t->now, t->flight[t->newest].pinned, bytes) == 0) return SAGO_OK;
    int next = (t->newest + 1) % IN_FLIGHT;
    SAGO_TRY(SAGO_GPU(rt_event_wait)(t->flight[next].copied));
    memcpy(t->flight[next].pinned, t->now, bytes);
    t->n = 0; /* until the copy is on its way */
    SAGO_TRY(SAGO_GPU(rt_copy)(t->device, t->flight[next].pinned, bytes, SAGO_HOST_TO_DEVICE, gpu->compute));
    SAGO_TRY(SAGO_GPU(rt_event_record)(t->flight[next].copied, gpu->compute));
    t->newest = next, t->n = n;
    return SAGO_OK;
}

sago_status SAGO_GPU(adafactor_plan)(sago_gpu *gpu, const char *operation, const sago_adafactor_slot slots[],
                                     int n, const sago_adafactor_args *args, adafactor_plan *out) {
    memset(out, 0, sizeof *out);
    SAGO_TRY(sago_adafactor_check(operation, slots, n, args));
    if (n <= 0) return SAGO_OK;
    if (!gpu->optimizer) gpu->optimizer = sago_alloc_zero(1, sizeof(tables));
    tables *t = gpu->optimizer;
    SAGO_TRY(make_room(gpu, t, n));
    int64_t partials = 0;
    for (int i = 0; i < n; i++) t->now[i] = entry_of(&slots[i], out, &partials);
    SAGO_TRY(send(gpu, t, n));
    out->entries = t->device, out->n = n;
    size_t tile_bytes = (size_t)out->n_tiles * sizeof *out->tile_sums,
           shared_bytes = (size_t)n * sizeof *out->shared;
    char *memory;
    SAGO_TRY(SAGO_GPU(workspace)(gpu, tile_bytes + shared_bytes + (size_t)partials * sizeof *out->partial,
                                 (void **)&memory));
    out->tile_sums = (double *)(void *)memory;
    out->shared = (adafactor_shared *)(void *)(memory + tile_bytes);
    out->partial = (float *)(void *)(memory + tile_bytes + shared_bytes);
    return SAGO_OK;
}

void SAGO_GPU(adafactor_close)(sago_gpu *gpu) {
    if (!gpu->optimizer) return;
    close_tables(gpu, gpu->optimizer);
    free(gpu->optimizer);
    gpu->optimizer = NULL;
}
