// SPDX-License-Identifier: Apache-2.0
/**
 * What every device does before a matrix product: sizes and dtypes.
 */
#ifndef SAGO_MATMUL_H
#define SAGO_MATMUL_H

#include "ops.h"

/** c[m, n], op(a)[m, k], op(b)[k, n]. */
typedef struct sago_matmul_sizes {
    int64_t m, n, k;
} sago_matmul_sizes;

/**
 * Errors: SAGO_E_SHAPE when the three do not fit. a and b have one dtype, f32 or, where the device stores it,
 * bf16; c is f32 or has that dtype.
 */
sago_status sago_matmul_check(const sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                              const sago_matmul_args *args, sago_matmul_sizes *out) SAGO_MUST_CHECK;

#endif
