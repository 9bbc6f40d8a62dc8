// SPDX-License-Identifier: Apache-2.0
/**
 * Rank checks: the pre-flight of a run on many ranks. Each rank measures itself, all at the same time as in
 * training; then the figures of all ranks are laid side by side: a version that differs is an error, a rank
 * that is far below the median is named.
 *
 * A rank's record:
 *     {"rank": 3, "host": "n1",
 *      "clock": 1.8e9,                                   seconds, read by all ranks at once
 *      "late": 0.1,                                      see below
 *      "same": {"hdf5": "1.10.8", ...},                  what must be alike on all ranks
 *      "speeds": {"disk speed": {"value": 210.0, "unit": "MB/s"}, ...},
 *      "failures": [{"name": "disk speed", "status": "fail", "text": "..."}, ...]}
 *
 * Failures are what this rank could not do, or ("warn") does not well. late: how long the other ranks stood
 * waiting for this one's messages, as a share of the sums that they waited in.
 */
#ifndef SAGO_RANK_CHECKS_H
#define SAGO_RANK_CHECKS_H

#include "config.h"
#include "json.h"
#include "mesh.h"

/**
 * Measures this rank: versions; products, and clocks of a GPU; sums of mesh.bucket_bytes on each axis of the
 * mesh, by the way that training sends them; 16 MiB written to dir, and whether dir is the same folder
 * everywhere. Collective. What a rank can't do stands in its record; only the mesh's own failures are
 * returned. *record: a new reference.
 */
sago_status sago_rank_measure(sago_mesh *mesh, const sago_config *config, const char *dir,
                              json_t **record) SAGO_MUST_CHECK;

/** Appends what the records of all ranks, in their order, say together; findings as in machine_checks.h. */
void sago_ranks_judge(const json_t *records, json_t *findings);

#endif
