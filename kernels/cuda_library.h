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

/** What libsago_cuda.so offers. */
typedef struct sago_cuda_entry {
    const char *version; /* SAGO_VERSION of its build */
    size_t ops_bytes;    /* sizeof(sago_ops) there: a library of another build must not be called */
    sago_status (*open)(const char *variant, int n_threads, int local_rank, sago_device **out);
    void (*close)(sago_device *device);
    /** "13.0", "13.0", "13.1.0": CUDA runtime, the newest CUDA that the driver knows, cuBLASLt; "" is none.
     * Needs no GPU. */
    void (*versions)(char runtime[32], char driver[32], char cublaslt[32]);
} sago_cuda_entry;

extern const sago_cuda_entry sago_cuda_library_entry; /* inside the library */

/**
 * Opens the library: $SAGO_CUDA_LIBRARY where it is set, else libsago_cuda.so beside the program or in
 * ../lib/sago from there. Opened once, never closed. Errors: SAGO_E_DEVICE with the reason in one line.
 */
sago_status sago_cuda_library(const sago_cuda_entry **out) SAGO_MUST_CHECK;

#endif
