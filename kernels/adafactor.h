// SPDX-License-Identifier: Apache-2.0
/**
 * What every device's Adafactor has in common: the checks, and the few scalars of a parameter that its
 * elements share.
 */
#ifndef SAGO_ADAFACTOR_H
#define SAGO_ADAFACTOR_H

#include "ops.h"

/** Added to every squared gradient, so that rows and columns without gradient have a moment to divide by. */
#define SAGO_ADAFACTOR_EPSILON 1e-30

/** The local piece as a matrix; a vector is one row. */
void sago_adafactor_extent(const sago_adafactor_slot *slot, int64_t *rows, int64_t *columns);

/**
 * Mean over all rows of the whole parameter's row moments. A piece that holds some of the rows sees the whole
 * columns' moments, and both means are the same number: the exponential average of the mean of s. A piece that
 * holds some of both has it from the slot's mean_parts. 1 where not factored.
 */
double sago_adafactor_mean(const sago_adafactor_slot *slot, double beta2);

/** lr * max(RMS(p), minimum) / max(1, RMS(y) / threshold): what y is multiplied by. */
double sago_adafactor_factor(const sago_adafactor_slot *slot, const sago_adafactor_args *args);

/** Shapes and pointers of all slots; the message names the slot's number. */
sago_status sago_adafactor_check(const char *operation, const sago_adafactor_slot slots[], int n,
                                 const sago_adafactor_args *args) SAGO_MUST_CHECK;

#endif
