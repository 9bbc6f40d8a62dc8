// SPDX-License-Identifier: Apache-2.0
/**
 * Backward attention (Dao et al. 2022, algorithm 4): probabilities are computed again from the scores and
 * lse. One work item is a query head of a row; with P = softmax, dP = dropout(dO V^T) and D = rowsum(dO O),
 *     dS = P (dP - D),  dV = dropout(P)^T dO,  dQ = scale dS K,  dK = scale dS^T Q,  d_bias = sums of dS by
 * bucket.
 */
#include "attention_tile.h"

#include <math.h>
#include <omp.h>

typedef struct problem {
    sago_attention_sizes z;
    const sago_attention_args *args;
    attention_bias bias;
    sago_mask mask;
    const float *q, *k, *v, *o, *lse, *d_o;
    float *d_q;
    double *d_bias; /* [B, H, n_buckets] */
} problem;

/**
 * Where the gradients of a head's keys are summed, from `first_key` on: in the tensors themselves where whole
 * vectors fit, else in panels that are copied at the end.
 */
typedef struct key_sums {
    float *d_k, *d_v;
    int64_t row, panel; /* floats from row to row, from one vector's columns to the next */
} key_sums;

/** Right operand of a product: rows `step` floats apart, vectors of one row `panel` apart. */
typedef struct right_rows {
    const float *at;
    int64_t panel, step;
} right_rows;

/** One thread's memory. Panels of keys hold those of a run from `first_key` on, `panel` apart; d_k and d_v
 * all keys from `first_sum` on. */
typedef struct workspace {
    float *k_across, *v_across; /* K and V transposed, in panels */
    float *k, *d_k, *d_v;       /* panels over the keys */
    key_sums sums;
    float *q, *d_o; /* [TILE_QUERIES, width] */
    float *q_panels, *d_o_panels, *d_q;
    float *rest_k, *rest_v; /* [PRODUCT_ROWS, width]: gradients of keys that fill no whole block */
    float *p, *d_s;         /* [TILE_QUERIES, SCORE_STRIDE] */
    float *keep;            /* [TILE_KEYS] */
    float *diagonals;       /* sums of dS by distance, as attention_bias counts it */
    int64_t first_key, last_key, panel, first_sum;
    int64_t packed;                     /* keys before it are in the panels */
    int64_t touched;                    /* keys before it have gradients in d_k and d_v */
    const float *key_rows, *value_rows; /* of the head's key 0; rows key_stride apart */
    float *d_key_rows, *d_value_rows;
    int64_t key_stride, d_key_stride;
    bool in_place; /* K is multiplied by once: read where it lies, not packed */
} workspace;

static size_t workspace_floats(const sago_attention_sizes *z, const attention_bias *bias) {
    int64_t keys = lanes_up(z->keys) + LANES, width = lanes_up(z->width);
    return (size_t)(5 * keys * width + TILE_QUERIES * (5 * width + 2 * SCORE_STRIDE) + TILE_KEYS +
                    2 * PRODUCT_ROWS * width + bias->stride);
}

static workspace workspace_over(float *memory, const sago_attention_sizes *z) {
    int64_t keys = (lanes_up(z->keys) + LANES) * lanes_up(z->width), tile = TILE_QUERIES * lanes_up(z->width);
    workspace w = {.k_across = memory};
    w.v_across = w.k_across + keys;
    w.k = w.v_across + keys;
    w.d_k = w.k + keys;
    w.d_v = w.d_k + keys;
    w.q = w.d_v + keys;
    w.d_o = w.q + tile;
    w.q_panels = w.d_o + tile;
    w.d_o_panels = w.q_panels + tile;
    w.d_q = w.d_o_panels + tile;
    w.p = w.d_q + tile;
    w.d_s = w.p + TILE_QUERIES * SCORE_STRIDE;
    w.keep = w.d_s + TILE_QUERIES * SCORE_STRIDE;
    w.rest_k = w.keep + TILE_KEYS;
    w.rest_v = w.rest_k + PRODUCT_ROWS * lanes_up(z->width);
    w.diagonals = w.rest_v + PRODUCT_ROWS * lanes_up(z->width);
    return w;
}

/**
 * One query and one key tile: s (scores) becomes dropout(P) and d (dO V^T) becomes dS. Keys from `last` on
 * get zeros. diagonals is NULL without a bias, keep without dropout.
 */
