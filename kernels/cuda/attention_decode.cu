// SPDX-License-Identifier: Apache-2.0
/**
 * Attention of few queries, as generation has them: a query's keys and values are read once, so memory is
 * what counts. A row of a batch gives only as many blocks as it has heads; so its keys are split over several
 * blocks, whose results a second kernel joins in the order of the splits.
 */
#include "attention_forward.cuh"

enum {
    FEW_THREADS = 128,
    FEW_WARPS = FEW_THREADS / WARP,
    FEW_LANES = 8,                      /* lanes that share a key */
    FEW_KEYS = FEW_THREADS / FEW_LANES, /* keys that a block has in hand at once, times AT_ONCE */
    FEW_ROUND = 32,                     /* splits are multiples of it */
    FEW_BLOCKS = 264,    /* two for each multiprocessor of an H100: enough to keep memory busy */
    FEW_LEAST_KEYS = 64, /* of a split: below that, joining costs more than it spares */
    FEW_MAX_SPLITS = 64,
};

/** Elements 4 (lane + 8 part) on of a row; `whole`: the width is a multiple of 4, so that they come at once.
 */
template <typename T>
static __device__ __forceinline__ float4 few_load(const T *row, int first, int width, bool whole) {
    float x[4];
    if (whole) {
        if (first >= width) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        typedef struct alignas(4 * sizeof(T)) quad {
            T of[4];
        } quad;
        quad loaded = *(const quad *)(row + first);
        for (int e = 0; e < 4; e++) x[e] = to_float(loaded.of[e]);
    } else {
        for (int e = 0; e < 4; e++) x[e] = first + e < width ? to_float(row[first + e]) : 0.0f;
    }
    return make_float4(x[0], x[1], x[2], x[3]);
}

template <int E, int HEADS> struct few_room {
    float top[FEW_WARPS][HEADS], sum[FEW_WARPS][HEADS], acc[FEW_WARPS][HEADS][E];
};

/** What a split leaves of a query and head: the largest score, the sum of weights, the sums of values: E + 2
 * floats. */
enum { FEW_TOP, FEW_SUM, FEW_VALUES };

/**
 * partial: [rows * heads, splits, width + 2]. A block has `HEADS` heads (of one key/value head) of one query
 * and one split of its keys.
 */
