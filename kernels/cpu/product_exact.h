// SPDX-License-Identifier: Apache-2.0
/**
 * Small matrix products, c = alpha * op(a) op(b) + beta * c, with sums in double and one rounding at the end.
 */
#ifndef SAGO_CPU_PRODUCT_EXACT_H
#define SAGO_CPU_PRODUCT_EXACT_H

#include "device.h"
#include "isa.h"
#include "onednn.h"

/* m n k up to here: some 0.3 ms on one core, three times what fp32 takes. */
#define SAGO_EXACT_MOST 16777216.0

bool SAGO_CPU(product_is_small)(const sago_gemm *g);

/** Errors: SAGO_E_MEMORY for its scratch, n k doubles. The same bits for any number of threads. */
sago_status SAGO_CPU(product_exact)(sago_device *device, const sago_gemm *g, float *c, const float *a, const float *b);

#endif
