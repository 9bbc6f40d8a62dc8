// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor over all parameters of a call in eight launches (docs/kernels/adafactor.md).
 *
 * A block takes a tile of 64 rows and 512 columns of one parameter; a warp of it takes every eighth row, a
 * lane four groups of four columns, so that sums by column stay in registers and a sum by row costs five
 * shuffles. Sums of a tile are fp32 over at most 512 elements; what tiles leave is added in double and in the
 * order of the tiles, by a second kernel.
 */
#include "dialect.cuh"

#include "adafactor_table.h"
#include "gpu_ops.h"

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

/* --- groups of four elements ------------------------------------------------------------------- */

typedef struct four {
    float x[4];
} four;

/** Zeros where there is nothing. */
static __device__ __forceinline__ four load4(const float *from, int length, bool vector) {
    four out = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (vector && length >= 4) {
        float4 v = *reinterpret_cast<const float4 *>(from);
        out.x[0] = v.x, out.x[1] = v.y, out.x[2] = v.z, out.x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) out.x[i] = from[i];
    }
    return out;
}

static __device__ __forceinline__ void store4(float *to, const four &v, int length, bool vector) {
    if (vector && length >= 4) {
        *reinterpret_cast<float4 *>(to) = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) to[i] = v.x[i];
    }
}

/* A value is fp32, or a bf16 that is the fp32's nearest and what is missing of its bits. */
static __device__ __forceinline__ float join(uint32_t high, int32_t remainder) {
    return bits_float((high << 16) + (uint32_t)remainder);
}

typedef struct halves {
    uint16_t x[4];
} halves;

static __device__ __forceinline__ halves load_halves(const uint16_t *from, int length, bool vector) {
    halves out = {{0, 0, 0, 0}};
    if (vector && length >= 4) {
        ushort4 v = *reinterpret_cast<const ushort4 *>(from);
        out.x[0] = v.x, out.x[1] = v.y, out.x[2] = v.z, out.x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) out.x[i] = from[i];
    }
    return out;
}

static __device__ __forceinline__ void store_halves(uint16_t *to, const halves &v, int length, bool vector) {
    if (vector && length >= 4) {
        *reinterpret_cast<ushort4 *>(to) = make_ushort4(v.x[0], v.x[1], v.x[2], v.x[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < length) to[i] = v.x[i];
    }
}

template <bool split>
static __device__ __forceinline__ four load_value(const adafactor_entry &e, int64_t at, int length,
                                                  bool vector) {
    if constexpr (!split) {
        return load4((const float *)e.value + at, length, vector);
    } else {
        halves high = load_halves((const uint16_t *)e.value + at, length, vector);
        halves low = load_halves((const uint16_t *)e.remainder + at, length, vector);
        four out;
#pragma unroll
        for (int i = 0; i < 4; i++) out.x[i] = join(high.x[i], (int16_t)low.x[i]);
        return out;
    }
}

/** The bf16 alone where there is one. */
template <bool split>
static __device__ __forceinline__ four load_rounded(const adafactor_entry &e, int64_t at, int length,
                                                    bool vector) {
    if constexpr (!split) {
        return load4((const float *)e.value + at, length, vector);
    } else {
        halves high = load_halves((const uint16_t *)e.value + at, length, vector);
        four out;
#pragma unroll
        for (int i = 0; i < 4; i++) out.x[i] = join(high.x[i], 0);
        return out;
    }
}

template <bool split>
static __device__ __forceinline__ void store_value(const adafactor_entry &e, int64_t at, const four &v,
                                                   int length, bool vector) {
    if constexpr (!split) {
        store4((float *)e.value + at, v, length, vector);
    } else {
        halves high, low;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t bits = float_bits(v.x[i]), top = (bits + 0x8000u) >> 16;
            high.x[i] = (uint16_t)top;
            low.x[i] = (uint16_t)(bits - (top << 16));
        }
        store_halves((uint16_t *)e.value + at, high, length, vector);
        store_halves((uint16_t *)e.remainder + at, low, length, vector);
    }
}

/* --- sums over a block ------------------------------------------------------------------------- */

/** In a fixed order; the same in every thread. parts: [WARPS] of shared memory that nobody reads any more. */
static __device__ __forceinline__ double block_sum(double x, double *parts) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < WARPS; i++) sum += parts[i];
    return sum;
}

