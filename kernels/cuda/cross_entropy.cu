// SPDX-License-Identifier: Apache-2.0
/**
 * Cross-entropy over rows of logits (docs/kernels/cross-entropy.md).
 *
 * Rows are cut into slices of 8192 columns, a block each, whatever the number of rows: a row's bits do not
 * depend on the rows beside it, and few rows of a large vocabulary still fill a GPU. Forward holds its slice
 * in registers between looking for the maximum and adding up exponentials, so memory is read once; what
 * slices leave is combined in their order.
 */
#include "dialect.cuh"

#include "gpu_ops.h"
#include "quad.cuh"

extern "C" {
#include "check.h"
#include "check_loss.h"
}

enum {
    BLOCK = 256,
    WARPS = BLOCK / WARP,
    GROUPS = 8,                 /* of four logits, a thread */
    SLICE = BLOCK * 4 * GROUPS, /* columns of a block */
    ROWS_BLOCK = 128,           /* threads of the kernels with a thread a row */
};

static const float LOG2_E = 1.44269504f;

/** e^(x - base), where base is the greatest x. x of -inf gives 0 even where all are -inf. */
static __device__ __forceinline__ float exp_below(float x, float base) {
    return fast_exp2((x - (base == -INFINITY ? 0.0f : base)) * LOG2_E);
}

/** What a part of a row leaves. Parts combine in a fixed order. */
typedef struct part {
    float max, sum_exp, sum;
} part;

static __device__ __forceinline__ void join(part *all, const part &one) {
    float max = fmaxf(all->max, one.max);
    all->sum_exp = all->sum_exp * exp_below(all->max, max) + one.sum_exp * exp_below(one.max, max);
    all->sum += one.sum;
    all->max = max;
}

/**
 * The column of a slice that is element i of this thread's group k. VECTOR: rows whose width is a multiple of
 * four, in vectors; else one by one, neighbours to neighbouring threads.
 */
template <bool VECTOR> static __device__ __forceinline__ int column_of(int k, int i) {
    int thread = (int)threadIdx.x;
    return VECTOR ? (thread + k * BLOCK) * 4 + i : (4 * k + i) * BLOCK + thread;
}

/** -inf past the end of the row. */
template <bool VECTOR>
static __device__ __forceinline__ quad<float> load_group(const float *x, int length, int k) {
    if constexpr (VECTOR) {
        int at = column_of<true>(k, 0);
        return quad_load(x + at, at < length ? 4 : 0, true, -INFINITY);
    } else {
        quad<float> v;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = column_of<false>(k, i);
            v.x[i] = at < length ? x[at] : -INFINITY;
        }
        return v;
    }
}

template <bool VECTOR, typename T>
static __device__ __forceinline__ void store_group(T *d, const quad<float> &v, int length, int k) {
    if constexpr (VECTOR) {
        int at = column_of<true>(k, 0);
        quad_store(d + at, v, at < length ? 4 : 0, true);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = column_of<false>(k, i);
            if (at < length) d[at] = from_float<T>(v.x[i]);
        }
    }
}

typedef struct forward_shared {
    part parts[WARPS];
} forward_shared;

template <bool VECTOR>
static __global__ void __launch_bounds__(BLOCK)
    cross_entropy_forward_kernel(part *parts, const float *logits, int64_t width, int slices) {
    SAGO_SHARED(forward_shared, shared);
    int64_t row = blockIdx.x / (unsigned)slices, first = (int64_t)(blockIdx.x % (unsigned)slices) * SLICE;
    const float *x = logits + row * width + first;
    int length = width - first < SLICE ? (int)(width - first) : SLICE, lane = (int)threadIdx.x % WARP;
    quad<float> v[GROUPS];
#pragma unroll
    for (int k = 0; k < GROUPS; k++) v[k] = load_group<VECTOR>(x, length, k);
    part own = {-INFINITY, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) own.max = fmaxf(own.max, v[k].x[i]);
    own.max = warp_max(own.max);
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            own.sum_exp += exp_below(v[k].x[i], own.max);
            own.sum += column_of<VECTOR>(k, i) < length ? v[k].x[i] : 0.0f;
        }
    own.sum_exp = warp_sum(own.sum_exp);
    own.sum = warp_sum(own.sum);
    if (lane == 0) shared->parts[threadIdx.x / WARP] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < WARPS; w++) join(&own, shared->parts[w]);
    parts[blockIdx.x] = own;
}

