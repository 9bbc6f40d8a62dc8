// SPDX-License-Identifier: Apache-2.0
#include "gpu_ops.h"

/* An operation without a definition stands as NULL in the table: the device then refuses to open and names
 * it. */
#define SAGO_GPU_WEAK(name)                                                                                  \
    extern __typeof__(*((const sago_ops *)0)->name) SAGO_GPU(name) __attribute__((weak));
SAGO_EACH_OP(SAGO_GPU_WEAK)

#define SAGO_GPU_ENTRY(name) .name = SAGO_GPU(name),
const sago_ops SAGO_GPU(table) = {SAGO_EACH_OP(SAGO_GPU_ENTRY)};
