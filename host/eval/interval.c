// SPDX-License-Identifier: Apache-2.0
#include "interval.h"

#include "rng.h"
#include "str.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double mean(const sago_scores *task) {
    double sum = 0;
    for (int64_t i = 0; i < task->n; i++) sum += task->values[i];
    return sum / (double)task->n;
}

static double resampled_mean(const sago_scores *task, uint64_t key, uint64_t round) {
    double sum = 0;
    for (int64_t i = 0; i < task->n; i += 4) {
        uint32_t word[4];
        sago_philox(key, (uint64_t)i, round, word);
        for (int64_t j = 0; j < 4 && i + j < task->n; j++)
            sum += task->values[((uint64_t)word[j] * (uint64_t)task->n) >> 32];
    }
    return sum / (double)task->n;
}

sago_interval sago_bootstrap(const sago_scores tasks[], int n_tasks, int resamples, uint64_t seed) {
    sago_interval out = {0};
    int counted = 0;
    for (int i = 0; i < n_tasks; i++) {
        if (tasks[i].n == 0) continue;
        out.mean += mean(&tasks[i]);
        counted++;
    }
    if (counted == 0) return out;
    out.mean /= counted;
    out.low = out.high = out.mean;
    if (resamples < 2) return out;
    double *means = sago_alloc_zero((size_t)resamples, sizeof *means);
    for (int r = 0; r < resamples; r++) {
        for (int i = 0; i < n_tasks; i++)
            if (tasks[i].n) means[r] += resampled_mean(&tasks[i], sago_mix(seed, (uint64_t)i), (uint64_t)r);
        means[r] /= counted;
    }
    qsort(means, (size_t)resamples, sizeof *means, by_value);
    out.low = means[(int)(0.025 * (resamples - 1) + .5)];
    out.high = means[(int)(0.975 * (resamples - 1) + .5)];
    free(means);
    return out;
}
