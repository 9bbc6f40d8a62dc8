// SPDX-License-Identifier: Apache-2.0
/**
 * Forward attention: the choice of a kernel, and the one that takes any dtype and width. That one computes in
 * fp32 on the ordinary units: exact enough for fp32 training, and the reference of the others.
 * docs/kernels/attention.md.
 */
#include "attention_forward.cuh"

#include "gpu_ops.h"

enum { SIMT_QUERIES = 32, SIMT_KEYS = 32, SIMT_THREADS = 128, FEW_QUERIES = 4 };

/*
 * Rows are 4 floats longer than the head: eight lanes that read one column of eight rows, 16 bytes each, then
 * touch different banks.
 */
template <int E> struct simt_room {
    alignas(16) float q[SIMT_QUERIES][E + 4];
    alignas(16) float kv[SIMT_KEYS][E + 4]; /* a tile of K, then the tile of V of the same keys */
    alignas(16) float p[SIMT_QUERIES][SIMT_KEYS + 4];
    float bias[ATTENTION_BIAS_SHARED];
};

/** Rows [first, first + count) of a [rows, stride] matrix into room; zeros beyond `end` and beyond width. */
template <typename T, int E>
static __device__ __forceinline__ void simt_load(float (*room)[E + 4], const T *from, int64_t stride,
                                                 int first, int count, int end, int width) {
    for (int at = (int)threadIdx.x; at < count * E; at += SIMT_THREADS) {
        int row = at / E, e = at % E;
        room[row][e] = first + row < end && e < width ? to_float(from[(first + row) * stride + e]) : 0.0f;
    }
}

static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
    return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

/**
 * A block has 32 queries of a head. Eight lanes share two of them, r and r + 16: lane c of the eight has the
 * scores of keys c, c + 8, ... of a tile, and columns 4 c to 4 c + 3 of every 32 of the sums.
 */
template <typename T, int E>
static __global__ void __launch_bounds__(SIMT_THREADS, E <= 128 ? 3 : 2)
    attention_forward_simt_kernel(attention_problem p, T *o, float *lse, const T *q, const T *k, const T *v,
                                  int tiles, int section) {
    typedef simt_room<E> room_type;
    SAGO_SHARED(room_type, room);
    enum { ROWS = 2, SCORES = SIMT_KEYS / 8, PARTS = E / 32 };
    attention_work work = attention_work_of(blockIdx.x, p.batch * p.heads, p.heads, tiles, section);
    int first = work.tile * SIMT_QUERIES, r = (int)threadIdx.x / 8, c = (int)threadIdx.x % 8;
    int group = work.h / p.shared;
    const T *keys = k + attention_key_at(p, work.b, 0, group),
            *values = v + attention_key_at(p, work.b, 0, group);
    int64_t stride = (int64_t)p.groups * p.width;

    simt_load<T, E>(room->q, q + attention_query_at(p, work.b, 0, work.h), (int64_t)p.heads * p.width, first,
                    SIMT_QUERIES, p.queries, p.width);
    const float *bias = p.bias ? attention_bias_shared(p, work.h, room->bias) : NULL;
    attention_span span = attention_span_of(p, work.b, first, SIMT_QUERIES);
    attention_range range[ROWS];
    float top[ROWS], sum[ROWS], acc[ROWS][PARTS][4];
#pragma unroll
    for (int n = 0; n < ROWS; n++) {
        int i = first + r + 16 * n;
        range[n] = attention_range_of(p, work.b, i);
        top[n] = -INFINITY, sum[n] = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            for (int e = 0; e < 4; e++) acc[n][part][e] = 0.0f;
    }

    for (int from = span.first; from < span.last; from += SIMT_KEYS) {
        __syncthreads(); /* the values of the tile before have been read */
        simt_load<T, E>(room->kv, keys, stride, from, SIMT_KEYS, span.last, p.width);
        __syncthreads();
        float s[ROWS][SCORES] = {};
        for (int e = 0; e < E; e += 4) {
            float4 a[ROWS];
#pragma unroll
            for (int n = 0; n < ROWS; n++) a[n] = *(const float4 *)&room->q[r + 16 * n][e];
#pragma unroll
            for (int m = 0; m < SCORES; m++) {
                float4 b = *(const float4 *)&room->kv[c + 8 * m][e];
#pragma unroll
                for (int n = 0; n < ROWS; n++) s[n][m] = dot4(a[n], b, s[n][m]);
            }
        }
        __syncthreads(); /* the keys have been read */
        simt_load<T, E>(room->kv, values, stride, from, SIMT_KEYS, span.last, p.width);

#pragma unroll
        for (int n = 0; n < ROWS; n++) {
            int i = first + r + 16 * n;
            float largest = top[n];
#pragma unroll
            for (int m = 0; m < SCORES; m++) {
                int j = from + c + 8 * m;
                s[n][m] *= p.scale;
                if (bias && attention_allowed(range[n], j))
                    s[n][m] += attention_bias_at(p, bias, attention_distance(p, i, j));
                if (!attention_allowed(range[n], j)) s[n][m] = -INFINITY;
                largest = fmaxf(largest, s[n][m]);
            }
            for (int step = 4; step > 0; step /= 2)
                largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
            float base = largest == -INFINITY ? 0.0f : largest, shrink = expf(top[n] - base);
            top[n] = largest;
            sum[n] *= shrink;
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                for (int e = 0; e < 4; e++) acc[n][part][e] *= shrink;
#pragma unroll
            for (int m = 0; m < SCORES; m++) {
                int j = from + c + 8 * m;
                float weight = expf(s[n][m] - base);
                sum[n] += weight;
                if (p.dropped && attention_allowed(range[n], j))
                    weight = attention_keeps(p, attention_dropout_row(p, work.b, work.h, i), j)
                                 ? weight * p.mask.factor
                                 : 0.0f;
                room->p[r + 16 * n][c + 8 * m] = weight;
            }
        }
        __syncthreads(); /* the values and the weights are there */
        for (int j = 0; j < SIMT_KEYS; j += 4) {
            float4 quad[ROWS];
#pragma unroll
            for (int n = 0; n < ROWS; n++) quad[n] = *(const float4 *)&room->p[r + 16 * n][j];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                float4 a = *(const float4 *)&room->kv[j][32 * part + 4 * c];
                float4 b = *(const float4 *)&room->kv[j + 1][32 * part + 4 * c];
                float4 d = *(const float4 *)&room->kv[j + 2][32 * part + 4 * c];
                float4 e = *(const float4 *)&room->kv[j + 3][32 * part + 4 * c];
#pragma unroll
                for (int n = 0; n < ROWS; n++) {
                    float *to = acc[n][part];
                    to[0] = dot4(quad[n], make_float4(a.x, b.x, d.x, e.x), to[0]);
                    to[1] = dot4(quad[n], make_float4(a.y, b.y, d.y, e.y), to[1]);
                    to[2] = dot4(quad[n], make_float4(a.z, b.z, d.z, e.z), to[2]);
                    to[3] = dot4(quad[n], make_float4(a.w, b.w, d.w, e.w), to[3]);
                }
            }
        }
    }

