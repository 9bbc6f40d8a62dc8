// SPDX-License-Identifier: Apache-2.0
#include "collective.h"
#include "cuda_library.h"
#include "gpu_ops.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

static void versions(char runtime[32], char driver[32], char cublaslt[32], char nccl[32]) {
    int version = 0;
    runtime[0] = driver[0] = '\0';
    if (cudaRuntimeGetVersion(&version) == cudaSuccess)
        snprintf(runtime, 32, "%d.%d", version / 1000, version % 1000 / 10);
    version = 0; /* stays so where there is no driver */
    if (cudaDriverGetVersion(&version) == cudaSuccess && version > 0)
        snprintf(driver, 32, "%d.%d", version / 1000, version % 1000 / 10);
    size_t library = cublasLtGetVersion();
    snprintf(cublaslt, 32, "%zu.%zu.%zu", library / 10000, library % 10000 / 100, library % 100);
    nccl[0] = '\0';
#ifdef SAGO_NCCL
    sago_cuda_nccl_version(nccl);
#endif
}

/* The one name that libsago_cuda.so exports. */
__attribute__((visibility("default"))) const sago_cuda_entry sago_cuda_library_entry = {
    .version = SAGO_VERSION,
    .ops_bytes = sizeof(sago_ops),
    .open = SAGO_GPU(open),
    .close = SAGO_GPU(close),
    .versions = versions,
#ifdef SAGO_NCCL
    .gpu_address = sago_cuda_gpu_address,
    .nccl_id = sago_cuda_nccl_id,
    .nccl_open = sago_cuda_nccl_open,
    .nccl_close = sago_cuda_nccl_close,
    .nccl_sum = sago_cuda_nccl_sum,
    .nccl_reduce_scatter = sago_cuda_nccl_reduce_scatter,
    .nccl_all_gather = sago_cuda_nccl_all_gather,
    .nccl_join = sago_cuda_nccl_join,
    .nccl_poll = sago_cuda_nccl_poll,
    .nccl_abort = sago_cuda_nccl_abort,
    .nccl_exposed_seconds = sago_cuda_nccl_exposed_seconds,
#endif
};
