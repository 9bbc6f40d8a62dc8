// SPDX-License-Identifier: Apache-2.0
#include "cuda_library.h"
#include "gpu_ops.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

static void versions(char runtime[32], char driver[32], char cublaslt[32]) {
    int version = 0;
    runtime[0] = driver[0] = '\0';
    if (cudaRuntimeGetVersion(&version) == cudaSuccess)
        snprintf(runtime, 32, "%d.%d", version / 1000, version % 1000 / 10);
    version = 0; /* stays so where there is no driver */
    if (cudaDriverGetVersion(&version) == cudaSuccess && version > 0)
        snprintf(driver, 32, "%d.%d", version / 1000, version % 1000 / 10);
    size_t library = cublasLtGetVersion();
    snprintf(cublaslt, 32, "%zu.%zu.%zu", library / 10000, library % 10000 / 100, library % 100);
}

/* The one name that libsago_cuda.so exports. */
__attribute__((visibility("default"))) const sago_cuda_entry sago_cuda_library_entry = {
    .version = SAGO_VERSION,
    .ops_bytes = sizeof(sago_ops),
    .open = SAGO_GPU(open),
    .close = SAGO_GPU(close),
    .versions = versions,
};
