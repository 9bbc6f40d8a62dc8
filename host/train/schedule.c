// SPDX-License-Identifier: Apache-2.0
#include "schedule.h"

#include <math.h>
#include <string.h>

sago_status sago_schedule_check(const sago_config *config) {
    const char *name = config->optimizer.schedule;
    if (strcmp(name, "constant") == 0) return SAGO_OK;
    if (config->optimizer.schedule_steps <= 0)
        return sago_fail(SAGO_E_CONFIG,
                         "optimizer.schedule_steps: the %s schedule needs its length; set it to a number of steps > 0",
                         name);
    if (strcmp(name, "rsqrt") != 0 && config->optimizer.warmup_steps >= config->optimizer.schedule_steps)
        return sago_fail(SAGO_E_CONFIG, "optimizer.warmup_steps: %lld must be less than optimizer.schedule_steps %lld",
                         (long long)config->optimizer.warmup_steps, (long long)config->optimizer.schedule_steps);
    return SAGO_OK;
}

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
