// SPDX-License-Identifier: Apache-2.0
/**
 * Matrix products of oneDNN behind two calls, the same for its versions 2 and 3.
 */
#ifndef SAGO_ONEDNN_H
#define SAGO_ONEDNN_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

/** c[m, n] = alpha * op(a)[m, k] op(b)[k, n] + beta * c, all row-major and dense. */
typedef struct sago_gemm {
    int64_t m, n, k;
    bool transpose_a, transpose_b;
    float alpha, beta;
} sago_gemm;

/** Primitives made so far, the least recently used one leaving first. */
typedef struct sago_onednn sago_onednn;

sago_status sago_onednn_open(sago_onednn **out) SAGO_MUST_CHECK;
void sago_onednn_close(sago_onednn *onednn);

/** In fp32. */
sago_status sago_onednn_f32(const sago_gemm *gemm, float *c, const float *a, const float *b,
                            int n_threads) SAGO_MUST_CHECK;

/**
 * With a and b in bf16, sums and c in fp32. *supported is false, and nothing was done, where this oneDNN has
 * no such product for this processor.
 */
sago_status sago_onednn_bf16(sago_onednn *onednn, const sago_gemm *gemm, float *c, const uint16_t *a,
                             const uint16_t *b, int n_threads, bool *supported) SAGO_MUST_CHECK;

#endif
