// SPDX-License-Identifier: Apache-2.0
/**
 * dK and dV in bf16 with mma.sync: a block owns rows of keys of one key/value head and goes through the query
 * tiles that may attend them, head by head of those that share it. Scores are transposed here (rows are
 * keys), so that P and dS are already what the products with dO and Q take.
 *
 * Two warps share 32 keys (16 where heads are 256 wide), because the sums of dK and dV do not fit one: the
 * first makes P and dV, the second dP, dS and dK. P goes from the first to the second through shared memory,
 * in the order in which the lanes hold it; its sign says whether dropout dropped the pair.
 *
 * Where one key/value head serves many query heads there are few blocks with long loops: then several blocks
 * share those heads, and leave their sums to backward_join (attention_backward.cu).
 */
#include "attention_backward_mma.cuh"

enum {
    KEY_PAIRS = 4,
    KEY_WARPS = 2 * KEY_PAIRS,
    KEY_THREADS = KEY_WARPS * WARP,
    QUERIES = BACKWARD_TILE,
    KEY_N = QUERIES / 8,
};

template <int E> struct key_shape {
    static const int BLOCKS = E <= 128 ? 2 : 1, PAIR_ROWS = 16 * BLOCKS, ROWS = KEY_PAIRS * PAIR_ROWS;
    /* Groups of 8 x 8 pairs with equal distances, but for lanes. */
    static const int DIAGONALS = KEY_N + 2 * BLOCKS - 1;
};

/** What belongs to a query tile besides its rows. */
typedef struct query_facts {
    float lse[QUERIES], delta[QUERIES];
    attention_range ranges[QUERIES];
} query_facts;

/** STAGES: 2 have the next query tile on its way while one is at work; 1 where a block has no room for that.
 */
template <int E, int STAGES> struct key_memory {
    typedef key_shape<E> shape;
    bf16 k[shape::ROWS * E], v[shape::ROWS * E];
    bf16 q[STAGES][QUERIES * E], d_o[STAGES][QUERIES * E];
    query_facts facts[STAGES];
    float4 p[KEY_PAIRS][shape::BLOCKS * KEY_N][WARP];
    int ends[KEY_WARPS][2];
};

/** The head and the query tile that a block is at. */
typedef struct key_place {
    int h, tile;
} key_place;

/** The first place from `at` on whose tile meets the block's keys; h past the last head at the end. */
static __device__ __forceinline__ key_place next_place(key_place at, const attention_span *spans, int first,
                                                       int last, int last_head, int key, int n_keys) {
    for (; at.h < last_head; at.h++, at.tile = first)
        for (; at.tile < last; at.tile++)
            if (attention_class(spans[at.tile], key, key + n_keys) != ATTENTION_SKIP) return at;
    return at;
}

/** Begins to copy a place's queries, and ends the group. */
template <int E, int STAGES>
static __device__ __forceinline__ void take_place(key_memory<E, STAGES> *m, int stage,
                                                  const backward_problem &p, int b, key_place at) {
    const attention_problem &c = p.call;
    int first = at.tile * QUERIES, thread = (int)threadIdx.x;
    int64_t head = attention_query_at(c, b, 0, at.h);
    head_rows q = {(const bf16 *)p.q + head, (int64_t)c.heads * c.width, c.queries, c.width}, d_o = q;
    d_o.from = (const bf16 *)p.d_o + head;
    tile_take<E>(m->q[stage], q, first, QUERIES, thread, KEY_THREADS);
    tile_take<E>(m->d_o[stage], d_o, first, QUERIES, thread, KEY_THREADS);
    const int floats = QUERIES / 4, ranges = QUERIES / 2; /* in pieces of 16 bytes */
    int64_t row = backward_row_at(p, b, at.h, first);
    if (thread < floats)
        cp_async16(m->facts[stage].lse + 4 * thread, p.lse + row + 4 * thread);
    else if (thread < 2 * floats)
        cp_async16(m->facts[stage].delta + 4 * (thread - floats), p.delta + row + 4 * (thread - floats));
    else if (thread < 2 * floats + ranges)
        cp_async16(m->facts[stage].ranges + 2 * (thread - 2 * floats),
                   p.ranges + (int64_t)b * p.padded + first + 2 * (thread - 2 * floats));
    cp_async_commit();
}

