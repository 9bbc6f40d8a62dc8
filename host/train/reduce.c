// SPDX-License-Identifier: Apache-2.0
#include "reduce.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

typedef struct bucket {
    int first_block, end_block;
    int64_t first, end; /* elements of the flat buffer */
    sago_collective *reduction;
} bucket;

struct sago_reducer {
    sago_mesh *mesh;
    int n_blocks, n_buckets, n_started, n_waited;
    bucket *buckets; /* last block first */
    bool *done;      /* by block */
    float *gradients;
};

sago_status sago_reducer_open(const sago_registry *registry, sago_mesh *mesh, int64_t bucket_bytes,
                              sago_reducer **out) {
    sago_reducer *r = sago_alloc_zero(1, sizeof *r);
    r->mesh = mesh;
    r->n_blocks = registry->n_blocks;
    r->buckets = sago_alloc_zero((size_t)r->n_blocks, sizeof *r->buckets);
    r->done = sago_alloc_zero((size_t)r->n_blocks, sizeof *r->done);
    for (int end = r->n_blocks; end > 0;) {
        bucket *b = &r->buckets[r->n_buckets++];
        b->end_block = end;
        int64_t unused;
        sago_registry_block_range(registry, end - 1, &unused, &b->end);
        do {
            sago_registry_block_range(registry, --end, &b->first, &unused);
        } while (end > 0 && (b->end - b->first) * (int64_t)sizeof(float) < bucket_bytes);
        b->first_block = end;
    }
    *out = r;
    return SAGO_OK;
}

/* Waits for what was started, whatever became of the step: the buffer may be freed after this. */
static sago_status wait_started(sago_reducer *r) {
    sago_status first = SAGO_OK;
    for (; r->n_waited < r->n_started; r->n_waited++) {
        sago_status status = sago_collective_wait(r->mesh, r->buckets[r->n_waited].reduction);
        if (first == SAGO_OK) first = status;
    }
    return first;
}

void sago_reducer_close(sago_reducer *r) {
    if (!r) return;
    /* Only a step that failed leaves any; its own error is the one to tell. */
    sago_error failure;
    sago_error_take(SAGO_E_INTERNAL, &failure);
    if (wait_started(r) != SAGO_OK) (void)sago_error_give(&failure);
    free(r->buckets);
    free(r->done);
    free(r);
}

void sago_reducer_begin(sago_reducer *r, float *gradients) {
    r->gradients = gradients;
    r->n_started = r->n_waited = 0;
    memset(r->done, 0, (size_t)r->n_blocks * sizeof *r->done);
}

static sago_status start_ready(sago_reducer *r) {
    while (r->n_started < r->n_buckets) {
        bucket *b = &r->buckets[r->n_started];
        for (int block = b->first_block; block < b->end_block; block++)
            if (!r->done[block]) return SAGO_OK;
        SAGO_TRY(sago_all_reduce_start(r->mesh, SAGO_DATA_AXIS, r->gradients + b->first, b->end - b->first,
                                       &b->reduction));
        r->n_started++;
    }
    return SAGO_OK;
}

sago_status sago_reducer_block_done(void *reducer, int block) {
    sago_reducer *r = reducer;
    if (r->mesh->axis_size[SAGO_DATA_AXIS] == 1) return SAGO_OK;
    r->done[block] = true;
    return start_ready(r);
}

sago_status sago_reducer_finish(sago_reducer *r) {
    if (r->mesh->axis_size[SAGO_DATA_AXIS] == 1) return SAGO_OK;
    memset(r->done, 1, (size_t)r->n_blocks * sizeof *r->done);
    SAGO_TRY(start_ready(r));
    return wait_started(r);
}
