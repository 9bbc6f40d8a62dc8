// SPDX-License-Identifier: Apache-2.0
/* Fills, casts, sums of two tensors, and the squared norm of many; docs/kernels/elementwise.md. */
#include "elementwise.cuh"

#include "check_layers.h"
#include "gpu_ops.h"

struct fill {
    enum { IN = 0, OUT = 1 };
    float value;
    __device__ __forceinline__ void element(float out[], const float[], masked) const { out[0] = value; }
};

struct scale {
    enum { IN = 1, OUT = 1 };
    float factor;
    __device__ __forceinline__ void element(float out[], const float in[], masked) const {
        out[0] = factor * in[0];
    }
};

struct add_scaled {
    enum { IN = 2, OUT = 1 };
    float factor;
    __device__ __forceinline__ void element(float out[], const float in[], masked) const {
        out[0] = fmaf(factor, in[1], in[0]);
    }
};

enum { CAST_THREADS = 256, CAST_BLOCKS = 8, CAST_AHEAD = 4 };

/* N elements a thread and turn: 16 bytes of f32 and 8 of bf16, or one of each. */
template <typename To, typename From, int N>
__global__ void __launch_bounds__(CAST_THREADS, 4) cast_kernel(To *to, const From *from, int64_t count) {
    constexpr int STEP = CAST_THREADS * N;
    int64_t first = (int64_t)blockIdx.x * (CAST_AHEAD * STEP) + (int64_t)threadIdx.x * N;
    for (; first < count; first += (int64_t)gridDim.x * (CAST_AHEAD * STEP)) {
        vec<From, N> in[CAST_AHEAD];
#pragma unroll
        for (int a = 0; a < CAST_AHEAD; a++)
            if (first + a * STEP + N <= count) in[a].load(from + first + a * STEP);
#pragma unroll
        for (int a = 0; a < CAST_AHEAD; a++) {
            int64_t at = first + a * STEP;
            if (at + N <= count) {
                float x[N];
#pragma unroll
                for (int k = 0; k < N; k++) x[k] = in[a].get(k);
                vec<To, N> out;
                out.set(x);
                out.store(to + at);
            } else {
#pragma unroll 1
                for (; at < count; at++) to[at] = from_float<To>(to_float(from[at]));
            }
        }
    }
}

template <typename To, typename From>
static sago_status cast(sago_gpu *gpu, sago_tensor out, sago_tensor in) {
    int64_t count = sago_tensor_count(out);
    bool wide = is_aligned16(out.data) && is_aligned16(in.data);
    int64_t tile = (int64_t)CAST_THREADS * CAST_AHEAD * (wide ? 4 : 1);
    unsigned blocks = persistent_blocks(gpu, (count + tile - 1) / tile, CAST_BLOCKS);
    if (wide)
        return SAGO_LAUNCH(gpu, (cast_kernel<To, From, 4>), blocks, CAST_THREADS, 0, (To *)out.data,
                           (const From *)in.data, count);
    return SAGO_LAUNCH(gpu, (cast_kernel<To, From, 1>), blocks, CAST_THREADS, 0, (To *)out.data,
                       (const From *)in.data, count);
}

/* --- the squared norm of many tensors
 * ------------------------------------------------------------------------------ */

/*
 * A block adds one chunk of one tensor, and leaves a double. Chunks have a fixed size, so the order of the
 * sum follows from the counts of the tensors, not from the GPU.
 */
enum { SQUARES_THREADS = 256, SQUARES_CHUNK = 32768, SQUARES_TENSORS = 128, TOTAL_THREADS = 1024 };

struct squares_list {
    const void *data[SQUARES_TENSORS];
    int64_t count[SQUARES_TENSORS];
    int first_block[SQUARES_TENSORS]; /* of the launch */
    uint8_t bf16s[SQUARES_TENSORS], aligned[SQUARES_TENSORS];
    int n;
};

struct block_sum {
    double of_warp[TOTAL_THREADS / WARP];
};

/* The sum over the block in thread 0: warps by halves, then one after the other. */
static __device__ double sum_block(block_sum *shared, double x, int n_warps) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) shared->of_warp[threadIdx.x / WARP] = x;
    __syncthreads();
    double sum = 0;
    if (threadIdx.x == 0)
        for (int w = 0; w < n_warps; w++) sum += shared->of_warp[w];
    return sum;
}

