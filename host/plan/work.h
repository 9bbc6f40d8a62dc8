// SPDX-License-Identifier: Apache-2.0
/**
 * Work: what one block costs a device, forward and backward: FLOPs, seconds of computing, and what its
 * collectives over the model axis carry. The model of time is docs/plan.md's.
 */
#ifndef SAGO_WORK_H
#define SAGO_WORK_H

#include "workload.h"

typedef enum sago_visit_kind {
    SAGO_VISIT_EMBEDDING,
    SAGO_VISIT_ENCODER,
    SAGO_VISIT_DECODER,  /* T5's, with cross-attention */
    SAGO_VISIT_PARALLEL, /* PaLM's */
    SAGO_VISIT_HEAD,     /* logits and loss, forward and backward at once */
    SAGO_VISIT_KINDS
} sago_visit_kind;

/** One way through a block of one micro-batch. */
typedef struct sago_pass_cost {
    double flops;                       /* of products and attention, this device's */
    double seconds;                     /* of computing */
    int gathers, scatters;              /* collectives over the model axis */
    double gather_bytes, scatter_bytes; /* of the whole tensor that one of them carries */
} sago_pass_cost;

typedef struct sago_block_cost {
    sago_pass_cost forward, again, backward; /* again: forward once more where blocks recompute */
} sago_block_cost;

/** rows: of the micro-batch. */
sago_block_cost sago_block_cost_of(const sago_workload *work, const sago_layout *layout,
                                   const sago_hardware *hardware, sago_visit_kind kind, int64_t rows);

/** Seconds of zeroing, norm and Adafactor over the elements that a device holds. */
double sago_optimizer_seconds(const sago_workload *work, const sago_hardware *hardware, int64_t elements);

/** FLOPs of a step that the model asks for: products and pairs, forward and twice that backward, of full rows
 * with one segment each. What MFU counts; recomputation is not in it. */
double sago_step_flops(const sago_workload *work);

/** 6 a parameter and token (half the parameters for an encoder-decoder, whose tokens each see one stack), of
 * a step. */
double sago_step_flops_by_parameters(const sago_workload *work);

/** FLOP/s of a device by its data sheet, for the workload's precision. */
double sago_peak_flops(const sago_workload *work, const sago_hardware *hardware);

#endif
