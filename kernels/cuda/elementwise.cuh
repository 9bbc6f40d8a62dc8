// SPDX-License-Identifier: Apache-2.0
/**
 * The one walk over elements that all elementwise operations share, with or without dropout.
 *
 * An operation is a struct `Op` with IN and OUT, how many tensors it reads and writes, and
 *     __device__ void element(float out[], const float in[], masked m) const
 * where m says whether the element is dropped and what multiplies it if not. Results are
 * rounded to T. An output may be one of the inputs: every thread reads what it handles before it writes
 * there.
 */
#ifndef SAGO_ELEMENTWISE_CUH
#define SAGO_ELEMENTWISE_CUH

#include "random.cuh"
#include "vector.cuh"

enum { ELEMENTWISE_THREADS = 256, ELEMENTWISE_BLOCKS = 8 /* a multiprocessor */ };

struct streams {
    void *out[2];
    const void *in[3];
};

/** Vectors that a thread loads before it works on the first: what is under way hides the memory's latency. */
template <typename Op> struct ahead_of {
    enum { COUNT = Op::IN <= 1 ? 4 : 2 };
};

/** Of an element: is it kept, and what multiplies it then? Always, and 1, without dropout. */
struct masked {
    bool keeps;
    float factor;
};

/** Dropped elements are 0 whatever they were, even NaN. */
static __device__ __forceinline__ float kept(float x, masked m) {
    return m.keeps ? x * m.factor : 0.0f;
}

template <typename Op, typename T, int N, bool DROPS>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 4)
    elementwise_kernel(Op op, streams s, sago_mask mask, sago_mask_lines lines, philox_keys keys,
                       int64_t count) {
    constexpr int IN = Op::IN, OUT = Op::OUT, AHEAD = ahead_of<Op>::COUNT;
    constexpr int STEP = ELEMENTWISE_THREADS * N;
    int64_t first = (int64_t)blockIdx.x * (AHEAD * STEP) + (int64_t)threadIdx.x * N;
    for (; first < count; first += (int64_t)gridDim.x * (AHEAD * STEP)) {
        vec<T, N> in[AHEAD][IN ? IN : 1];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (first + a * STEP + N <= count) {
#pragma unroll
                for (int i = 0; i < IN; i++) in[a][i].load((const T *)s.in[i] + first + a * STEP);
            }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            int64_t at = first + a * STEP;
            if (at + N <= count) {
                float result[OUT][N];
                bool keeps[N];
                if constexpr (DROPS && N == 1) {
                    keeps[0] = philox_word(mask.key, mask_index(mask, lines, at)) >= mask.threshold;
                } else if constexpr (DROPS) {
                    /* N neighbours are of one line, from a multiple of 4 on: run_masked sees to it. */
                    uint64_t counter = mask_index(mask, lines, at) >> 2;
#pragma unroll
                    for (int four = 0; four < N / 4; four++) {
                        philox4 random = philox_words(keys, counter + (uint64_t)four);
#pragma unroll
                        for (int i = 0; i < 4; i++) keeps[4 * four + i] = random.word[i] >= mask.threshold;
                    }
                }
#pragma unroll
                for (int k = 0; k < N; k++) {
                    float x[IN ? IN : 1], y[OUT];
#pragma unroll
                    for (int i = 0; i < IN; i++) x[i] = in[a][i].get(k);
                    op.element(y, x, DROPS ? masked{keeps[k], mask.factor} : masked{true, 1.0f});
#pragma unroll
                    for (int i = 0; i < OUT; i++) result[i][k] = y[i];
                }
#pragma unroll
                for (int i = 0; i < OUT; i++) {
                    vec<T, N> out;
                    out.set(result[i]);
                    out.store((T *)s.out[i] + at);
                }
            } else if constexpr (N > 1 && !DROPS) {
                /* What is left at the end; lines of whole vectors, as with dropout, leave nothing. */
#pragma unroll 1
                for (; at < count; at++) {
                    float x[IN ? IN : 1], y[OUT];
#pragma unroll
                    for (int i = 0; i < IN; i++) x[i] = to_float(((const T *)s.in[i])[at]);
                    op.element(y, x, masked{true, 1.0f});
#pragma unroll
                    for (int i = 0; i < OUT; i++) ((T *)s.out[i])[at] = from_float<T>(y[i]);
                }
            }
        }
    }
}

template <typename Op, typename T, int N, bool DROPS>
static sago_status launch_elementwise(sago_gpu *gpu, const Op &op, const streams &s, const sago_mask &mask,
                                      const sago_mask_lines &lines, int64_t count) {
    constexpr int64_t TILE = (int64_t)ELEMENTWISE_THREADS * N * ahead_of<Op>::COUNT;
    unsigned blocks = persistent_blocks(gpu, (count + TILE - 1) / TILE, ELEMENTWISE_BLOCKS);
    return SAGO_LAUNCH(gpu, (elementwise_kernel<Op, T, N, DROPS>), blocks, ELEMENTWISE_THREADS, 0, op, s,
                       mask, lines, philox_keys_make(mask.key), count);
}

template <typename Op> static bool streams_aligned(const streams &s) {
    bool aligned = true;
    for (int i = 0; i < Op::IN; i++) aligned = aligned && is_aligned16(s.in[i]);
    for (int i = 0; i < Op::OUT; i++) aligned = aligned && is_aligned16(s.out[i]);
    return aligned;
}

template <typename Op, typename T>
static sago_status run_elementwise(sago_gpu *gpu, const Op &op, const streams &s, int64_t count) {
    if (count == 0) return SAGO_OK;
    const sago_mask mask = {};
    const sago_mask_lines lines = {};
    return streams_aligned<Op>(s)
               ? launch_elementwise<Op, T, lanes_of<T>::COUNT, false>(gpu, op, s, mask, lines, count)
               : launch_elementwise<Op, T, 1, false>(gpu, op, s, mask, lines, count);
}

/** The same with dropout, which may be NULL: none. `like`: a tensor of the shape that all have. */
template <typename Op, typename T>
static sago_status run_masked(sago_gpu *gpu, const Op &op, const streams &s, sago_tensor like,
                              const sago_dropout *dropout) {
    constexpr int N = lanes_of<T>::COUNT;
    int64_t count = sago_tensor_count(like);
    if (count == 0 || !dropout || !(dropout->rate > 0.0f)) return run_elementwise<Op, T>(gpu, op, s, count);
    sago_mask mask = sago_mask_make(dropout, like.shape[2]);
    sago_mask_lines lines = sago_mask_lines_make(&mask, like.shape[0], like.shape[1], like.shape[2]);
    bool begins = mask.first % 4 == 0, steps = lines.stride % 4 == 0 && mask.row_stride % 4 == 0;
    bool whole = lines.count % N == 0 && begins && (lines.count == count || steps);
    return streams_aligned<Op>(s) && whole
               ? launch_elementwise<Op, T, N, true>(gpu, op, s, mask, lines, count)
               : launch_elementwise<Op, T, 1, true>(gpu, op, s, mask, lines, count);
}

#endif
