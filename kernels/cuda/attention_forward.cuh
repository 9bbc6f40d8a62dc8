// SPDX-License-Identifier: Apache-2.0
/**
 * The ways in which a GPU computes forward attention; attention_forward.cu chooses. All take a checked call.
 */
#ifndef SAGO_ATTENTION_FORWARD_CUH
#define SAGO_ATTENTION_FORWARD_CUH

#include "attention_common.cuh"

typedef struct attention_forward_call {
    sago_attention_sizes sizes;
    const sago_attention_args *args;
    sago_tensor o, lse, q, k, v;
} attention_forward_call;

/** Few queries: the keys of each are split over blocks, and every key and value is read once for all its
 * heads. */
sago_status SAGO_GPU(attention_forward_few)(sago_gpu *gpu, const attention_forward_call *call);

/** bf16 with rows of whole 16 bytes, on tensor cores. */
sago_status SAGO_GPU(attention_forward_mma)(sago_gpu *gpu, const attention_forward_call *call);

#endif
