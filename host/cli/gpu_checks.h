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

/** Of one GPU, as its driver tells. */
typedef struct sago_gpu_facts {
    char driver[96], name[96]; /* name "": the driver hands none out */
    char links[64];            /* "18 NVLinks, PCIe 5 x16" */
    unsigned clock_mhz;        /* of its processors, now */
    unsigned long long slowed; /* NVML's reasons of hardware slowdown, heat and power brake; 0: none */
} sago_gpu_facts;

/**
 * The GPU of this PCI address; with address "" the local_rank-th modulo their number. False where there is no
 * driver.
 */
bool sago_gpu_facts_read(const char *address, int local_rank, sago_gpu_facts *out);

#endif