template <typename T, int N>
static __device__ __forceinline__ double thread_squares(const T *x, int64_t first, int64_t end) {
    constexpr int STEP = SQUARES_THREADS * N, AHEAD = 4;
    double even = 0, odd = 0; /* one alone would wait for each of its additions */
    for (int64_t at = first + (int64_t)threadIdx.x * N; at < end; at += AHEAD * STEP) {
        vec<T, N> in[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            int64_t here = at + a * STEP;
            if (here + N <= end) {
                in[a].load(x + here);
            } else {
                in[a].clear();
#pragma unroll 1
                for (; here < end; here++) {
                    double value = (double)to_float(x[here]);
                    even += value * value;
                }
            }
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
#pragma unroll
            for (int k = 0; k < N; k++) {
                double value = (double)in[a].get(k);
                if (k % 2 == 0)
                    even += value * value;
                else
                    odd += value * value;
            }
    }
    return even + odd;
}

__global__ void __launch_bounds__(SQUARES_THREADS) sum_squares_kernel(double *partial, squares_list list) {
    SAGO_SHARED(block_sum, shared);
    int low = 0, high = list.n; /* the last tensor that begins at this block or before it */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (list.first_block[middle] <= (int)blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    int64_t first = (int64_t)((int)blockIdx.x - list.first_block[low]) * SQUARES_CHUNK;
    int64_t end = first + SQUARES_CHUNK < list.count[low] ? first + SQUARES_CHUNK : list.count[low];
    const void *x = list.data[low];
    double sum;
    if (!list.aligned[low])
        sum = list.bf16s[low] ? thread_squares<bf16, 1>((const bf16 *)x, first, end)
                              : thread_squares<float, 1>((const float *)x, first, end);
    else
        sum = list.bf16s[low] ? thread_squares<bf16, 8>((const bf16 *)x, first, end)
                              : thread_squares<float, 4>((const float *)x, first, end);
    sum = sum_block(shared, sum, SQUARES_THREADS / WARP);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(TOTAL_THREADS)
    sum_squares_total_kernel(double *out, const double *partial, int64_t n) {
    SAGO_SHARED(block_sum, shared);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += TOTAL_THREADS) sum += partial[i];
    sum = sum_block(shared, sum, TOTAL_THREADS / WARP);
    if (threadIdx.x == 0) *out = sum;
}

static int64_t squares_chunks(sago_tensor t) {
    return (sago_tensor_count(t) + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
}

extern "C" {

sago_status SAGO_GPU(fill)(sago_device *device, sago_tensor out, float value) {
    SAGO_TRY(sago_fits_fill(device, out));
    streams s = {{out.data}, {}};
    fill op = {value};
    SAGO_BY_DTYPE(out, T,
                  return (run_elementwise<fill, T>(sago_gpu_of(device), op, s, sago_tensor_count(out))));
}

sago_status SAGO_GPU(scale)(sago_device *device, sago_tensor out, float factor) {
    SAGO_TRY(sago_fits_scale(device, out));
    streams s = {{out.data}, {out.data}};
    scale op = {factor};
    SAGO_BY_DTYPE(out, T,
                  return (run_elementwise<scale, T>(sago_gpu_of(device), op, s, sago_tensor_count(out))));
}

sago_status SAGO_GPU(add_scaled)(sago_device *device, sago_tensor out, sago_tensor in, float factor) {
    SAGO_TRY(sago_fits_add_scaled(device, out, in));
    streams s = {{out.data}, {out.data, in.data}};
    add_scaled op = {factor};
    SAGO_BY_DTYPE(
        out, T, return (run_elementwise<add_scaled, T>(sago_gpu_of(device), op, s, sago_tensor_count(out))));
}

sago_status SAGO_GPU(copy)(sago_device *device, sago_tensor out, sago_tensor in) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_fits_copy(out, in));
    if (sago_tensor_count(out) == 0) return SAGO_OK;
    if (out.dtype == in.dtype)
        return SAGO_GPU(rt_copy)(out.data, in.data, sago_tensor_bytes(out), SAGO_DEVICE_TO_DEVICE,
                                 gpu->compute);
    return out.dtype == SAGO_BF16 ? cast<bf16, float>(gpu, out, in) : cast<float, bf16>(gpu, out, in);
}

sago_status SAGO_GPU(sum_squares)(sago_device *device, double *out, const sago_tensor in[], int n) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_fits_sum_squares(device, in, n));
    int64_t n_chunks = 0, done = 0;
    for (int t = 0; t < n; t++) n_chunks += squares_chunks(in[t]);
    void *partial;
    SAGO_TRY(SAGO_GPU(workspace)(gpu, (size_t)n_chunks * sizeof(double), &partial));
    /* As many tensors a launch as its arguments hold. */
    for (int t = 0; t < n;) {
        squares_list list = squares_list();
        int blocks = 0;
        for (; t < n && list.n < SQUARES_TENSORS; t++) {
            int64_t chunks = squares_chunks(in[t]);
            if (chunks == 0) continue;
            if (blocks > INT32_MAX - chunks) break;
            list.data[list.n] = in[t].data;
            list.count[list.n] = sago_tensor_count(in[t]);
            list.bf16s[list.n] = in[t].dtype == SAGO_BF16;
            list.aligned[list.n] = is_aligned16(in[t].data);
            list.first_block[list.n++] = blocks;
            blocks += (int)chunks;
        }
        if (blocks == 0) continue;
        SAGO_TRY(SAGO_LAUNCH(gpu, sum_squares_kernel, (unsigned)blocks, SQUARES_THREADS, sizeof(block_sum),
                             (double *)partial + done, list));
        done += blocks;
    }
    return SAGO_LAUNCH(gpu, sum_squares_total_kernel, 1, TOTAL_THREADS, sizeof(block_sum), out,
                       (const double *)partial, n_chunks);
}
}
