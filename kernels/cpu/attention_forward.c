// SPDX-License-Identifier: Apache-2.0
/**
 * Forward attention (FlashAttention's recurrence: Dao et al. 2022, algorithm 1). One work item is a head of a
 * row, or a piece of its queries where there are few heads; docs/kernels/attention.md tells the whole.
 */
#include "attention_tile.h"

#include <math.h>
#include <omp.h>

/** Below any score, and finite so that a difference of two is no NaN. */
#define LOWEST (-1.0e38f)

typedef struct problem {
    sago_attention_sizes z;
    const sago_attention_args *args;
    attention_bias bias;
    sago_mask mask;
    const float *q, *k, *v;
    float *o, *lse;
} problem;

/** One thread's memory; panels of K and V hold the keys of a run from `first_key` on. */
typedef struct workspace {
    float *k, *v; /* K transposed in panels; V in panels */
    float *q;     /* [TILE_QUERIES, width], times scale */
    float *s;     /* [TILE_QUERIES, SCORE_STRIDE]: scores, then probabilities */
    float *o;     /* panels of the tile's sums, not yet divided */
    float *keep;  /* [TILE_KEYS] dropout factors */
    int64_t first_key, last_key, v_panel;
    int64_t packed;                     /* keys before it are in the panels */
    const float *key_rows, *value_rows; /* of the head's key 0; rows key_stride apart */
    int64_t key_stride;
    bool in_place; /* V is used once: read where it lies, not packed */
} workspace;

static size_t workspace_floats(const sago_attention_sizes *z) {
    int64_t keys = lanes_up(z->keys) + LANES, width = lanes_up(z->width);
    return (size_t)(2 * keys * width + TILE_QUERIES * (2 * width + SCORE_STRIDE) + TILE_KEYS);
}

static workspace workspace_over(float *memory, const sago_attention_sizes *z) {
    int64_t keys = lanes_up(z->keys) + LANES, width = lanes_up(z->width);
    workspace w = {.k = memory};
    w.v = w.k + keys * width;
    w.q = w.v + keys * width;
    w.o = w.q + TILE_QUERIES * width;
    w.s = w.o + TILE_QUERIES * width;
    w.keep = w.s + TILE_QUERIES * SCORE_STRIDE;
    return w;
}

/**
 * Scores of one query and one key tile become probabilities relative to the largest score so far. *top and
 * *sum are the query's running largest and (by lanes) sum; its sums in `o` shrink when the largest grows.
 */
static void softmax_row(float *s, int64_t count, const float *bias, const float *keep, float *top, vec *sum,
                        float *o, int64_t o_panel, int64_t o_panels) {
    vec largest = vec_splat(*top);
    if (bias) {
        for (int64_t j = 0; j < count; j += LANES) {
            vec x = vec_load(s + j) + vec_load(bias + j);
            vec_store(s + j, x);
            largest = vec_max(x, largest);
        }
    } else {
        for (int64_t j = 0; j < count; j += LANES) largest = vec_max(vec_load(s + j), largest);
    }
    float now = vec_largest(largest);
    if (now > *top) {
        if (*top > LOWEST) {
            float shrink = expf(*top - now);
            *sum *= shrink;
            for (int64_t p = 0; p < o_panels; p++)
                vec_store(o + p * o_panel, vec_load(o + p * o_panel) * shrink);
        }
        *top = now;
    }
    vec total = *sum;
    for (int64_t j = 0; j < count; j += LANES) {
        vec p = vec_exp_negative(vec_load(s + j) - now);
        total += p;
        vec_store(s + j, keep ? p * vec_load(keep + j) : p);
    }
    *sum = total;
}

/** What comes next, asked for row by row while this tile is at work. */
ALWAYS_INLINE void prefetch(const problem *p, const workspace *w, attention_run tile, int64_t at, int64_t i) {
    int64_t width = p->z.width, stride = p->z.heads * width;
    row_prefetch(p->o + at + i * stride, width, 1);
    if (tile.first + tile.count + i < p->z.queries)
        row_prefetch(p->q + at + (tile.count + i) * stride, width, 0);
    if (w->packed + i >= w->last_key) return;
    row_prefetch(w->key_rows + (w->packed + i) * w->key_stride, width, 0);
    row_prefetch(w->value_rows + (w->packed + i) * w->key_stride, width, 0);
}

