// SPDX-License-Identifier: Apache-2.0
/**
 * Machine checks: what sago needs of the machine that this process runs on, one finding each.
 */
#ifndef SAGO_MACHINE_CHECKS_H
#define SAGO_MACHINE_CHECKS_H

#include "json.h"

/** Appends {"name", "status": "ok" | "info" | "warn" | "fail", "text", "remedy"} to findings. remedy "" when
 * ok. */
void sago_finding_add(json_t *findings, const char *name, const char *status, const char *remedy,
                      const char *format, ...) SAGO_PRINTF(5, 6);

/**
 * Processor, memory, threads, disk of the current folder, the chosen device. cores: those of this rank; local_size:
 * ranks on this node; device_text: what the opened device calls itself, NULL when it did not open.
 */
void sago_machine_check(json_t *findings, int cores, int local_size, const char *device_text);

#endif
