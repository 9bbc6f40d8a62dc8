// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_MAJOR = 8 }; /* bf16 tensor cores and cp.async */

static sago_status check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return SAGO_OK;
    /* Errors of a launch or an earlier copy come up at whatever call is next, so the call is no more than a
     * hint. */
    return sago_fail(SAGO_E_DEVICE, "cuda: %s: %s (%s)", what, cudaGetErrorString(error),
                     cudaGetErrorName(error));
}

static cudaStream_t of(sago_stream *stream) {
    return (cudaStream_t)stream;
}

static sago_status choose(int local_rank, const char *variant, int count, int *index) {
    if (!variant[0]) {
        *index = local_rank % count;
        return SAGO_OK;
    }
    char *end;
    long number = strtol(variant, &end, 10);
    if (*end || number < 0 || number >= count)
        return sago_fail(SAGO_E_DEVICE, "cuda: no GPU is called '%s'; there are %d, from 0", variant, count);
    *index = (int)number;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_open)(int local_rank, const char *variant, sago_gpu_properties *out) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver)
        return sago_fail(
            SAGO_E_DEVICE,
            "cuda: no NVIDIA driver, or one older than CUDA %d.%d needs (sago doctor shows versions)",
            CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return sago_fail(SAGO_E_DEVICE, "cuda: no GPU that this process may see (CUDA_VISIBLE_DEVICES=%s)",
                         getenv("CUDA_VISIBLE_DEVICES") ? getenv("CUDA_VISIBLE_DEVICES") : "");
    SAGO_TRY(check(error, "counting GPUs"));
    *out = (sago_gpu_properties){.count = count};
    SAGO_TRY(choose(local_rank, variant, count, &out->index));
    struct cudaDeviceProp found;
    SAGO_TRY(check(cudaGetDeviceProperties(&found, out->index), "reading the GPU's properties"));
    snprintf(out->name, sizeof out->name, "%s", found.name);
    out->major = found.major, out->minor = found.minor;
    out->multiprocessors = found.multiProcessorCount;
    out->memory_bytes = found.totalGlobalMem;
    out->shared_bytes = found.sharedMemPerBlockOptin;
    if (found.major < OLDEST_MAJOR)
        return sago_fail(SAGO_E_DEVICE, "cuda: %s has compute capability %d.%d; 8.0 or newer is needed",
                         found.name, found.major, found.minor);
    SAGO_TRY(check(cudaDriverGetVersion(&out->driver_version), "reading the driver's version"));
    SAGO_TRY(check(cudaRuntimeGetVersion(&out->runtime_version), "reading the runtime's version"));
    SAGO_TRY(check(cudaSetDevice(out->index), "choosing the GPU"));
    return check(cudaFree(NULL),
                 "starting the GPU"); /* makes the context, so that its failure is told here */
}

sago_status SAGO_GPU(rt_attach)(int index) {
    int now;
    if (cudaGetDevice(&now) == cudaSuccess && now == index) return SAGO_OK;
    return check(cudaSetDevice(index), "choosing the GPU");
}

sago_status SAGO_GPU(rt_memory_info)(size_t *free_bytes, size_t *total_bytes) {
    return check(cudaMemGetInfo(free_bytes, total_bytes), "asking for free memory");
}

sago_status SAGO_GPU(rt_malloc)(void **out, size_t bytes) {
    cudaError_t error = cudaMalloc(out, bytes);
    if (error != cudaErrorMemoryAllocation) return check(error, "allocating memory");
    (void)cudaGetLastError(); /* else the next launch would report it again */
    size_t free_bytes = 0, total_bytes = 0;
    *out = NULL;
    SAGO_TRY(SAGO_GPU(rt_memory_info)(&free_bytes, &total_bytes));
    return sago_fail(SAGO_E_MEMORY, "cuda: no memory for %.2f GB; %.2f of %.2f GB are free",
                     (double)bytes * 1e-9, (double)free_bytes * 1e-9, (double)total_bytes * 1e-9);
}

void SAGO_GPU(rt_free)(void *memory) {
    (void)cudaFree(memory);
}

