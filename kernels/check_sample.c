// SPDX-License-Identifier: Apache-2.0
#include "check_sample.h"

#include "check.h"

#include <math.h>

sago_status sago_check_sample(sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                              const sago_sample_args *args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(logprobs, logits)) &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(ids)) && sago_tensor_count(ids) == rows &&
                sago_tensor_count(logprobs) == rows && width > 0 && width <= INT32_MAX;
    SAGO_TRY(sago_check_shapes(fits, "sample", "i32 ids[n], f32 logprobs[n], logits[n, V]",
                               SAGO_TENSORS(ids, logprobs, logits)));
    if (!(args->temperature >= 0.0f && isfinite(args->temperature)) || args->top_k < 0 ||
        !(args->top_p > 0.0f && args->top_p <= 1.0f))
        return sago_fail(SAGO_E_INTERNAL, "sample: temperature %g, top_k %d, top_p %g are out of range",
                         (double)args->temperature, args->top_k, (double)args->top_p);
    return SAGO_OK;
}

sago_status sago_sample_nonfinite(int64_t row) {
    return sago_fail(SAGO_E_NONFINITE, "sample: the logits of row %lld are not finite", (long long)row);
}