ALWAYS_INLINE void differentiate_row(float *s, float *d, int64_t count, int64_t last, float lse, float delta,
                                     const float *bias, float *diagonals, const float *keep) {
    for (int64_t j = last; j < count; j++) s[j] = -INFINITY, d[j] = 0.0f;
    for (int64_t j = 0; j < count; j += LANES) {
        vec x = vec_load(s + j), d_p = vec_load(d + j);
        if (bias) x += vec_load(bias + j);
        vec p = vec_exp_negative(x - lse), dropped = p;
        if (keep) {
            vec factor = vec_load(keep + j);
            dropped = p * factor, d_p *= factor;
        }
        vec d_s = p * (d_p - delta);
        vec_store(s + j, dropped);
        vec_store(d + j, d_s);
        if (diagonals) vec_store(diagonals + j, vec_load(diagonals + j) + d_s);
    }
}

/**
 * D = rowsum(dO O), each row's sum in the order of product_block: D and the dP of a key that has (nearly) all
 * of a query's attention are then sums of the same products with the same roundings, and their difference is
 * as small as it should be. scratch: 2 * LANES * width floats.
 */
static void row_sums(float *out, float *scratch, const float *a, const float *b, int64_t stride,
                     int64_t count, int64_t width) {
    float *across_a = scratch, *across_b = scratch + LANES * width;
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t here = count - i < LANES ? count - i : LANES;
        panels_pack_transposed(across_a, a + i * stride, stride, here, width);
        panels_pack_transposed(across_b, b + i * stride, stride, here, width);
        vec sum = {0};
        for (int64_t e = 0; e < width; e++)
            sum += vec_load(across_a + e * LANES) * vec_load(across_b + e * LANES);
        vec_store(out + i, sum);
    }
}

/** What the next tile begins with, asked for row by row while this one is at work. */
ALWAYS_INLINE void prefetch(const problem *p, const workspace *w, attention_run tile, int64_t at, int64_t i) {
    int64_t width = p->z.width, stride = p->z.heads * width, next = at + (tile.count + i) * stride;
    row_prefetch(p->d_q + at + i * stride, width, 1);
    if (tile.first + tile.count + i < p->z.queries) {
        row_prefetch(p->q + next, width, 0);
        row_prefetch(p->d_o + next, width, 0);
        row_prefetch(p->o + next, width, 0);
    }
    if (w->packed + i < w->last_key) {
        row_prefetch(w->key_rows + (w->packed + i) * w->key_stride, width, 0);
        row_prefetch(w->value_rows + (w->packed + i) * w->key_stride, width, 0);
        row_prefetch(w->d_key_rows + (w->packed + i) * w->d_key_stride, width, 1);
        row_prefetch(w->d_value_rows + (w->packed + i) * w->d_key_stride, width, 1);
    }
}

/** Packs keys up to `end`, as far as they are not yet; a row of short segments does so tile by tile. Vectors
 * are filled with the keys that follow, whose scores are cut. */
static void pack_keys(workspace *w, int64_t width, int64_t end) {
    end = w->first_key + lanes_up(end - w->first_key);
    end = end < w->last_key ? end : w->last_key;
    if (end <= w->packed) return;
    int64_t count = end - w->packed, offset = w->packed - w->first_key;
    const float *k = w->key_rows + w->packed * w->key_stride, *v = w->value_rows + w->packed * w->key_stride;
    panels_pack_transposed(w->k_across + offset * width, k, w->key_stride, count, width);
    panels_pack_transposed(w->v_across + offset * width, v, w->key_stride, count, width);
    if (!w->in_place) panels_pack(w->k + offset * LANES, w->panel, k, w->key_stride, count, count, width);
    w->packed = end;
}

/** Zeros for the gradients of keys [from, to). */
static void zero_keys(workspace *w, int64_t width, int64_t from, int64_t to) {
    for (int64_t i = from - w->first_sum; i < to - w->first_sum; i++)
        for (int64_t p = 0; p < lanes_up(width) / LANES; p++) {
            vec_store(w->sums.d_k + i * w->sums.row + p * w->sums.panel, (vec){0});
            vec_store(w->sums.d_v + i * w->sums.row + p * w->sums.panel, (vec){0});
        }
}

/** Before gradients of keys [from, to) are summed: false when they are the first, and simply stored. */
static bool touch_keys(workspace *w, int64_t width, int64_t from, int64_t to) {
    bool first = from >= w->touched;
    zero_keys(w, width, w->touched, first ? from : to);
    if (to > w->touched) w->touched = to;
    return !first;
}

/** Rows of a right operand that are used by one tile: packed where their width is no whole number of vectors.
 */