template <typename T, int E, int HEADS>
static __global__ void __launch_bounds__(FEW_THREADS)
    attention_few_kernel(attention_problem p, float *partial, const T *q, const T *k, const T *v, int splits,
                         int head_blocks) {
    typedef few_room<E, HEADS> room_type;
    SAGO_SHARED(room_type, room);
    /* AT_ONCE: keys that a lane asks for before it uses them, as far as registers last. */
    enum { PARTS = E / 32, AT_ONCE = E * (HEADS + 1) <= 320 ? 2 : 1, STEP = FEW_KEYS * AT_ONCE };
    int split = (int)(blockIdx.x % (unsigned)splits);
    int64_t at = blockIdx.x / (unsigned)splits;
    int block = (int)(at % head_blocks);
    int token = (int)(at / head_blocks), b = token / p.queries, i = token % p.queries;
    int blocks_of_group = (p.shared + HEADS - 1) / HEADS, group = block / blocks_of_group;
    int head =
        group * p.shared + block % blocks_of_group * HEADS; /* the first; some may belong to the next group */
    int heads = (group + 1) * p.shared - head < HEADS ? (group + 1) * p.shared - head : HEADS;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, c = lane % FEW_LANES;
    bool whole = p.width % 4 == 0;

    attention_range range = attention_range_of(p, b, i);
    int length = ((range.count + splits - 1) / splits + FEW_ROUND - 1) / FEW_ROUND * FEW_ROUND;
    int from = range.lo + split * length, end = range.lo + range.count;
    if (end - from > length) end = from + length;

    float4 query[HEADS][PARTS];
    float top[HEADS], sum[HEADS], acc[HEADS][PARTS][4];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        top[h] = -INFINITY, sum[h] = 0.0f;
        const T *row = q + attention_query_at(p, b, i, h < heads ? head + h : head);
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            query[h][part] = few_load(row, 4 * (c + FEW_LANES * part), p.width, whole);
            for (int e = 0; e < 4; e++) acc[h][part][e] = 0.0f;
        }
    }
    int64_t stride = (int64_t)p.groups * p.width;
    const T *keys = k + attention_key_at(p, b, 0, group), *values = v + attention_key_at(p, b, 0, group);
    for (int step = from; step < end; step += STEP) {
        float4 key[AT_ONCE][PARTS], value[AT_ONCE][PARTS];
        int j[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            j[n] = step + (n * FEW_WARPS + warp) * (WARP / FEW_LANES) + lane / FEW_LANES;
            int64_t row = (int64_t)(j[n] < end ? j[n] : end - 1) * stride;
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                key[n][part] = few_load(keys + row, 4 * (c + FEW_LANES * part), p.width, whole);
                value[n][part] = few_load(values + row, 4 * (c + FEW_LANES * part), p.width, whole);
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float s[AT_ONCE], largest = top[h];
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                float dot = 0.0f;
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    float4 x = query[h][part], y = key[n][part];
                    dot += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
                }
                for (int step_lanes = FEW_LANES / 2; step_lanes > 0; step_lanes /= 2)
                    dot += __shfl_xor_sync(0xffffffffu, dot, step_lanes);
                s[n] = dot * p.scale;
                if (p.bias && h < heads)
                    s[n] += attention_bias_at(p, attention_bias_global(p, head + h),
                                              attention_distance(p, i, j[n]));
                if (j[n] >= end) s[n] = -INFINITY;
                largest = fmaxf(largest, s[n]);
            }
            float base = largest == -INFINITY ? 0.0f : largest, shrink = expf(top[h] - base);
            top[h] = largest, sum[h] *= shrink;
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                for (int e = 0; e < 4; e++) acc[h][part][e] *= shrink;
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++) {
                float weight = expf(s[n] - base);
                sum[h] += weight;
                if (p.dropped && h < heads && j[n] < end)
                    weight = attention_keeps(p, attention_dropout_row(p, b, head + h, i), j[n])
                                 ? weight * p.mask.factor
                                 : 0.0f;
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    acc[h][part][0] += weight * value[n][part].x,
                        acc[h][part][1] += weight * value[n][part].y;
                    acc[h][part][2] += weight * value[n][part].z,
                        acc[h][part][3] += weight * value[n][part].w;
                }
            }
        }
    }

    /* The four keys of a warp's step become one, then the warps. */
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        for (int step = FEW_LANES; step < WARP; step *= 2) {
            float other = __shfl_xor_sync(0xffffffffu, top[h], step), largest = fmaxf(top[h], other);
            float base = largest == -INFINITY ? 0.0f : largest, shrink = expf(top[h] - base);
            top[h] = largest;
            sum[h] *= shrink;
            sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], step);
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                for (int e = 0; e < 4; e++) {
                    acc[h][part][e] *= shrink;
                    acc[h][part][e] += __shfl_xor_sync(0xffffffffu, acc[h][part][e], step);
                }
        }
        if (lane < FEW_LANES) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                for (int e = 0; e < 4; e++)
                    room->acc[warp][h][4 * (c + FEW_LANES * part) + e] = acc[h][part][e];
            if (lane == 0) room->top[warp][h] = top[h], room->sum[warp][h] = sum[h];
        }
    }
    __syncthreads();
    for (int h = 0; h < heads; h++) {
        float largest = -INFINITY, total = 0.0f, shrink[FEW_WARPS];
        for (int w = 0; w < FEW_WARPS; w++) largest = fmaxf(largest, room->top[w][h]);
        float base = largest == -INFINITY ? 0.0f : largest;
        for (int w = 0; w < FEW_WARPS; w++) {
            shrink[w] = expf(room->top[w][h] - base);
            total += room->sum[w][h] * shrink[w];
        }
        float *to =
            partial + (((int64_t)token * p.heads + head + h) * splits + split) * (p.width + FEW_VALUES);
        for (int e = (int)threadIdx.x; e < p.width; e += FEW_THREADS) {
            float joined = 0.0f;
            for (int w = 0; w < FEW_WARPS; w++) joined += room->acc[w][h][e] * shrink[w];
            to[FEW_VALUES + e] = joined;
        }
        if (threadIdx.x == 0) to[FEW_TOP] = largest, to[FEW_SUM] = total;
    }
}

