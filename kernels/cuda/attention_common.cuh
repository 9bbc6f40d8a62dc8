// SPDX-License-Identifier: Apache-2.0
/**
 * What every stage and both passes of the GPU's attention agree on, once: which keys a query may attend, how
 * tiles of pairs are classed by that, the relative position bias of a pair, the dropout word of a pair, which
 * key/value head a query head reads, and the order of blocks.
 */
#ifndef SAGO_ATTENTION_COMMON_CUH
#define SAGO_ATTENTION_COMMON_CUH

#include "attention.h"
#include "dialect.cuh"
#include "random.cuh"

enum {
    ATTENTION_MAX_WIDTH = 256,    /* widest head that the kernels take */
    ATTENTION_BIAS_PAD = 256,     /* most queries + keys of a tile: see attention_problem.bias */
    ATTENTION_BIAS_SHARED = 1024, /* floats of a head's bias that fit the room kernels keep for it */
};

#define ATTENTION_LOG2E 1.4426950408889634f
#define ATTENTION_LN2   0.6931471805599453f

/** One call, as kernels take it: by value. */
typedef struct attention_problem {
    int batch, queries, keys, heads, groups, width;
    int shared; /* query heads that read one key/value head */
    float scale;
    const int32_t *lo, *hi; /* [batch, queries] */
    /*
     * The bias by distance d = key - query - query_offset, expanded by attention_prepare: head h's begins at
     * bias + h * bias_stride, and distance 0 stands bias_far + ATTENTION_BIAS_PAD after that. Distances <=
     * -bias_far have one value, and so have those >= bias_near_end. Both ends repeat it ATTENTION_BIAS_PAD
     * times: a tile with any distance between the two finds all its distances in the table, without a bound
     * to check. A position that only the device knows moves the entries, all distances then being near ones.
     * NULL: no bias.
     */
    const float *bias;
    int bias_stride, bias_far, bias_near_end;
    int query_offset;
    bool dropped;       /* dropout is on */
    bool dropout_quads; /* rows of dropout elements begin at multiples of 4: four keys share a counter */
    int dropout_pitch;  /* mask.pitch, which is dropout elements from one query to the next */
    sago_mask mask;
} attention_problem;

/** SAGO_E_SHAPE where heads are wider than the kernels take. */
sago_status SAGO_GPU(attention_width)(const char *operation, int64_t width);

/**
 * Fills *out from a checked call and expands its bias times bias_unit (1, or ATTENTION_LOG2E where the kernel
 * works in powers of 2) into the workspace. extra_bytes of workspace are left to the kernel, at *extra
 * (256-byte aligned; NULL if not wanted): an operation asks for its workspace once. Errors: SAGO_E_SHAPE for
 * sizes that kernels do not take.
 */
sago_status SAGO_GPU(attention_prepare)(sago_gpu *gpu, const char *operation,
                                        const sago_attention_sizes *sizes, const sago_attention_args *args,
                                        float bias_unit, size_t extra_bytes, void **extra,
                                        attention_problem *out);

/* --- who reads whom
 * --------------------------------------------------------------------------------------------- */

/** Element (b, i, h, 0) of q, o and their gradients; element (b, j, g, 0) of k, v and theirs. */
static __device__ __forceinline__ int64_t attention_query_at(const attention_problem &p, int b, int i,
                                                             int h) {
    return (((int64_t)b * p.queries + i) * p.heads + h) * p.width;
}
static __device__ __forceinline__ int64_t attention_key_at(const attention_problem &p, int b, int j, int g) {
    return (((int64_t)b * p.keys + j) * p.groups + g) * p.width;
}
static __device__ __forceinline__ int64_t attention_lse_at(const attention_problem &p, int b, int h, int i) {
    return ((int64_t)b * p.heads + h) * p.queries + i;
}

/* --- what may be attended
 * ----------------------------------------------------------------------------------------- */

/** Keys [lo, lo + count) of one query; count 0: none. */
typedef struct attention_range {
    int lo, count;
} attention_range;

/** Of query i of row b; queries from p.queries on have none. Ranges that leave the keys are cut. */
static __device__ __forceinline__ attention_range attention_range_of(const attention_problem &p, int b,
                                                                     int i) {
    attention_range r = {0, 0};
    if (i >= p.queries) return r;
    int lo = p.lo[(int64_t)b * p.queries + i], hi = p.hi[(int64_t)b * p.queries + i];
    lo = lo > 0 ? lo : 0, hi = hi < p.keys ? hi : p.keys;
    if (lo < hi) r.lo = lo, r.count = hi - lo;
    return r;
}

/** THE mask: whether key j is in the range. */
static __device__ __forceinline__ bool attention_allowed(attention_range r, int j) {
    return (uint32_t)(j - r.lo) < (uint32_t)r.count;
}

/**
 * Of several queries: some of them attend keys only of [first, last); all that attend any attend all of
 * [inner_first, inner_last), which is empty where that is not above inner_first.
 */
