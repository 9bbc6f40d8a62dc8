// SPDX-License-Identifier: Apache-2.0
/**
 * Memory of one device, by kind. Activations are what host/model itself plans (it is opened on a device that
 * only counts); everything else is counted from the registry's rows. docs/plan.md has the formulas.
 */
#ifndef SAGO_PLAN_MEMORY_H
#define SAGO_PLAN_MEMORY_H

#include "workload.h"

typedef enum sago_memory_kind {
    SAGO_MEMORY_PARAMETERS,
    SAGO_MEMORY_GRADIENTS,
    SAGO_MEMORY_OPTIMIZER,
    SAGO_MEMORY_ACTIVATIONS,
    SAGO_MEMORY_GATHERED,  /* blocks that are whole for a while, over the data axis */
    SAGO_MEMORY_WORKSPACE, /* what the program does not hand out itself */
    SAGO_MEMORY_HOST,      /* batches under way and the copy that a checkpoint is written from: of the host */
    SAGO_MEMORY_KINDS
} sago_memory_kind;
const char *sago_memory_name(sago_memory_kind kind);

typedef struct sago_memory {
    int64_t bytes[SAGO_MEMORY_KINDS];
    int64_t device_bytes; /* all that lies on the device; where its memory is the host's, everything */
    int64_t room_bytes;   /* what the device has */
} sago_memory;

/** What a layout needs of the registry; one for all layouts with the same axes. */
typedef struct sago_shares {
    int64_t n_blocks;
    int64_t *block_elements;  /* of each block, cut over the model axis alone */
    int64_t elements;         /* of all blocks */
    int64_t largest;          /* of the largest block */
    int64_t held_elements;    /* that a rank keeps: a share where the data axis is sharded */
    int64_t optimizer_bytes;  /* of what it keeps, as host/train lays it out */
    int64_t checkpoint_bytes; /* parameters and optimizer state in fp32, a data rank's part */
} sago_shares;

sago_status sago_shares_open(const sago_workload *work, const sago_layout *layout,
                             sago_shares *out) SAGO_MUST_CHECK;
void sago_shares_close(sago_shares *shares);

sago_status sago_memory_plan(const sago_workload *work, const sago_layout *layout,
                             const sago_hardware *hardware, const sago_shares *shares,
                             sago_memory *out) SAGO_MUST_CHECK;

/** Device bytes that sago_model_open would take for the activations of this layout. */
sago_status sago_activation_bytes(const sago_workload *work, const sago_layout *layout,
                                  int64_t *out) SAGO_MUST_CHECK;

static inline bool sago_memory_fits(const sago_memory *memory) {
    return memory->device_bytes <= memory->room_bytes;
}

#endif
