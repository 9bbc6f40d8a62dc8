// SPDX-License-Identifier: Apache-2.0
#include "schedule.h"

#include <math.h>
#include <string.h>

double sago_schedule_rate(const sago_config *config, int64_t k) {
    double peak = config->optimizer.learning_rate, final = config->optimizer.final_learning_rate;
    double w = (double)config->optimizer.warmup_steps, length = (double)config->optimizer.schedule_steps;
    const char *name = config->optimizer.schedule;
    double rate = peak;
    if (strcmp(name, "rsqrt") == 0) {
        rate = peak * sqrt(length / fmax((double)k, length));
    } else if (strcmp(name, "constant") != 0) {
        double x = fmin(fmax(((double)k - w) / (length - w), 0), 1);
        rate = strcmp(name, "cosine") == 0 ? final + (peak - final) * (1 + cos(M_PI * x)) / 2
                                           : peak + (final - peak) * x;
    }
    return w > 0 && (double)k < w ? rate * (double)k / w : rate;
}
