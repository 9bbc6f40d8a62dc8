// SPDX-License-Identifier: Apache-2.0
/**
 * Attention of few queries, as decoding has them: each key and value is used once, so reading them is the
 * cost. All heads of a row go through the keys together, BLOCK keys at a time, so that memory is read in
 * order, and each asks for what the next block of its own will read.
 */
#include "attention_tile.h"

#include <math.h>
#include <omp.h>

typedef struct problem {
    const sago_attention_sizes *z;
    const sago_attention_args *args;
    attention_bias bias;
    sago_mask mask;
    int64_t room; /* floats of one head's scores */
} problem;

enum {
    BLOCK = 16, /* keys at a time, a multiple of LANES: with their values some 50 kB for T5's heads */
    PANELS = 4, /* vectors of one head's sums that are held in registers */
    LINE = 16,  /* floats of a cache line */
};
_Static_assert(BLOCK % LANES == 0, "a block's scores are whole vectors");

static float dot(const float *a, const float *b, int64_t width) {
    vec sum = {0};
    int64_t e = 0;
    for (; e + LANES <= width; e += LANES) sum += vec_load(a + e) * vec_load(b + e);
    float total = vec_sum(sum);
    for (; e < width; e++) total += a[e] * b[e];
    return total;
}

/** LANES dots at once: s[l] = dot(q, k + l * stride), bit for bit; asks for what lies `ahead` floats on. */
static void dots(float *s, const float *q, const float *k, int64_t stride, int64_t width, int64_t ahead) {
    vec sum[LANES];
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++) sum[l] = (vec){0};
    int64_t e = 0;
    for (; e + LANES <= width; e += LANES) {
        vec left = vec_load(q + e);
        const float *row = k + e;
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++, row += stride) {
            if (e % LINE == 0) __builtin_prefetch(row + ahead, 0, 2);
            sum[l] += left * vec_load(row);
        }
    }
    vec_store(s, vec_sums(sum));
    for (; e < width; e++)
        for (int l = 0; l < LANES; l++) s[l] += q[e] * k[l * stride + e];
}

/** Scores of the `count` keys of a block. */
static void score(float *s, const float *q, const float *k, int64_t stride, int64_t width, int64_t count) {
    int64_t j = 0;
    for (; j + LANES <= count; j += LANES) dots(s + j, q, k + j * stride, stride, width, BLOCK * stride);
    for (; j < count; j++) s[j] = dot(q, k + j * stride, width);
}

/** out += sum over the block's values of factor * value, in their order; columns of `panels` vectors. */
ALWAYS_INLINE void add_panels(float *out, const float *v, const float *factors, int64_t stride, int64_t count,
                              const int panels) {
    vec sum[PANELS];
#pragma GCC unroll 4
    for (int p = 0; p < panels; p++) sum[p] = vec_load(out + p * LANES);
    for (int64_t j = 0; j < count; j++, v += stride) {
        vec factor = vec_splat(factors[j]);
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            if (p * LANES % LINE == 0) __builtin_prefetch(v + p * LANES + BLOCK * stride, 0, 2);
            sum[p] += factor * vec_load(v + p * LANES);
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < panels; p++) vec_store(out + p * LANES, sum[p]);
}

static void add_values(float *out, const float *v, const float *factors, int64_t stride, int64_t width,
                       int64_t count) {
    int64_t e = 0;
    for (; e + PANELS * LANES <= width; e += PANELS * LANES)
        add_panels(out + e, v + e, factors, stride, count, PANELS);
    for (; e + LANES <= width; e += LANES) add_panels(out + e, v + e, factors, stride, count, 1);
    for (; e < width; e++)
        for (int64_t j = 0; j < count; j++) out[e] += factors[j] * v[j * stride + e];
}

/** Scores of head h become dropout(e^(s - largest)); returns the logarithm of their sum, and 1 / the sum
 * itself. */
