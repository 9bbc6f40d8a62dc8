// SPDX-License-Identifier: Apache-2.0
/**
 * Learning-rate schedules. k counts steps from 1; w = warmup_steps, T = schedule_steps, peak = learning_rate.
 *
 *     warm-up    factor min(1, k / w) on all of them (w = 0: none)
 *     constant   peak
 *     rsqrt      peak * sqrt(T / max(k, T)): constant for T steps, then ~ 1/sqrt(k); T5's and PaLM's with T = 10,000
 *     cosine     final + (peak - final) * (1 + cos(pi * x)) / 2, x = clamp((k - w) / (T - w), 0, 1)
 *     linear     peak + (final - peak) * x
 */
#ifndef SAGO_SCHEDULE_H
#define SAGO_SCHEDULE_H

#include "config.h"

/** The learning rate of step k >= 1. */
double sago_schedule_rate(const sago_config *config, int64_t k);

#endif