/**
 * The transposed twin of attention_keeps_fragments: rows are keys (first_key + lane / 4 and 8 more, a
 * multiple of 4 and lane / 4), columns queries whose dropout rows are row, row + pitch, ...: bit 4 n + e says
 * that d[e] of fragment n stays.
 */
static __device__ __forceinline__ uint32_t keeps_of_keys(const attention_problem &c, uint64_t row, int key) {
    int lane = (int)(threadIdx.x % WARP), g = lane / 4, t = 2 * (lane % 4);
    uint64_t pitch = (uint64_t)c.dropout_pitch;
    uint32_t bits = 0;
    if (c.dropout_quads) {
        /* Four lanes hold four neighbouring keys of the same four pairs of row half and query: each draws for
         * one. */
        int mine = g % 4;
        int quad = key + (g & ~3) + 8 * (mine / 2);
        uint32_t drawn = 0, kept = 0;
#pragma unroll
        for (int n = 0; n < KEY_N; n++)
            drawn |= attention_keeps_quad(c, row + (uint64_t)(8 * n + t + mine % 2) * pitch, quad) << 4 * n;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            uint32_t from = __shfl_sync(0xffffffffu, drawn, (lane & ~12) | e << 2);
            kept |= (from >> mine & 0x11111111u) << e;
        }
        return kept;
    }
#pragma unroll 1
    for (int n = 0; n < KEY_N; n++)
        for (int e = 0; e < 4; e++)
            bits |= (uint32_t)attention_keeps(c, row + (uint64_t)(8 * n + t + e % 2) * pitch,
                                              key + g + 8 * (e / 2))
                    << (4 * n + e);
    return bits;
}

/** P of the transposed scores s, in place; first_key, first_query: of the pair's rows and of the tile. */
template <int E>
static __device__ __forceinline__ void key_softmax(float s[key_shape<E>::BLOCKS][KEY_N][4],
                                                   const attention_problem &c, const float *bias,
                                                   int first_key, int first_query, const float *lse) {
    typedef key_shape<E> shape;
    const float unit = c.scale * ATTENTION_LOG2E;
    int lane = (int)(threadIdx.x % WARP), g = lane / 4, t = 2 * (lane % 4);
    int least = attention_distance(c, first_query + QUERIES - 1, first_key);
    int most = attention_distance(c, first_query, first_key + shape::PAIR_ROWS - 1);
    bool near = bias && attention_is_near(c, least, most);
    float far_bias = bias && !near ? attention_bias_far(c, bias, least) : 0.0f;
    const float *from =
        near ? bias + attention_distance(c, first_query, first_key) + g - t - 8 * (KEY_N - 1) : NULL;
#pragma unroll
    for (int group = 0; group < shape::DIAGONALS; group++) {
        float at[2] = {far_bias, far_bias};
        if (near) at[0] = from[8 * group], at[1] = from[8 * group - 1];
#pragma unroll
        for (int n = 0; n < KEY_N; n++) {
            const int eight =
                group + n - (KEY_N - 1); /* group of 8 keys: the distance grows with it and falls with n */
            if (eight < 0 || eight >= 2 * shape::BLOCKS) continue;
            float2 there = *(const float2 *)(lse + 8 * n + t);
            float *x = &s[eight / 2][n][eight % 2 * 2];
            x[0] = fast_exp2(fmaf(x[0], unit, at[0] - there.x));
            x[1] = fast_exp2(fmaf(x[1], unit, at[1] - there.y));
        }
    }
}

