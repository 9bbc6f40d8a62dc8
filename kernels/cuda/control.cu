// SPDX-License-Identifier: Apache-2.0
/**
 * What a step's loss adds up to, and what becomes of the step, decided where the numbers are.
 */
#include "dialect.cuh"

#include "gpu_ops.h"

extern "C" {
#include "check.h"
#include "check_loss.h"
}

enum { BLOCK = 256, WARPS = BLOCK / WARP, N_SUMS = 5 };

typedef struct loss_args {
    double vocabulary, z_loss, smoothing;
} loss_args;

typedef struct sums_shared {
    double parts[N_SUMS][WARPS];
} sums_shared;

/** Sums over the block in a fixed order, the same in every thread. */
static __device__ __forceinline__ void block_sums(double sums[N_SUMS], sums_shared *shared) {
#pragma unroll
    for (int s = 0; s < N_SUMS; s++) {
        sums[s] = warp_sum(sums[s]);
        if (threadIdx.x % WARP == 0) shared->parts[s][threadIdx.x / WARP] = sums[s];
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < N_SUMS; s++) {
        sums[s] = 0;
        for (int w = 0; w < WARPS; w++) sums[s] += shared->parts[s][w];
    }
}

/** A thread a token; partial[block] = the block's sums. */
static __global__ void __launch_bounds__(BLOCK)
    loss_finish_kernel(float *lse, double *partial, const float *stats, const float *weights, int64_t n,
                       loss_args args) {
    SAGO_SHARED(sums_shared, shared);
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    double sums[N_SUMS] = {0, 0, 0, 0, 0};
    if (i < n) {
        const float *s = stats + i * SAGO_CE_STATS;
        double log_sum = (double)s[SAGO_CE_MAX] + log((double)s[SAGO_CE_SUM_EXP]);
        double w = (double)weights[i], target = (double)s[SAGO_CE_TARGET];
        lse[i] = (float)log_sum;
        if (w != 0) {
            double mean = (double)s[SAGO_CE_SUM] / args.vocabulary, z = args.z_loss * log_sum * log_sum;
            sums[0] = w * (log_sum - target);
            sums[1] = w * z;
            sums[2] = w * (log_sum - (1 - args.smoothing) * target - args.smoothing * mean + z);
            sums[3] = s[SAGO_CE_TARGET] >= s[SAGO_CE_MAX] ? 1 : 0;
            sums[4] = 1;
        }
    }
    block_sums(sums, shared);
    if (threadIdx.x == 0)
        for (int s = 0; s < N_SUMS; s++) partial[(int64_t)blockIdx.x * N_SUMS + s] = sums[s];
}

/** One block adds what the others left. */
static __global__ void __launch_bounds__(BLOCK)
    loss_total_kernel(sago_loss_sums *out, const double *partial, int64_t blocks) {
    SAGO_SHARED(sums_shared, shared);
    double sums[N_SUMS] = {0, 0, 0, 0, 0};
    for (int64_t i = threadIdx.x; i < blocks; i += BLOCK)
        for (int s = 0; s < N_SUMS; s++) sums[s] += partial[i * N_SUMS + s];
    block_sums(sums, shared);
    if (threadIdx.x != 0) return;
    out->nll += sums[0], out->z += sums[1], out->objective += sums[2];
    out->correct += sums[3], out->tokens += sums[4];
}

extern "C" sago_status SAGO_GPU(loss_finish)(sago_device *device, sago_tensor lse, sago_loss_sums *sums,
                                             sago_tensor stats, sago_tensor weights,
                                             const sago_cross_entropy_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_check_loss_finish(lse, sums, stats, weights, args));
    int64_t n = sago_rows(stats), blocks = (n + BLOCK - 1) / BLOCK;
    if (n == 0) return SAGO_OK;
    loss_args given = {(double)args->vocabulary, (double)args->z_loss, (double)args->label_smoothing};
    double *partial;
    SAGO_TRY(SAGO_GPU(workspace)(gpu, (size_t)(blocks * N_SUMS) * sizeof *partial, (void **)&partial));
    SAGO_TRY(SAGO_LAUNCH(gpu, loss_finish_kernel, dim3((unsigned)blocks), dim3(BLOCK), sizeof(sums_shared),
                         (float *)lse.data, partial, (const float *)stats.data, (const float *)weights.data,
                         n, given));
    return SAGO_LAUNCH(gpu, loss_total_kernel, dim3(1), dim3(BLOCK), sizeof(sums_shared), sums, partial,
                       blocks);
}

static __device__ __forceinline__ bool loss_is_finite(const sago_loss_sums *sums) {
    return isfinite(sums->nll) && isfinite(sums->z);
}

static __global__ void carry_nonfinite_kernel(float *gradient, const sago_loss_sums *sums) {
    if (!loss_is_finite(sums)) *gradient = bits_float(0x7fc00000u);
}

static __global__ void step_control_kernel(sago_step_control *control, const double *squares,
                                           const sago_loss_sums *sums, double clip_norm) {
    double norm = sqrt(*squares);
    control->gradient_squares = *squares;
    control->gradient_scale = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
    control->apply = isfinite(*squares) && loss_is_finite(sums);
    control->pad = 0;
}

extern "C" sago_status SAGO_GPU(carry_nonfinite)(sago_device *device, sago_tensor gradient,
                                                 const sago_loss_sums *sums) {
    sago_gpu *gpu = sago_gpu_of(device);
    SAGO_TRY(sago_check_carry_nonfinite(gradient, sums));
    return SAGO_LAUNCH(gpu, carry_nonfinite_kernel, dim3(1), dim3(1), 0, (float *)gradient.data, sums);
}

extern "C" sago_status SAGO_GPU(step_control)(sago_device *device, sago_step_control *control,
                                              const double *squares, const sago_loss_sums *sums,
                                              double clip_norm) {
    return SAGO_LAUNCH(sago_gpu_of(device), step_control_kernel, dim3(1), dim3(1), 0, control, squares, sums,
                       clip_norm);
}