/** A warp a query and head: its splits become o and lse. */
template <typename T>
static __global__ void __launch_bounds__(FEW_THREADS)
    attention_few_join_kernel(attention_problem p, T *o, float *lse, const float *partial, int splits) {
    int64_t at = ((int64_t)blockIdx.x * FEW_THREADS + threadIdx.x) / WARP;
    int lane = (int)threadIdx.x % WARP, h = (int)(at % p.heads);
    int64_t token = at / p.heads;
    if (token >= (int64_t)p.batch * p.queries) return;
    int b = (int)(token / p.queries), i = (int)(token % p.queries), size = p.width + FEW_VALUES;
    const float *from = partial + at * splits * size;
    bool any = attention_range_of(p, b, i).count > 0;
    float largest = -INFINITY, total = 0.0f;
    for (int s = 0; s < splits; s++) largest = fmaxf(largest, from[s * size + FEW_TOP]);
    float base = largest == -INFINITY ? 0.0f : largest;
    for (int s = 0; s < splits; s++)
        total += from[s * size + FEW_SUM] * expf(from[s * size + FEW_TOP] - base);
    for (int e = lane; e < p.width; e += WARP) {
        float joined = 0.0f;
        for (int s = 0; s < splits; s++)
            joined += from[s * size + FEW_VALUES + e] * expf(from[s * size + FEW_TOP] - base);
        o[at * p.width + e] = from_float<T>(any ? joined / total : 0.0f);
    }
    if (lane == 0) lse[attention_lse_at(p, b, h, i)] = any ? largest + logf(total) : -INFINITY;
}

/** Splits of each query's keys: by shapes alone, so that results repeat on every GPU. */
static int splits_of(const sago_attention_sizes *z, int64_t blocks) {
    int64_t splits = (FEW_BLOCKS + blocks - 1) / blocks,
            most = (z->keys + FEW_LEAST_KEYS - 1) / FEW_LEAST_KEYS;
    if (splits > most) splits = most;
    if (splits > FEW_MAX_SPLITS) splits = FEW_MAX_SPLITS;
    return splits < 1 ? 1 : (int)splits;
}

template <typename T, int E, int HEADS>
static sago_status launch(sago_gpu *gpu, const attention_forward_call *call) {
    const sago_attention_sizes *z = &call->sizes;
    int64_t shared = z->heads / z->groups, head_blocks = z->groups * ((shared + HEADS - 1) / HEADS);
    int64_t tokens = z->batch * z->queries, blocks = tokens * head_blocks;
    int splits = splits_of(z, blocks);
    size_t bytes = (size_t)(tokens * z->heads * splits * (z->width + FEW_VALUES)) * sizeof(float);
    attention_problem p;
    void *partial;
    SAGO_TRY(SAGO_GPU(attention_prepare)(gpu, "attention_forward", z, call->args, 1.0f, bytes, &partial, &p));
    SAGO_TRY(SAGO_LAUNCH(gpu, (attention_few_kernel<T, E, HEADS>), (unsigned)(blocks * splits), FEW_THREADS,
                         sizeof(few_room<E, HEADS>), p, (float *)partial, (const T *)call->q.data,
                         (const T *)call->k.data, (const T *)call->v.data, splits, (int)head_blocks));
    int64_t joins = (tokens * z->heads + FEW_WARPS - 1) / FEW_WARPS;
    return SAGO_LAUNCH(gpu, attention_few_join_kernel<T>, (unsigned)joins, FEW_THREADS, 0, p,
                       (T *)call->o.data, (float *)call->lse.data, (const float *)partial, splits);
}

template <typename T, int E>
static sago_status launch_heads(sago_gpu *gpu, const attention_forward_call *call) {
    enum { MOST = E <= 64 ? 4 : 2 }; /* as many as registers hold */
    if (call->sizes.heads == call->sizes.groups) return launch<T, E, 1>(gpu, call);
    return launch<T, E, MOST>(gpu, call);
}

template <typename T> static sago_status few(sago_gpu *gpu, const attention_forward_call *call) {
    int64_t width = call->sizes.width;
    if (width <= 32) return launch_heads<T, 32>(gpu, call);
    if (width <= 64) return launch_heads<T, 64>(gpu, call);
    if (width <= 128) return launch_heads<T, 128>(gpu, call);
    return launch_heads<T, 256>(gpu, call); /* wider ones are refused by attention_prepare */
}

sago_status SAGO_GPU(attention_forward_few)(sago_gpu *gpu, const attention_forward_call *call) {
    SAGO_BY_DTYPE(call->q, T, return few<T>(gpu, call));
}
