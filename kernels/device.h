// SPDX-License-Identifier: Apache-2.0
/**
 * Device: where tensors live and operations run. One table of operations (ops.h), one implementation a device.
 *
 * A device opens only if it implements every operation of the table; what it lacks is named in the error. There is no
 * silent fallback to another device.
 */
#ifndef SAGO_DEVICE_H
#define SAGO_DEVICE_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sago_ops;
struct sago_graph_ops;

typedef struct sago_device {
    const struct sago_ops *ops;
    const struct sago_graph_ops *graphs; /* NULL: none */
    /**
     * Whether attention takes heads of this width, and can be differentiated if backward. SAGO_E_SHAPE says what
     * stands against it, so that a model is refused when it opens, not in its first step. NULL: always.
     */
    sago_status (*fits_heads)(struct sago_device *device, int64_t width, bool is_bf16, bool backward);
    const char *name;        /* "cpu", "sim", "cuda" */
    char description[128];   /* "cpu: Intel(R) Xeon(R), 2 threads, avx512, oneDNN 2.6.3" */
    int n_threads;           /* host threads of the device's own loops */
    bool has_bf16;           /* matrix products in bf16 are faster than in fp32 here */
    bool stores_bf16;        /* tensors may be bf16 */
    bool asynchronous;       /* operations return before they are done */
    const char *purpose;     /* what is allocated next: "parameters", ...; static text, for the line when memory ends */
    double peak_flops;       /* a second, of dense bf16 products by the maker's data sheet; 0: not known */
    size_t allocated_bytes, most_allocated_bytes; /* device memory, scratch included; 0 where nobody counts */
    int64_t host_waits;      /* calls of ops, from the thread that hands over work, that waited for it; 0 where nobody counts */
    void *state;             /* the implementation's own */
} sago_device;

/**
 * Opens a device. name: "auto" or a device's name. auto takes a GPU where this machine has one, else the cpu device,
 * and the log says which and why; it never takes sim. "cpu:base", "cpu:v3" and "cpu:v4" open the cpu device with the
 * loops of that x86-64 level, to compare them; "cuda:1" opens the second GPU; "sim:..." chooses sim's schedule
 * (docs/testing.md). n_threads: 0 means all cores this process may use.
 * Errors: SAGO_E_DEVICE with the reason and the names that exist.
 */
sago_status sago_device_open(const char *name, int n_threads, sago_device **out) SAGO_MUST_CHECK;
/** The same for one of several ranks on this node: rank local_rank takes GPU local_rank modulo their number. */
sago_status sago_device_open_local(const char *name, int n_threads, int local_rank,
                                   sago_device **out) SAGO_MUST_CHECK;
void sago_device_close(sago_device *device);

#endif
