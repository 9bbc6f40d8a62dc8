// SPDX-License-Identifier: Apache-2.0
/**
 * Forward attention in bf16 on tensor cores: the recurrence of FlashAttention-2 (Dao 2023, algorithm 1), for
 * sm_80 and up. docs/kernels/attention.md says why the tiles are as they are.
 */
#include "attention_forward.cuh"
#include "attention_mma.cuh"

enum { MMA_WARPS = 4, MMA_THREADS = MMA_WARPS * WARP };

/**
 * What a padded head width E is run with. BLOCKS of 16 queries a warp: two read each fragment of K and V once
 * for 32 queries, which is what shared memory's bandwidth asks for; beyond 128 columns the sums leave room
 * for one. KEYS of a tile: 64, or what lets sums and scores stay in registers. SLOTS: how many tiles, of K
 * and of V in turn, are in shared memory or on their way there.
 */
template <int E, bool DROPOUT> struct mma_shape {
    enum {
        BLOCKS = E <= 128 ? 2 : 1,
        QUERIES = MMA_WARPS * 16 * BLOCKS,
        KEYS = E == 128             ? (DROPOUT ? 32 : 48)
               : E == 96 && DROPOUT ? 48
                                    : 64,
        SLOTS = E <= 64    ? 4
                : E <= 128 ? 3
                           : 2,
    };
};

template <int E, bool BIAS, bool DROPOUT> struct mma_room {
    alignas(128) bf16 q[mma_shape<E, DROPOUT>::QUERIES * E]; /* in the end, o */
    alignas(128) bf16 ring[mma_shape<E, DROPOUT>::SLOTS][mma_shape<E, DROPOUT>::KEYS * E];
    attention_range range[mma_shape<E, DROPOUT>::QUERIES];
    attention_span own[MMA_WARPS];                            /* of each warp's queries */
    uint64_t dropout_row;                                     /* of the block's first query */
    float bias[BIAS && E <= 128 ? ATTENTION_BIAS_SHARED : 1]; /* beyond, 99 KiB leave no room */
};

/** The running largest score (times log2 e) and sum of weights of a query. */
typedef struct softmax_row {
    float top, sum;
} softmax_row;

/**
 * s = s * factor + the bias of its pair; table: the bias of (query g, key t). A pair's place in the table
 * depends on its diagonal alone, of which a warp has KEYS / 8 + 2 BLOCKS - 1 times two.
 */
template <int BLOCKS, int KEYS>
static __device__ __forceinline__ void mma_bias(float s[BLOCKS][KEYS / 8][4], float factor,
                                                const float *table) {
#pragma unroll
    for (int diagonal = 1 - 2 * BLOCKS; diagonal < KEYS / 8; diagonal++) {
        float of_pair[2] = {table[8 * diagonal], table[8 * diagonal + 1]};
#pragma unroll
        for (int eight = 0; eight < 2 * BLOCKS; eight++) { /* eight queries of the warp's */
            const int f = diagonal + eight, n = eight / 2;
            if (f < 0 || f >= KEYS / 8) continue;
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[n][f][eight % 2 * 2 + e];
                *x = fmaf(*x, factor, of_pair[e]);
            }
        }
    }
}

/**
 * s = the warp's scores of a tile: keys from `from` on. Becomes the weights 2^(s - top), and rows what they
 * are now; shrink: what the sums so far are to be multiplied by. rows[2 n + r] is of queries 16 n + g + 8 r.
 */
