// SPDX-License-Identifier: Apache-2.0
/**
 * Products of a few rows, as decoding has them: every value of b is used once, so that reading b is the work.
 */
#ifndef SAGO_CPU_PRODUCT_FEW_H
#define SAGO_CPU_PRODUCT_FEW_H

#include "device.h"
#include "isa.h"
#include "onednn.h"

/* Most rows of a. */
#define SAGO_FEW_ROWS 8

/**
 * c = alpha a op(b) + beta c for up to SAGO_FEW_ROWS rows of a, which is not transposed; with bf16 a and b
 * are rounded to bf16 first. A row's result does not depend on the rows beside it. Errors: SAGO_E_MEMORY for
 * its scratch, 8 k floats. The same bits for any number of threads.
 */
sago_status SAGO_CPU(product_few)(sago_device *device, const sago_gemm *g, bool bf16, float *c,
                                  const float *a, const float *b);

/**
 * Column b[k] of the same product, transposed, in fp32, without beta: c[m], the same bits. a has zeros up to
 * SAGO_FEW_ROWS rows.
 */
void SAGO_CPU(product_few_column)(const sago_gemm *g, float *c, const float *a, const float *b);

#endif
