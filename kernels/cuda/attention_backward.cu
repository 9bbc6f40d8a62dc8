// SPDX-License-Identifier: Apache-2.0
/**
 * Backward attention (Dao et al. 2022, algorithm 4) on the GPU: what is prepared for the big kernels, the
 * sums of d_bias, and the operation itself.
 */
#include "attention_backward.cuh"

#include "attention_bucket.h"
#include "gpu_ops.h"

enum {
    PREPARE_THREADS = 256,
    BIAS_THREADS = 256,
    SUM_ARRAYS = 8, /* at most, of a block of the dQ kernel: a warp one */
    JOIN_THREADS = 256,
    KEY_BLOCKS = 256, /* of dK and dV: about two for each multiprocessor of an H100 */
};

/* --- D and lse
 * ---------------------------------------------------------------------------------------------------- */

/** lse as the big kernels subtract it: e^(s - inf) is 0 for queries without keys and those beyond the last.
 */
static __device__ __forceinline__ float exponent_of(const float *lse, bool there, int64_t at, float unit) {
    if (!there) return INFINITY;
    float x = lse[at];
    return x > -INFINITY ? x * unit : INFINITY;
}

/**
 * delta[b, h, i] = sum of d_o o, in the order in which the f32 kernels sum dP: dS of a query with one key is
 * then an exact 0. A thread a row.
 */
static __global__ void backward_delta_f32_kernel(backward_problem p, float *delta, float *exponents,
                                                 const float *lse) {
    const attention_problem &c = p.call;
    int64_t row = (int64_t)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    if (row >= (int64_t)c.batch * p.padded * c.heads) return;
    int h = (int)(row % c.heads), i = (int)(row / c.heads % p.padded), b = (int)(row / c.heads / p.padded);
    bool there = i < c.queries;
    int64_t at = attention_query_at(c, b, i, h);
    const float *o = (const float *)p.o, *d_o = (const float *)p.d_o;
    float sum = 0.0f;
    for (int e = 0; there && e < c.width; e++) sum += d_o[at + e] * o[at + e];
    delta[backward_row_at(p, b, h, i)] = sum;
    exponents[backward_row_at(p, b, h, i)] = exponent_of(lse, there, attention_lse_at(c, b, h, i), 1.0f);
}

static __device__ __forceinline__ float product_of_pair(uint32_t a, uint32_t b) {
    return bits_float(a << 16) * bits_float(b << 16) +
           bits_float(a & 0xffff0000u) * bits_float(b & 0xffff0000u);
}

/** The same for bf16: `lanes` lanes a row, 16 bytes each, so that a warp reads consecutive memory. */
static __global__ void backward_delta_bf16_kernel(backward_problem p, float *delta, float *exponents,
                                                  const float *lse, int lanes, bool by_vectors) {
    const attention_problem &c = p.call;
    int64_t row = ((int64_t)blockIdx.x * PREPARE_THREADS + threadIdx.x) / lanes;
    int part = (int)(threadIdx.x % lanes);
    bool inside = row < (int64_t)c.batch * p.padded * c.heads;
    int h = (int)(row % c.heads), i = (int)(row / c.heads % p.padded), b = (int)(row / c.heads / p.padded);
    bool there = inside && i < c.queries;
    int64_t at = attention_query_at(c, b, i, h);
    const bf16 *o = (const bf16 *)p.o, *d_o = (const bf16 *)p.d_o;
    float sum = 0.0f;
    if (there && by_vectors && part * 8 < c.width) {
        uint4 x = *(const uint4 *)(o + at + part * 8), y = *(const uint4 *)(d_o + at + part * 8);
        sum = product_of_pair(x.x, y.x) + product_of_pair(x.y, y.y) + product_of_pair(x.z, y.z) +
              product_of_pair(x.w, y.w);
    }
    for (int e = part; there && !by_vectors && e < c.width; e += lanes)
        sum += to_float(o[at + e]) * to_float(d_o[at + e]);
    for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (!inside || part != 0) return;
    delta[backward_row_at(p, b, h, i)] = sum;
    exponents[backward_row_at(p, b, h, i)] =
        exponent_of(lse, there, attention_lse_at(c, b, h, i), ATTENTION_LOG2E);
}