typedef struct attention_span {
    int first, last, inner_first, inner_last;
} attention_span;

static __device__ __forceinline__ attention_span attention_span_none() {
    attention_span s = {INT32_MAX, 0, 0, INT32_MAX};
    return s;
}
static __device__ __forceinline__ attention_span attention_span_join(attention_span a, attention_span b) {
    attention_span s = {a.first < b.first ? a.first : b.first, a.last > b.last ? a.last : b.last,
                        a.inner_first > b.inner_first ? a.inner_first : b.inner_first,
                        a.inner_last < b.inner_last ? a.inner_last : b.inner_last};
    return s;
}
static __device__ __forceinline__ attention_span attention_span_add(attention_span s, attention_range r) {
    attention_span one = {r.lo, r.lo + r.count, r.lo, r.lo + r.count};
    return r.count > 0 ? attention_span_join(s, one) : s;
}
/** Over all 32 lanes; all call it, and all get the result. */
static __device__ __forceinline__ attention_span attention_span_warp(attention_span s) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        attention_span other;
        other.first = __shfl_xor_sync(0xffffffffu, s.first, step);
        other.last = __shfl_xor_sync(0xffffffffu, s.last, step);
        other.inner_first = __shfl_xor_sync(0xffffffffu, s.inner_first, step);
        other.inner_last = __shfl_xor_sync(0xffffffffu, s.inner_last, step);
        s = attention_span_join(s, other);
    }
    return s;
}
/** Of queries [from, from + count) of row b; the whole warp calls it, and all lanes get the result. */
static __device__ __forceinline__ attention_span attention_span_of(const attention_problem &p, int b,
                                                                   int from, int count) {
    attention_span s = attention_span_none();
    for (int i = (int)(threadIdx.x % WARP); i < count; i += WARP)
        s = attention_span_add(s, attention_range_of(p, b, from + i));
    return attention_span_warp(s);
}

/** No pair of the tile may attend; all may (queries without keys aside: their results are thrown away); some
 * may. */
typedef enum attention_tile_class { ATTENTION_SKIP, ATTENTION_WHOLE, ATTENTION_PARTIAL } attention_tile_class;

/** Of the queries of the span against keys [from, to). */
static __device__ __forceinline__ attention_tile_class attention_class(attention_span s, int from, int to) {
    if (from >= s.last || to <= s.first) return ATTENTION_SKIP;
    return from >= s.inner_first && to <= s.inner_last ? ATTENTION_WHOLE : ATTENTION_PARTIAL;
}

/* --- bias
 * ------------------------------------------------------------------------------------------------------- */

/** Head h's bias at distance 0, in global memory. */
static __device__ __forceinline__ const float *attention_bias_global(const attention_problem &p, int h) {
    return p.bias + (int64_t)h * p.bias_stride + p.bias_far + ATTENTION_BIAS_PAD;
}
/**
 * The same, copied by the whole block into `room` (ATTENTION_BIAS_SHARED floats of shared memory) if it fits
 * there; the caller puts a barrier before the first look.
 */
static __device__ __forceinline__ const float *attention_bias_shared(const attention_problem &p, int h,
                                                                     float *room) {
    const float *from = attention_bias_global(p, h);
    if (p.bias_stride > ATTENTION_BIAS_SHARED) return from;
    for (int at = (int)threadIdx.x; at < p.bias_stride; at += (int)blockDim.x)
        room[at] = p.bias[(int64_t)h * p.bias_stride + at];
    return room + p.bias_far + ATTENTION_BIAS_PAD;
}

/** Distance of a pair; table[distance] is its bias (table as the two above return it) in a near tile. */
static __device__ __forceinline__ int attention_distance(const attention_problem &p, int i, int j) {
    return j - i - p.query_offset;
}
/** The bias of any distance, near or not: for loops without tiles. */
static __device__ __forceinline__ float attention_bias_at(const attention_problem &p, const float *table,
                                                          int distance) {
    distance = distance < -p.bias_far ? -p.bias_far : distance;
    return table[distance > p.bias_near_end ? p.bias_near_end : distance];
}
/** Whether a tile whose distances lie in [least, most] needs the table; else it has one bias,
 * attention_bias_far. */
static __device__ __forceinline__ bool attention_is_near(const attention_problem &p, int least, int most) {
    return most > -p.bias_far && least < p.bias_near_end;
}
static __device__ __forceinline__ float attention_bias_far(const attention_problem &p, const float *table,
                                                           int least) {
    return least >= p.bias_near_end ? table[p.bias_near_end] : table[-p.bias_far];
}

/* --- dropout
 * ------------------------------------------------------------------------------------------------------ */

