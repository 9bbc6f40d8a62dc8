// SPDX-License-Identifier: Apache-2.0
/**
 * Loss spikes. A step whose loss exceeds train.spike.threshold times the median of the last 64 losses is a
 * spike; the run then goes back to a checkpoint about train.spike.rewind_steps before it and skips
 * train.spike.skip_batches batches (PaLM, Chowdhery et al. 2022, section 5.1). Needs half a window of losses
 * before it judges.
 */
#ifndef SAGO_SPIKE_H
#define SAGO_SPIKE_H

#include <stdbool.h>
#include <stdint.h>

enum { SAGO_SPIKE_WINDOW = 64 };

typedef struct sago_spike_detector {
    double losses[SAGO_SPIKE_WINDOW];
    int64_t seen;
} sago_spike_detector;

/** Judges this loss against the ones before it; a loss that is no spike joins the window. */
bool sago_spike_check(sago_spike_detector *detector, double loss, double threshold);

/** Lets a loss join the window: a spike that nothing can be done about must not be one for ever. */
void sago_spike_accept(sago_spike_detector *detector, double loss);

#endif
