// SPDX-License-Identifier: Apache-2.0
/**
 * dQ and the blocks' shares of d_bias in bf16 with mma.sync: a block owns rows of queries of one head and
 * goes through the key tiles that they may attend; a warp owns 32 of the rows (16 where heads are 256 wide),
 * so that P and dS never leave its registers.
 */
#include "attention_backward_mma.cuh"

/**
 * For heads of up to E columns: warps of a block, keys of a tile, and 16-row blocks of a warp. STAGES: 2 have
 * the next key tile on its way while one is at work; 1 where a block has no room for that.
 */
template <int COLUMNS, int OF_STAGES, int OF_WARPS, int OF_KEYS> struct query_shape {
    static const int E = COLUMNS, STAGES = OF_STAGES, WARPS = OF_WARPS, KEYS = OF_KEYS;
    static const int THREADS = WARPS * WARP, BLOCKS = E <= 128 ? 2 : 1;
    static const int N = KEYS / 8, WARP_ROWS = 16 * BLOCKS, ROWS = WARPS * WARP_ROWS;
    /* Of a multiprocessor, which then has 8 warps, or 12. */
    static const int RESIDENT = E <= 32 ? 3 : 8 / WARPS;
    /* Pairs of a warp's tile whose distances are equal, but for lanes, are in DIAGONALS groups of 8 x 8. */
    static const int DIAGONALS = N + 2 * BLOCKS - 1, SKEW_STRIDE = 8 * DIAGONALS + 16;
};

template <typename S> struct query_memory {
    bf16 q[S::ROWS * S::E], d_o[S::ROWS * S::E];
    bf16 k[S::STAGES][S::KEYS * S::E], v[S::STAGES][S::KEYS * S::E];
    int share, head; /* the block's place among the shares of d_bias: not in registers all the way */
    float lse[S::ROWS], delta[S::ROWS];
    float skew[S::WARPS][8 * S::SKEW_STRIDE];
};
/* With a bias: + WARPS arrays of sums by distance, where they fit. */

/** Fixed for a block, or for a warp of it. */
typedef struct query_warp {
    int b, h, first; /* first query of the warp */
    int warp, lane;
    attention_span span; /* of the warp's queries */
} query_warp;

/**
 * Sums of dS along the diagonals of a warp's tile. Of the 16-row blocks and 8-column blocks, those on one
 * diagonal have equal distances lane by lane and are added in registers; what is left, 8 rows, goes through
 * shared memory, where a lane takes every 32nd diagonal.
 */
template <typename S>
static __device__ __forceinline__ void add_diagonals(diagonal_sums *sums, const attention_problem &c,
                                                     float *skew, int lane, int distance,
                                                     const float d_s[S::BLOCKS][S::N][4]) {
    const int last = 2 * S::BLOCKS - 1;
    __syncwarp();
#pragma unroll
    for (int group = 0; group < S::DIAGONALS; group++) {
        float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int eight = 0; eight <= last; eight++) {
            const int n = group + eight - last;
            if (n < 0 || n >= S::N) continue;
            sum.x += d_s[eight / 2][n][eight % 2 * 2], sum.y += d_s[eight / 2][n][eight % 2 * 2 + 1];
        }
        *(float2 *)(skew + lane / 4 * S::SKEW_STRIDE + 8 + 8 * group + 2 * (lane % 4)) = sum;
    }
    __syncwarp();
    /* Column x of row g lies at distance + x - g - 8 last; eight zeros at either end of the rows spare the
     * bounds. */
    for (int at = lane; at < 8 * S::DIAGONALS + 7; at += WARP) {
        float sum = 0.0f;
#pragma unroll
        for (int g = 0; g < 8; g++) sum += skew[g * S::SKEW_STRIDE + 1 + at + g];
        diagonal_add(sums, c, distance + at - 7 - 8 * last, sum);
    }
}