typedef struct sum_shared {
    double parts[ADAFACTOR_BLOCK];
} sum_shared;

/* --- statistics -------------------------------------------------------------------------------- */

typedef struct statistics_shared {
    float column[WARPS][ADAFACTOR_TILE_COLUMNS];
    double parts[WARPS];
} statistics_shared;

/** Sums of s = (scale g)^2 + 1e-30 by row and column, and of value^2 (returned, this thread's). */
template <bool split, bool full>
static __device__ __forceinline__ double factored_statistics(const adafactor_entry &e, const tile &t,
                                                             const adafactor_plan &plan, float scale,
                                                             statistics_shared *shared) {
    const float epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    float column[GROUPS][4], value_square = 0.0f;
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) column[k][i] = 0.0f;
    float *row_partial = plan.partial + e.row_partial + t.column_tile * e.rows;
#pragma unroll 2
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        four g[GROUPS], p[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            int length = group_length<full, true>(e, t, place, k);
            g[k] = load4(e.gradient + place, length, full || e.vector);
            p[k] = load_rounded<split>(e, place, length, full || e.vector);
        }
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = g[k].x[i] * scale;
                x = full || i < t.columns - k * 4 * WARP ? x * x + epsilon : 0.0f;
                sum += x, column[k][i] += x;
                value_square += p[k].x[i] * p[k].x[i];
            }
        sum = warp_sum(sum);
        if (lane == 0) row_partial[row] = sum;
    }
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) shared->column[warp][4 * lane + k * 4 * WARP + i] = column[k][i];
    __syncthreads();
    float *column_partial = plan.partial + e.column_partial + t.row_tile * e.columns;
    int64_t first = t.column_tile * ADAFACTOR_TILE_COLUMNS;
    for (int j = (int)threadIdx.x; j < ADAFACTOR_TILE_COLUMNS; j += ADAFACTOR_BLOCK) {
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += shared->column[w][j];
        if (first + j < e.columns) column_partial[first + j] = sum;
    }
    return value_square;
}

template <bool split, bool full>
static __device__ __forceinline__ double whole_statistics(const adafactor_entry &e, const tile &t) {
    float value_square = 0.0f;
#pragma unroll 2
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            four p = load_value<split>(e, place, group_length<full, false>(e, t, place, k), full || e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++) value_square += p.x[i] * p.x[i];
        }
    }
    return value_square;
}

template <bool split, bool full>
static __device__ __forceinline__ double statistics_of(const adafactor_entry &e, const tile &t,
                                                       const adafactor_plan &plan, float scale,
                                                       statistics_shared *shared) {
    return e.factored ? factored_statistics<split, full>(e, t, plan, scale, shared)
                      : whole_statistics<split, full>(e, t);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 2)
    adafactor_statistics_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(statistics_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x)];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    double sum;
    if (e.remainder)
        sum = t.full ? statistics_of<true, true>(e, t, plan, scale_of(r), shared)
                     : statistics_of<true, false>(e, t, plan, scale_of(r), shared);
    else
        sum = t.full ? statistics_of<false, true>(e, t, plan, scale_of(r), shared)
                     : statistics_of<false, false>(e, t, plan, scale_of(r), shared);
    sum = block_sum(sum, shared->parts);
    if (threadIdx.x == 0) plan.tile_sums[blockIdx.x] = sum;
}

/** Sum of what the tiles of a parameter left, over the block. */
static __device__ __forceinline__ double sum_of_tiles(const adafactor_plan &plan, const adafactor_entry &e,
                                                      double *parts) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < e.n_tiles; i += ADAFACTOR_BLOCK)
        sum += plan.tile_sums[e.first_tile + i];
    return block_sum(sum, parts);
}