/** A thread a row: its slices in their order, and the target's logit. */
static __global__ void __launch_bounds__(ROWS_BLOCK)
    cross_entropy_combine_kernel(float *stats, const part *parts, const float *logits, const int32_t *targets,
                                 int64_t rows, int64_t width, int slices, int64_t first_id) {
    int64_t row = (int64_t)blockIdx.x * ROWS_BLOCK + threadIdx.x;
    if (row >= rows) return;
    part all = parts[row * slices];
    for (int i = 1; i < slices; i++) join(&all, parts[row * slices + i]);
    int64_t column = targets[row] - first_id;
    float *out = stats + row * SAGO_CE_STATS;
    out[SAGO_CE_MAX] = all.max;
    out[SAGO_CE_SUM_EXP] = all.sum_exp;
    out[SAGO_CE_TARGET] = column >= 0 && column < width ? logits[row * width + column] : 0.0f;
    out[SAGO_CE_SUM] = all.sum;
}

/** A thread a row: the statistics of its slices of the vocabulary, which ranks hold, in their order. */
static __global__ void __launch_bounds__(ROWS_BLOCK)
    vocabulary_combine_kernel(float *stats, const float *parts, int64_t rows, int64_t slices) {
    int64_t row = (int64_t)blockIdx.x * ROWS_BLOCK + threadIdx.x;
    if (row >= rows) return;
    const float *part = parts + row * SAGO_CE_STATS;
    float *out = stats + row * SAGO_CE_STATS, max = part[SAGO_CE_MAX];
    for (int64_t m = 1; m < slices; m++) max = fmaxf(max, part[m * rows * SAGO_CE_STATS + SAGO_CE_MAX]);
    double base = max == -INFINITY ? 0.0 : (double)max, sum_exp = 0, target = 0, sum = 0;
    for (int64_t m = 0; m < slices; m++, part += rows * SAGO_CE_STATS) {
        sum_exp += (double)part[SAGO_CE_SUM_EXP] * exp((double)part[SAGO_CE_MAX] - base);
        target += (double)part[SAGO_CE_TARGET], sum += (double)part[SAGO_CE_SUM];
    }
    out[SAGO_CE_MAX] = max;
    out[SAGO_CE_SUM_EXP] = (float)sum_exp;
    out[SAGO_CE_TARGET] = (float)target;
    out[SAGO_CE_SUM] = (float)sum;
}

typedef struct gradient_args {
    float z_loss, scale, spread, peak;
    int64_t first_id;
} gradient_args;

/** d_logits may be the logits: a thread writes what it alone has read. */
template <typename T, bool VECTOR>
static __global__ void __launch_bounds__(BLOCK)
    cross_entropy_backward_kernel(T *d_logits, const float *logits, const float *lse, const int32_t *targets,
                                  const float *weights, int64_t width, int slices, gradient_args args) {
    int64_t row = blockIdx.x / (unsigned)slices, first = (int64_t)(blockIdx.x % (unsigned)slices) * SLICE;
    const float *x = logits + row * width + first;
    T *d = d_logits + row * width + first;
    int length = width - first < SLICE ? (int)(width - first) : SLICE;
    float weight = weights[row];
    if (weight == 0.0f) { /* padding: whatever stands there, it has no gradient */
        quad<float> zeros = {{0.0f, 0.0f, 0.0f, 0.0f}};
        for (int k = 0; k < GROUPS; k++) store_group<VECTOR>(d, zeros, length, k);
        return;
    }
    float w = weight * args.scale, l = lse[row];
    float factor = w * (1.0f + 2.0f * args.z_loss * l), offset = w * args.spread, peak = w * args.peak;
    int64_t column = targets[row] - args.first_id - first;
    int target = column >= 0 && column < length ? (int)column : -1;
    quad<float> v[GROUPS];
#pragma unroll
    for (int k = 0; k < GROUPS; k++) v[k] = load_group<VECTOR>(x, length, k);
#pragma unroll
    for (int k = 0; k < GROUPS; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float y = factor * fast_exp2((v[k].x[i] - l) * LOG2_E) - offset;
            v[k].x[i] = column_of<VECTOR>(k, i) == target ? y - peak : y;
        }
        store_group<VECTOR>(d, v[k], length, k);
    }
}

