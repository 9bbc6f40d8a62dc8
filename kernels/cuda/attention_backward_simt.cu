// SPDX-License-Identifier: Apache-2.0
/**
 * Backward attention in fp32 without tensor cores: what tests and fp32 runs use. Tiles of 32 queries x 32
 * keys, a thread 2 x 2 scores and every 16th column of two rows of the gradients.
 */
#include "attention_backward.cuh"

enum {
    TILE = BACKWARD_TILE,
    SIDE = 16,
    THREADS = SIDE * SIDE,
    MOST_COLUMNS = 256 / SIDE,
    TILE_STRIDE = TILE + 1
};

/** Shared memory of a block, cut by hand: rows of the operands are one float longer than the width. */
typedef struct simt_memory {
    float *q, *d_o, *k, *v; /* [TILE, stride] */
    float *p, *d_s;         /* [TILE, TILE_STRIDE]: query, key */
    float *sums, *ends;     /* [n]; [2, THREADS] */
    int stride;
} simt_memory;

static size_t simt_bytes_of(int width, int entries, bool bias) {
    size_t sums = bias ? (size_t)entries + 2 * THREADS : 0;
    return (4 * (size_t)TILE * (size_t)(width + 1) + 2 * TILE * TILE_STRIDE + sums) * sizeof(float);
}
static size_t simt_bytes(const backward_problem *p) {
    return simt_bytes_of(p->call.width, p->bias.in_shared ? p->bias.n : 0, p->bias.n > 0);
}

static __device__ __forceinline__ simt_memory simt_cut(float *at, int width) {
    simt_memory m;
    m.stride = width + 1;
    m.q = at, m.d_o = m.q + TILE * m.stride, m.k = m.d_o + TILE * m.stride, m.v = m.k + TILE * m.stride;
    m.p = m.v + TILE * m.stride, m.d_s = m.p + TILE * TILE_STRIDE;
    m.ends = m.d_s + TILE * TILE_STRIDE, m.sums = m.ends + 2 * THREADS;
    return m;
}

/** Rows [first, first + TILE) of a head whose row 0 is at `head`, zeros from `rows` on. */
static __device__ __forceinline__ void take_rows(float *to, const void *from, int64_t head,
                                                 int64_t row_stride, int first, int rows, int width,
                                                 int stride) {
    for (int at = (int)threadIdx.x; at < TILE * width; at += THREADS) {
        int row = at / width, e = at % width;
        to[row * stride + e] =
            first + row < rows ? ((const float *)from)[head + (int64_t)(first + row) * row_stride + e] : 0.0f;
    }
}

typedef struct simt_tile {
    int b, h, query, key; /* the first of each */
} simt_tile;

static __device__ __forceinline__ void take_queries(const backward_problem &p, const simt_memory &m,
                                                    simt_tile t) {
    const attention_problem &c = p.call;
    int64_t head = attention_query_at(c, t.b, 0, t.h), row = (int64_t)c.heads * c.width;
    take_rows(m.q, p.q, head, row, t.query, c.queries, c.width, m.stride);
    take_rows(m.d_o, p.d_o, head, row, t.query, c.queries, c.width, m.stride);
}
static __device__ __forceinline__ void take_keys(const backward_problem &p, const simt_memory &m,
                                                 simt_tile t) {
    const attention_problem &c = p.call;
    int64_t head = attention_key_at(c, t.b, 0, t.h / c.shared), row = (int64_t)c.groups * c.width;
    take_rows(m.k, p.k, head, row, t.key, c.keys, c.width, m.stride);
    take_rows(m.v, p.v, head, row, t.key, c.keys, c.width, m.stride);
}

/**
 * P (with dropout) and dS of the tile, from the operands in shared memory. Scores are summed in the order of
 * the forward kernel (attention_forward.cu), so that what rounding does to them is in lse too and cancels.
 */
