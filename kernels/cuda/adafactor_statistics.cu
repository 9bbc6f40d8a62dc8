// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor's first phase: sums of g^2 by row and column, and of value^2, of all parameters in two launches.
 * Values are read only where their sum is not known from the step before. Sums of a tile are fp32 over at
 * most 512 elements; what tiles leave is added in double and in the order of the tiles, by the second kernel.
 */
#include "adafactor_tile.cuh"

typedef struct statistics_shared {
    float column[WARPS][ADAFACTOR_TILE_COLUMNS];
    double parts[WARPS];
} statistics_shared;

/** Sums of s = (scale g)^2 + 1e-30 by row and column. */
template <bool full>
static __device__ __forceinline__ void sum_gradient(const adafactor_entry &e, const tile &t,
                                                    const adafactor_plan &plan, float scale,
                                                    statistics_shared *shared) {
    const float epsilon = (float)SAGO_ADAFACTOR_EPSILON;
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    float column[GROUPS][4];
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) column[k][i] = 0.0f;
    float *row_partial = plan.partial + e.row_partial + t.column_tile * e.rows;
    /* Loads do not move ahead of a row's shuffles and its store, so two rows' are under way together. */
    constexpr int ROWS = full ? 2 : 1;
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r += ROWS) {
        int64_t row = t.first_row + (int64_t)r * WARPS, at = row * e.columns + t.first_column;
        quad<float> g[ROWS][GROUPS];
#pragma unroll
        for (int a = 0; a < ROWS; a++)
#pragma unroll
            for (int k = 0; k < GROUPS; k++) {
                int64_t place = at + a * WARPS * e.columns + k * 4 * WARP;
                g[a][k] =
                    quad_load(e.gradient + place, group_length<full, true>(e, t, place, k), full || e.vector);
            }
#pragma unroll
        for (int a = 0; a < ROWS; a++) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < GROUPS; k++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float x = g[a][k].x[i] * scale;
                    x = full || i < t.columns - k * 4 * WARP ? x * x + epsilon : 0.0f;
                    sum += x, column[k][i] += x;
                }
            sum = warp_sum(sum);
            if (lane == 0) row_partial[row + a * WARPS] = sum;
        }
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
}

template <bool split, bool factored, bool full>
static __device__ __forceinline__ double tile_squares(const adafactor_entry &e, const tile &t) {
    float sum = 0.0f;
    for (int r = 0; r < (full ? WARP_ROWS : t.rows); r++) {
        int64_t at = (t.first_row + (int64_t)r * WARPS) * e.columns + t.first_column;
        quad<float> p[GROUPS];
#pragma unroll
        for (int k = 0; k < GROUPS; k++) {
            int64_t place = at + k * 4 * WARP;
            p[k] =
                load_value<split>(e, place, group_length<full, factored>(e, t, place, k), full || e.vector);
        }
#pragma unroll
        for (int k = 0; k < GROUPS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum = add_square(sum, p[k].x[i]);
    }
    return (double)sum;
}

/** Sum of value^2, this thread's: only where it is not known from the step before. */
template <bool split>
static __device__ __forceinline__ double value_squares(const adafactor_entry &e, const tile &t) {
    if (t.full) return tile_squares<split, true, true>(e, t);
    return e.factored ? tile_squares<split, true, false>(e, t) : tile_squares<split, false, false>(e, t);
}

static __global__ void __launch_bounds__(ADAFACTOR_BLOCK, 3)
    adafactor_statistics_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(statistics_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_tile>(plan, blockIdx.x)];
    tile t = tile_of(e, (int64_t)blockIdx.x - e.first_tile);
    if (!square_is_known(e)) {
        double sum = e.remainder ? value_squares<true>(e, t) : value_squares<false>(e, t);
        sum = block_sum(sum, shared->parts);
        if (threadIdx.x == 0) plan.tile_sums[blockIdx.x] = sum;
    }
    if (!e.factored) return;
    if (t.full)
        sum_gradient<true>(e, t, plan, scale_of(r), shared);
    else
        sum_gradient<false>(e, t, plan, scale_of(r), shared);
}

/** Of a piece without whole rows or columns: the sum of all s, and of the row moments before this step. */
static __device__ __forceinline__ void sum_mean_parts(const adafactor_plan &plan, const adafactor_entry &e,
                                                      double *parts) {
    const float *partial = plan.partial + e.row_partial;
    double squares = 0, moments = 0;
    for (int64_t i = threadIdx.x; i < e.column_tiles * e.rows; i += ADAFACTOR_BLOCK)
        squares += (double)partial[i];
    for (int64_t i = threadIdx.x; i < e.rows; i += ADAFACTOR_BLOCK) moments += (double)e.row[i];
    squares = block_sum(squares, parts);
    moments = block_sum(moments, parts + WARPS);
    if (threadIdx.x == 0) e.mean_parts[0] = squares, e.mean_parts[1] = moments;
}

/** Blocks of a parameter: one for value_square, then those of its rows, then those of its columns. */
static __global__ void __launch_bounds__(ADAFACTOR_BLOCK) adafactor_sums_kernel(adafactor_plan plan, rule r) {
    SAGO_SHARED(sum_shared, shared);
    if (stands_still(r)) return;
    const adafactor_entry e = plan.entries[entry_of_block<&adafactor_entry::first_sum>(plan, blockIdx.x)];
    int64_t block = (int64_t)blockIdx.x - e.first_sum,
            row_blocks = (e.rows + ADAFACTOR_BLOCK - 1) / ADAFACTOR_BLOCK;
    if (block == 0) {
        bool known = square_is_known(e); /* nobody writes it before all have met in the sum */
        double sum = known ? *e.kept_square : sum_of_tiles(plan, e, shared->parts);
        if (threadIdx.x == 0) *e.value_square = sum;
        if (threadIdx.x == 0 && e.kept_square && !known) *e.kept_square = sum;
        if (e.mean_parts) sum_mean_parts(plan, e, shared->parts + WARPS);
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
