// SPDX-License-Identifier: Apache-2.0
/**
 * Gradient reduction overlapped with backward: the flat gradient buffer is cut into buckets of whole blocks, last block
 * first. A bucket's sum over the data axis starts when all its blocks are final and the buckets before it have started,
 * so that every rank submits the same order, also one that has no rows this step.
 */
#ifndef SAGO_REDUCE_H
#define SAGO_REDUCE_H

#include "mesh.h"
#include "registry.h"

typedef struct sago_reducer sago_reducer;

sago_status sago_reducer_open(const sago_registry *registry, sago_mesh *mesh, int64_t bucket_bytes,
                              sago_reducer **out) SAGO_MUST_CHECK;
void sago_reducer_close(sago_reducer *reducer);

/** Begins a step over these gradients. */
void sago_reducer_begin(sago_reducer *reducer, float *gradients);

/** A block's gradients are final; for sago_loss_args.block_done, with the reducer as context. */
sago_status sago_reducer_block_done(void *reducer, int block) SAGO_MUST_CHECK;

/** Submits what is left and waits for all buckets. */
sago_status sago_reducer_finish(sago_reducer *reducer) SAGO_MUST_CHECK;

#endif