static __device__ __forceinline__ void differentiate_tile(const backward_problem &p, const simt_memory &m,
                                                          simt_tile t) {
    const attention_problem &c = p.call;
    int x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
    float s[2][2] = {{0}}, d_p[2][2] = {{0}};
    for (int e = 0; e < c.width; e++)
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int a = 0; a < 2; a++) {
                int i = (y + r * SIDE) * m.stride + e, j = (x + a * SIDE) * m.stride + e;
                s[r][a] += m.q[i] * m.k[j];
                d_p[r][a] += m.d_o[i] * m.v[j];
            }
    const float *bias = c.bias ? attention_bias_global(c, t.h) : NULL;
    int least = attention_distance(c, t.query + TILE - 1, t.key),
        most = attention_distance(c, t.query, t.key + TILE - 1);
    bool near = bias && attention_is_near(c, least, most);
    float far_bias = bias && !near ? attention_bias_far(c, bias, least) : 0.0f;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = y + r * SIDE, i = t.query + row;
        attention_range range = p.ranges[(int64_t)t.b * p.padded + i];
        float lse = p.lse[backward_row_at(p, t.b, t.h, i)], delta = p.delta[backward_row_at(p, t.b, t.h, i)];
        uint64_t dropout_row = attention_dropout_row(c, t.b, t.h, i);
#pragma unroll
        for (int a = 0; a < 2; a++) {
            int column = x + a * SIDE, j = t.key + column;
            float probability = 0.0f, dropped = 0.0f, d_s = 0.0f;
            if (attention_allowed(range, j)) {
                float score = s[r][a] * c.scale + (near ? bias[attention_distance(c, i, j)] : far_bias),
                      d = d_p[r][a];
                dropped = probability = expf(score - lse);
                if (c.dropped) {
                    float keep = attention_keeps(c, dropout_row, j) ? c.mask.factor : 0.0f;
                    dropped *= keep, d *= keep;
                }
                d_s = probability * (d - delta);
            }
            m.p[row * TILE_STRIDE + column] = dropped;
            m.d_s[row * TILE_STRIDE + column] = d_s;
        }
    }
}

