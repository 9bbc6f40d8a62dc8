// SPDX-License-Identifier: Apache-2.0
/**
 * Ceilings: what this device reaches, measured through its own operations. A rate of training is told as a
 * share of the ceiling that was measured beside it, since processors and their neighbours differ.
 */
#ifndef SAGO_CEILING_H
#define SAGO_CEILING_H

#include "ops.h"

/** Of the rates of single calls: their median and quartiles. */
typedef struct sago_rate {
    double median, low, high;
    int calls;
} sago_rate;

/**
 * GFLOP/s (10^9 multiplications and additions a second) of c[m, n] = a[m, k] b[k, n] on random values: at
 * least three calls after one that is not counted, more until seconds have passed.
 */
sago_status sago_device_measure_product(sago_device *device, int64_t m, int64_t n, int64_t k, bool bf16,
                                        double seconds, sago_rate *out) SAGO_MUST_CHECK;

/** GB/s (10^9) of copying bytes to other memory, counting each byte twice: read and written. */
sago_status sago_device_measure_copy(sago_device *device, size_t bytes, double seconds,
                                     sago_rate *out) SAGO_MUST_CHECK;

/**
 * The ceiling of fp32 products in GFLOP/s: the best of the medians over some large square ones. Takes less
 * than a second.
 */
sago_status sago_device_measure_gemm(sago_device *device, double *gflops) SAGO_MUST_CHECK;

#endif