template <int BLOCKS, int KEYS, bool BIAS>
static __device__ __forceinline__ void mma_softmax(float s[BLOCKS][KEYS / 8][4], softmax_row rows[2 * BLOCKS],
                                                   float shrink[2 * BLOCKS], const attention_problem &p,
                                                   const attention_range *range, const float *bias_room,
                                                   int head, int query, int from, bool whole) {
    int lane = (int)(threadIdx.x % WARP), g = lane / 4, t = 2 * (lane % 4);
    /* The exponent of a weight is factor * s + add - top: the scale costs nothing there. */
    float factor = p.scale * ATTENTION_LOG2E, add = 0.0f;
    bool near = false;
    if (BIAS) {
        int least = attention_distance(p, query + 16 * BLOCKS - 1, from);
        int most = attention_distance(p, query, from + KEYS - 1);
        near = attention_is_near(p, least, most);
        if (!near) add = attention_bias_far(p, attention_bias_global(p, head), least);
    }
    /* A factor that is not positive would turn the largest product into the smallest score. */
    if (near || !(factor > 0.0f)) {
        int place = attention_distance(p, query + g, from + t);
        /* Two loops, so that the compiler knows which one reads shared memory; no pointer lives through the
         * tiles. */
        if (BIAS && near && bias_room && p.bias_stride <= ATTENTION_BIAS_SHARED) {
            mma_bias<BLOCKS, KEYS>(s, factor, bias_room + p.bias_far + ATTENTION_BIAS_PAD + place);
        } else if (BIAS && near) {
            mma_bias<BLOCKS, KEYS>(s, factor, attention_bias_global(p, head) + place);
        } else {
#pragma unroll
            for (int n = 0; n < BLOCKS; n++)
#pragma unroll
                for (int f = 0; f < KEYS / 8; f++)
#pragma unroll
                    for (int e = 0; e < 4; e++) s[n][f][e] = fmaf(s[n][f][e], factor, add);
        }
        factor = 1.0f, add = 0.0f;
    }
    if (!whole) {
#pragma unroll
        for (int row = 0; row < 2 * BLOCKS; row++) {
            attention_range r = range[8 * row + g];
#pragma unroll
            for (int f = 0; f < KEYS / 8; f++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if (!attention_allowed(r, from + t + 8 * f + e))
                        s[row / 2][f][2 * (row % 2) + e] = -INFINITY;
        }
    }
#pragma unroll
    for (int row = 0; row < 2 * BLOCKS; row++) {
        int n = row / 2, first = 2 * (row % 2);
        float largest = s[n][0][first];
#pragma unroll
        for (int f = 0; f < KEYS / 8; f++)
            largest = fmaxf(largest, fmaxf(s[n][f][first], s[n][f][first + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        largest = fmaxf(rows[row].top, fmaf(largest, factor, add));
        float base = largest == -INFINITY ? 0.0f : largest, shift = add - base;
        shrink[row] = fast_exp2(rows[row].top - base);
        float sum = 0.0f;
#pragma unroll
        for (int f = 0; f < KEYS / 8; f++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float weight = fast_exp2(fmaf(s[n][f][first + e], factor, shift));
                s[n][f][first + e] = weight;
                sum += weight;
            }
        rows[row].top = largest;
        rows[row].sum = rows[row].sum * shrink[row] + sum;
    }
}

/**
 * A block has QUERIES queries of a head, a warp 16 BLOCKS of them. Tiles of K and V come through a ring in
 * the order in which they are used: while one is multiplied, the next SLOTS - 1 are on their way. A barrier
 * before each tile's use says that all have it and that none still reads the slot that is filled next.
 */
template <int E, bool BIAS, bool DROPOUT>
static __global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_forward_mma_kernel(attention_problem p, bf16 *o, float *lse, const bf16 *q, const bf16 *k,
                                 const bf16 *v, int tiles, int section) {
    typedef mma_shape<E, DROPOUT> shape;
    typedef mma_room<E, BIAS, DROPOUT> room_type;
    SAGO_SHARED(room_type, room);
    enum { BLOCKS = shape::BLOCKS, KEYS = shape::KEYS, SLOTS = shape::SLOTS, ROWS = 2 * BLOCKS };
    enum { KEEP_Q = DROPOUT ? E <= 32 : E <= 64 }; /* in registers */
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, g = lane / 4;
    attention_work work = attention_work_of(blockIdx.x, p.batch * p.heads, p.heads, tiles, section);
    int first = work.tile * shape::QUERIES,
        mine = warp * 16 * BLOCKS; /* queries of the block; of the warp in it */
    int64_t stride = (int64_t)p.groups * p.width, query_stride = (int64_t)p.heads * p.width;
    int64_t head_at = attention_key_at(p, work.b, 0, work.h / p.shared);

    tile_load<E, MMA_THREADS>(room->q, q + attention_query_at(p, work.b, 0, work.h), query_stride,
                              shape::QUERIES, first, 0, p.queries, p.width);
    cp_async_commit();
    attention_span span = attention_span_of(p, work.b, first, shape::QUERIES);
    int begin = span.first / 8 * 8, n_tiles = (span.last - begin + KEYS - 1) / KEYS;
    if (span.first >= span.last) n_tiles = 0;

    /* Step n of the ring is the K, for odd n the V, of tile n / 2. */
    int next = 0, slot = 0, next_slot = 0;
    auto ask = [&]() {
        if (next < 2 * n_tiles)
            tile_load<E, MMA_THREADS>(room->ring[next_slot], (next % 2 == 0 ? k : v) + head_at, stride, KEYS,
                                      begin + next / 2 * KEYS, span.first, span.last, p.width);
        cp_async_commit();
        next++, next_slot = next_slot + 1 == SLOTS ? 0 : next_slot + 1;
    };
    auto take = [&]() -> const bf16 * {
        cp_async_wait<SLOTS - 2>();
        __syncthreads();
        ask();
        const bf16 *tile = room->ring[slot];
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        return tile;
    };
    for (int n = 0; n < SLOTS - 1; n++) ask();

    for (int i = (int)threadIdx.x; i < shape::QUERIES; i += MMA_THREADS)
        room->range[i] = attention_range_of(p, work.b, first + i);
    /* Wider heads leave the table no room in the shared memory of small GPUs. */
    enum { ROOM_FOR_BIAS = BIAS && E <= 128 };
    if (ROOM_FOR_BIAS) (void)attention_bias_shared(p, work.h, room->bias);
    attention_span own = attention_span_of(p, work.b, first + mine, 16 * BLOCKS);
    if (lane == 0) room->own[warp] = own;
    if (DROPOUT && threadIdx.x == 0) room->dropout_row = attention_dropout_row(p, work.b, work.h, first);
    float acc[BLOCKS][E / 8][4];
    softmax_row rows[ROWS];
#pragma unroll
    for (int n = 0; n < BLOCKS; n++)
#pragma unroll
        for (int f = 0; f < E / 8; f++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[n][f][e] = 0.0f;
#pragma unroll
    for (int row = 0; row < ROWS; row++) rows[row].top = -INFINITY, rows[row].sum = 0.0f;

    cp_async_wait<SLOTS - 1>(); /* the queries */
    __syncthreads();
    int at_lane = tile_lane<E>(), at_lane_transposed = tile_lane_transposed<E>();
    uint32_t query[KEEP_Q ? E / 16 : 1][BLOCKS][4];
    if (KEEP_Q) {
#pragma unroll
        for (int c = 0; c < E / 16; c++)
#pragma unroll
            for (int n = 0; n < BLOCKS; n++)
                tile_a<E>(query[KEEP_Q ? c : 0][n], room->q, at_lane, mine + 16 * n, c);
    }

    for (int from = begin; from < begin + n_tiles * KEYS; from += KEYS) {
        attention_tile_class class_of = attention_class(room->own[warp], from, from + KEYS);
        uint32_t weights[BLOCKS][KEYS / 16][4];
        const bf16 *tile = take();
        if (class_of != ATTENTION_SKIP) {
            uint32_t keep[DROPOUT ? BLOCKS : 1]; /* drawn while there are no scores to hold */
#pragma unroll
            for (int n = 0; DROPOUT && n < BLOCKS; n++) {
                uint64_t pitch = (uint64_t)p.dropout_pitch,
                         row = room->dropout_row + (uint64_t)(mine + 16 * n + g) * pitch;
                keep[DROPOUT ? n : 0] = attention_keeps_fragments<KEYS / 8>(p, row, row + 8 * pitch, from);
            }
            float s[BLOCKS][KEYS / 8][4] = {};
#pragma unroll
            for (int c = 0; c < E / 16; c++) {
                if (!KEEP_Q) {
#pragma unroll
                    for (int n = 0; n < BLOCKS; n++)
                        tile_a<E>(query[0][n], room->q, at_lane, mine + 16 * n, c);
                }
#pragma unroll
                for (int f = 0; f < KEYS / 16; f++) {
                    uint32_t b[4];
                    tile_b_transposed<E>(b, tile, at_lane_transposed, 16 * f, c);
#pragma unroll
                    for (int n = 0; n < BLOCKS; n++) {
                        mma_16x8x16(s[n][2 * f], query[KEEP_Q ? c : 0][n], b);
                        mma_16x8x16(s[n][2 * f + 1], query[KEEP_Q ? c : 0][n], b + 2);
                    }
                }
            }
            float shrink[ROWS];
            mma_softmax<BLOCKS, KEYS, BIAS>(s, rows, shrink, p, room->range + mine,
                                            ROOM_FOR_BIAS ? room->bias : NULL, work.h, first + mine, from,
                                            class_of == ATTENTION_WHOLE);
            bool grown = false;
#pragma unroll
            for (int row = 0; row < ROWS; row++) grown |= shrink[row] != 1.0f;
            if (__any_sync(0xffffffffu, grown)) {
#pragma unroll
                for (int n = 0; n < BLOCKS; n++)
#pragma unroll
                    for (int f = 0; f < E / 8; f++)
#pragma unroll
                        for (int e = 0; e < 4; e++) acc[n][f][e] *= shrink[2 * n + e / 2];
            }
#pragma unroll
            for (int n = 0; n < BLOCKS; n++) {
                if (DROPOUT) {
#pragma unroll
                    for (int f = 0; f < KEYS / 8; f++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            if (!(keep[DROPOUT ? n : 0] >> (4 * f + e) & 1)) s[n][f][e] = 0.0f;
                }
                /* Two fragments of scores side by side lie as a fragment of the next product's left side. */
#pragma unroll
                for (int f = 0; f < KEYS / 16; f++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        weights[n][f][e] =
                            pack_bf16(s[n][2 * f + e / 2][2 * (e % 2)], s[n][2 * f + e / 2][2 * (e % 2) + 1]);
            }
        }
        tile = take();
        if (class_of != ATTENTION_SKIP) {
#pragma unroll
            for (int f = 0; f < KEYS / 16; f++)
#pragma unroll
                for (int c = 0; c < E / 16; c++) {
                    uint32_t b[4];
                    tile_b<E>(b, tile, at_lane, 16 * f, c);
#pragma unroll
                    for (int n = 0; n < BLOCKS; n++) {
                        mma_16x8x16(acc[n][2 * c], weights[n][f], b);
                        mma_16x8x16(acc[n][2 * c + 1], weights[n][f], b + 2);
                    }
                }
        }
    }

    /* Worked out again, since in registers it would have had to wait through all tiles. */
    work = attention_work_of((int64_t)attention_only_here(blockIdx.x), p.batch * p.heads, p.heads, tiles,
                             section);
    first = work.tile * shape::QUERIES;
    /* The warp's queries are its own, and read: their place takes o, from where whole pieces go out. */
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float sum = rows[row].sum;
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        int at = mine + 8 * row + g;
        bool any = room->range[at].count > 0;
        float inverse = (DROPOUT ? p.mask.factor : 1.0f) / sum;
        if (lane % 4 == 0 && first + at < p.queries)
            lse[attention_lse_at(p, work.b, work.h, first + at)] =
                any ? (rows[row].top + log2f(sum)) * ATTENTION_LN2 : -INFINITY;
#pragma unroll
        for (int f = 0; f < E / 8; f++) {
            const float *pair = acc[row / 2][f] + 2 * (row % 2);
            uint32_t packed = any ? pack_bf16(pair[0] * inverse, pair[1] * inverse) : 0;
            *(uint32_t *)(room->q + tile_at<E>(at, f) + 2 * (lane % 4)) = packed;
        }
    }
    __syncwarp();
    bf16 *to = o + attention_query_at(p, work.b, 0, work.h);
#pragma unroll
    for (int at = lane; at < 16 * BLOCKS * (E / 8); at += WARP) {
        int row = mine + at / (E / 8), piece = at % (E / 8);
        if (first + row < p.queries && piece * 8 < p.width)
            store16(to + (first + row) * query_stride + piece * 8,
                    *(uint4 *)(room->q + tile_at<E>(row, piece)));
    }
}

template <int E, bool BIAS, bool DROPOUT>
static sago_status launch(sago_gpu *gpu, const attention_forward_call *call, const attention_problem *p) {
    int tiles = (p->queries + mma_shape<E, DROPOUT>::QUERIES - 1) / mma_shape<E, DROPOUT>::QUERIES;
    int section = attention_section(*p, (size_t)p->width * sizeof(bf16));
    int64_t blocks = (int64_t)p->batch * p->heads * tiles;
    return SAGO_LAUNCH(gpu, (attention_forward_mma_kernel<E, BIAS, DROPOUT>), (unsigned)blocks, MMA_THREADS,
                       sizeof(mma_room<E, BIAS, DROPOUT>), *p, (bf16 *)call->o.data, (float *)call->lse.data,
                       (const bf16 *)call->q.data, (const bf16 *)call->k.data, (const bf16 *)call->v.data,
                       tiles, section);
}

template <int E>
static sago_status launch_width(sago_gpu *gpu, const attention_forward_call *call,
                                const attention_problem *p) {
    if (p->bias && p->dropped) return launch<E, true, true>(gpu, call, p);
    if (p->bias) return launch<E, true, false>(gpu, call, p);
    if (p->dropped) return launch<E, false, true>(gpu, call, p);
    return launch<E, false, false>(gpu, call, p);
}

sago_status SAGO_GPU(attention_forward_mma)(sago_gpu *gpu, const attention_forward_call *call) {
    attention_problem p;
    SAGO_TRY(SAGO_GPU(attention_prepare)(gpu, "attention_forward", &call->sizes, call->args, ATTENTION_LOG2E,
                                         0, NULL, &p));
    if (p.width <= 32) return launch_width<32>(gpu, call, &p);
    if (p.width <= 64) return launch_width<64>(gpu, call, &p);
    if (p.width <= 96) return launch_width<96>(gpu, call, &p);
    if (p.width <= 128) return launch_width<128>(gpu, call, &p);
    return launch_width<256>(gpu, call, &p);
}
