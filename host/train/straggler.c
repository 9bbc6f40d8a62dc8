// SPDX-License-Identifier: Apache-2.0
#include "straggler.h"

#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void sago_rank_times_add(sago_rank_times *times, double step_seconds, double data_wait_seconds,
                         double comm_wait_seconds) {
    times->steps++;
    times->step_seconds += step_seconds;
    times->data_wait_seconds += data_wait_seconds;
    times->comm_wait_seconds += comm_wait_seconds;
}

double sago_rank_times_compute(const sago_rank_times *times) {
    return fmax(0, times->step_seconds - times->data_wait_seconds - times->comm_wait_seconds);
}

const char *sago_straggler_part_name(sago_straggler_part part) {
    static const char *const names[] = {"compute", "data wait", "messages"};
    return names[part];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double lower_median(const double values[], int n) {
    double *sorted = sago_alloc((size_t)n * sizeof *sorted);
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    double median = sorted[(n - 1) / 2];
    free(sorted);
    return median;
}

void sago_straggler_find(const double seconds[], int n, sago_straggler *out) {
    double medians[SAGO_N_PARTS], most = -INFINITY;
    for (int p = 0; p < SAGO_N_PARTS; p++) medians[p] = lower_median(seconds + (size_t)p * (size_t)n, n);
    for (int r = 0; r < n; r++) {
        double excess[SAGO_N_PARTS];
        for (int p = 0; p < SAGO_N_PARTS; p++) excess[p] = seconds[p * n + r] - medians[p];
        /* Who computes longer sends later: that is no fault of its messages. */
        double own = excess[SAGO_PART_COMPUTE] + excess[SAGO_PART_DATA];
        excess[SAGO_PART_MESSAGES] -= fmax(0, own);
        double total = own + fmax(0, excess[SAGO_PART_MESSAGES]);
        if (!(total > most)) continue;
        most = total;
        int worst = SAGO_PART_COMPUTE;
        for (int p = 0; p < SAGO_N_PARTS; p++)
            if (excess[p] > excess[worst]) worst = p;
        *out = (sago_straggler){r, (sago_straggler_part)worst, seconds[worst * n + r], medians[worst],
                                excess[worst]};
    }
}