/** The first warp's part of a tile: P to the second warp, and its product with dO. */
template <int E, int STAGES>
static __device__ __forceinline__ void
add_values(float d_v[key_shape<E>::BLOCKS][E / 8][4], key_memory<E, STAGES> *m, int stage,
           const backward_problem &p, int b, key_place at, int pair, int first_key, bool partial) {
    typedef key_shape<E> shape;
    const attention_problem &c = p.call;
    int lane = (int)(threadIdx.x % WARP), g = lane / 4, t = 2 * (lane % 4), first_query = at.tile * QUERIES;
    float s[shape::BLOCKS][KEY_N][4];
    multiply_rows<E, shape::BLOCKS, KEY_N>(s, m->k, pair * shape::PAIR_ROWS, m->q[stage]);
    key_softmax<E>(s, c, c.bias ? attention_bias_global(c, at.h) : NULL, first_key, first_query,
                   m->facts[stage].lse);
    if (partial) {
#pragma unroll
        for (int n = 0; n < KEY_N; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                attention_range range = m->facts[stage].ranges[8 * n + t + e];
#pragma unroll
                for (int i = 0; i < 2 * shape::BLOCKS; i++)
                    if (!attention_allowed(range, first_key + 8 * i + g)) s[i / 2][n][i % 2 * 2 + e] = 0.0f;
            }
    }
    uint64_t row = attention_dropout_row(c, b, at.h, first_query);
#pragma unroll
    for (int i = 0; i < shape::BLOCKS; i++) {
        uint32_t keeps = c.dropped ? keeps_of_keys(c, row, first_key + 16 * i) : 0xffffffffu;
        float factor = c.dropped ? c.mask.factor : 1.0f;
#pragma unroll
        for (int n = 0; n < KEY_N; n++) {
            float x[4];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool kept = keeps >> (4 * n + e) & 1;
                x[e] = kept ? s[i][n][e] : -s[i][n][e];
                s[i][n][e] = kept ? s[i][n][e] * factor : 0.0f;
            }
            m->p[pair][i * KEY_N + n][lane] = make_float4(x[0], x[1], x[2], x[3]);
        }
    }
    named_barrier(1 + pair, 2 * WARP);
    multiply_add<E, shape::BLOCKS, KEY_N>(d_v, s, m->d_o[stage]);
}

/** The second warp's part: dP, with P dS, and its product with Q. */
template <int E, int STAGES>
static __device__ __forceinline__ void add_keys(float d_k[key_shape<E>::BLOCKS][E / 8][4],
                                                key_memory<E, STAGES> *m, int stage,
                                                const attention_problem &c, int pair) {
    typedef key_shape<E> shape;
    int lane = (int)(threadIdx.x % WARP), t = 2 * (lane % 4);
    float d_s[shape::BLOCKS][KEY_N][4], factor = c.dropped ? c.mask.factor : 1.0f;
    multiply_rows<E, shape::BLOCKS, KEY_N>(d_s, m->v, pair * shape::PAIR_ROWS, m->d_o[stage]);
    named_barrier(1 + pair, 2 * WARP);
#pragma unroll
    for (int n = 0; n < KEY_N; n++) {
        float2 delta = *(const float2 *)(m->facts[stage].delta + 8 * n + t);
#pragma unroll
        for (int i = 0; i < shape::BLOCKS; i++) {
            float4 x = m->p[pair][i * KEY_N + n][lane];
            float p[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool kept = !(float_bits(p[e]) >> 31);
                float d_p = kept ? d_s[i][n][e] * factor : 0.0f;
                d_s[i][n][e] = fabsf(p[e]) * (d_p - (e % 2 ? delta.y : delta.x));
            }
        }
    }
    multiply_add<E, shape::BLOCKS, KEY_N>(d_k, d_s, m->q[stage]);
}

/** Leaves a warp's sums, times factor, at rows [first, ...) of a split's dK or dV, whose row 0 is at `left`.
 */
