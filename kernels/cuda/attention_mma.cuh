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

/** The a of mma_16x8x16: rows [row, row + 16), columns [16 k, 16 k + 16). */
template <int E>
static __device__ __forceinline__ void tile_a(uint32_t a[4], const bf16 *tile, int row, int k) {
    int lane = (int)(threadIdx.x % WARP);
    ldmatrix_x4(a, tile + tile_at<E>(row + lane % 16, 2 * k + lane / 16));
}

/**
 * Two b of mma_16x8x16 whose columns are rows of the tile (a product with its transpose): b and b + 2 have
 * rows [row, row + 8) and [row + 8, row + 16), columns [16 k, 16 k + 16).
 */
template <int E>
static __device__ __forceinline__ void tile_b_transposed(uint32_t b[4], const bf16 *tile, int row, int k) {
    int lane = (int)(threadIdx.x % WARP);
    ldmatrix_x4(b, tile + tile_at<E>(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

/** Two b of mma_16x8x16: rows [row, row + 16), columns [16 n, 16 n + 8) and [16 n + 8, 16 n + 16). */
template <int E>
static __device__ __forceinline__ void tile_b(uint32_t b[4], const bf16 *tile, int row, int n) {
    int lane = (int)(threadIdx.x % WARP);
    ldmatrix_x4_trans(b, tile + tile_at<E>(row + lane % 16, 2 * n + lane / 16));
}

#endif