/** Index in the global batch of the dropout element of (b, h, i, key 0); key j's is j more. */
static __device__ __forceinline__ uint64_t attention_dropout_row(const attention_problem &p, int b, int h,
                                                                 int i) {
    return (uint64_t)(p.mask.first + b * p.mask.row_stride + ((int64_t)h * p.queries + i) * p.dropout_pitch);
}
/** Whether the pair stays; what stays is to be multiplied by p.mask.factor. */
static __device__ __forceinline__ bool attention_keeps(const attention_problem &p, uint64_t row, int j) {
    return philox_word(p.mask.key, row + (uint64_t)j) >= p.mask.threshold;
}

/**
 * x, of which the compiler is not to work out anything before the place of the call: else it takes the twenty
 * round keys of Philox out of the loop over tiles, and holds them in registers that the sums need.
 */
static __device__ __forceinline__ uint64_t attention_only_here(uint64_t x) {
#ifndef SAGO_SIM
    asm volatile("" : "+l"(x));
#endif
    return x;
}

/** Of the four elements of a Philox counter: bit w says that word w stays. */
static __device__ __forceinline__ uint32_t attention_keeps_words(uint64_t key, uint32_t threshold,
                                                                 uint64_t counter) {
    philox4 words = philox_words(key, counter);
    uint32_t bits = 0;
#pragma unroll
    for (int w = 0; w < 4; w++) bits |= (uint32_t)(words.word[w] >= threshold) << w;
    return bits;
}

/** Of key j & ~3 (bit 0) to j | 3 (bit 3); only where p.dropout_quads. */
static __device__ __forceinline__ uint32_t attention_keeps_quad(const attention_problem &p, uint64_t row,
                                                                int j) {
    return attention_keeps_words(attention_only_here(p.mask.key), p.mask.threshold, (row + (uint64_t)j) >> 2);
}

/**
 * For n <= 8 fragments of scores as mma_16x8x16 leaves them (fragment f: keys first + 8 f to first + 8 f + 7;
 * first a multiple of 4; rows `low` and `high` are the dropout rows of the lane's queries g and g + 8): bit 4
 * f + e says that d[e] of fragment f stays. The whole warp calls it.
 */
template <int n>
static __device__ __forceinline__ uint32_t attention_keeps_fragments(const attention_problem &p, uint64_t low,
                                                                     uint64_t high, int first) {
    int lane = (int)(threadIdx.x % WARP), column = first + 2 * (lane % 4);
    uint64_t key = attention_only_here(p.mask.key);
    uint32_t threshold = p.mask.threshold, bits = 0;
    if (p.dropout_quads) {
        /* Two neighbouring lanes hold the same four keys of two rows: each draws for one row, and they swap.
         */
        bool odd = lane & 1;
        uint64_t counter = attention_only_here(((odd ? high : low) + (uint64_t)column) >> 2);
#pragma unroll 2 /* all eight at once would take the registers of the sums */
        for (int f = 0; f < n; f++)
            bits |= attention_keeps_words(key, threshold, counter + (uint64_t)(2 * f)) << 4 * f;
        uint32_t other = __shfl_xor_sync(0xffffffffu, bits, 1);
        const uint32_t pair = 0x33333333u;
        return odd ? (other >> 2 & pair) | (bits & pair << 2) : (bits & pair) | (other & pair) << 2;
    }
#pragma unroll 1
    for (int f = 0; f < 4 * n; f++) {
        uint64_t element = (f & 2 ? high : low) + (uint64_t)(column + 8 * (f / 4) + (f & 1));
        bits |= (attention_keeps_words(key, threshold, element >> 2) >> (element & 3) & 1) << f;
    }
    return bits;
}

/* --- order of blocks
 * ------------------------------------------------------------------------------------------------ */

/** What a block works on: tile `tile` of `tiles` of head h of row b. */
typedef struct attention_work {
    int b, h, tile;
} attention_work;

/**
 * Block number `id` of batch * heads * tiles. The last tiles come first: under a causal mask they are the
 * longest, and a long tile that begins last would be waited for. Heads take turns in sections of `section`
 * (heads of all rows, counted together) so that the keys and values of those under way stay in the
 * second-level cache.
 */
static __device__ __forceinline__ attention_work attention_work_of(int64_t id, int heads_in_all, int heads,
                                                                   int tiles, int section) {
    int64_t blocks = (int64_t)section * tiles;
    int first = (int)(id / blocks) * section, at = (int)(id % blocks);
    int here = heads_in_all - first < section ? heads_in_all - first : section;
    int head = first + at % here;
    attention_work w = {head / heads, head % heads, tiles - 1 - at / here};
    return w;
}
/** Heads of a section: their K and V, of row_bytes each per key, take at most 16 MiB of cache. */
static inline int attention_section(const attention_problem &p, size_t row_bytes) {
    int64_t bytes = 2 * (int64_t)p.keys * (int64_t)row_bytes, room = 16 << 20;
    int64_t heads = bytes > 0 ? room / bytes * p.shared : (int64_t)p.batch * p.heads;
    if (heads < p.shared) heads = p.shared;
    return (int)(heads < (int64_t)p.batch * p.heads ? heads : (int64_t)p.batch * p.heads);
}

#endif
