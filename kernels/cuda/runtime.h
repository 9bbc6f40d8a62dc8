// SPDX-License-Identifier: Apache-2.0
/**
 * The few calls by which the host side of the GPU devices reaches a GPU: memory, streams, events, launches.
 *
 * Two implementations: runtime_cuda.c (the CUDA runtime) and kernels/sim/runtime_sim.cpp (the host: memory is
 * malloc with guards, a stream is an ordered queue, a launch runs the kernel's text on fibers, a recording is a list of
 * what was handed over). Everything above this
 * file is the same source on both, so that CI runs it without a GPU. All calls return SAGO_OK or SAGO_E_DEVICE with the
 * runtime's own words; memory that does not fit is SAGO_E_MEMORY with what was asked for and what is free.
 */
#ifndef SAGO_GPU_RUNTIME_H
#define SAGO_GPU_RUNTIME_H

#ifdef __cplusplus
extern "C" {
#endif
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sim and CUDA may stand in one process, so every name carries the device's. */
#ifdef SAGO_SIM
#define SAGO_GPU(name) sago_sim_##name
#else
#define SAGO_GPU(name) sago_cuda_##name
#endif

typedef struct sago_stream sago_stream; /* work in order; NULL is no stream */
typedef struct sago_event sago_event;   /* a point in a stream's work */
typedef struct sago_recording sago_recording; /* work of a stream, to be handed over again */

typedef struct sago_gpu_properties {
    char name[96];
    int index, count;            /* this GPU, and how many this process sees */
    int major, minor;            /* compute capability */
    int multiprocessors;
    size_t memory_bytes, shared_bytes; /* of the GPU; most of a block */
    int driver_version, runtime_version; /* 12040 is 12.4; 0 in sim */
} sago_gpu_properties;

/**
 * Makes a GPU the one of the calling thread and reads its properties. variant: of cuda the GPU's number, or "" for GPU
 * local_rank modulo their count, so that the ranks of a node spread over its GPUs; of sim its schedule (runtime_sim),
 * "" for the plain one.
 */
sago_status SAGO_GPU(rt_open)(int local_rank, const char *variant, sago_gpu_properties *out);
/** Makes the GPU of rt_open the calling thread's too (a second host thread that copies). index: properties.index. */
sago_status SAGO_GPU(rt_attach)(int index);

sago_status SAGO_GPU(rt_malloc)(void **out, size_t bytes);
void SAGO_GPU(rt_free)(void *memory);
sago_status SAGO_GPU(rt_malloc_host)(void **out, size_t bytes); /* pinned */
void SAGO_GPU(rt_free_host)(void *memory);
sago_status SAGO_GPU(rt_memory_info)(size_t *free_bytes, size_t *total_bytes);

sago_status SAGO_GPU(rt_stream_open)(sago_stream **out);
void SAGO_GPU(rt_stream_close)(sago_stream *stream);
sago_status SAGO_GPU(rt_stream_wait)(sago_stream *stream); /* the host waits */
sago_status SAGO_GPU(rt_event_open)(sago_event **out);
void SAGO_GPU(rt_event_close)(sago_event *event);
sago_status SAGO_GPU(rt_event_record)(sago_event *event, sago_stream *stream);
sago_status SAGO_GPU(rt_event_wait)(sago_event *event);                           /* the host waits */
sago_status SAGO_GPU(rt_stream_wait_event)(sago_stream *stream, sago_event *event); /* the stream waits */
/** Milliseconds between two recorded events that have passed. 0 in sim. */
sago_status SAGO_GPU(rt_event_milliseconds)(float *out, sago_event *from, sago_event *to);

typedef enum sago_copy_kind { SAGO_HOST_TO_DEVICE, SAGO_DEVICE_TO_HOST, SAGO_DEVICE_TO_DEVICE } sago_copy_kind;
/** Enqueues a copy. Host memory must stand until the stream has been waited for, also what is not from rt_malloc_host,
 * which CUDA may or may not have read, or written, when this returns. */
sago_status SAGO_GPU(rt_copy)(void *to, const void *from, size_t bytes, sago_copy_kind kind, sago_stream *stream);
sago_status SAGO_GPU(rt_set)(void *to, int byte, size_t bytes, sago_stream *stream);

/**
 * From here to rt_record_end, what this thread hands to the stream is recorded and not run: launches, copies of device
 * and pinned memory, fills. A recording launched puts all of it behind the work of a stream, as one. What waits, and an
 * event's record, makes the recording fail, which rt_record_end tells; it is to be called in any case.
 */
sago_status SAGO_GPU(rt_record_begin)(sago_stream *stream);
sago_status SAGO_GPU(rt_record_end)(sago_stream *stream, sago_recording **out);
sago_status SAGO_GPU(rt_recording_launch)(const sago_recording *recording, sago_stream *stream);
void SAGO_GPU(rt_recording_close)(sago_recording *recording); /* not while it runs */

#ifdef SAGO_SIM
/**
 * Enqueues a host function: it runs in the stream's order with a copy of `bytes` of argument. Its failure is reported
 * as a kernel's is, by the next call that waits. This is how sim's matrix products run (kernels/sim/matmul.c).
 */
sago_status SAGO_GPU(rt_host_function)(sago_stream *stream, sago_status (*function)(void *argument),
                                       const void *argument, size_t bytes);
#endif

/** What the last launch reported. */
sago_status SAGO_GPU(rt_launched)(const char *kernel);
/** Lets a kernel use more than 48 KiB of shared memory a block. */
sago_status SAGO_GPU(rt_allow_shared)(const void *kernel, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
