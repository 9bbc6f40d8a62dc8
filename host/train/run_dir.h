// SPDX-License-Identifier: Apache-2.0
/**
 * Run directory: what a training run leaves behind.
 *
 *     RUN/config.yaml        the resolved configuration; `sago train RUN/config.yaml` continues the run
 *     RUN/metrics.jsonl      a line a step, and a line an event ("event": "resume", "spike", ...)
 *     RUN/mixture.json       what was drawn, by member and task, as of the last checkpoint
 *     RUN/environment.json   where and with what the run was last started
 *     RUN/checkpoints/       step-000120/ ... (ckpt.h)
 *     RUN/.lock              held while a process trains there
 *
 * Rank 0 alone writes here, apart from checkpoints.
 */
#ifndef SAGO_RUN_DIR_H
#define SAGO_RUN_DIR_H

#include "config.h"
#include "json.h"
#include "status.h"

#include <stdbool.h>
#include <stdio.h>

/** RUN/checkpoints. New memory. */
char *sago_run_checkpoints(const char *run_dir);

/** Makes the folder and writes config.yaml if it is not there yet or differs. */
sago_status sago_run_prepare(const sago_config *config) SAGO_MUST_CHECK;

/**
 * Metrics file open for appending, with every line after last_step dropped first, and a torn last line too (a process
 * killed while it wrote). Lines that stay keep their bytes.
 */
sago_status sago_metrics_open(const char *run_dir, int64_t last_step, FILE **out) SAGO_MUST_CHECK;

/** Appends one line and hands it to the system, so that a killed process loses no finished step. */
sago_status sago_metrics_append(FILE *file, const json_t *line) SAGO_MUST_CHECK;

/** Replaces RUN/NAME by this value and drops the reference. */
sago_status sago_run_write_json(const char *run_dir, const char *name, json_t *value) SAGO_MUST_CHECK;

#endif