/** Packs keys up to `end`, as far as they are not yet; a row of short segments does so tile by tile. Vectors
 * are filled with the keys that follow, whose scores are cut. */
static void pack_keys(workspace *w, int64_t width, int64_t end) {
    end = w->first_key + lanes_up(end - w->first_key);
    end = end < w->last_key ? end : w->last_key;
    if (end <= w->packed) return;
    int64_t count = end - w->packed, offset = w->packed - w->first_key;
    panels_pack_transposed(w->k + offset * width, w->key_rows + w->packed * w->key_stride, w->key_stride,
                           count, width);
    if (!w->in_place)
        panels_pack(w->v + offset * LANES, w->v_panel, w->value_rows + w->packed * w->key_stride,
                    w->key_stride, count, count, width);
    w->packed = end;
}

static void run_tile(const problem *p, const workspace *w, int64_t b, int64_t h, attention_run tile) {
    const sago_attention_sizes *z = &p->z;
    int64_t width = lanes_up(z->width), panels = width / LANES, o_panel = TILE_QUERIES * LANES;
    const int32_t *hi = (const int32_t *)p->args->hi.data + b * z->queries + tile.first;
    float top[TILE_QUERIES];
    vec sum[TILE_QUERIES];
    const float *q = p->q + ((b * z->queries + tile.first) * z->heads + h) * z->width;
    int64_t stride = z->heads * z->width,
            room = (tile.count + PRODUCT_ROWS - 1) / PRODUCT_ROWS * PRODUCT_ROWS;
    left_rows left = take_left_rows(w->q, q, stride, tile.count, z->width, p->args->scale);
    for (int64_t i = 0; i < tile.count; i++) top[i] = LOWEST, sum[i] = (vec){0};

    for (int64_t start = tile.lo; start < tile.hi; start += TILE_KEYS) {
        int64_t count = tile.hi - start < TILE_KEYS ? tile.hi - start : TILE_KEYS, columns = lanes_up(count);
        int64_t offset = start - w->first_key;
        product(w->s, SCORE_STRIDE, LANES, left.at, left.stride, 1, w->k + offset * z->width,
                z->width * LANES, LANES, z->width, room, columns / LANES, false);
        for (int64_t i = 0; i < tile.count; i++) {
            float *s = w->s + i * SCORE_STRIDE;
            if (start + count == tile.hi) prefetch(p, w, tile, q - p->q, i);
            int64_t last = hi[i] - start < count ? hi[i] - start : count;
            if (last <= 0) {
                memset(s, 0, (size_t)columns * sizeof(float));
                continue;
            }
            for (int64_t j = last; j < columns; j++) s[j] = -INFINITY;
            const float *keep = NULL;
            if (p->args->dropout.rate > 0) {
                int64_t token = h * z->queries + tile.first + i;
                memset(w->keep + lanes_down(last), 0, (size_t)(TILE_KEYS - lanes_down(last)) * sizeof(float));
                sago_mask_of_token(w->keep, &p->mask, b, token, start, last);
                keep = w->keep;
            }
            const float *bias = NULL;
            if (p->bias.rows)
                bias = p->bias.rows + h * p->bias.stride + (z->queries - 1) + start - (tile.first + i);
            softmax_row(s, columns, bias, keep, &top[i], &sum[i], w->o + i * LANES, o_panel, panels);
        }
        if (w->in_place)
            product(w->o, LANES, o_panel, w->s, SCORE_STRIDE, 1, w->value_rows + start * w->key_stride, LANES,
                    w->key_stride, count, room, panels, start > tile.lo);
        else
            product(w->o, LANES, o_panel, w->s, SCORE_STRIDE, 1, w->v + offset * LANES, w->v_panel, LANES,
                    count, room, panels, start > tile.lo);
    }

    float *o = p->o + ((b * z->queries + tile.first) * z->heads + h) * z->width;
    for (int64_t i = 0; i < tile.count; i++) {
        float total = vec_sum(sum[i]);
        p->lse[(b * z->heads + h) * z->queries + tile.first + i] = top[i] + logf(total);
        panels_unpack(o + i * stride, stride, w->o + i * LANES, o_panel, 1, z->width, 1.0f / total);
    }
}

