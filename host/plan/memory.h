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

/** A block's parameters, cut over the model axis. */
typedef struct sago_block_share {
    int64_t params;   /* how many; each is gathered and scattered by itself */
    int64_t elements; /* of them */
    int64_t room;     /* with the gaps that make each begin on a cache line */
    int64_t held;     /* of elements: what a rank keeps */
} sago_block_share;

/** What a layout needs of the registry; one for all layouts of the same axes that are sharded or are not. Of
 * the rank that keeps most. */
typedef struct sago_shares {
    int64_t n_blocks;
    sago_block_share *blocks;
    int64_t held_elements;    /* that a rank keeps, with gaps: a share where the data axis is sharded */
    int64_t held_params;      /* each with the sum of its squares */
    int64_t packed_elements;  /* of them, whose gradients are summed over the model axis, whose ranks all hold
                                 them */
    int64_t optimizer_bytes;  /* of what it keeps, as host/train lays it out */
    int64_t checkpoint_bytes; /* parameters and optimizer state in fp32, a rank's part */
} sago_shares;

sago_status sago_shares_open(const sago_workload *work, const sago_layout *layout,
                             sago_shares *out) SAGO_MUST_CHECK;
void sago_shares_close(sago_shares *shares);

/** activation_bytes: sago_activation_bytes of the layout. */
void sago_memory_plan(const sago_workload *work, const sago_layout *layout, const sago_hardware *hardware,
                      const sago_shares *shares, int64_t activation_bytes, sago_memory *out);

/** Elements of the slots that whole blocks are gathered into (host/model/fsdp.h); 0 where none are. */
int64_t sago_slot_elements(const sago_layout *layout, const sago_shares *shares);

/** Device bytes that sago_model_open would take for the activations of this layout: the same for every kind
 * and length of its data axis. */
sago_status sago_activation_bytes(const sago_workload *work, const sago_layout *layout,
                                  int64_t *out) SAGO_MUST_CHECK;

static inline bool sago_memory_fits(const sago_memory *memory) {
    return memory->device_bytes <= memory->room_bytes;
}

#endif
