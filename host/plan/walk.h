// SPDX-License-Identifier: Apache-2.0
/**
 * Walk: one step of one device, walked event by event over three queues that each work in order: computing,
 * the links of the model axis, those of the data axis. Plans take their times from it, and timelines are its
 * record.
 */
#ifndef SAGO_PLAN_WALK_H
#define SAGO_PLAN_WALK_H

#include "memory.h"
#include "work.h"

typedef enum sago_queue { SAGO_QUEUE_COMPUTE, SAGO_QUEUE_MODEL, SAGO_QUEUE_DATA, SAGO_QUEUES } sago_queue;

typedef enum sago_event_kind {
    SAGO_EVENT_FORWARD,
    SAGO_EVENT_AGAIN, /* forward for backward */
    SAGO_EVENT_BACKWARD,
    SAGO_EVENT_LOSS,
    SAGO_EVENT_ADD, /* a slot's gradients zeroed, or their sums added to the step's */
    SAGO_EVENT_OPTIMIZER,
    SAGO_EVENT_GATHER,  /* model axis: rows; data axis: a block's parameters */
    SAGO_EVENT_SCATTER, /* model axis: rows; data axis: a block's gradients, to the rank that keeps them */
    SAGO_EVENT_SUM,     /* gradients to everyone */
    SAGO_EVENT_KINDS
} sago_event_kind;
const char *sago_event_name(sago_event_kind kind);

typedef struct sago_event {
    sago_queue queue;
    sago_event_kind kind;
    int block, micro_batch; /* block -1: all */
    double start, end;      /* seconds from the step's beginning */
} sago_event;

/** Where the walk writes its events; grows. */
typedef struct sago_timeline {
    sago_event *events;
    int64_t count, room;
} sago_timeline;
void sago_timeline_free(sago_timeline *timeline);

typedef struct sago_step_time {
    double seconds;
    double compute; /* forward, backward, loss */
    double optimizer;
    double exposed_model, exposed_data; /* that computing waited for each axis */
    double model_bytes, data_bytes;     /* sent by a device on each */
    double flops;                       /* of products and attention by a device, recomputation in it */
} sago_step_time;

/** timeline may be NULL. */
void sago_walk_step(const sago_workload *work, const sago_layout *layout, const sago_hardware *hardware,
                    const sago_shares *shares, sago_step_time *out, sago_timeline *timeline);

/** The timeline as one SVG: a lane a queue, events by kind; title stands above. */
void sago_timeline_svg(const sago_timeline *timeline, const sago_step_time *step, const char *title,
                       sago_str *out);

#endif
