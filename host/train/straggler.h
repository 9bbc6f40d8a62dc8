// SPDX-License-Identifier: Apache-2.0
/**
 * Stragglers: which rank holds the others up, and in what part of a step.
 *
 * Ranks meet in every step, so all of them take the same time for it, and a slow one is the one that waits
 * least. What is compared is therefore the time that a rank needs for itself:
 *
 *     compute    its steps less its waits for data and for other ranks
 *     data wait  for its own batches
 *     messages   how long the others' sums waited for its messages, less what the two above explain: a
 *                slow link, or a processor that is not free to send; of sums that MPI carries
 *                (sago_mesh_late_seconds)
 *
 * All are clocks that the host reads anyway; ranks exchange them once a report.
 */
#ifndef SAGO_STRAGGLER_H
#define SAGO_STRAGGLER_H

#include <stdint.h>

/** What the steps of a rank took, in all. */
typedef struct sago_rank_times {
    int64_t steps;
    double step_seconds, data_wait_seconds, comm_wait_seconds;
} sago_rank_times;

void sago_rank_times_add(sago_rank_times *times, double step_seconds, double data_wait_seconds,
                         double comm_wait_seconds);
/** Seconds of all steps that were neither wait; at least 0. */
double sago_rank_times_compute(const sago_rank_times *times);

typedef enum sago_straggler_part {
    SAGO_PART_COMPUTE,
    SAGO_PART_DATA,
    SAGO_PART_MESSAGES,
    SAGO_N_PARTS
} sago_straggler_part;

/** "compute", "data wait", "messages" */
const char *sago_straggler_part_name(sago_straggler_part part);

typedef struct sago_straggler {
    int rank;
    sago_straggler_part part; /* the one that it exceeds the median of all ranks in by most */
    double seconds, median;   /* of that part; the median is the lower one of an even number of ranks */
    double excess;            /* what it holds the others up by, in that part */
} sago_straggler;

/** The slowest of n ranks. seconds[part * n + rank]: of each part on each rank; messages as waited for by the
 * others. */
void sago_straggler_find(const double seconds[], int n, sago_straggler *out);

#endif