/** dQ of 32 queries of a head, and their share of d_bias. */
static __global__ void __launch_bounds__(THREADS) backward_query_f32_kernel(backward_problem p, int section) {
    SAGO_SHARED(float, memory);
    const attention_problem &c = p.call;
    simt_memory m = simt_cut(memory, c.width);
    int n_tiles = (c.queries + TILE - 1) / TILE, x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
    attention_work w = attention_work_of(blockIdx.x, c.batch * c.heads, c.heads, n_tiles, section);
    simt_tile t = {w.b, w.h, w.tile * TILE, 0};
    attention_span span = p.spans[(int64_t)w.b * (p.padded / TILE) + w.tile];
    int share = w.b * n_tiles + w.tile;
    diagonal_sums sums = {m.sums, 0.0f, 0.0f};
    if (p.bias.n && !p.bias.in_shared) sums.inner = p.bias.sums + ((int64_t)share * c.heads + w.h) * p.bias.n;
    for (int d = (int)threadIdx.x; d < p.bias.n; d += THREADS) sums.inner[d] = 0.0f;
    take_queries(p, m, t);

    float d_q[2][MOST_COLUMNS] = {{0}};
    for (t.key = span.first / TILE * TILE; t.key < span.last; t.key += TILE) {
        __syncthreads();
        take_keys(p, m, t);
        __syncthreads();
        differentiate_tile(p, m, t);
        __syncthreads();
        if (p.bias.n && threadIdx.x < 2 * TILE - 1) { /* a thread a diagonal */
            int across = (int)threadIdx.x - (TILE - 1);
            float sum = 0.0f;
            for (int row = across < 0 ? -across : 0; row < TILE && row + across < TILE; row++)
                sum += m.d_s[row * TILE_STRIDE + row + across];
            diagonal_add(&sums, c, attention_distance(c, t.query, t.key + across), sum);
        }
        for (int j = 0; j < TILE; j++) {
            float upper = m.d_s[y * TILE_STRIDE + j], lower = m.d_s[(y + SIDE) * TILE_STRIDE + j];
#pragma unroll
            for (int a = 0; a < MOST_COLUMNS; a++) {
                if (x + a * SIDE >= c.width) break;
                float value = m.k[j * m.stride + x + a * SIDE];
                d_q[0][a] = fmaf(upper, value, d_q[0][a]);
                d_q[1][a] = fmaf(lower, value, d_q[1][a]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int i = t.query + y + r * SIDE;
        if (i >= c.queries) break;
        float *to = (float *)p.d_q + attention_query_at(c, w.b, i, w.h);
#pragma unroll
        for (int a = 0; a < MOST_COLUMNS; a++)
            if (x + a * SIDE < c.width) to[x + a * SIDE] = d_q[r][a] * c.scale;
    }
    if (!p.bias.n) return;
    m.ends[threadIdx.x] = sums.first, m.ends[THREADS + threadIdx.x] = sums.last;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 0; i < 2 * TILE - 1; i++)
            sums.inner[0] += m.ends[i], sums.inner[p.bias.n - 1] += m.ends[THREADS + i];
    __syncthreads();
    backward_share(p.bias, sums.inner, 1, w.h, share);
}

/** dK and dV of 32 keys, over the heads of their split and the query tiles that meet them. */
static __global__ void __launch_bounds__(THREADS) backward_key_f32_kernel(backward_problem p, int section) {
    SAGO_SHARED(float, memory);
    const attention_problem &c = p.call;
    simt_memory m = simt_cut(memory, c.width);
    int n_tiles = (c.keys + TILE - 1) / TILE, x = (int)threadIdx.x % SIDE, y = (int)threadIdx.x / SIDE;
    attention_work w =
        attention_work_of(blockIdx.x, c.batch * c.groups * p.split.n, c.groups * p.split.n, n_tiles, section);
    int group = w.h / p.split.n, split = w.h % p.split.n;
    backward_heads heads = backward_heads_of(p, group, split);
    simt_tile t = {w.b, heads.first, 0, (n_tiles - 1 - w.tile) * TILE};
    take_keys(p, m, t);

    float d_k[2][MOST_COLUMNS] = {{0}}, d_v[2][MOST_COLUMNS] = {{0}};
    for (; t.h < heads.last; t.h++)
        for (t.query = 0; t.query < c.queries; t.query += TILE) {
            attention_span span = p.spans[((int64_t)w.b * p.padded + t.query) / TILE];
            if (attention_class(span, t.key, t.key + TILE) == ATTENTION_SKIP) continue;
            __syncthreads();
            take_queries(p, m, t);
            __syncthreads();
            differentiate_tile(p, m, t);
            __syncthreads();
            for (int i = 0; i < TILE; i++) {
                const float *row_p = m.p + i * TILE_STRIDE + y, *row_s = m.d_s + i * TILE_STRIDE + y;
#pragma unroll
                for (int a = 0; a < MOST_COLUMNS; a++) {
                    if (x + a * SIDE >= c.width) break;
                    float value = m.q[i * m.stride + x + a * SIDE], d = m.d_o[i * m.stride + x + a * SIDE];
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        d_k[r][a] = fmaf(row_s[r * SIDE], value, d_k[r][a]);
                        d_v[r][a] = fmaf(row_p[r * SIDE], d, d_v[r][a]);
                    }
                }
            }
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int j = t.key + y + r * SIDE;
        if (j >= c.keys) break;
        bool whole = p.split.n == 1;
        int64_t at = whole ? attention_key_at(c, w.b, j, group) : backward_split_at(p, split, w.b, j, group);
        float *to_k = whole ? (float *)p.d_k : p.split.d_k, *to_v = whole ? (float *)p.d_v : p.split.d_v;
#pragma unroll
        for (int a = 0; a < MOST_COLUMNS; a++)
            if (x + a * SIDE < c.width) {
                to_k[at + x + a * SIDE] = d_k[r][a] * c.scale;
                to_v[at + x + a * SIDE] = d_v[r][a];
            }
    }
}

extern "C" sago_status SAGO_GPU(attention_backward_f32)(sago_gpu *gpu, const backward_problem *p) {
    const attention_problem *c = &p->call;
    int64_t query_blocks = (int64_t)((c->queries + TILE - 1) / TILE) * c->heads * c->batch;
    int key_heads = c->batch * c->groups * p->split.n;
    int64_t key_blocks = (int64_t)((c->keys + TILE - 1) / TILE) * key_heads;
    if (query_blocks > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, backward_query_f32_kernel, (unsigned)query_blocks, THREADS, simt_bytes(p),
                             *p, c->batch * c->heads));
    if (key_blocks > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, backward_key_f32_kernel, (unsigned)key_blocks, THREADS, simt_bytes(p), *p,
                             key_heads));
    return SAGO_OK;
}

extern "C" size_t SAGO_GPU(attention_backward_f32_bytes)(int width) {
    return simt_bytes_of(width, BACKWARD_SHARED_ENTRIES, true);
}