/** Queries [from, end) of head h of row b. */
static void run_queries(const problem *p, workspace *w, int64_t b, int64_t h, int64_t from, int64_t end) {
    const sago_attention_sizes *z = &p->z;
    const int32_t *lo = (const int32_t *)p->args->lo.data + b * z->queries;
    const int32_t *hi = (const int32_t *)p->args->hi.data + b * z->queries;
    int64_t first, last, group = h / (z->heads / z->groups);
    attention_span(lo, hi, from, end, &first, &last);
    w->last_key = last;
    w->key_stride = z->groups * z->width;
    w->key_rows = p->k + (b * z->keys * z->groups + group) * z->width;
    w->value_rows = p->v + (b * z->keys * z->groups + group) * z->width;
    for (int64_t i = from; i < end; i++) {
        if (lo[i] < hi[i]) continue;
        memset(p->o + ((b * z->queries + i) * z->heads + h) * z->width, 0, (size_t)z->width * sizeof(float));
        p->lse[(b * z->heads + h) * z->queries + i] = -INFINITY;
    }
    for (int64_t at = from; at < end;) {
        attention_run run = attention_next_run(lo, hi, at, end, end - at);
        at = run.first + run.count;
        w->first_key = w->packed = run.lo, w->v_panel = lanes_up(run.hi - run.lo) * LANES;
        w->in_place = run.count <= TILE_QUERIES && z->width % LANES == 0;
        for (int64_t done = run.first; done < at;) {
            attention_run tile = attention_next_run(lo, hi, done, at, TILE_QUERIES);
            pack_keys(w, z->width, tile.hi);
            run_tile(p, w, b, h, tile);
            done += tile.count;
        }
    }
}

sago_status SAGO_CPU(attention_forward)(sago_device *device, sago_tensor o, sago_tensor lse, sago_tensor q,
                                        sago_tensor k, sago_tensor v, const sago_attention_args *args) {
    problem p = {.args = args, .q = q.data, .k = k.data, .v = v.data, .o = o.data, .lse = lse.data};
    sago_attention_sizes *z = &p.z;
    SAGO_TRY(sago_attention_check(device, "attention_forward", o, lse, q, k, v, args, z));
    if (z->queries < PRODUCT_ROWS / 2) return SAGO_CPU(attention_decode)(device, o, lse, q, k, v, args, z);

    int n_threads = device->n_threads;
    size_t bias_bytes = attention_bias_bytes(z), floats = workspace_floats(z);
    char *memory;
    SAGO_TRY(
        sago_cpu_scratch(device, bias_bytes + floats * sizeof(float) * (size_t)n_threads, (void **)&memory));
    p.bias = SAGO_CPU(attention_bias_fill)(memory, z, args);
    p.mask = sago_mask_make(&args->dropout, z->keys);

    /* A few pieces a thread even out their lengths; queries in one piece share the work of packing K and V.
     */
    int64_t heads = z->batch * z->heads,
            pieces = heads >= 4 * n_threads ? 1 : (4 * n_threads + heads - 1) / heads;
    if (pieces > (z->queries + TILE_QUERIES - 1) / TILE_QUERIES)
        pieces = (z->queries + TILE_QUERIES - 1) / TILE_QUERIES;
    int64_t length = (z->queries + pieces - 1) / pieces;
#pragma omp parallel num_threads(n_threads)
    {
        workspace w =
            workspace_over((float *)(memory + bias_bytes) + floats * (size_t)omp_get_thread_num(), z);
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < heads * pieces; item++) {
            int64_t head = item / pieces, from = item % pieces * length;
            int64_t end = from + length < z->queries ? from + length : z->queries;
            if (from < end) run_queries(&p, &w, head / z->heads, head % z->heads, from, end);
        }
    }
    return SAGO_OK;
}