/** Blocks of a parameter: one for value_square, then those of its rows, then those of its columns. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK) adafactor_sums_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_sum>(plan, blockIdx.x)];
    int64_t block = (int64_t)blockIdx.x - e.first_sum,
            row_blocks = (e.rows + ADAFACTOR_BLOCK - 1) / ADAFACTOR_BLOCK;
    if (block == 0) {
        double sum = sum_of_tiles(plan, e, shared->parts);
        if (threadIdx.x == 0) *e.value_square = sum;
        return;
    }
    if (block <= row_blocks) {
        int64_t row = (block - 1) * ADAFACTOR_BLOCK + threadIdx.x;
        if (row >= e.rows) return;
        const float *partial = plan.partial + e.row_partial + row;
        double sum = 0;
#pragma unroll 4
        for (int64_t i = 0; i < e.column_tiles; i++) sum += (double)partial[i * e.rows];
        e.row_sum[row] = sum;
        return;
    }
    /* Each column is shared out to eight threads, each of which takes every eighth tile. */
    const int stride = ADAFACTOR_BLOCK / ADAFACTOR_SUM_COLUMNS;
    int place = (int)threadIdx.x % ADAFACTOR_SUM_COLUMNS, part = (int)threadIdx.x / ADAFACTOR_SUM_COLUMNS;
    int64_t column = (block - 1 - row_blocks) * ADAFACTOR_SUM_COLUMNS + place,
            row_tiles = (e.rows + ADAFACTOR_TILE_ROWS - 1) / ADAFACTOR_TILE_ROWS;
    const float *partial = plan.partial + e.column_partial + column;
    double sum = 0;
    if (column < e.columns) {
#pragma unroll 4
        for (int64_t i = part; i < row_tiles; i += stride) sum += (double)partial[i * e.columns];
    }
    shared->parts[threadIdx.x] = sum;
    __syncthreads();
    if (part != 0 || column >= e.columns) return;
    for (int i = 1; i < stride; i++) sum += shared->parts[i * ADAFACTOR_SUM_COLUMNS + place];
    e.column_sum[column] = sum;
}

/* --- moments ----------------------------------------------------------------------------------- */

/** Second moments of rows and columns, in place. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK)
    adafactor_average_kernel(adafactor_plan plan, rule r) {
    if (stands_still(r)) return;
    int64_t place = blockIdx.x;
    /* A parameter that is not factored has no blocks here and its successor's number: the last of equals is
     * it. */
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_average>(plan, place)];
    int64_t i = (place - e.first_average) * ADAFACTOR_BLOCK + threadIdx.x;
    if (!e.factored || i >= e.rows + e.columns) return;
    if (i < e.rows) {
        double take = (1 - r.beta2) / e.global_columns;
        e.row[i] = (float)(r.beta2 * (double)e.row[i] + take * e.row_sum[i]);
    } else {
        double take = (1 - r.beta2) / e.global_rows;
        i -= e.rows;
        e.column[i] = (float)(r.beta2 * (double)e.column[i] + take * e.column_sum[i]);
    }
}

/** lr * max(RMS(p), minimum) / max(1, RMS(y) / threshold), as sago_adafactor_factor has it. */
static __device__ __forceinline__ double factor_of(const adafactor_entry &e, const rule &r) {
    double count = e.global_rows * e.global_columns, factor = (double)e.learning_rate;
    double rms = sqrt(*e.update_square / count) / r.clip_threshold;
    if (r.parameter_scale) {
        double size = sqrt(*e.value_square / count);
        factor *= size > r.minimum_scale ? size : r.minimum_scale;
    }
    return rms > 1 ? factor / rms : factor;
}

/** One block a parameter: the mean of its moments, and its update's factor (of meaning in apply alone). */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK)
    adafactor_scalars_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[blockIdx.x];
    double mean = 1;
    if (e.factored) {
        const float *moments = e.mean_of_columns ? e.column : e.row;
        int64_t count = e.mean_of_columns ? e.columns : e.rows;
        double sum = 0;
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < count; i += ADAFACTOR_BLOCK) sum += (double)moments[i];
        mean = block_sum(sum, shared->parts) / (double)count;
    }
    if (threadIdx.x != 0) return;
    plan.shared[blockIdx.x].mean = mean;
    plan.shared[blockIdx.x].factor = factor_of(e, r);
}

/** scale / sqrt(moment) of this lane's columns. */
static __device__ __forceinline__ void column_weights(float out[GROUPS][4], const adafactor_entry &e,
                                                      const tile &t, float scale) {
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int step = k * 4 * WARP + i;
            out[k][i] = step < t.columns ? scale / sqrtf(e.column[t.first_column + step]) : 0.0f;
        }
}

