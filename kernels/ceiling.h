// SPDX-License-Identifier: Apache-2.0
/**
 * Ceiling: the matrix-product speed that a device shows here and now, what shares of it (MFU) refer to.
 */
#ifndef SAGO_CEILING_H
#define SAGO_CEILING_H

#include "device.h"

/**
 * *gflops = 2 m n k / median time of fp32 products of m = n = k = 1024 at the device's threads. Takes well under a
 * second and 12 MiB; what else runs on the machine lowers it.
 */
sago_status sago_device_measure_gemm(sago_device *device, double *gflops) SAGO_MUST_CHECK;

#endif
