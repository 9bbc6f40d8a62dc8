// SPDX-License-Identifier: Apache-2.0
/**
 * The loops of kernels/greedy.h, once an instruction set.
 */
#ifndef SAGO_CPU_GREEDY_LOOPS_H
#define SAGO_CPU_GREEDY_LOOPS_H

#include "device.h"
#include "greedy.h"
#include "isa.h"

typedef struct sago_cpu_greedy {
    /** Fills q, step, error and length, and says whether w is usable. */
    void (*prepare)(const sago_device *device, sago_greedy *greedy);
    sago_status (*choose)(sago_device *device, const sago_greedy *greedy, int32_t *ids, const float *x,
                          int64_t rows, bool *settled);
} sago_cpu_greedy;

extern const sago_cpu_greedy sago_cpu_greedy_base;
#if defined(__x86_64__)
extern const sago_cpu_greedy sago_cpu_greedy_v3, sago_cpu_greedy_v4;
#endif

#endif