static right_rows take_right_rows(float *copy, left_rows from, int64_t count, int64_t width) {
    if (width % LANES == 0) return (right_rows){from.at, LANES, from.stride};
    panels_pack(copy, TILE_QUERIES * LANES, from.at, from.stride, count, count, width);
    return (right_rows){copy, TILE_QUERIES * LANES, LANES};
}

/** Gradients of `count` keys = or += left^T right over `steps` queries; rest is room for the last ones. */
static void sum_keys(float *out, const key_sums *sums, float *rest, const float *left, right_rows right,
                     int64_t steps, int64_t count, int64_t panels, bool add) {
    int64_t whole = count / PRODUCT_ROWS * PRODUCT_ROWS, width = panels * LANES;
    product(out, sums->row, sums->panel, left, 1, SCORE_STRIDE, right.at, right.panel, right.step, steps,
            whole, panels, add);
    if (whole == count) return;
    out += whole * sums->row;
    if (add)
        for (int64_t i = 0; i < count - whole; i++)
            for (int64_t p = 0; p < panels; p++)
                vec_store(rest + i * width + p * LANES, vec_load(out + i * sums->row + p * sums->panel));
    product(rest, width, LANES, left + whole, 1, SCORE_STRIDE, right.at, right.panel, right.step, steps,
            PRODUCT_ROWS, panels, add);
    for (int64_t i = 0; i < count - whole; i++)
        for (int64_t p = 0; p < panels; p++)
            vec_store(out + i * sums->row + p * sums->panel, vec_load(rest + i * width + p * LANES));
}

static void run_tile(const problem *p, workspace *w, int64_t b, int64_t h, attention_run tile) {
    const sago_attention_sizes *z = &p->z;
    int64_t width = lanes_up(z->width), panels = width / LANES, tile_panel = TILE_QUERIES * LANES;
    const int32_t *hi = (const int32_t *)p->args->hi.data + b * z->queries + tile.first;
    const float *lse = p->lse + (b * z->heads + h) * z->queries + tile.first;
    int64_t at = ((b * z->queries + tile.first) * z->heads + h) * z->width, stride = z->heads * z->width;
    int64_t room = (tile.count + PRODUCT_ROWS - 1) / PRODUCT_ROWS * PRODUCT_ROWS;
    float delta[TILE_QUERIES];
    left_rows q = take_left_rows(w->q, p->q + at, stride, tile.count, z->width, p->args->scale);
    left_rows d_o = take_left_rows(w->d_o, p->d_o + at, stride, tile.count, z->width, 1.0f);
    right_rows q_right = take_right_rows(w->q_panels, q, tile.count, z->width);
    right_rows d_o_right = take_right_rows(w->d_o_panels, d_o, tile.count, z->width);
    bool in_place = p->args->scale == 1.0f && room == tile.count && width == z->width;
    float *d_q = in_place ? p->d_q + at : w->d_q;
    row_sums(delta, w->d_q, p->o + at, p->d_o + at, stride, tile.count, z->width);

    for (int64_t start = tile.lo; start < tile.hi; start += TILE_KEYS) {
        int64_t count = tile.hi - start < TILE_KEYS ? tile.hi - start : TILE_KEYS, columns = lanes_up(count);
        int64_t offset = start - w->first_key;
        product(w->p, SCORE_STRIDE, LANES, q.at, q.stride, 1, w->k_across + offset * z->width,
                z->width * LANES, LANES, z->width, room, columns / LANES, false);
        product(w->d_s, SCORE_STRIDE, LANES, d_o.at, d_o.stride, 1, w->v_across + offset * z->width,
                z->width * LANES, LANES, z->width, room, columns / LANES, false);
        for (int64_t i = 0; i < tile.count; i++) {
            int64_t last = hi[i] - start < count ? hi[i] - start : count;
            float *s = w->p + i * SCORE_STRIDE, *d = w->d_s + i * SCORE_STRIDE, *keep = NULL;
            if (start + count == tile.hi) prefetch(p, w, tile, at, i);
            if (last <= 0) {
                memset(s, 0, (size_t)columns * sizeof(float));
                memset(d, 0, (size_t)columns * sizeof(float));
                continue;
            }
            if (p->args->dropout.rate > 0) {
                int64_t token = h * z->queries + tile.first + i;
                keep = w->keep;
                memset(keep + lanes_down(last), 0, (size_t)(TILE_KEYS - lanes_down(last)) * sizeof(float));
                sago_mask_of_token(keep, &p->mask, b, token, start, last);
            }
            int64_t distance = (z->queries - 1) + start - (tile.first + i);
            if (p->bias.rows)
                differentiate_row(s, d, columns, last, lse[i], delta[i],
                                  p->bias.rows + h * p->bias.stride + distance, w->diagonals + distance,
                                  keep);
            else
                differentiate_row(s, d, columns, last, lse[i], delta[i], NULL, NULL, keep);
        }
        bool add = touch_keys(w, z->width, start, start + count);
        int64_t sum = (start - w->first_sum) * w->sums.row;
        sum_keys(w->sums.d_v + sum, &w->sums, w->rest_v, w->p, d_o_right, tile.count, count, panels, add);
        sum_keys(w->sums.d_k + sum, &w->sums, w->rest_k, w->d_s, q_right, tile.count, count, panels, add);
        right_rows k = {w->k + offset * LANES, w->panel, LANES};
        if (w->in_place) k = (right_rows){w->key_rows + start * w->key_stride, LANES, w->key_stride};
        product(d_q, in_place ? stride : LANES, in_place ? LANES : tile_panel, w->d_s, SCORE_STRIDE, 1, k.at,
                k.panel, k.step, count, room, panels, start > tile.lo);
    }
    if (!in_place)
        panels_unpack(p->d_q + at, stride, w->d_q, tile_panel, tile.count, z->width, p->args->scale);
}