template <int E>
static __device__ __forceinline__ void leave_split(float *left, const backward_problem &p, int first,
                                                   const float sum[key_shape<E>::BLOCKS][E / 8][4],
                                                   float factor) {
    int lane = (int)(threadIdx.x % WARP), column = 2 * (lane % 4);
    int64_t stride = (int64_t)p.call.groups * p.split.pitch;
#pragma unroll
    for (int row = 0; row < 2 * key_shape<E>::BLOCKS; row++) {
        int key = first + 8 * row + lane / 4;
        if (key >= p.call.keys) continue;
        float *to = left + (int64_t)key * stride + column;
#pragma unroll
        for (int n = 0; n < E / 8; n++)
            if (8 * n + column < p.split.pitch)
                *(float2 *)(to + 8 * n) = make_float2(sum[row / 2][n][row % 2 * 2] * factor,
                                                      sum[row / 2][n][row % 2 * 2 + 1] * factor);
    }
}

template <int E, int STAGES>
static __global__ void __launch_bounds__(KEY_THREADS, E <= 32 ? 2 : 1)
    backward_key_bf16_kernel(backward_problem p, int section) {
    typedef key_shape<E> shape;
    typedef key_memory<E, STAGES> memory;
    SAGO_SHARED(memory, m);
    const attention_problem &c = p.call;
    int n_tiles = (c.keys + shape::ROWS - 1) / shape::ROWS, n_spans = (c.queries + QUERIES - 1) / QUERIES;
    attention_work work =
        attention_work_of(blockIdx.x, c.batch * c.groups * p.split.n, c.groups * p.split.n, n_tiles, section);
    int thread = (int)threadIdx.x, warp = thread / WARP, lane = thread % WARP, pair = warp % KEY_PAIRS,
        b = work.b, group = work.h / p.split.n;
    bool makes_values = warp < KEY_PAIRS;
    /* The first keys are attended by most queries under a causal mask: their blocks begin first. */
    int block_key = (n_tiles - 1 - work.tile) * shape::ROWS, first_key = block_key + pair * shape::PAIR_ROWS;
    int64_t k_stride = (int64_t)c.groups * c.width, head = attention_key_at(c, b, 0, group);
    head_rows k = {(const bf16 *)p.k + head, k_stride, c.keys, c.width}, v = k;
    v.from = (const bf16 *)p.v + head;
    tile_take<E>(m->k, k, block_key, shape::ROWS, thread, KEY_THREADS);
    tile_take<E>(m->v, v, block_key, shape::ROWS, thread, KEY_THREADS);

    /* Tiles between the first and the last that meet the block's keys; most of those between do too. */
    const attention_span *spans = p.spans + (int64_t)b * (p.padded / BACKWARD_TILE);
    int first = n_spans, last = 0;
    for (int i = thread; i < n_spans; i += KEY_THREADS)
        if (attention_class(spans[i], block_key, block_key + shape::ROWS) != ATTENTION_SKIP) {
            first = i < first ? i : first;
            last = i + 1;
        }
    for (int step = WARP / 2; step > 0; step /= 2) {
        int other_first = __shfl_xor_sync(0xffffffffu, first, step),
            other_last = __shfl_xor_sync(0xffffffffu, last, step);
        first = other_first < first ? other_first : first, last = other_last > last ? other_last : last;
    }
    if (lane == 0) m->ends[warp][0] = first, m->ends[warp][1] = last;
    __syncthreads();
    for (int i = 0; i < KEY_WARPS; i++) {
        first = m->ends[i][0] < first ? m->ends[i][0] : first;
        last = m->ends[i][1] > last ? m->ends[i][1] : last;
    }

    backward_heads heads = backward_heads_of(p, group, work.h % p.split.n);
    int last_head = heads.last, stage = 0;
    key_place at = {heads.first, first};
    at = next_place(at, spans, first, last, last_head, block_key, shape::ROWS);
    if (STAGES == 2 && at.h < last_head)
        take_place(m, 0, p, b, at);
    else
        cp_async_commit();
    float sum[shape::BLOCKS][E / 8][4]; /* dV or dK */
#pragma unroll
    for (int i = 0; i < shape::BLOCKS; i++)
#pragma unroll
        for (int n = 0; n < E / 8; n++) sum[i][n][0] = sum[i][n][1] = sum[i][n][2] = sum[i][n][3] = 0.0f;

    for (; at.h < last_head; stage ^= STAGES - 1) {
        if (STAGES == 1) {
            __syncthreads(); /* nobody reads the last tile any more */
            take_place(m, 0, p, b, at);
        }
        cp_async_wait<0>();
        __syncthreads(); /* this stage has come, nobody reads the other one any more, nor the P of the last
                            tile */
        key_place after = {at.h, at.tile + 1};
        after = next_place(after, spans, first, last, last_head, block_key, shape::ROWS);
        if (STAGES == 2 && after.h < last_head) take_place(m, stage ^ 1, p, b, after);
        attention_tile_class kind = attention_class(spans[at.tile], first_key, first_key + shape::PAIR_ROWS);
        if (kind != ATTENTION_SKIP) { /* the same for both warps of a pair */
            if (makes_values)
                add_values(sum, m, stage, p, b, at, pair, first_key, kind == ATTENTION_PARTIAL);
            else
                add_keys(sum, m, stage, c, pair);
        }
        at = after;
    }

    cp_async_wait<0>();
    __syncthreads();
    float factor = makes_values ? 1.0f : c.scale;
    if (p.split.n > 1) {
        /* Worked out again, since in registers it would have had to wait through all tiles. */
        work = attention_work_of((int64_t)attention_only_here(blockIdx.x), c.batch * c.groups * p.split.n,
                                 c.groups * p.split.n, n_tiles, section);
        leave_split<E>((makes_values ? p.split.d_v : p.split.d_k) +
                           backward_split_at(p, work.h % p.split.n, b, 0, group),
                       p, first_key, sum, factor);
        return;
    }
    bf16 *tile = makes_values ? m->v : m->k;
    tile_put<E, shape::BLOCKS>(tile, pair * shape::PAIR_ROWS, sum, factor);
    tile_give<E>((bf16 *)(makes_values ? p.d_v : p.d_k) + head, k_stride, c.keys, c.width, tile,
                 pair * shape::PAIR_ROWS, first_key, shape::PAIR_ROWS);
}

