// SPDX-License-Identifier: Apache-2.0
/**
 * Fully sharded data parallelism over the data axis of the mesh (ZeRO stage 3, Rajbhandari et al. 2020; FSDP,
 * Zhao et al. 2023).
 *
 * Of every parameter a rank holds the values, the summed gradient and the optimizer's state of its own rows
 * alone (sago_registry_cut_rows). The model reads whole parameters of a block that were gathered into a slot,
 * and writes the block's whole gradients of this rank's tokens, which are then summed over the ranks and
 * scattered:
 *
 *     values[p]    = rows of rank 0, rows of rank 1, ...                       one all-gather a parameter
 *     gradients[p] = sum over ranks of this rank's rows of their gradients     one reduce-scatter a parameter
 *
 * A pass enters the blocks 0, 1 ... n - 1 forward, then n - 1 ... 1 backward. There are three slots: block 0
 * (what all blocks may read: embedding, position biases) has one and stays; the others take turns in two.
 * Entering a block waits for its values and starts to gather those of the next one, while the device works on
 * this one; its gradients start to travel when they are final, and are waited for when their slot is needed
 * again, two blocks later. Between the two directions nothing is gathered twice: the last two blocks are
 * still there.
 *
 * keep: every block has a slot of its own. It is gathered once a step, and its gradients add up over the
 * micro-batches before they travel once.
 *
 * Sums are in rank order in fp32, so that a run repeats bit for bit. Every rank enters the same blocks in the
 * same order, also for a micro-batch in which it has nothing to compute.
 */
#ifndef SAGO_FSDP_H
#define SAGO_FSDP_H

#include "device.h"
#include "mesh.h"
#include "registry.h"
#include "tensor.h"

typedef struct sago_fsdp sago_fsdp;

/**
 * whole: what the model computes with; held: its cut for this rank; both outlive it. dtype: of values. The
 * mesh's data axis carries the collectives, in the order of the calls below. Errors: SAGO_E_MEMORY.
 */
sago_status sago_fsdp_open(const sago_registry *whole, const sago_registry *held, sago_mesh *mesh,
                           sago_device *device, sago_dtype dtype, bool keep, sago_fsdp **out) SAGO_MUST_CHECK;
void sago_fsdp_close(sago_fsdp *fsdp);         /* NULL is fine; waits for what is under way */
size_t sago_fsdp_bytes(const sago_fsdp *fsdp); /* device memory of the slots */

/** A step begins: values and gradients are flat buffers of `held`; what was gathered before is out of date,
 * and gradients (zeroed by the caller) are added to. */
sago_status sago_fsdp_begin(sago_fsdp *fsdp, const void *values, float *gradients) SAGO_MUST_CHECK;
/** Waits for all sums; gradients then hold them. */
sago_status sago_fsdp_finish(sago_fsdp *fsdp) SAGO_MUST_CHECK;

typedef enum sago_direction { SAGO_FORWARD, SAGO_BACKWARD } sago_direction;

/** The block's values may be read from now on and, backward, its gradients added to. Twice for the same is
 * once. */
sago_status sago_fsdp_enter(sago_fsdp *fsdp, int block, sago_direction direction) SAGO_MUST_CHECK;
/** The block's gradients are final for this micro-batch (keep: for the step). Block 0 comes last. */
sago_status sago_fsdp_block_done(sago_fsdp *fsdp, int block) SAGO_MUST_CHECK;

/** A whole parameter or its gradient in its block's slot. */
sago_tensor sago_fsdp_value(const sago_fsdp *fsdp, int param);
sago_tensor sago_fsdp_gradient(const sago_fsdp *fsdp, int param);

/** All of `whole`'s flat buffer from held values, for evaluation. */
sago_status sago_fsdp_gather_all(sago_fsdp *fsdp, const void *held, void *whole) SAGO_MUST_CHECK;

#endif