/** All queries of head h of row b. d_k and d_v: where this head's gradients of the keys go, rows `out_stride`
 * apart. */
static void run_head(const problem *p, workspace *w, int64_t b, int64_t h, float *d_k, float *d_v,
                     int64_t out_stride) {
    const sago_attention_sizes *z = &p->z;
    const int32_t *lo = (const int32_t *)p->args->lo.data + b * z->queries;
    const int32_t *hi = (const int32_t *)p->args->hi.data + b * z->queries;
    int64_t first, last, group = h / (z->heads / z->groups);
    attention_span(lo, hi, 0, z->queries, &first, &last);
    int64_t count = last - first, sums_panel = lanes_up(count) * LANES;
    w->first_sum = w->touched = first, w->last_key = last;
    w->key_stride = z->groups * z->width, w->d_key_stride = out_stride;
    w->key_rows = p->k + (b * z->keys * z->groups + group) * z->width;
    w->value_rows = p->v + (b * z->keys * z->groups + group) * z->width;
    w->d_key_rows = d_k, w->d_value_rows = d_v;
    bool in_place = z->width % LANES == 0;
    w->sums = (key_sums){w->d_k, w->d_v, LANES, sums_panel};
    if (in_place) w->sums = (key_sums){d_k + first * out_stride, d_v + first * out_stride, out_stride, LANES};
    if (p->bias.rows) memset(w->diagonals, 0, (size_t)p->bias.stride * sizeof(float));
    for (int64_t i = 0; i < z->queries; i++)
        if (lo[i] >= hi[i])
            memset(p->d_q + ((b * z->queries + i) * z->heads + h) * z->width, 0,
                   (size_t)z->width * sizeof(float));
    for (int64_t at = 0; at < z->queries;) {
        attention_run run = attention_next_run(lo, hi, at, z->queries, z->queries - at);
        at = run.first + run.count;
        w->first_key = w->packed = run.lo, w->panel = lanes_up(run.hi - run.lo) * LANES;
        w->in_place = run.count <= TILE_QUERIES && z->width % LANES == 0;
        for (int64_t done = run.first; done < at;) {
            attention_run tile = attention_next_run(lo, hi, done, at, TILE_QUERIES);
            pack_keys(w, z->width, tile.hi);
            run_tile(p, w, b, h, tile);
            done += tile.count;
        }
    }
    zero_keys(w, z->width, w->touched, last);

    for (int64_t j = 0; j < z->keys; j++) {
        if (j == first) j = last;
        if (j >= z->keys) break;
        memset(d_k + j * out_stride, 0, (size_t)z->width * sizeof(float));
        memset(d_v + j * out_stride, 0, (size_t)z->width * sizeof(float));
    }
    if (!in_place) {
        panels_unpack(d_k + first * out_stride, out_stride, w->d_k, sums_panel, count, z->width, 1.0f);
        panels_unpack(d_v + first * out_stride, out_stride, w->d_v, sums_panel, count, z->width, 1.0f);
    }
    if (!p->bias.rows) return;
    double *sums = p->d_bias + (b * z->heads + h) * z->n_buckets;
    for (int64_t d = 0; d < z->queries + z->keys - 1; d++) sums[p->bias.buckets[d]] += w->diagonals[d];
}

