// SPDX-License-Identifier: Apache-2.0
/**
 * The checks of sampling, the same for every device.
 */
#ifndef SAGO_CHECK_SAMPLE_H
#define SAGO_CHECK_SAMPLE_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops.h"

/** i32 ids[n], f32 logprobs[n], logits[n, V] with V from 1 to INT32_MAX; settings in their ranges. */
sago_status sago_check_sample(sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                              const sago_sample_args *args) SAGO_MUST_CHECK;

/** Says that the logits of a row are not finite. */
sago_status sago_sample_nonfinite(int64_t row) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