template <int E, int STAGES> static sago_status launch(sago_gpu *gpu, const backward_problem *p) {
    const attention_problem *c = &p->call;
    int heads = c->batch * c->groups * p->split.n;
    int64_t blocks = (int64_t)((c->keys + key_shape<E>::ROWS - 1) / key_shape<E>::ROWS) * heads;
    if (blocks == 0) return SAGO_OK;
    return SAGO_LAUNCH(gpu, (backward_key_bf16_kernel<E, STAGES>), (unsigned)blocks, KEY_THREADS,
                       sizeof(key_memory<E, STAGES>), *p, heads);
}

extern "C" sago_status SAGO_GPU(attention_backward_key)(sago_gpu *gpu, const backward_problem *p) {
    if (p->call.width <= 32) return launch<32, 2>(gpu, p);
    if (p->call.width <= 64) return launch<64, 2>(gpu, p);
    if (p->call.width > 128) return launch<256, 2>(gpu, p);
    return sizeof(key_memory<128, 2>) <= gpu->properties.shared_bytes ? launch<128, 2>(gpu, p)
                                                                      : launch<128, 1>(gpu, p);
}

extern "C" int SAGO_GPU(attention_backward_key_rows)(int width) {
    return width <= 128 ? key_shape<128>::ROWS : key_shape<256>::ROWS;
}

extern "C" size_t SAGO_GPU(attention_backward_key_bytes)(int width) {
    if (width <= 32) return sizeof(key_memory<32, 2>);
    if (width <= 64) return sizeof(key_memory<64, 2>);
    return width <= 128 ? sizeof(key_memory<128, 1>) : sizeof(key_memory<256, 2>);
}
