// SPDX-License-Identifier: Apache-2.0
/**
 * Optimizer: Adafactor over the registry. Holds the second moments (and the momentum, when asked for) of
 * every parameter in one device buffer and drives the three phases of the device's adafactor operations.
 *
 * Factored: a matrix whose smaller dimension is at least optimizer.min_factored_dim keeps row[rows] and
 * column[columns]; everything else keeps whole second moments. RMS and clip are per parameter. Source:
 * Shazeer and Stern 2018, in t5x's form; the formula stands at sago_adafactor_slot in ops.h.
 */
#ifndef SAGO_OPTIMIZER_H
#define SAGO_OPTIMIZER_H

#include "ckpt.h"
#include "config.h"
#include "device.h"
#include "mesh.h"
#include "ops.h"
#include "weights.h"

typedef struct sago_optimizer sago_optimizer;

/** Takes zeroed state. mesh: whose axes add up what each rank sees of a parameter that is cut over them, in
 * two sums a step and axis; NULL where none is. Frozen parameters (a group of multiplier 0) have none. */
sago_status sago_optimizer_open(const sago_config *config, const sago_registry *registry, sago_mesh *mesh,
                                sago_device *device, sago_optimizer **out) SAGO_MUST_CHECK;
void sago_optimizer_close(sago_optimizer *optimizer);

/**
 * One step: values updated in place, and weights->squares with them. t >= 1 is the age of the second moments
 * (beta2 = 1 - t^-decay_exponent), rate the schedule's learning rate; control (device memory) clips the
 * gradient, and says whether there is a step at all.
 */
sago_status sago_optimizer_step(sago_optimizer *optimizer, const sago_weights *weights, float *gradients,
                                int64_t t, double rate, const sago_step_control *control) SAGO_MUST_CHECK;

/** Appends one piece per state tensor ("adafactor/row/NAME", .../column/..., /moment/, /momentum/): what this
 * rank holds of each. */
int sago_optimizer_count_pieces(const sago_optimizer *optimizer);
void sago_optimizer_pieces(const sago_optimizer *optimizer, sago_piece *out);

/** Sets the state of one of these pieces to zero. */
sago_status sago_optimizer_clear(sago_optimizer *optimizer, const sago_piece *piece) SAGO_MUST_CHECK;

size_t sago_optimizer_bytes(const sago_optimizer *optimizer);

#endif
