// SPDX-License-Identifier: Apache-2.0
/**
 * What Adafactor's kernels share: which parameter and which tile of it are a block's, how a tile's elements
 * are read and written, and sums over a block (docs/kernels/adafactor.md).
 *
 * A block takes a tile of 64 rows and 512 columns of one parameter; a warp of it takes every eighth row, a
 * lane four groups of four columns, so that sums by column stay in registers and a sum by row costs five
 * shuffles.
 */
#ifndef SAGO_ADAFACTOR_TILE_CUH
#define SAGO_ADAFACTOR_TILE_CUH

#include "adafactor_table.h"
#include "dialect.cuh"
#include "gpu_ops.h"
#include "quad.cuh"

extern "C" {
#include "adafactor.h"
}

enum {
    WARPS = ADAFACTOR_BLOCK / WARP,
    GROUPS = ADAFACTOR_TILE_COLUMNS / (4 * WARP), /* of four columns, a lane */
    WARP_ROWS = ADAFACTOR_TILE_ROWS / WARPS,
};

/** What all parameters share, by value. */
typedef struct rule {
    const sago_step_control *control;
    double beta2, clip_threshold, minimum_scale;
    float keep_value, beta, rest; /* 1 - weight_decay, momentum, 1 - momentum */
    int parameter_scale;
} rule;

static rule rule_of(const sago_adafactor_args *args) {
    rule r;
    r.control = args->control;
    r.beta2 = args->beta2, r.clip_threshold = args->clip_threshold, r.minimum_scale = args->minimum_scale;
    r.keep_value = (float)(1 - args->weight_decay);
    r.beta = (float)args->momentum, r.rest = (float)(1 - args->momentum);
    r.parameter_scale = args->parameter_scale;
    return r;
}

static __device__ __forceinline__ bool stands_still(const rule &r) {
    return r.control && !r.control->apply;
}

static __device__ __forceinline__ float scale_of(const rule &r) {
    return r.control ? (float)r.control->gradient_scale : 1.0f;
}

/* --- which parameter is this block's ----------------------------------------------------------- */

/** The last entry whose first block, by the given member, is not after this one. */
template <int64_t adafactor_entry::*first>
static __device__ __forceinline__ int entry_of_block(const adafactor_plan &plan, int64_t block) {
    int low = 0, high = plan.n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (plan.entries[middle].*first <= block)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/** This thread's part of a tile: row r of its warp is row first_row + r * WARPS. */
typedef struct tile {
    int64_t first_row, first_column, row_tile, column_tile;
    int rows;    /* of this warp */
    int columns; /* of the tile from this lane's first one on */
    bool full;   /* nothing is missing in the whole tile, and groups of four are one access */
} tile;

static __device__ __forceinline__ tile tile_of(const adafactor_entry &e, int64_t number) {
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    tile t;
    t.row_tile = number / e.column_tiles, t.column_tile = number % e.column_tiles;
    t.first_row = t.row_tile * ADAFACTOR_TILE_ROWS + warp;
    t.first_column = t.column_tile * ADAFACTOR_TILE_COLUMNS + 4 * lane;
    int64_t rows = (e.rows - t.first_row + WARPS - 1) / WARPS, columns = e.columns - t.first_column;
    t.rows = rows < 0 ? 0 : rows < WARP_ROWS ? (int)rows : WARP_ROWS;
    t.columns = columns < ADAFACTOR_TILE_COLUMNS ? (int)columns : ADAFACTOR_TILE_COLUMNS;
    t.full = e.vector && (t.row_tile + 1) * ADAFACTOR_TILE_ROWS <= e.rows &&
             (t.column_tile + 1) * ADAFACTOR_TILE_COLUMNS <= e.columns &&
             (e.factored || (number + 1) * ADAFACTOR_TILE_ROWS * ADAFACTOR_TILE_COLUMNS <= e.count);
    return t;
}

/** Elements of this lane's group k: up to the row's end, and to the last of all where rows are no rows. */
template <bool full, bool factored>
static __device__ __forceinline__ int group_length(const adafactor_entry &e, const tile &t, int64_t at,
                                                   int k) {
    if constexpr (full) return 4;
    int columns = t.columns - k * 4 * WARP;
    if constexpr (factored) return columns;
    int64_t left = e.count - at;
    return left < columns ? (int)(left < 0 ? 0 : left) : columns;
}

/* --- elements ---------------------------------------------------------------------------------- */

/* A value is fp32, or a bf16 that is the fp32's nearest and what is missing of its bits. */
static __device__ __forceinline__ float join(uint32_t high, int32_t remainder) {
    return bits_float((high << 16) + (uint32_t)remainder);
}

template <bool split>
static __device__ __forceinline__ quad<float> load_value(const adafactor_entry &e, int64_t at, int length,
                                                         bool vector) {
    if constexpr (!split) {
        return quad_load((const float *)e.value + at, length, vector);
    } else {
        quad<uint16_t> high = quad_load((const uint16_t *)e.value + at, length, vector);
        quad<uint16_t> low = quad_load((const uint16_t *)e.remainder + at, length, vector);
        quad<float> out;
#pragma unroll
        for (int i = 0; i < 4; i++) out.x[i] = join(high.x[i], (int16_t)low.x[i]);
        return out;
    }
}

template <bool split>
static __device__ __forceinline__ void store_value(const adafactor_entry &e, int64_t at, const quad<float> &v,
                                                   int length, bool vector) {
    if constexpr (!split) {
        quad_store((float *)e.value + at, v, length, vector);
    } else {
        quad<uint16_t> high, low;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t bits = float_bits(v.x[i]);
            /* A GPU's NaN is 0x7fffffff, which rounded up would be -0. */
            if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
            uint32_t top = (bits + 0x8000u) >> 16;
            high.x[i] = (uint16_t)top;
            low.x[i] = (uint16_t)(bits - (top << 16));
        }
        quad_store((uint16_t *)e.value + at, high, length, vector);
        quad_store((uint16_t *)e.remainder + at, low, length, vector);
    }
}

/* --- sums over a block ------------------------------------------------------------------------- */

/**
 * sum + x^2, rounded once: the same bits wherever it stands, whatever a compiler makes of a product and a
 * sum. Statistics and apply add up squares of values with it, each thread those of its part of a tile in the
 * order of rows, groups and elements.
 */
static __device__ __forceinline__ float add_square(float sum, float x) {
    return fmaf(x, x, sum);
}

/** The sum of squares that apply or an earlier statistics left: the values need not be read. */
static __device__ __forceinline__ bool square_is_known(const adafactor_entry &e) {
    return e.kept_square && *e.kept_square != 0.0;
}

/** In a fixed order; the same in every thread. parts: a double a warp, of shared memory that nobody reads any
 * more. */
template <int THREADS = ADAFACTOR_BLOCK>
static __device__ __forceinline__ double block_sum(double x, double *parts) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < THREADS / WARP; i++) sum += parts[i];
    return sum;
}

typedef struct sum_shared {
    double parts[ADAFACTOR_BLOCK];
} sum_shared;

/** Sum of what the tiles of a parameter left, over the block. */
static __device__ __forceinline__ double sum_of_tiles(const adafactor_plan &plan, const adafactor_entry &e,
                                                      double *parts) {
    double sum = 0;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < e.n_tiles; i += ADAFACTOR_BLOCK)
        sum += plan.tile_sums[e.first_tile + i];
    return block_sum(sum, parts);
}

#endif
