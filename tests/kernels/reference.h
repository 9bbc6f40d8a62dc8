// SPDX-License-Identifier: Apache-2.0
/**
 * The formulas of reference.inc in both precisions: ref_NAME in double, plain_NAME in float.
 */
#ifndef SAGO_TESTS_REFERENCE_H
#define SAGO_TESTS_REFERENCE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define FORMULAS "reference.inc"
#include "both_precisions.h"

#endif
