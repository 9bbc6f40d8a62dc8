// SPDX-License-Identifier: Apache-2.0
/**
 * Means with bootstrap intervals: percentile bootstrap (Efron 1979), resampling examples inside each task, so that a
 * macro average keeps its tasks. Draws are Philox words of a seed: the same scores give the same interval.
 */
#ifndef SAGO_INTERVAL_H
#define SAGO_INTERVAL_H

#include <stdint.h>

typedef struct sago_interval {
    double mean, low, high; /* low and high: 2.5th and 97.5th percentile of the resampled means */
} sago_interval;

/** Scores of one task. */
typedef struct sago_scores {
    const double *values;
    int64_t n;
} sago_scores;

/** Macro average (every task counts the same) over n_tasks with its interval; tasks without values are left out. */
sago_interval sago_bootstrap(const sago_scores tasks[], int n_tasks, int resamples, uint64_t seed);

#endif
