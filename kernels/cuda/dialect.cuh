// SPDX-License-Identifier: Apache-2.0
/**
 * The CUDA that kernels of this folder are written in, so that the same text compiles with nvcc and, for the sim
 * device, with the host's C++ compiler (kernels/sim/sim.h gives every name below a host twin).
 *
 * Kernels use: __global__, __device__, threadIdx and its kin, __syncthreads, __syncwarp, __shfl_sync,
 * __shfl_xor_sync, __shfl_down_sync, __shfl_up_sync, __ballot_sync, __any_sync, float4 and uint4 and their kin, fmaf,
 * expf, exp2f, log2f, rsqrtf and the other functions of math.h, and what this file adds. Launches, shared memory and
 * PTX stand behind the names below. No static __shared__, no atomics on floating-point values (sums have a fixed order),
 * no cooperative grids.
 */
#ifndef SAGO_DIALECT_CUH
#define SAGO_DIALECT_CUH

#include "gpu.h"

#ifdef SAGO_SIM
#include "sim.h"
#else

#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* --- launches and shared memory ------------------------------------------------------------------------------ */

/** kernel<<<grid, block, shared_bytes, gpu's compute stream>>>(arguments); a sago_status. kernel may be a template. */
#define SAGO_LAUNCH(gpu, kernel, grid, block, shared_bytes, ...)                                             \
    ([&]() -> sago_status {                                                                                  \
        if ((size_t)(shared_bytes) > 48 * 1024) {                                                            \
            sago_status sago_allowed =                                                                       \
                SAGO_GPU(rt_allow_shared)((const void *)(kernel), (size_t)(shared_bytes));                   \
            if (sago_allowed != SAGO_OK) return sago_allowed;                                                \
        }                                                                                                    \
        (kernel)<<<(grid), (block), (shared_bytes), (cudaStream_t)(gpu)->compute>>>(__VA_ARGS__);            \
        return SAGO_GPU(rt_launched)(#kernel);                                                               \
    }())

/** The block's shared memory of the launch, as a T. One a kernel; give it a struct. 128-byte aligned. */
#define SAGO_SHARED(T, name)                                                                                 \
    extern __shared__ __align__(128) unsigned char sago_shared_bytes[];                                      \
    SAGO_SHARED_NOTE(T);                                                                                     \
    T *name = reinterpret_cast<T *>(sago_shared_bytes)
/* For launch/gpu_resources.sh: the struct's size as a comment in the PTX. */
#ifdef SAGO_RESOURCES
#define SAGO_SHARED_NOTE(T) asm volatile("// sago_shared %0" ::"n"(sizeof(T)))
#else
#define SAGO_SHARED_NOTE(T) (void)0
#endif

/* --- bf16 ---------------------------------------------------------------------------------------------------- */

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
/** Round to nearest even. */
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
/** Two values in one register: lo in the low half. */
static __device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&pair);
}

static __device__ __forceinline__ uint32_t float_bits(float x) { return __float_as_uint(x); }
static __device__ __forceinline__ float bits_float(uint32_t x) { return __uint_as_float(x); }

/** 2^x to about 2 ulp, one instruction. */
static __device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* --- vectors to global memory ------------------------------------------------------------------------------------ */

/**
 * 16 or 8 bytes in one store, to a multiple of as many. By name, since the compiler takes the members of a struct that
 * was put together in registers apart again, and stores each of them.
 */
static __device__ __forceinline__ void store16(void *to, uint4 x) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(x.x), "r"(x.y),
                 "r"(x.z), "r"(x.w)
                 : "memory");
}
static __device__ __forceinline__ void store8(void *to, uint2 x) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(x.x), "r"(x.y)
                 : "memory");
}

/* --- asynchronous copies from global to shared memory (sm_80) -------------------------------------------------- */

/** 16 bytes, both addresses 16-byte aligned; zeros where !valid (from is then not read). */
static __device__ __forceinline__ void cp_async16(void *shared, const void *from, bool valid = true) {
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
/** Ends a group of this thread's copies. */
static __device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/** Waits until at most `left` of this thread's groups are under way. Other threads see the data after a barrier. */
template <int left> static __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* --- tensor cores (sm_80) --------------------------------------------------------------------------------------- */

/**
 * Four 8 x 8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8 (16-byte aligned) and
 * gets, of matrix m, row l / 4, columns 2 (l % 4) and the next in r[m]; trans: of the transposed matrix.
 */
static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/**
 * d[16 x 8] += a[16 x 16] b[16 x 8], bf16 with fp32 sums. With g = lane / 4 and t = 2 (lane % 4):
 * a: {row g, columns t t+1}, {row g+8, same}, {row g, columns t+8 t+9}, {row g+8, same};
 * b: {rows t t+1, column g}, {rows t+8 t+9, column g}; d: {row g, columns t t+1}, {row g+8, same}.
 */
static __device__ __forceinline__ void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** Barrier `id` (1 to 15; 0 is __syncthreads) among `threads` threads of the block, whole warps. */
static __device__ __forceinline__ void named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif /* SAGO_SIM */

/* --- written once for both, on top of the above ------------------------------------------------------------------- */

enum { WARP = 32 };

/** Sum and maximum over the warp, in a fixed order, the same in every lane. All 32 lanes call it. */
static __device__ __forceinline__ float warp_sum(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ __forceinline__ double warp_sum(double x) {
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ __forceinline__ float warp_max(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/** Runs the statement once for T = float or T = bf16, by the dtype of a tensor. */
#define SAGO_BY_DTYPE(tensor, T, ...)                                                                        \
    do {                                                                                                     \
        if ((tensor).dtype == SAGO_BF16) {                                                                   \
            typedef bf16 T;                                                                                  \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            typedef float T;                                                                                 \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
    } while (0)

#endif