static float softmax(const problem *p, float *s, float *keep, int64_t b, int64_t h, int64_t i, int64_t from,
                     int64_t count, float *inverse) {
    const sago_attention_sizes *z = p->z;
    const float *bias = p->bias.rows ? p->bias.rows + h * p->bias.stride + z->queries - 1 - i + from : NULL;
    float scale = p->args->scale;
    for (int64_t j = 0; j < count; j++) s[j] = s[j] * scale + (bias ? bias[j] : 0.0f);
    for (int64_t j = count; j < lanes_up(count); j++) s[j] = -INFINITY;
    vec largest = vec_splat(-INFINITY), sum = {0};
    for (int64_t j = 0; j < count; j += LANES) largest = vec_max(vec_load(s + j), largest);
    float top = vec_largest(largest);
    for (int64_t j = 0; j < count; j += LANES) {
        vec e = vec_exp_negative(vec_load(s + j) - top);
        vec_store(s + j, e);
        sum += e;
    }
    float total = vec_sum(sum);
    if (p->args->dropout.rate > 0) {
        sago_mask_of_token(keep, &p->mask, b, h * z->queries + i, from, count);
        for (int64_t j = 0; j < count; j++) s[j] *= keep[j];
    }
    *inverse = 1.0f / total;
    return top + logf(total);
}

/** Key/value heads [first, last) of query i of row b. */
static void run_query(const problem *p, float *scores, float *o, float *lse, const float *q, const float *k,
                      const float *v, int64_t b, int64_t i, int64_t first, int64_t last) {
    const sago_attention_sizes *z = p->z;
    int64_t width = z->width, shared = z->heads / z->groups,
            from = ((const int32_t *)p->args->lo.data)[b * z->queries + i];
    int64_t count = ((const int32_t *)p->args->hi.data)[b * z->queries + i] - from,
            heads = (last - first) * shared;
    int64_t head = first * shared, token = (b * z->queries + i) * z->heads + head;
    q += token * width, o += token * width, lse += b * z->heads * z->queries + head * z->queries + i;
    memset(o, 0, (size_t)(heads * width) * sizeof(float));
    if (count <= 0) {
        for (int64_t h = 0; h < heads; h++) lse[h * z->queries] = -INFINITY;
        return;
    }
    int64_t at = ((b * z->keys + from) * z->groups + first) * width, stride = z->groups * width;
    for (int64_t j = 0; j < count; j += BLOCK)
        for (int64_t h = 0; h < heads; h++)
            score(scores + h * p->room + j, q + h * width, k + at + j * stride + h / shared * width, stride,
                  width, count - j < BLOCK ? count - j : BLOCK);
    float *inverse = scores + heads * p->room, *keep = inverse + z->heads;
    for (int64_t h = 0; h < heads; h++)
        lse[h * z->queries] =
            softmax(p, scores + h * p->room, keep, b, head + h, i, from, count, &inverse[h]);
    for (int64_t j = 0; j < count; j += BLOCK)
        for (int64_t h = 0; h < heads; h++)
            add_values(o + h * width, v + at + j * stride + h / shared * width, scores + h * p->room + j,
                       stride, width, count - j < BLOCK ? count - j : BLOCK);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t e = 0; e < width; e++) o[h * width + e] *= inverse[h];
}

sago_status SAGO_CPU(attention_decode)(sago_device *device, sago_tensor o, sago_tensor lse, sago_tensor q,
                                       sago_tensor k, sago_tensor v, const sago_attention_args *args,
                                       const sago_attention_sizes *z) {
    problem p = {.z = z, .args = args, .room = lanes_up(z->keys)};
    int n_threads = device->n_threads;
    size_t bias_bytes = attention_bias_bytes(z);
    size_t floats = (size_t)lanes_up(p.room * (z->heads + 1) + z->heads);
    char *memory;
    SAGO_TRY(
        sago_cpu_scratch(device, bias_bytes + floats * sizeof(float) * (size_t)n_threads, (void **)&memory));
    p.bias = SAGO_CPU(attention_bias_fill)(memory, z, args);
    p.mask = sago_mask_make(&args->dropout, z->keys);

    int64_t queries = z->batch * z->queries,
            pieces = (2 * n_threads + queries - 1) / (queries > 0 ? queries : 1);
    if (pieces > z->groups) pieces = z->groups;
#pragma omp parallel num_threads(n_threads)
    {
        float *scores = (float *)(memory + bias_bytes) + floats * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < queries * pieces; item++) {
            int64_t query = item / pieces, piece = item % pieces;
            run_query(&p, scores, o.data, lse.data, q.data, k.data, v.data, query / z->queries,
                      query % z->queries, z->groups * piece / pieces, z->groups * (piece + 1) / pieces);
        }
    }
    return SAGO_OK;
}
