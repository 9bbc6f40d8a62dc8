// SPDX-License-Identifier: Apache-2.0
/**
 * A device whose operations are another device's with a clock around each: where the time of a step goes,
 * without a line of measurement in the code that is measured.
 */
#ifndef SAGO_TIMED_DEVICE_H
#define SAGO_TIMED_DEVICE_H

#include "json.h"
#include "ops.h"

/** Wraps device; one at a time. Products with a dim of vocabulary are a part of their own ("logits"). */
sago_device *timed_device_open(sago_device *device, int64_t vocabulary);

/** Forgets all time so far. */
void timed_device_reset(void);

/** {"matmul forward": {"seconds": s / steps, "calls": n / steps}, ...}, the longest first; *total seconds /
 * steps. */
json_t *timed_device_parts(double steps, double *total);

#endif