/** Sum of y^2: the row's part of y^2 is the same for all its elements. This thread's. */
template <bool full>
static __device__ __forceinline__ double factored_squares(const adafactor_entry &e, const tile &t,
                                                          double mean, float scale) {
    float column[GROUPS][4], sum = 0.0f;
    column_weights(column, e, t, scale);
#pragma unroll 2
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        four g[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
            g[k] = load4(e.gradient + at + k * 4 * WARP, group_length<full, true>(e, t, at, k),
                         full || e.vector);
        float part = 0.0f;
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float y = g[k].x[i] * column[k][i];
                part += y * y;
            }
        sum += part * (float)(mean / (double)e.row[row]);
    }
    return (double)sum;
}

/** The same where every element has its own moment, which is updated on the way. */
template <bool full>
static __device__ __forceinline__ double whole_squares(const adafactor_entry &e, const tile &t,
                                                       const rule &rule, float scale) {
    float keep = (float)rule.beta2, take = (float)(1 - rule.beta2), epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    float sum = 0.0f;
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            int length = group_length<full, false>(e, t, place, k);
            if (length <= 0) continue;
            four g = load4(e.gradient + place, length, full || e.vector),
                 v = load4(e.moment + place, length, full || e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = g.x[i] * scale;
                v.x[i] = keep * v.x[i] + take * (x * x + epsilon);
                float y = x / sqrtf(v.x[i]);
                sum += i < length ? y * y : 0.0f;
            }
            store4(e.moment + place, v, length, full || e.vector);
        }
    }
    return (double)sum;
}

template <bool full>
static __device__ __forceinline__ double squares_of(const adafactor_entry &e, const tile &t, const rule &rule,
                                                    double mean) {
    float scale = scale_of(rule);
    return e.factored ? factored_squares<full>(e, t, mean, scale) : whole_squares<full>(e, t, rule, scale);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 3)
    adafactor_moments_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    int number = entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x);
    const adafactor_entry e = plan.entries[number];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    double sum = t.full ? squares_of<true>(e, t, r, plan.shared[number].mean)
                        : squares_of<false>(e, t, r, plan.shared[number].mean);
    sum = block_sum(sum, shared->parts);
    if (threadIdx.x == 0) plan.tile_sums[blockIdx.x] = sum;
}

/** One block a parameter. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK)
    adafactor_updates_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[blockIdx.x];
    double sum = sum_of_tiles(plan, e, shared->parts);
    if (threadIdx.x == 0) *e.update_square = sum;
}

/* --- apply ------------------------------------------------------------------------------------- */

/** value = keep value - u, or its momentum's; u = factor g column[j] (factored) or factor scale g /
 * sqrt(moment). */
template <bool split, bool factored, bool full>
static __device__ __forceinline__ void apply_tile(const adafactor_entry &e, const tile &t, const rule &rule,
                                                  const adafactor_shared &scalars, float scale) {
    float column[GROUPS][4];
    if constexpr (factored) column_weights(column, e, t, scale);
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        float factor = (float)scalars.factor;
        if constexpr (factored) factor = (float)(scalars.factor * sqrt(scalars.mean / (double)e.row[row]));
        four g[GROUPS], p[GROUPS];
        int length[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            length[k] = group_length<full, factored>(e, t, place, k);
            g[k] = load4(e.gradient + place, length[k], full || e.vector);
            p[k] = load_value<split>(e, place, length[k], full || e.vector);
        }
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            if (length[k] <= 0) continue;
            four u;
            if constexpr (factored) {
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = g[k].x[i] * column[k][i] * factor;
            } else {
                four v = load4(e.moment + place, length[k], full || e.vector);
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = g[k].x[i] * scale / sqrtf(v.x[i]) * factor;
            }
            if (e.momentum) {
                four m = load4(e.momentum + place, length[k], full || e.vector);
#pragma unroll
                for (int i = 0; i < 4; i++) u.x[i] = rule.beta * m.x[i] + rule.rest * u.x[i];
                store4(e.momentum + place, u, length[k], full || e.vector);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) p[k].x[i] = rule.keep_value * p[k].x[i] - u.x[i];
            store_value<split>(e, place, p[k], length[k], full || e.vector);
        }
    }
}

