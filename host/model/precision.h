// SPDX-License-Identifier: Apache-2.0
/**
 * Precision: what train.precision means on a device. All who ask whether to compute in bf16 ask here.
 */
#ifndef SAGO_PRECISION_H
#define SAGO_PRECISION_H

#include "config.h"
#include "device.h"
#include "mesh.h"

#include <stdbool.h>

/**
 * True where matrix products are to be in bf16, false where in fp32: as train.precision states, and under
 * auto bf16 where the device stores it (a GPU), else fp32; fp32 on the device sim too, which is there to
 * compare results exactly.
 */
bool sago_precision_bf16(const sago_config *config, const sago_device *device);

/** One for all ranks, of which some may lack a GPU: the choice of rank 0. Under auto the log says which and
 * why. Collective. */
sago_status sago_precision_agree(const sago_config *config, const sago_device *device, sago_mesh *mesh,
                                 bool *bf16) SAGO_MUST_CHECK;

/** "bf16" or "fp32": the words of train.precision. */
const char *sago_precision_name(bool bf16);

#endif
