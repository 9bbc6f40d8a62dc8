// SPDX-License-Identifier: Apache-2.0
/**
 * Where and with what a run was started: for RUN/environment.json and the report.
 */
#ifndef SAGO_ENVIRONMENT_H
#define SAGO_ENVIRONMENT_H

#include "json.h"

struct sago_trainer;

/** {"host", "ranks", "device", "threads", "mpi", "sago", "started", "parameters", "memory_bytes": {...}}; new reference. */
json_t *sago_environment_describe(const struct sago_trainer *trainer);

#endif