/** A learning rate of 0: values stand still, bit for bit, and what momentum there is fades. */
static __device__ __forceinline__ void fade_tile(const adafactor_entry &e, const tile &t, float beta) {
    if (!e.momentum) return;
    for (int r = 0; r < t.rows; r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            int length = group_length<false, false>(e, t, place, k);
            if (length <= 0) continue;
            four m = load4(e.momentum + place, length, e.vector);
#pragma unroll
            for (int i = 0; i < 4; i++) m.x[i] *= beta;
            store4(e.momentum + place, m, length, e.vector);
        }
    }
}

template <bool split, bool factored>
static __device__ __forceinline__ void apply_of(const adafactor_entry &e, const tile &t, const rule &rule,
                                                const adafactor_shared &scalars) {
    float scale = scale_of(rule);
    if (t.full)
        apply_tile<split, factored, true>(e, t, rule, scalars, scale);
    else
        apply_tile<split, factored, false>(e, t, rule, scalars, scale);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 2)
    adafactor_apply_kernel(adafactor_plan plan, rule r) {
    if (stands_still(r)) return;
    int number = entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x);
    const adafactor_entry e = plan.entries[number];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    adafactor_shared scalars = plan.shared[number];
    if (e.learning_rate == 0.0f)
        fade_tile(e, t, r.beta);
    else if (e.factored)
        e.remainder ? apply_of<true, true>(e, t, r, scalars) : apply_of<false, true>(e, t, r, scalars);
    else
        e.remainder ? apply_of<true, false>(e, t, r, scalars) : apply_of<false, false>(e, t, r, scalars);
}

/* --- the operations ---------------------------------------------------------------------------- */

extern "C" sago_status SAGO_GPU(adafactor_statistics)(sago_device *device, sago_adafactor_slot slots[], int n,
                                                      const sago_adafactor_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    adafactor_plan plan;
    rule r = rule_of(args);
    SAGO_TRY(SAGO_GPU(adafactor_plan)(gpu, "adafactor_statistics", slots, n, args, &plan));
    if (plan.n == 0) return SAGO_OK;
    if (plan.n_tiles > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_statistics_kernel, dim3((unsigned)plan.n_tiles),
                             dim3(ADAFACTOR_BLOCK), sizeof(statistics_shared), plan, r));
    return SAGO_LAUNCH(gpu, adafactor_sums_kernel, dim3((unsigned)plan.n_sums), dim3(ADAFACTOR_BLOCK),
                       sizeof(sum_shared), plan, r);
}

extern "C" sago_status SAGO_GPU(adafactor_moments)(sago_device *device, sago_adafactor_slot slots[], int n,
                                                   const sago_adafactor_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    adafactor_plan plan;
    rule r = rule_of(args);
    SAGO_TRY(SAGO_GPU(adafactor_plan)(gpu, "adafactor_moments", slots, n, args, &plan));
    if (plan.n == 0) return SAGO_OK;
    if (plan.n_averages > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_average_kernel, dim3((unsigned)plan.n_averages),
                             dim3(ADAFACTOR_BLOCK), 0, plan, r));
    SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_scalars_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_BLOCK),
                         sizeof(sum_shared), plan, r));
    if (plan.n_tiles > 0)
        SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_moments_kernel, dim3((unsigned)plan.n_tiles),
                             dim3(ADAFACTOR_BLOCK), sizeof(sum_shared), plan, r));
    return SAGO_LAUNCH(gpu, adafactor_updates_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_BLOCK),
                       sizeof(sum_shared), plan, r);
}

extern "C" sago_status SAGO_GPU(adafactor_apply)(sago_device *device, sago_adafactor_slot slots[], int n,
                                                 const sago_adafactor_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    adafactor_plan plan;
    rule r = rule_of(args);
    SAGO_TRY(SAGO_GPU(adafactor_plan)(gpu, "adafactor_apply", slots, n, args, &plan));
    if (plan.n_tiles == 0) return SAGO_OK;
    SAGO_TRY(SAGO_LAUNCH(gpu, adafactor_scalars_kernel, dim3((unsigned)plan.n), dim3(ADAFACTOR_BLOCK),
                         sizeof(sum_shared), plan, r));
    return SAGO_LAUNCH(gpu, adafactor_apply_kernel, dim3((unsigned)plan.n_tiles), dim3(ADAFACTOR_BLOCK), 0,
                       plan, r);
}
