// SPDX-License-Identifier: Apache-2.0
#include "gpu_ops.h"

#define SAGO_GPU_ENTRY(name) .name = SAGO_GPU(name),
const sago_ops SAGO_GPU(table) = {SAGO_EACH_OP(SAGO_GPU_ENTRY)};