sago_status SAGO_GPU(rt_malloc_host)(void **out, size_t bytes) {
    cudaError_t error = cudaMallocHost(out, bytes);
    if (error != cudaErrorMemoryAllocation) return check(error, "allocating pinned host memory");
    (void)cudaGetLastError();
    *out = NULL;
    return sago_fail(SAGO_E_MEMORY, "cuda: no pinned host memory for %.2f GB", (double)bytes * 1e-9);
}

void SAGO_GPU(rt_free_host)(void *memory) {
    (void)cudaFreeHost(memory);
}

sago_status SAGO_GPU(rt_stream_open)(sago_stream **out) {
    return check(cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking), "opening a stream");
}

void SAGO_GPU(rt_stream_close)(sago_stream *stream) {
    (void)cudaStreamDestroy(of(stream));
}

sago_status SAGO_GPU(rt_stream_wait)(sago_stream *stream) {
    return check(cudaStreamSynchronize(of(stream)), "waiting for the GPU");
}

/* The waiting thread sleeps: its core is worth more to the threads that prepare batches than the microseconds
 * are. */
sago_status SAGO_GPU(rt_event_open)(sago_event **out) {
    return check(cudaEventCreateWithFlags((cudaEvent_t *)out, cudaEventBlockingSync), "opening an event");
}

void SAGO_GPU(rt_event_close)(sago_event *event) {
    (void)cudaEventDestroy((cudaEvent_t)event);
}

sago_status SAGO_GPU(rt_event_record)(sago_event *event, sago_stream *stream) {
    return check(cudaEventRecord((cudaEvent_t)event, of(stream)), "recording an event");
}

sago_status SAGO_GPU(rt_event_wait)(sago_event *event) {
    return check(cudaEventSynchronize((cudaEvent_t)event), "waiting for the GPU");
}

sago_status SAGO_GPU(rt_stream_wait_event)(sago_stream *stream, sago_event *event) {
    return check(cudaStreamWaitEvent(of(stream), (cudaEvent_t)event, 0), "making a stream wait");
}

sago_status SAGO_GPU(rt_event_milliseconds)(float *out, sago_event *from, sago_event *to) {
    return check(cudaEventElapsedTime(out, (cudaEvent_t)from, (cudaEvent_t)to), "measuring time");
}

sago_status SAGO_GPU(rt_copy)(void *to, const void *from, size_t bytes, sago_copy_kind kind,
                              sago_stream *stream) {
    static const enum cudaMemcpyKind kinds[] = {[SAGO_HOST_TO_DEVICE] = cudaMemcpyHostToDevice,
                                                [SAGO_DEVICE_TO_HOST] = cudaMemcpyDeviceToHost,
                                                [SAGO_DEVICE_TO_DEVICE] = cudaMemcpyDeviceToDevice};
    return check(cudaMemcpyAsync(to, from, bytes, kinds[kind], of(stream)), "copying");
}

sago_status SAGO_GPU(rt_set)(void *to, int byte, size_t bytes, sago_stream *stream) {
    return check(cudaMemsetAsync(to, byte, bytes, of(stream)), "setting memory");
}

/* What other threads do meanwhile (copies of a checkpoint, allocations) is no concern of the recording's. */
sago_status SAGO_GPU(rt_record_begin)(sago_stream *stream) {
    return check(cudaStreamBeginCapture(of(stream), cudaStreamCaptureModeThreadLocal), "recording a graph");
}

sago_status SAGO_GPU(rt_record_end)(sago_stream *stream, sago_recording **out) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t executable = NULL;
    *out = NULL;
    cudaError_t error = cudaStreamEndCapture(of(stream), &graph);
    if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, graph, 0);
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError(); /* else the next launch would report it again */
    SAGO_TRY(check(error, "recording a graph"));
    *out = (sago_recording *)executable;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_recording_launch)(const sago_recording *recording, sago_stream *stream) {
    return check(cudaGraphLaunch((cudaGraphExec_t)recording, of(stream)), "launching a graph");
}

void SAGO_GPU(rt_recording_close)(sago_recording *recording) {
    (void)cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

sago_status SAGO_GPU(rt_launched)(const char *kernel) {
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return SAGO_OK;
    return sago_fail(SAGO_E_DEVICE, "cuda: launching %s: %s (%s)", kernel, cudaGetErrorString(error),
                     cudaGetErrorName(error));
}

sago_status SAGO_GPU(rt_allow_shared)(const void *kernel, size_t bytes) {
    return check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                 "asking for shared memory");
}