/** P of the scores s, in place. distance: of the warp's first query and the tile's first key. */
template <typename S>
static __device__ __forceinline__ void query_softmax(float s[S::BLOCKS][S::N][4], const backward_problem &p,
                                                     const query_warp &w, int key, const float *lse,
                                                     const float *bias, float far_bias) {
    const attention_problem &c = p.call;
    const float unit = c.scale * ATTENTION_LOG2E;
    const int last = 2 * S::BLOCKS - 1, g = w.lane / 4, t = 2 * (w.lane % 4);
    const float *from = bias ? bias + attention_distance(c, w.first, key) + t - g - 8 * last : NULL;
#pragma unroll
    for (int group = 0; group < S::DIAGONALS; group++) {
        float at[2] = {far_bias, far_bias};
        if (bias) at[0] = from[8 * group], at[1] = from[8 * group + 1];
#pragma unroll
        for (int eight = 0; eight <= last; eight++) {
            const int n = group + eight - last, half = eight % 2 * 2;
            if (n < 0 || n >= S::N) continue;
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[eight / 2][n][half + e];
                *x = fast_exp2(fmaf(*x, unit, at[e] - lse[8 * eight + g]));
            }
        }
    }
}

/** Where the warps of a block keep their sums of d_bias. */
template <typename S>
static __device__ __forceinline__ float *share_sums(const backward_problem &p, query_memory<S> *m, int share,
                                                    int head) {
    if (p.bias.in_shared) return (float *)(m + 1);
    return p.bias.sums + ((int64_t)share * p.call.heads + head) * S::WARPS * p.bias.n;
}