/* --- ranges
 * ------------------------------------------------------------------------------------------------------- */

/** A warp 32 queries: their ranges, padded, and what they have in common. */
static __global__ void backward_ranges_kernel(backward_problem p, attention_range *ranges,
                                              attention_span *spans) {
    int n_spans = p.padded / BACKWARD_TILE, lane = (int)(threadIdx.x % WARP);
    int64_t at = ((int64_t)blockIdx.x * PREPARE_THREADS + threadIdx.x) / WARP;
    if (at >= (int64_t)p.call.batch * n_spans) return;
    int b = (int)(at / n_spans), i = (int)(at % n_spans) * BACKWARD_TILE + lane;
    attention_range range = attention_range_of(p.call, b, i);
    attention_span span = attention_span_warp(attention_span_add(attention_span_none(), range));
    ranges[(int64_t)b * p.padded + i] = range;
    if (lane == 0) spans[at] = span;
}

/* --- bias
 * ---------------------------------------------------------------------------------------------------------
 */

/** Where each bucket's entries begin and end; one block. */
static __global__ void backward_buckets_kernel(int *begin, int *end, int n, int far, int n_buckets,
                                               bool bidirectional, int max_distance) {
    for (int bucket = (int)threadIdx.x; bucket < n_buckets; bucket += BIAS_THREADS)
        begin[bucket] = end[bucket] = 0;
    __syncthreads();
    for (int x = (int)threadIdx.x; x < n; x += BIAS_THREADS) {
        int bucket = sago_attention_bucket(x - far, n_buckets, bidirectional, max_distance);
        int before = x == 0 ? -1 : sago_attention_bucket(x - far - 1, n_buckets, bidirectional, max_distance);
        int after =
            x == n - 1 ? -1 : sago_attention_bucket(x - far + 1, n_buckets, bidirectional, max_distance);
        if (before != bucket) begin[bucket] = x;
        if (after != bucket) end[bucket] = x + 1;
    }
}

/** d_bias[bucket, h] += all blocks' shares; a warp an element, each lane its shares in order, in double. */
static __global__ void backward_bias_kernel(backward_bias bias, float *d_bias, int heads) {
    int64_t at = ((int64_t)blockIdx.x * BIAS_THREADS + threadIdx.x) / WARP;
    int lane = (int)(threadIdx.x % WARP), bucket = (int)(at % bias.n_buckets), h = (int)(at / bias.n_buckets);
    if (h >= heads) return;
    double sum = 0;
    for (int i = lane; i < bias.n_shares; i += WARP) sum += (double)bias.shares[at * bias.n_shares + i];
    sum = warp_sum(sum);
    if (lane == 0) d_bias[(int64_t)bucket * heads + h] += (float)sum;
}

/* --- splits of dK and dV
 * ------------------------------------------------------------------------------------------ */

/** N neighbouring values of T, read and written at once. */
template <typename T, int N> struct alignas(N * sizeof(T)) join_vector { T of[N]; };

/**
 * dK (blockIdx.y 0) or dV: what the splits left, added in their order. A thread N columns of a row; rows: of
 * all heads.
 */
template <typename T, int N>
static __global__ void __launch_bounds__(JOIN_THREADS)
    backward_join_kernel(backward_problem p, int64_t rows) {
    int pieces = p.call.width / N;
    int64_t at = (int64_t)blockIdx.x * JOIN_THREADS + threadIdx.x, row = at / pieces;
    if (row >= rows) return;
    int column = (int)(at % pieces) * N;
    int64_t stride = rows * p.split.pitch;
    const float *from = (blockIdx.y == 0 ? p.split.d_k : p.split.d_v) + row * p.split.pitch + column;
    float sum[N] = {};
#pragma unroll 2
    for (int split = 0; split < p.split.n; split++) {
        join_vector<float, N> one = *(const join_vector<float, N> *)(from + split * stride);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] += one.of[i];
    }
    join_vector<T, N> joined;
