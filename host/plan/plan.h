// SPDX-License-Identifier: Apache-2.0
/**
 * Plan: what a configuration takes on given hardware, before anything is allocated: memory by kind, FLOPs,
 * bytes on each axis, time, cost; and the fastest layout that fits, found by trying all.
 */
#ifndef SAGO_PLAN_H
#define SAGO_PLAN_H

#include "json.h"
#include "walk.h"

/** Kinds of data axis that are planned for: the configuration's for its own layout and any in the search, or
 * one alone. */
typedef enum sago_axis_choice { SAGO_ANY_AXIS, SAGO_ONLY_REPLICATED, SAGO_ONLY_SHARDED } sago_axis_choice;

typedef struct sago_plan_options {
    int64_t nodes, devices_per_node; /* devices_per_node 0: the hardware's */
    sago_axis_choice data_axis;
    double price; /* of a device for an hour; 0: not asked */
} sago_plan_options;

/** One layout of the workload. */
typedef struct sago_projection {
    sago_layout layout;
    sago_memory memory;
    int64_t
        other_activation_bytes; /* with recomputation where the layout has none, and the other way round */
    sago_step_time step;
    double mfu;               /* sago_step_flops of all devices' data sheet */
    double tokens_per_second; /* of full rows, inputs and targets */
} sago_projection;

typedef struct sago_planned {
    sago_workload work;
    sago_hardware hardware;
    sago_plan_options options;
    int64_t devices;
    sago_projection as_configured;
    bool has_best; /* some layout fits */
    sago_projection best;
    int tried, fitting; /* layouts of the search */
} sago_planned;

/** config must outlive out. Errors: SAGO_E_CONFIG, SAGO_E_SHAPE name the key. */
sago_status sago_plan_open(const sago_config *config, const sago_hardware *hardware,
                           const sago_plan_options *options, sago_planned *out) SAGO_MUST_CHECK;

/** One layout; shares of its axes, activation_bytes as sago_activation_bytes has them. */
void sago_project(const sago_planned *planned, const sago_layout *layout, const sago_shares *shares,
                  int64_t activation_bytes, sago_projection *out);

/** search.c: fills best, tried and fitting. */
sago_status sago_plan_search(sago_planned *planned) SAGO_MUST_CHECK;

/** The layout of the projection, walked once more for its events. */
sago_status sago_plan_timeline(const sago_planned *planned, const sago_projection *projection,
                               sago_timeline *out) SAGO_MUST_CHECK;

json_t *sago_plan_to_json(const sago_planned *planned);
void sago_plan_text(const sago_planned *planned, sago_str *out);

#endif