#pragma unroll
    for (int n = 0; n < ROWS; n++) {
        int i = first + r + 16 * n;
        for (int step = 4; step > 0; step /= 2) sum[n] += __shfl_xor_sync(0xffffffffu, sum[n], step);
        if (i >= p.queries) continue;
        bool any = range[n].count > 0;
        float inverse = any ? 1.0f / sum[n] : 0.0f;
        T *to = o + attention_query_at(p, work.b, i, work.h);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            for (int e = 0; e < 4; e++) {
                int column = 32 * part + 4 * c + e;
                if (column < p.width) to[column] = from_float<T>(any ? acc[n][part][e] * inverse : 0.0f);
            }
        if (c == 0) lse[attention_lse_at(p, work.b, work.h, i)] = any ? top[n] + logf(sum[n]) : -INFINITY;
    }
}

template <typename T, int E>
static sago_status launch_simt(sago_gpu *gpu, const attention_forward_call *call, attention_problem p) {
    int tiles = (p.queries + SIMT_QUERIES - 1) / SIMT_QUERIES;
    int section = attention_section(p, (size_t)p.width * sizeof(T));
    int64_t blocks = (int64_t)p.batch * p.heads * tiles;
    return SAGO_LAUNCH(gpu, (attention_forward_simt_kernel<T, E>), (unsigned)blocks, SIMT_THREADS,
                       sizeof(simt_room<E>), p, (T *)call->o.data, (float *)call->lse.data,
                       (const T *)call->q.data, (const T *)call->k.data, (const T *)call->v.data, tiles,
                       section);
}

template <typename T> static sago_status forward_simt(sago_gpu *gpu, const attention_forward_call *call) {
    attention_problem p;
    SAGO_TRY(
        SAGO_GPU(attention_prepare)(gpu, "attention_forward", &call->sizes, call->args, 1.0f, 0, NULL, &p));
    if (p.width <= 32) return launch_simt<T, 32>(gpu, call, p);
    if (p.width <= 64) return launch_simt<T, 64>(gpu, call, p);
    if (p.width <= 128) return launch_simt<T, 128>(gpu, call, p);
    return launch_simt<T, 256>(gpu, call, p);
}

extern "C" sago_status SAGO_GPU(attention_forward)(sago_device *device, sago_tensor o, sago_tensor lse,
                                                   sago_tensor q, sago_tensor k, sago_tensor v,
                                                   const sago_attention_args *args) {
    attention_forward_call call;
    call.args = args, call.o = o, call.lse = lse, call.q = q, call.k = k, call.v = v;
    SAGO_TRY(sago_attention_check(device, "attention_forward", o, lse, q, k, v, args, &call.sizes));
    if (sago_tensor_count(lse) == 0) return SAGO_OK;
    sago_gpu *gpu = sago_gpu_of(device);
    if (call.sizes.queries < FEW_QUERIES) return SAGO_GPU(attention_forward_few)(gpu, &call);
    if (q.dtype == SAGO_F32) return forward_simt<float>(gpu, &call);
    /* Rows that are not whole 16 bytes cannot be copied asynchronously. */
    if (call.sizes.width % 8 != 0) return forward_simt<bf16>(gpu, &call);
    return SAGO_GPU(attention_forward_mma)(gpu, &call);
}