#pragma unroll
    for (int i = 0; i < N; i++) joined.of[i] = from_float<T>(sum[i]);
    *(join_vector<T, N> *)((T *)(blockIdx.y == 0 ? p.d_k : p.d_v) + row * p.call.width + column) = joined;
}

template <typename T, int N> static sago_status launch_join(sago_gpu *gpu, const backward_problem *p) {
    int64_t rows = (int64_t)p->call.batch * p->call.keys * p->call.groups;
    int64_t threads = rows * (p->call.width / N);
    if (threads == 0) return SAGO_OK;
    return SAGO_LAUNCH(gpu, (backward_join_kernel<T, N>),
                       dim3((unsigned)((threads + JOIN_THREADS - 1) / JOIN_THREADS), 2), JOIN_THREADS, 0, *p,
                       rows);
}

static sago_status join(sago_gpu *gpu, const backward_problem *p, bool is_bf16) {
    if (p->split.n == 1) return SAGO_OK;
    if (!is_bf16) return launch_join<float, 1>(gpu, p);
    /* Other rows need not begin at multiples of 8 bytes. */
    if (p->call.width % 8 != 0) return launch_join<bf16, 1>(gpu, p);
    return launch_join<bf16, 4>(gpu, p);
}

/**
 * How many blocks share the query heads of a group, if without that there were `blocks` of them. By shapes
 * alone, so that results repeat on every GPU; up to twice as many as needed where all then have equally many
 * heads.
 */
static int splits_of(int64_t blocks, int64_t shared) {
    if (blocks == 0) return 1;
    int64_t least = (KEY_BLOCKS + blocks - 1) / blocks;
    for (int64_t n = least; n < 2 * least && n <= shared; n++)
        if (shared % n == 0) return (int)n;
    return (int)(least < shared ? least : shared);
}

/* --- the operation
 * ------------------------------------------------------------------------------------------------ */

static unsigned blocks_of(int64_t threads, int block) {
    return (unsigned)((threads + block - 1) / block);
}

/** Pieces of the workspace, one after the other; while base is NULL they are only counted. */
typedef struct carving {
    char *base;
    size_t bytes;
} carving;

static void *carve(carving *c, int64_t count, size_t element_bytes) {
    char *at = c->base ? c->base + c->bytes : NULL;
    c->bytes += ((size_t)count * element_bytes + 255) / 256 * 256;
    return at;
}

/** The same memory as backward_problem's and backward_bias's, to be written. */
typedef struct scratch {
    float *delta, *lse, *shares, *sums, *d_k, *d_v;
    attention_range *ranges;
    attention_span *spans;
    int *begin, *end;
} scratch;

static scratch carve_all(carving *c, const sago_attention_sizes *z, const backward_problem *p,
                         int64_t query_blocks) {
    scratch s;
    int64_t rows = z->batch * p->padded,
            sums = p->bias.n <= BACKWARD_SHARED_ENTRIES ? 0 : query_blocks * SUM_ARRAYS * p->bias.n;
    s.delta = (float *)carve(c, rows * z->heads, sizeof(float));
    s.lse = (float *)carve(c, rows * z->heads, sizeof(float));
    s.ranges = (attention_range *)carve(c, rows, sizeof(attention_range));
    s.spans = (attention_span *)carve(c, rows / BACKWARD_TILE, sizeof(attention_span));
    s.begin = (int *)carve(c, p->bias.n_buckets, sizeof(int));
    s.end = (int *)carve(c, p->bias.n_buckets, sizeof(int));
    s.shares = (float *)carve(c, z->heads * p->bias.n_buckets * p->bias.n_shares, sizeof(float));
    s.sums = (float *)carve(c, sums, sizeof(float));
    int64_t split = p->split.n > 1 ? p->split.n * z->batch * z->keys * z->groups * p->split.pitch : 0;
    s.d_k = (float *)carve(c, split, sizeof(float));
    s.d_v = (float *)carve(c, split, sizeof(float));
    return s;
}

