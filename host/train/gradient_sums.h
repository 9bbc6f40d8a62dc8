// SPDX-License-Identifier: Apache-2.0
/**
 * What ranks add up of the gradients once a step, after these were summed, or summed and scattered, over the
 * data axis.
 *
 * A parameter that every rank of the model axis holds whole (norm scales; a single key/value head) has seen
 * on each the rank's own tokens or heads alone: its gradient is the sum over the axis. All of them travel as
 * one sum. Of the squared norm each rank adds what it alone holds, and the first one what all hold; where the
 * data axis is fully sharded, its ranks hold other rows each and add theirs.
 */
#ifndef SAGO_GRADIENT_SUMS_H
#define SAGO_GRADIENT_SUMS_H

#include "device.h"
#include "mesh.h"
#include "registry.h"

typedef struct sago_gradient_sums sago_gradient_sums;
sago_status sago_gradient_sums_open(const sago_registry *registry, sago_mesh *mesh, sago_device *device,
                                    sago_gradient_sums **out) SAGO_MUST_CHECK;
void sago_gradient_sums_close(sago_gradient_sums *sums); /* NULL is fine */

/** Over the model axis, what all its ranks hold. gradients: the flat buffer, on the device. */
sago_status sago_gradient_sums_join(sago_gradient_sums *sums, float *gradients) SAGO_MUST_CHECK;
/** *squares (device memory) = squared L2 norm of the whole model's gradient, the same on every rank. Waits
 * for the device where ranks share a model. */
sago_status sago_gradient_sums_squares(sago_gradient_sums *sums, float *gradients,
                                       double *squares) SAGO_MUST_CHECK;

#endif