static int slices_of(int64_t width) {
    return (int)((width + SLICE - 1) / SLICE);
}

static bool in_fours(const void *memory, int64_t width, size_t element_bytes) {
    return width % 4 == 0 && (uintptr_t)memory % (4 * element_bytes) == 0;
}

extern "C" sago_status SAGO_GPU(cross_entropy_forward)(sago_device *device, sago_tensor stats,
                                                       sago_tensor logits, sago_tensor targets,
                                                       const sago_cross_entropy_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_check_cross_entropy_forward(stats, logits, targets));
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    int slices = slices_of(width);
    if (rows == 0) return SAGO_OK;
    part *parts;
    SAGO_TRY(SAGO_GPU(workspace)(gpu, (size_t)(rows * slices) * sizeof *parts, (void **)&parts));
    auto cross_entropy_kernel = in_fours(logits.data, width, sizeof(float))
                                    ? cross_entropy_forward_kernel<true>
                                    : cross_entropy_forward_kernel<false>;
    SAGO_TRY(SAGO_LAUNCH(gpu, cross_entropy_kernel, dim3((unsigned)(rows * slices)), dim3(BLOCK),
                         sizeof(forward_shared), parts, (const float *)logits.data, width, slices));
    return SAGO_LAUNCH(gpu, cross_entropy_combine_kernel,
                       dim3((unsigned)((rows + ROWS_BLOCK - 1) / ROWS_BLOCK)), dim3(ROWS_BLOCK), 0,
                       (float *)stats.data, parts, (const float *)logits.data, (const int32_t *)targets.data,
                       rows, width, slices, args->first_id);
}

extern "C" sago_status SAGO_GPU(cross_entropy_combine)(sago_device *device, sago_tensor stats,
                                                       sago_tensor parts) {
    SAGO_TRY(sago_check_cross_entropy_combine(stats, parts));
    int64_t slices = parts.shape[0], rows = parts.shape[1];
    if (rows == 0) return SAGO_OK;
    return SAGO_LAUNCH(sago_gpu_of(device), vocabulary_combine_kernel,
                       dim3((unsigned)((rows + ROWS_BLOCK - 1) / ROWS_BLOCK)), dim3(ROWS_BLOCK), 0,
                       (float *)stats.data, (const float *)parts.data, rows, slices);
}

template <typename T>
static sago_status run_backward(sago_gpu *gpu, sago_tensor d_logits, sago_tensor logits, sago_tensor lse,
                                sago_tensor targets, sago_tensor weights, const gradient_args &args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    int slices = slices_of(width);
    bool vector = in_fours(logits.data, width, sizeof(float)) && in_fours(d_logits.data, width, sizeof(T));
    auto cross_entropy_kernel =
        vector ? cross_entropy_backward_kernel<T, true> : cross_entropy_backward_kernel<T, false>;
    return SAGO_LAUNCH(gpu, cross_entropy_kernel, dim3((unsigned)(rows * slices)), dim3(BLOCK), 0,
                       (T *)d_logits.data, (const float *)logits.data, (const float *)lse.data,
                       (const int32_t *)targets.data, (const float *)weights.data, width, slices, args);
}

extern "C" sago_status SAGO_GPU(cross_entropy_backward)(sago_device *device, sago_tensor d_logits,
                                                        sago_tensor logits, sago_tensor lse,
                                                        sago_tensor targets, sago_tensor weights,
                                                        const sago_cross_entropy_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_check_cross_entropy_backward(device, d_logits, logits, lse, targets, weights, args));
    if (sago_tensor_count(logits) == 0) return SAGO_OK;
    gradient_args given = {args->z_loss, args->scale, args->label_smoothing / (float)args->vocabulary,
                           1.0f - args->label_smoothing, args->first_id};
    sago_status status;
    SAGO_BY_DTYPE(d_logits, T, status = run_backward<T>(gpu, d_logits, logits, lse, targets, weights, given));
    return status;
}
