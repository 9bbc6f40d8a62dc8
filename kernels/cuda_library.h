// SPDX-License-Identifier: Apache-2.0
/**
 * The CUDA part of sago is a shared object, libsago_cuda.so, that is opened only when a GPU is asked for: the
 * program starts on machines that have neither driver nor CUDA libraries. It exports one name,
 * sago_cuda_library_entry.
 *
 * The library calls functions of the program (sago_fail, for one, whose record must be the program's own), so
 * programs that open devices export their symbols and hold all of base and kernels (device_program_dep in
 * kernels/meson.build).
 */
#ifndef SAGO_CUDA_LIBRARY_H
#define SAGO_CUDA_LIBRARY_H

#include "device.h"

#include <stdint.h>

enum { SAGO_NCCL_ID_BYTES = 128, SAGO_GPU_ADDRESS_BYTES = 32 };

typedef struct sago_nccl sago_nccl; /* a group of ranks, each with a GPU of its own */

/** What libsago_cuda.so offers. */
typedef struct sago_cuda_entry {
    const char *version; /* SAGO_VERSION of its build */
    size_t ops_bytes;    /* sizeof(sago_ops) there: a library of another build must not be called */
    sago_status (*open)(const char *variant, int n_threads, int local_rank, sago_device **out);
    void (*close)(sago_device *device);
    /**
     * "13.0", "13.0", "13.1.0", "2.28.9": CUDA runtime, the newest CUDA that the driver knows, cuBLASLt,
     * NCCL; "" is none. Needs no GPU.
     */
    void (*versions)(char runtime[32], char driver[32], char cublaslt[32], char nccl[32]);

    /** The PCI address of the device's GPU, which two ranks of a node share or do not. */
    sago_status (*gpu_address)(sago_device *device, char address[SAGO_GPU_ADDRESS_BYTES]);

    /** NCCL: sums and pieces between GPUs; NULL where the build had no NCCL header, and so is gpu_address. All of these
     * are local but nccl_open; poll and abort may come from any thread. */
    sago_status (*nccl_id)(char id[SAGO_NCCL_ID_BYTES]); /* on one rank; also tells whether NCCL is there */
    /** Every rank of a group at once, with the same id. Returns within the timeout. */
    sago_status (*nccl_open)(sago_device *device, const char id[SAGO_NCCL_ID_BYTES], int rank, int size,
                             double timeout_seconds, sago_nccl **out);
    void (*nccl_close)(sago_nccl *nccl);
    /** buffer = sum over ranks, of floats or doubles, once the device's work so far is done, on a stream of its own.
     * *ticket is for join. */
    sago_status (*nccl_sum)(sago_nccl *nccl, void *buffer, int64_t count, bool doubles, uint64_t *ticket);
    /**
     * Likewise. out = own piece of the sum of in, counts[m] elements for member m one after another; out may be
     * the own piece of in. The counts of all members; they are read during the call alone.
     */
    sago_status (*nccl_reduce_scatter)(sago_nccl *nccl, const float *in, float *out, const int64_t counts[],
                                       uint64_t *ticket);
    /** out = the pieces of all, bytes[m] of member m one after another; in may be its own place in out. */
    sago_status (*nccl_all_gather)(sago_nccl *nccl, const void *in, void *out, const int64_t bytes[],
                                   uint64_t *ticket);
    /** The device's further work waits for what has this ticket; the host does not. */
    sago_status (*nccl_join)(sago_nccl *nccl, uint64_t ticket);
    sago_status (*nccl_poll)(sago_nccl *nccl); /* what NCCL has found wrong meanwhile */
    void (*nccl_abort)(sago_nccl *nccl); /* ends sums that would never end; then nothing but close is left */
    /** Seconds that the device's work stood waiting in joins since the last call, as far as they have passed.
     */
    double (*nccl_exposed_seconds)(sago_nccl *nccl);
} sago_cuda_entry;

extern const sago_cuda_entry sago_cuda_library_entry; /* inside the library */

/**
 * Opens the library: $SAGO_CUDA_LIBRARY where it is set, else libsago_cuda.so beside the program, in ../lib/sago
 * from there, or in a build folder that the program stands in (../ and ../../). Opened once, never closed. Errors: SAGO_E_DEVICE with the reason in one line.
 */
sago_status sago_cuda_library(const sago_cuda_entry **out) SAGO_MUST_CHECK;

#endif