/** At least the entries of sums by distance, before attention_prepare says how many there are. */
static int most_entries(const sago_attention_sizes *z, const sago_attention_args *args) {
    int64_t far = sago_attention_far(z->n_buckets, args->bias_bidirectional, args->bias_max_distance);
    int64_t offset = args->query_offset < 0 ? -args->query_offset : args->query_offset;
    int64_t farthest = z->queries + z->keys + offset;
    return (int)(2 * (far < farthest ? far : farthest) + 1);
}

static sago_status prepare(sago_gpu *gpu, const backward_problem *p, const scratch *s,
                           const sago_attention_args *args, const float *lse, bool is_bf16) {
    const attention_problem *c = &p->call;
    int64_t rows = (int64_t)c->batch * p->padded;
    if (p->bias.n > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, backward_buckets_kernel, 1, BIAS_THREADS, 0, s->begin, s->end, p->bias.n,
                             c->bias_far, p->bias.n_buckets, args->bias_bidirectional,
                             args->bias_max_distance));
    if (rows == 0) return SAGO_OK;
    SAGO_TRY(SAGO_LAUNCH(gpu, backward_ranges_kernel, blocks_of(rows, PREPARE_THREADS), PREPARE_THREADS, 0,
                         *p, s->ranges, s->spans));
    if (!is_bf16)
        return SAGO_LAUNCH(gpu, backward_delta_f32_kernel, blocks_of(rows * c->heads, PREPARE_THREADS),
                           PREPARE_THREADS, 0, *p, s->delta, s->lse, lse);
    bool by_vectors = c->width % 8 == 0;
    int lanes = 1;
    while (lanes < WARP && (!by_vectors || lanes * 8 < c->width)) lanes *= 2;
    return SAGO_LAUNCH(gpu, backward_delta_bf16_kernel, blocks_of(rows * c->heads * lanes, PREPARE_THREADS),
                       PREPARE_THREADS, 0, *p, s->delta, s->lse, lse, lanes, by_vectors);
}

/** Least shared memory of a block: of the kernel that wants most. */
static size_t bytes_of_block(int width, bool is_bf16) {
    if (!is_bf16) return SAGO_GPU(attention_backward_f32_bytes)(width);
    size_t query = SAGO_GPU(attention_backward_query_bytes)(width),
           key = SAGO_GPU(attention_backward_key_bytes)(width);
    return query > key ? query : key;
}

extern "C" sago_status SAGO_GPU(attention_fits)(sago_device *device, int64_t width, bool is_bf16,
                                                bool backward) {
    SAGO_TRY(SAGO_GPU(attention_width)(backward ? "attention_backward" : "attention_forward", width));
    const sago_gpu_properties *gpu = &sago_gpu_of(device)->properties;
    if (!backward || bytes_of_block((int)width, is_bf16) <= gpu->shared_bytes) return SAGO_OK;
    int most = (int)width;
    while (bytes_of_block(most, is_bf16) > gpu->shared_bytes) most--;
    return sago_fail(SAGO_E_SHAPE,
                     "attention_backward: heads of width %lld in %s need %zu bytes of shared memory a block, "
                     "of which %s has %zu: train on an A100, an H100 or newer of their kind, or heads of up "
                     "to %d columns",
                     (long long)width, is_bf16 ? "bf16" : "f32", bytes_of_block((int)width, is_bf16),
                     gpu->name, gpu->shared_bytes, most);
}

