// SPDX-License-Identifier: Apache-2.0
/**
 * Every operation of ops.h as the GPU devices implement it: SAGO_GPU(rmsnorm_forward) has the type of
 * sago_ops.rmsnorm_forward, and so on for each name of ops_list.h. The .cu files define them as extern "C";
 * table.c makes one table of them.
 */
#ifndef SAGO_GPU_OPS_H
#define SAGO_GPU_OPS_H

#ifdef __cplusplus
extern "C" {
#endif
#include "gpu.h"
#include "ops_list.h"

#define SAGO_GPU_DECLARE(name) extern __typeof__(*((const sago_ops *)0)->name) SAGO_GPU(name);
SAGO_EACH_OP(SAGO_GPU_DECLARE)
#undef SAGO_GPU_DECLARE

extern const sago_ops SAGO_GPU(table);

/** sago_device.fits_heads (attention_backward.cu). */
sago_status SAGO_GPU(attention_fits)(sago_device *device, int64_t width, bool is_bf16, bool backward);

#ifdef __cplusplus
}
#endif
#endif
