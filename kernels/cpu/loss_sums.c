// SPDX-License-Identifier: Apache-2.0
/**
 * What a step's loss adds up to, and what becomes of the step. Few numbers: one thread, in order.
 */
#include "check.h"
#include "check_loss.h"
#include "cpu_ops.h"

#include <math.h>

sago_status SAGO_CPU(loss_finish)(sago_device *device, sago_tensor lse, sago_loss_sums *sums,
                                  sago_tensor stats, sago_tensor weights,
                                  const sago_cross_entropy_args *args) {
    (void)device;
    SAGO_TRY(sago_check_loss_finish(lse, sums, stats, weights, args));
    const float *weight = weights.data;
    float *out = lse.data;
    double smoothing = (double)args->label_smoothing, vocabulary = (double)args->vocabulary;
    for (int64_t i = 0, n = sago_rows(stats); i < n; i++) {
        const float *s = (const float *)stats.data + i * SAGO_CE_STATS;
        double log_sum = (double)s[SAGO_CE_MAX] + log((double)s[SAGO_CE_SUM_EXP]);
        double w = (double)weight[i], target = (double)s[SAGO_CE_TARGET];
        out[i] = (float)log_sum;
        if (w == 0) continue;
        double mean = (double)s[SAGO_CE_SUM] / vocabulary, z = (double)args->z_loss * log_sum * log_sum;
        sums->nll += w * (log_sum - target);
        sums->z += w * z;
        sums->objective += w * (log_sum - (1 - smoothing) * target - smoothing * mean + z);
        sums->correct += s[SAGO_CE_TARGET] >= s[SAGO_CE_MAX];
        sums->tokens += 1;
    }
    return SAGO_OK;
}

static bool loss_is_finite(const sago_loss_sums *sums) {
    return isfinite(sums->nll) && isfinite(sums->z);
}

sago_status SAGO_CPU(carry_nonfinite)(sago_device *device, sago_tensor gradient, const sago_loss_sums *sums) {
    (void)device;
    SAGO_TRY(sago_check_carry_nonfinite(gradient, sums));
    if (!loss_is_finite(sums)) *(float *)gradient.data = NAN;
    return SAGO_OK;
}

sago_status SAGO_CPU(step_control)(sago_device *device, sago_step_control *control, const double *squares,
                                   const sago_loss_sums *sums, double clip_norm) {
    (void)device;
    double norm = sqrt(*squares);
    *control = (sago_step_control){.gradient_squares = *squares,
                                   .gradient_scale = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1,
                                   .apply = isfinite(*squares) && loss_is_finite(sums)};
    return SAGO_OK;
}