extern "C" sago_status SAGO_GPU(attention_backward)(sago_device *device, sago_tensor d_q, sago_tensor d_k,
                                                    sago_tensor d_v, sago_tensor d_bias, sago_tensor d_o,
                                                    sago_tensor o, sago_tensor lse, sago_tensor q,
                                                    sago_tensor k, sago_tensor v,
                                                    const sago_attention_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    sago_attention_sizes z;
    SAGO_TRY(sago_attention_check(device, "attention_backward", o, lse, q, k, v, args, &z));
    SAGO_TRY(sago_attention_backward_check(d_q, d_k, d_v, d_bias, d_o, q, k, args));
    if (z.batch == 0 || z.width == 0) return SAGO_OK;

    bool is_bf16 = q.dtype == SAGO_BF16;
    SAGO_TRY(SAGO_GPU(attention_fits)(device, z.width, is_bf16, true));
    backward_problem p = {};
    p.padded = (int)((z.queries + BACKWARD_PAD - 1) / BACKWARD_PAD * BACKWARD_PAD);
    int query_rows = is_bf16 ? SAGO_GPU(attention_backward_query_rows)(gpu, (int)z.width) : BACKWARD_TILE;
    int64_t n_shares = z.batch * ((z.queries + query_rows - 1) / query_rows);
    if (z.n_buckets > 0) {
        p.bias.n = most_entries(&z, args);
        p.bias.n_buckets = z.n_buckets, p.bias.n_shares = (int)n_shares;
    }
    int key_rows = is_bf16 ? SAGO_GPU(attention_backward_key_rows)((int)z.width) : BACKWARD_TILE;
    p.split.n = splits_of(z.batch * z.groups * ((z.keys + key_rows - 1) / key_rows), z.heads / z.groups);
    p.split.pitch = (int)((z.width + 3) / 4 * 4);
    carving count = {NULL, 0}, given = {NULL, 0};
    carve_all(&count, &z, &p, n_shares * z.heads);
    SAGO_TRY(SAGO_GPU(attention_prepare)(gpu, "attention_backward", &z, args,
                                         is_bf16 ? ATTENTION_LOG2E : 1.0f, count.bytes, (void **)&given.base,
                                         &p.call));
    if (z.n_buckets > 0) p.bias.n = p.call.bias_far + p.call.bias_near_end + 1;
    p.bias.in_shared = p.bias.n <= BACKWARD_SHARED_ENTRIES;
    scratch s = carve_all(&given, &z, &p, n_shares * z.heads);
    p.q = q.data, p.k = k.data, p.v = v.data, p.o = o.data, p.d_o = d_o.data;
    p.d_q = d_q.data, p.d_k = d_k.data, p.d_v = d_v.data;
    p.lse = s.lse, p.delta = s.delta, p.ranges = s.ranges, p.spans = s.spans;
    p.bias.bucket_begin = s.begin, p.bias.bucket_end = s.end, p.bias.shares = s.shares, p.bias.sums = s.sums;
    p.split.d_k = s.d_k, p.split.d_v = s.d_v;

    SAGO_TRY(prepare(gpu, &p, &s, args, (const float *)lse.data, is_bf16));
    if (is_bf16) {
        SAGO_TRY(SAGO_GPU(attention_backward_query)(gpu, &p));
        SAGO_TRY(SAGO_GPU(attention_backward_key)(gpu, &p));
    } else {
        SAGO_TRY(SAGO_GPU(attention_backward_f32)(gpu, &p));
    }
    SAGO_TRY(join(gpu, &p, is_bf16));
    if (p.bias.n == 0 || n_shares == 0) return SAGO_OK;
    return SAGO_LAUNCH(gpu, backward_bias_kernel, blocks_of(z.heads * p.bias.n_buckets * WARP, BIAS_THREADS),
                       BIAS_THREADS, 0, p.bias, (float *)d_bias.data, p.call.heads);
}
