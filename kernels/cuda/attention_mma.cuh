// SPDX-License-Identifier: Apache-2.0
/**
 * Tiles of bf16 in shared memory as the tensor cores read them: rows of E values in pieces of 16 bytes,
 * swizzled so that eight rows of one column of pieces lie in different banks, without padding.
 */
#ifndef SAGO_ATTENTION_MMA_CUH
#define SAGO_ATTENTION_MMA_CUH

#include "dialect.cuh"

/**
 * Element at which piece `piece` of row `row` stands. Rows of whole 128 bytes: eight rows would begin at the
 * same bank, so a row's number permutes its pieces. Rows of odd multiples of 64 bytes (E = 32, 96): every
 * other row begins half way, so pairs of rows permute groups of four pieces.
 */
template <int E> static __device__ __forceinline__ int tile_at(int row, int piece) {
    return row * E + (piece ^ (E % 64 == 0 ? row & 7 : row >> 1 & 3)) * 8;
}

/**
 * Asks for `rows` rows of a [.., stride] matrix, from row `first` on, by all THREADS threads of the block;
 * zeros where a row is not in [begin, end) and beyond width (a multiple of 8).
 */
template <int E, int THREADS>
static __device__ __forceinline__ void tile_load(bf16 *tile, const bf16 *from, int64_t stride, int rows,
                                                 int first, int begin, int end, int width) {
#pragma unroll
    for (int at = (int)threadIdx.x; at < rows * (E / 8); at += THREADS) {
        int row = at / (E / 8), piece = at % (E / 8), token = first + row;
        bool valid = token >= begin && token < end && piece * 8 < width;
        cp_async16(tile + tile_at<E>(row, piece), valid ? from + token * stride + piece * 8 : from, valid);
    }
}

/**
 * Where a lane's row of ldmatrix lies in the first piece of a tile; columns further on are tile_column of it.
 * A product's left side, and a right side that is a tile as it stands, have matrices (rows 0-7, 8-15) x
 * (columns 0-7, 8-15) in that order; a right side that is a transposed tile has columns before rows.
 */
template <int E> static __device__ __forceinline__ int tile_lane() {
    int lane = (int)(threadIdx.x % WARP);
    return tile_at<E>(lane % 16, lane / 16);
}
template <int E> static __device__ __forceinline__ int tile_lane_transposed() {
    int lane = (int)(threadIdx.x % WARP);
    return tile_at<E>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
}
/** Columns 16 k on: a swizzle permutes within groups of pieces, so one exclusive or finds them. */
template <int E> static __device__ __forceinline__ int tile_column(int at, int k) {
    enum { GROUP = E % 64 == 0 ? 4 : 2 }; /* steps of 16 columns in a group */
    return (at ^ 16 * (k % GROUP)) + 16 * GROUP * (k / GROUP);
}

/** The a of mma_16x8x16: rows [row, row + 16), columns [16 k, 16 k + 16). row: a multiple of 16. at:
 * tile_lane. */
template <int E>
static __device__ __forceinline__ void tile_a(uint32_t a[4], const bf16 *tile, int at, int row, int k) {
    ldmatrix_x4(a, tile + row * E + tile_column<E>(at, k));
}

/**
 * Two b of mma_16x8x16 whose columns are rows of the tile: b and b + 2 have rows [row, row + 8) and [row + 8,
 * row + 16), columns [16 k, 16 k + 16). at: tile_lane_transposed.
 */
template <int E>
static __device__ __forceinline__ void tile_b_transposed(uint32_t b[4], const bf16 *tile, int at, int row,
                                                         int k) {
    ldmatrix_x4(b, tile + row * E + tile_column<E>(at, k));
}

/** Two b of mma_16x8x16: rows [row, row + 16), columns [16 n, 16 n + 8) and [16 n + 8, 16 n + 16). at:
 * tile_lane. */
template <int E>
static __device__ __forceinline__ void tile_b(uint32_t b[4], const bf16 *tile, int at, int row, int n) {
    ldmatrix_x4_trans(b, tile + row * E + tile_column<E>(at, n));
}

#endif
