// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "dialect.cuh"
#include "gpu_ops.h"

template <typename Unit> static __device__ __forceinline__ void store_unit(Unit *to, Unit x) {
    if constexpr (sizeof(Unit) == 16)
        store16(to, x);
    else
        *to = x;
}

/*
 * One token a row into the cache; `Unit` is as much of it as a thread copies at once. A position outside the
 * cache writes nothing: the host knows its positions, and the device does not wait to be told.
 */
template <typename Unit>
static __global__ void cache_append_kernel(Unit *cache, const Unit *in, const int32_t *position,
                                           int64_t capacity, int64_t units) {
    int64_t row = blockIdx.y, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t token = position[row];
    if (at >= units || token < 0 || token >= capacity) return;
    store_unit(&cache[(row * capacity + token) * units + at], in[row * units + at]);
}

template <typename Unit>
static sago_status append(sago_gpu *gpu, sago_tensor cache, sago_tensor in, sago_tensor position,
                          size_t row_bytes) {
    const unsigned threads = 128, most_rows = 65535; /* rows of a grid */
    int64_t capacity = cache.shape[1], units = (int64_t)(row_bytes / sizeof(Unit)), rows = cache.shape[0];
    for (int64_t row = 0; row < rows; row += most_rows) {
        unsigned count = (unsigned)(rows - row < most_rows ? rows - row : most_rows);
        SAGO_TRY(SAGO_LAUNCH(gpu, cache_append_kernel<Unit>,
                             dim3((unsigned)((units + threads - 1) / threads), count), threads, 0,
                             (Unit *)cache.data + row * capacity * units, (const Unit *)in.data + row * units,
                             (const int32_t *)position.data + row, capacity, units));
    }
    return SAGO_OK;
}

extern "C" sago_status SAGO_GPU(cache_append)(sago_device *device, sago_tensor cache, sago_tensor in,
                                              sago_tensor position) {
    SAGO_TRY(sago_cache_append_check(device, cache, in, position));
    if (sago_tensor_count(in) == 0) return SAGO_OK;
    size_t row_bytes = sago_tensor_bytes(in) / (size_t)in.shape[0];
    sago_gpu *gpu = sago_gpu_of(device);
    if (row_bytes % sizeof(uint4) == 0) return append<uint4>(gpu, cache, in, position, row_bytes);
    if (row_bytes % sizeof(float) == 0) return append<float>(gpu, cache, in, position, row_bytes);
    return append<bf16>(gpu, cache, in, position, row_bytes);
}
