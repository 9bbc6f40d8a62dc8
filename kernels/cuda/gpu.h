// SPDX-License-Identifier: Apache-2.0
/**
 * The state of an open GPU device, sim or cuda: its streams and its workspace. sago_device.state points to it.
 *
 * Operations are handed to the compute stream and return at once. Scratch memory of an operation comes from the
 * workspace, which grows in the first steps and then stays; one operation's scratch is free again when the operation is
 * enqueued, because the next one runs after it on the same stream.
 */
#ifndef SAGO_GPU_H
#define SAGO_GPU_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops.h"
#include "runtime.h"

typedef struct sago_gpu {
    sago_device device; /* first: a sago_device * of this kind is a sago_gpu * */
    sago_gpu_properties properties;
    sago_stream *compute, *down, *up; /* down, up: copies of other threads, from the GPU and to it */
    void *workspace;
    size_t workspace_bytes;
    void *products; /* matrix products' own state: cuBLASLt handles and chosen algorithms, or the cpu device in sim */
    void *optimizer; /* Adafactor's tables on their way to the device (adafactor_table.c) */
    sago_graph *recorded; /* the graph that is being recorded; NULL: none */
    int n_graphs;         /* that exist */
    void *inside;   /* gpu.c's own: marks, the list of what is allocated, locks */
} sago_gpu;

static inline sago_gpu *sago_gpu_of(sago_device *device) {
    return (sago_gpu *)device->state;
}

sago_status SAGO_GPU(open)(const char *variant, int n_threads, int local_rank, sago_device **out);
void SAGO_GPU(close)(sago_device *device);

/** Matrix products: opened after the streams are; description: the library and its version, for the log. */
sago_status SAGO_GPU(products_open)(sago_gpu *gpu, char description[48]);
void SAGO_GPU(products_close)(sago_gpu *gpu);
void SAGO_GPU(adafactor_close)(sago_gpu *gpu);

/** At least `bytes` of scratch, 256-byte aligned, valid until the operation that asked is enqueued. Ask once an op. */
sago_status SAGO_GPU(workspace)(sago_gpu *gpu, size_t bytes, void **out);

#ifdef __cplusplus
}
#endif
#endif
