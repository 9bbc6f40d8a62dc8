// SPDX-License-Identifier: Apache-2.0
/**
 * GPU checks: driver, GPUs and how they are connected, the CUDA libraries, and the devices that this program
 * can open. Nothing here needs CUDA: what is missing is said, with the remedy.
 */
#ifndef SAGO_GPU_CHECKS_H
#define SAGO_GPU_CHECKS_H

#include "json.h"

#include <stdbool.h>

/**
 * Appends findings as sago_machine_check does. threads: host threads of a device; local_rank: of this process
 * on its node; wanted: true when the config asks for cuda, so that what stands in its way is a warning and
 * not a remark.
 */
void sago_gpu_check(json_t *findings, int threads, int local_rank, bool wanted);

#endif