/** Sums over the query heads of each key/value head, in the order of the heads. partial: [H, Sk, E], out:
 * [Sk, G, E] */
static void add_heads(const sago_attention_sizes *z, float *out, const float *partial, int n_threads) {
    int64_t shared = z->heads / z->groups, piece = z->keys * z->width;
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t j = 0; j < z->keys; j++)
        for (int64_t g = 0; g < z->groups; g++)
            for (int64_t e = 0; e < z->width; e++) {
                float sum = 0.0f;
                for (int64_t h = g * shared; h < (g + 1) * shared; h++)
                    sum += partial[h * piece + j * z->width + e];
                out[(j * z->groups + g) * z->width + e] = sum;
            }
}

sago_status SAGO_CPU(attention_backward)(sago_device *device, sago_tensor d_q, sago_tensor d_k,
                                         sago_tensor d_v, sago_tensor d_bias, sago_tensor d_o, sago_tensor o,
                                         sago_tensor lse, sago_tensor q, sago_tensor k, sago_tensor v,
                                         const sago_attention_args *args) {
    problem p = {.args = args,
                 .q = q.data,
                 .k = k.data,
                 .v = v.data,
                 .o = o.data,
                 .lse = lse.data,
                 .d_o = d_o.data,
                 .d_q = d_q.data};
    sago_attention_sizes *z = &p.z;
    SAGO_TRY(sago_attention_check(device, "attention_backward", o, lse, q, k, v, args, z));
    SAGO_TRY(sago_attention_backward_check(d_q, d_k, d_v, d_bias, d_o, q, k, args));

    int n_threads = device->n_threads;
    bool grouped = z->heads != z->groups;
    int64_t bias_sums = z->batch * z->heads * z->n_buckets, piece = z->keys * z->width;
    size_t bias_bytes = attention_bias_bytes(z),
           sums_bytes = (size_t)(bias_sums + 7) / 8 * 8 * sizeof(double);
    size_t partial_floats = grouped ? (size_t)lanes_up(z->heads * piece) : 0;
    p.bias.stride = (int64_t)(bias_bytes / sizeof(float)) / (z->heads + 1);
    size_t floats = workspace_floats(z, &p.bias);
    size_t bytes =
        bias_bytes + sums_bytes + (2 * partial_floats + floats * (size_t)n_threads) * sizeof(float);
    char *memory;
    SAGO_TRY(sago_cpu_scratch(device, bytes, (void **)&memory));
    p.bias = SAGO_CPU(attention_bias_fill)(memory, z, args);
    p.mask = sago_mask_make(&args->dropout, z->keys);
    p.d_bias = (double *)(memory + bias_bytes);
    memset(p.d_bias, 0, sums_bytes);
    float *partial_k = (float *)(memory + bias_bytes + sums_bytes), *partial_v = partial_k + partial_floats;
    float *threads = partial_v + partial_floats;

    /* With shared key/value heads each query head's share goes to memory of its own first, a row of the batch
     * at a time. */
    int64_t rows = grouped ? 1 : z->batch;
    for (int64_t first = 0; first < z->batch; first += rows) {
        float *row_k = (float *)d_k.data + first * z->keys * z->groups * z->width;
        float *row_v = (float *)d_v.data + first * z->keys * z->groups * z->width;
#pragma omp parallel num_threads(n_threads)
        {
            workspace w = workspace_over(threads + floats * (size_t)omp_get_thread_num(), z);
#pragma omp for schedule(dynamic, 1)
            for (int64_t item = 0; item < rows * z->heads; item++) {
                int64_t b = item / z->heads, h = item % z->heads;
                if (grouped)
                    run_head(&p, &w, first, h, partial_k + h * piece, partial_v + h * piece, z->width);
                else
                    run_head(&p, &w, b, h, row_k + (b * z->keys * z->heads + h) * z->width,
                             row_v + (b * z->keys * z->heads + h) * z->width, z->heads * z->width);
            }
        }
        if (grouped) {
            add_heads(z, row_k, partial_k, n_threads);
            add_heads(z, row_v, partial_v, n_threads);
        }
    }
    float *bias_out = d_bias.data;
    for (int64_t bucket = 0; bucket < z->n_buckets; bucket++)
        for (int64_t h = 0; h < z->heads; h++) {
            double sum = 0;
            for (int64_t b = 0; b < z->batch; b++)
                sum += p.d_bias[(b * z->heads + h) * z->n_buckets + bucket];
            bias_out[bucket * z->heads + h] += (float)sum;
        }
    return SAGO_OK;
}
