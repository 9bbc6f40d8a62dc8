// SPDX-License-Identifier: Apache-2.0
/**
 * What the model's benchmarks share: options, medians, memory, a T5 of a published size with random weights.
 */
#ifndef SAGO_BENCH_H
#define SAGO_BENCH_H

#include "model.h"

/** The value of --NAME, or fallback. */
int64_t bench_option(int argc, char **argv, const char *name, int64_t fallback);
const char *bench_text(int argc, char **argv, const char *name, const char *fallback);

/** {"median", "low", "high", "runs"}; low and high are quartiles. Sorts values. */
json_t *bench_summary(double values[], int n, double *median);

double bench_peak_mib(void); /* VmHWM: the most memory this process has had */

/** "small", "base", "large": T5 v1.1. */
sago_model_shape bench_shape(const char *size);

/** Prints the message and ends the program when status is a failure. */
void bench_check(sago_status status);

/** The command line as one string. */
json_t *bench_command(int argc, char **argv);

#endif
