// SPDX-License-Identifier: Apache-2.0
/**
 * What the model's benchmarks share: options, medians, memory, the shapes that are measured.
 */
#ifndef SAGO_BENCH_H
#define SAGO_BENCH_H

#include "model.h"

/** The value of --NAME, or fallback. */
int64_t bench_option(int argc, char **argv, const char *name, int64_t fallback);
const char *bench_text(int argc, char **argv, const char *name, const char *fallback);

/**
 * Nanoseconds of the clock that this run reads: time passed, or with --processor-time 1 what this thread's
 * processor has spent, which is the same for one thread on an idle machine and hardly changes on a busy one.
 */
int64_t bench_now_ns(void);
/** Reads --threads and --processor-time (which needs one thread). */
int bench_threads(int argc, char **argv);
/** GFLOP/s of products of 1024 x 1024 matrices by the same clock. */
double bench_ceiling(sago_device *device);

/** {"median", "low", "high", "runs"}; low and high are quartiles. Sorts values. */
json_t *bench_summary(double values[], int n, double *median);

double bench_peak_mib(void); /* VmHWM: the most memory this process has had */

/**
 * Family "t5": "small", "base", "large" and "xl" of T5 v1.1. Family "palm", multi-query with heads as wide as the model:
 * "d1024" (150 million parameters), "1b", "3b", and "8b", the published one. "tiny" of either has 512 ids.
 */
sago_model_shape bench_shape(const char *family, const char *size);

/** Prints the message and ends the program when status is a failure. */
void bench_check(sago_status status);

/** The command line as one string. */
json_t *bench_command(int argc, char **argv);

#endif
