// SPDX-License-Identifier: Apache-2.0
/**
 * What ranks that share a model add up once a step, after its gradients were summed over the data axis.
 *
 * A parameter that every rank of the model axis holds whole (norm scales; a single key/value head) has seen
 * on each the rank's own tokens or heads alone: its gradient is the sum over the axis. All of them travel as
 * one sum. Of the squared norm each rank adds what it alone holds, and the first one what all hold; where the data axis
 * is fully sharded, its ranks hold other rows each and add theirs.
 */
#ifndef SAGO_MODEL_AXIS_H
#define SAGO_MODEL_AXIS_H

#include "device.h"
#include "mesh.h"
#include "registry.h"

typedef struct sago_model_axis sago_model_axis;
sago_status sago_model_axis_open(const sago_registry *registry, sago_mesh *mesh, sago_device *device,
                                 sago_model_axis **out) SAGO_MUST_CHECK;
void sago_model_axis_close(sago_model_axis *axis); /* NULL is fine */

/** gradients: the flat buffer, on the device. */
sago_status sago_model_axis_sum(sago_model_axis *axis, float *gradients) SAGO_MUST_CHECK;
/** *squares (device memory) = squared L2 norm of the whole model's gradient, the same on every rank. Waits for the device
 * where ranks share a model. */
sago_status sago_model_axis_squares(sago_model_axis *axis, float *gradients, double *squares) SAGO_MUST_CHECK;

#endif