template <typename S>
static __global__ void __launch_bounds__(S::THREADS, S::RESIDENT)
    backward_query_bf16_kernel(backward_problem p, int section) {
    typedef query_memory<S> memory;
    SAGO_SHARED(memory, m);
    const attention_problem &c = p.call;
    int n_tiles = (c.queries + S::ROWS - 1) / S::ROWS;
    attention_work work = attention_work_of(blockIdx.x, c.batch * c.heads, c.heads, n_tiles, section);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, group = work.h / c.shared;
    int first_row = warp * S::WARP_ROWS;
    query_warp w = {work.b, work.h, work.tile * S::ROWS + first_row, warp, lane, attention_span_none()};
    int64_t q_stride = (int64_t)c.heads * c.width, k_stride = (int64_t)c.groups * c.width;
    head_rows q = {(const bf16 *)p.q + attention_query_at(c, w.b, 0, w.h), q_stride, c.queries, c.width},
              d_o = q;
    head_rows k = {(const bf16 *)p.k + attention_key_at(c, w.b, 0, group), k_stride, c.keys, c.width}, v = k;
    d_o.from = (const bf16 *)p.d_o + attention_query_at(c, w.b, 0, w.h);
    v.from = (const bf16 *)p.v + attention_key_at(c, w.b, 0, group);

    /* The block goes through the keys that any of its queries may attend; a warp leaves out what none of its
     * own may. */
    const attention_span *spans = p.spans + ((int64_t)w.b * p.padded + work.tile * S::ROWS) / BACKWARD_TILE;
    attention_span all = attention_span_none();
    for (int i = 0; i < S::ROWS / BACKWARD_TILE; i++) all = attention_span_join(all, spans[i]);
    w.span = spans[first_row / BACKWARD_TILE];
    int key = all.first / S::KEYS * S::KEYS, stage = 0;

    tile_take<S::E>(m->q, q, work.tile * S::ROWS, S::ROWS, (int)threadIdx.x, S::THREADS);
    tile_take<S::E>(m->d_o, d_o, work.tile * S::ROWS, S::ROWS, (int)threadIdx.x, S::THREADS);
    if (S::STAGES == 2 && key < all.last) {
        tile_take<S::E>(m->k[0], k, key, S::KEYS, (int)threadIdx.x, S::THREADS);
        tile_take<S::E>(m->v[0], v, key, S::KEYS, (int)threadIdx.x, S::THREADS);
    }
    cp_async_commit();

    int share = w.b * n_tiles + work.tile;
    float *all_sums = share_sums(p, m, share, w.h);
    if (threadIdx.x == 0) m->share = share, m->head = w.h;
    diagonal_sums sums = {all_sums + warp * p.bias.n, 0.0f, 0.0f};
    if (p.bias.n > 0) {
        for (int x = lane; x < p.bias.n; x += WARP) sums.inner[x] = 0.0f;
        for (int x = lane; x < 8 * S::SKEW_STRIDE; x += WARP) m->skew[warp][x] = 0.0f;
    }
    const float *table = c.bias ? attention_bias_global(c, w.h) : NULL;
    for (int i = lane; i < S::WARP_ROWS; i += WARP) {
        int64_t at = backward_row_at(p, w.b, w.h, w.first + i);
        m->lse[first_row + i] = p.lse[at], m->delta[first_row + i] = p.delta[at];
    }
    float d_q[S::BLOCKS][S::E / 8][4];
#pragma unroll
    for (int b = 0; b < S::BLOCKS; b++)
#pragma unroll
        for (int n = 0; n < S::E / 8; n++) d_q[b][n][0] = d_q[b][n][1] = d_q[b][n][2] = d_q[b][n][3] = 0.0f;

    for (; key < all.last; key += S::KEYS, stage ^= S::STAGES - 1) {
        if (S::STAGES == 1) {
            __syncthreads(); /* nobody reads the last tile any more */
            tile_take<S::E>(m->k[0], k, key, S::KEYS, (int)threadIdx.x, S::THREADS);
            tile_take<S::E>(m->v[0], v, key, S::KEYS, (int)threadIdx.x, S::THREADS);
            cp_async_commit();
        }
        cp_async_wait<0>();
        __syncthreads(); /* this stage has come, and nobody reads the other one any more */
        if (S::STAGES == 2 && key + S::KEYS < all.last) {
            tile_take<S::E>(m->k[stage ^ 1], k, key + S::KEYS, S::KEYS, (int)threadIdx.x, S::THREADS);
            tile_take<S::E>(m->v[stage ^ 1], v, key + S::KEYS, S::KEYS, (int)threadIdx.x, S::THREADS);
            cp_async_commit();
        }
        attention_tile_class kind = attention_class(w.span, key, key + S::KEYS);
        if (kind == ATTENTION_SKIP) continue;

        int distance = attention_distance(c, w.first, key);
        bool near = table && attention_is_near(c, distance - S::WARP_ROWS + 1, distance + S::KEYS - 1);
        float s[S::BLOCKS][S::N][4], d_p[S::BLOCKS][S::N][4];
        multiply_rows<S::E, S::BLOCKS, S::N>(s, m->q, first_row, m->k[stage]);
        query_softmax<S>(s, p, w, key, m->lse + first_row, near ? table : NULL,
                         table && !near ? attention_bias_far(c, table, distance - S::WARP_ROWS + 1) : 0.0f);
        if (kind == ATTENTION_PARTIAL) {
#pragma unroll
            for (int i = 0; i < 2 * S::BLOCKS; i++) {
                attention_range range = p.ranges[(int64_t)w.b * p.padded + w.first + 8 * i + lane / 4];
#pragma unroll
                for (int n = 0; n < S::N; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++)
                        if (!attention_allowed(range, key + 8 * n + 2 * (lane % 4) + e))
                            s[i / 2][n][i % 2 * 2 + e] = 0.0f;
            }
        }
        multiply_rows<S::E, S::BLOCKS, S::N>(d_p, m->d_o, first_row, m->v[stage]);
        if (c.dropped) {
#pragma unroll
            for (int b = 0; b < S::BLOCKS; b++) {
                uint64_t row = attention_dropout_row(c, w.b, w.h, w.first + 16 * b + lane / 4);
                uint64_t other = row + 8 * (uint64_t)c.dropout_pitch;
                uint32_t keeps = attention_keeps_fragments<S::N>(c, row, other, key);
#pragma unroll
                for (int n = 0; n < S::N; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        d_p[b][n][e] *= keeps >> (4 * n + e) & 1 ? c.mask.factor : 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * S::BLOCKS; i++) {
            float delta = m->delta[first_row + 8 * i + lane / 4];
#pragma unroll
            for (int n = 0; n < S::N; n++)
#pragma unroll
                for (int e = 2 * (i % 2); e < 2 * (i % 2) + 2; e++)
                    s[i / 2][n][e] *= d_p[i / 2][n][e] - delta;
        }
        if (near) {
            add_diagonals<S>(&sums, c, m->skew[warp], lane, distance, s);
        } else if (table) {
            float sum = 0.0f;
#pragma unroll
            for (int b = 0; b < S::BLOCKS; b++)
#pragma unroll
                for (int n = 0; n < S::N; n++) sum += (s[b][n][0] + s[b][n][1]) + (s[b][n][2] + s[b][n][3]);
            if (distance >= c.bias_near_end)
                sums.last += sum;
            else
                sums.first += sum;
        }
        multiply_add<S::E, S::BLOCKS, S::N>(d_q, s, m->k[stage]);
    }

    cp_async_wait<0>();
    __syncthreads();
    tile_put<S::E, S::BLOCKS>(m->q, first_row, d_q, c.scale);
    tile_give<S::E>((bf16 *)p.d_q + attention_query_at(c, w.b, 0, w.h), q_stride, c.queries, c.width, m->q,
                    first_row, w.first, S::WARP_ROWS);
    if (p.bias.n == 0) return;
    sums.first = warp_sum(sums.first), sums.last = warp_sum(sums.last);
    if (lane == 0) sums.inner[0] += sums.first, sums.inner[p.bias.n - 1] += sums.last;
    __syncthreads();
    backward_share(p.bias, share_sums(p, m, m->share, m->head), S::WARPS, m->head, m->share);
}

template <typename S> static size_t bytes_of(int entries) {
    return sizeof(query_memory<S>) + S::WARPS * (size_t)entries * sizeof(float);
}

template <typename S> static sago_status launch(sago_gpu *gpu, const backward_problem *p) {
    const attention_problem *c = &p->call;
    int64_t blocks = (int64_t)((c->queries + S::ROWS - 1) / S::ROWS) * c->heads * c->batch;
    if (blocks == 0) return SAGO_OK;
    return SAGO_LAUNCH(gpu, backward_query_bf16_kernel<S>, (unsigned)blocks, S::THREADS,
                       bytes_of<S>(p->bias.in_shared ? p->bias.n : 0), *p,
                       attention_section(*c, (size_t)c->width * sizeof(bf16)));
}

typedef query_shape<32, 2, 4, 32> upto_32;
typedef query_shape<64, 2, 4, 32> upto_64;
typedef query_shape<128, 2, 4, 32> upto_128;
typedef query_shape<128, 1, 4, 32> upto_128_small;
/* One fragment of a warp's rows serves all keys of a tile: more of them spare shared memory's bandwidth. */
typedef query_shape<256, 2, 8, 32> upto_256;
typedef query_shape<256, 2, 4, 16> upto_256_small;
static_assert(upto_256::ROWS == upto_128::ROWS, "attention_backward_query_rows");

/** Whether a block may have what S wants, whatever the bias. */
template <typename S> static bool fits(const sago_gpu *gpu) {
    return bytes_of<S>(BACKWARD_SHARED_ENTRIES) <= gpu->properties.shared_bytes;
}

extern "C" sago_status SAGO_GPU(attention_backward_query)(sago_gpu *gpu, const backward_problem *p) {
    if (p->call.width <= 32) return launch<upto_32>(gpu, p);
    if (p->call.width <= 64) return launch<upto_64>(gpu, p);
    if (p->call.width <= 128)
        return fits<upto_128>(gpu) ? launch<upto_128>(gpu, p) : launch<upto_128_small>(gpu, p);
    return fits<upto_256>(gpu) ? launch<upto_256>(gpu, p) : launch<upto_256_small>(gpu, p);
}

extern "C" int SAGO_GPU(attention_backward_query_rows)(const sago_gpu *gpu, int width) {
    return width <= 128 || fits<upto_256>(gpu) ? upto_128::ROWS : upto_256_small::ROWS;
}

extern "C" size_t SAGO_GPU(attention_backward_query_bytes)(int width) {
    if (width <= 32) return bytes_of<upto_32>(BACKWARD_SHARED_ENTRIES);
    if (width <= 64) return bytes_of<upto_64>(BACKWARD_SHARED_ENTRIES);
    return width <= 128 ? bytes_of<upto_128_small>(BACKWARD_SHARED_ENTRIES)
                        : bytes_of<upto_256_small>(BACKWARD_SHARED_ENTRIES);
}
