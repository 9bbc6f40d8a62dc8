// SPDX-License-Identifier: Apache-2.0
/**
 * Products of tiles in shared memory (attention_mma.cuh) for the two bf16 kernels of backward attention, and
 * the way of a head's rows from global memory into tiles and back. E is the width of a tile; a head may be
 * narrower: the columns past its width are zeros.
 */
#ifndef SAGO_ATTENTION_BACKWARD_MMA_CUH
#define SAGO_ATTENTION_BACKWARD_MMA_CUH

#include "attention_backward.cuh"
#include "attention_mma.cuh"

/** out[BLOCKS * 16, N * 8] = rows [row, ...) of a times rows [0, N * 8) of b, transposed. */
template <int E, int BLOCKS, int N>
static __device__ __forceinline__ void multiply_rows(float out[BLOCKS][N][4], const bf16 *a, int row,
                                                     const bf16 *b) {
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int n = 0; n < N; n++) out[m][n][0] = out[m][n][1] = out[m][n][2] = out[m][n][3] = 0.0f;
    int lane = tile_lane<E>(), lane_b = tile_lane_transposed<E>();
#pragma unroll(E == 128 ? 1 : 2) /* in full it would keep the addresses of all steps in registers */
    for (int step = 0; step < E / 16; step++) {
        uint32_t left[BLOCKS][4], right[4];
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) tile_a<E>(left[m], a, lane, row + 16 * m, step);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            tile_b_transposed<E>(right, b, lane_b, 8 * n, step);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) {
                mma_16x8x16(out[m][n], left[m], right);
                mma_16x8x16(out[m][n + 1], left[m], right + 2);
            }
        }
    }
}

/**
 * sum[BLOCKS * 16, E] += x times b, where x[BLOCKS * 16, N * 8] lies in registers as mma leaves it, which is
 * as mma takes it once it is rounded, and b has N * 8 rows.
 */
template <int E, int BLOCKS, int N>
static __device__ __forceinline__ void multiply_add(float sum[BLOCKS][E / 8][4], const float x[BLOCKS][N][4],
                                                    const bf16 *b) {
    int lane = tile_lane<E>();
#pragma unroll
    for (int step = 0; step < N / 2; step++) {
        uint32_t left[BLOCKS][4], right[4];
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            left[m][0] = pack_bf16(x[m][2 * step][0], x[m][2 * step][1]);
            left[m][1] = pack_bf16(x[m][2 * step][2], x[m][2 * step][3]);
            left[m][2] = pack_bf16(x[m][2 * step + 1][0], x[m][2 * step + 1][1]);
            left[m][3] = pack_bf16(x[m][2 * step + 1][2], x[m][2 * step + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < E / 8; n += 2) {
            tile_b<E>(right, b, lane, 16 * step, n / 2);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) {
                mma_16x8x16(sum[m][n], left[m], right);
                mma_16x8x16(sum[m][n + 1], left[m], right + 2);
            }
        }
    }
}

/** Rows of a head in global memory: row r's values begin at from + r * stride; rows from `count` on read as
 * zeros. */
typedef struct head_rows {
    const bf16 *from;
    int64_t stride;
    int count, width;
} head_rows;

/**
 * Begins to copy rows [first, first + rows) into a tile, by `threads` threads of which this is number
 * `thread`. Whole chunks go by cp.async (the caller ends the group); widths that are not a multiple of 8 are
 * put together by hand.
 */
template <int E>
static __device__ __forceinline__ void tile_take(bf16 *tile, head_rows h, int first, int rows, int thread,
                                                 int threads) {
    bool by_chunks = h.width % 8 == 0;
    for (int at = thread; at < rows * (E / 8); at += threads) {
        int row = at / (E / 8), chunk = at % (E / 8);
        bf16 *to = tile + tile_at<E>(row, chunk);
        bool there = first + row < h.count && chunk * 8 < h.width;
        const bf16 *from = h.from + (there ? (int64_t)(first + row) * h.stride + chunk * 8 : 0);
        if (by_chunks) {
            cp_async16(to, from, there);
            continue;
        }
        for (int e = 0; e < 8; e++)
            to[e] = there && chunk * 8 + e < h.width ? from[e] : from_float<bf16>(0.0f);
    }
}

/** Puts a warp's rows of sums, times factor, into rows [row, ...) of a tile that no other warp reads or
 * writes. */
template <int E, int BLOCKS>
static __device__ __forceinline__ void tile_put(bf16 *tile, int row, const float sum[BLOCKS][E / 8][4],
                                                float factor) {
    int lane = (int)(threadIdx.x % WARP);
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int n = 0; n < E / 8; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *(uint32_t *)(tile + tile_at<E>(row + 16 * m + 8 * half + lane / 4, n) + 2 * (lane % 4)) =
                    pack_bf16(sum[m][n][2 * half] * factor, sum[m][n][2 * half + 1] * factor);
}

/** Writes a warp's rows of a tile to rows [first, first + rows) of a head, as far as they exist. */
template <int E>
static __device__ __forceinline__ void tile_give(bf16 *to, int64_t stride, int count, int width,
                                                 const bf16 *tile, int row, int first, int rows) {
    int lane = (int)(threadIdx.x % WARP);
    __syncwarp();
    for (int at = lane; at < rows * (E / 8); at += WARP) {
        int r = at / (E / 8), chunk = at % (E / 8);
        if (first + r >= count || chunk * 8 >= width) continue;
        const bf16 *from = tile + tile_at<E>(row + r, chunk);
        bf16 *into = to + (int64_t)(first + r) * stride + chunk * 8;
        if (width % 8 == 0)
            *(uint4 *)into = *(const uint4 *)from;
        else
            for (int e = 0; e < 8 && chunk * 8 + e < width; e++) into[e] = from[e];
    }
}

#endif
