// SPDX-License-Identifier: Apache-2.0
/**
 * Backward attention on the GPU: what its files share. docs/kernels/attention.md says how the pieces fit
 * together.
 *
 * Per call: small kernels prepare what both big ones read (attention_backward.cu), then one kernel makes dQ
 * and the blocks' shares of d_bias, another dK and dV (attention_backward_simt.cu for f32,
 * attention_backward_query.cu and attention_backward_key.cu for bf16), and a last one adds the shares of
 * d_bias in their order.
 */
#ifndef SAGO_ATTENTION_BACKWARD_CUH
#define SAGO_ATTENTION_BACKWARD_CUH

#include "attention_common.cuh"

enum {
    BACKWARD_TILE = 32, /* queries that one entry of spans describes; the kernels of dK and dV step by it */
    BACKWARD_PAD = 128, /* lse, delta, ranges and spans have entries up to a multiple of it */
};

/**
 * Where the gradient of the bias goes. Sums of dS are kept by distance: entry distance + call.bias_far of n,
 * where the first and the last entry take all distances beyond, whose bucket is one.
 */
typedef struct backward_bias {
    int n, n_buckets, n_shares;           /* n = 0: no bias */
    const int *bucket_begin, *bucket_end; /* [n_buckets]: a bucket's entries, which follow on each other */
    float *shares;                        /* [H, n_buckets, n_shares]: a share a block of the dQ kernel */
    float *sums; /* [blocks, arrays of a block, n] where they do not fit shared memory */
    bool in_shared;
} backward_bias;

typedef struct backward_problem {
    attention_problem call;
    const void *q, *k, *v, *o, *d_o;
    void *d_q, *d_k, *d_v;
    int padded;               /* queries, up to a multiple of BACKWARD_PAD */
    const float *lse, *delta; /* [B, H, padded]: lse in the kernels' unit, +inf for queries without keys; D */
    const attention_range *ranges; /* [B, padded] */
    const attention_span *spans;   /* [B, padded / BACKWARD_TILE] */
    backward_bias bias;
} backward_problem;

extern "C" {
/** dQ with the shares of d_bias, and dK with dV; bf16 has a launch for each. */
sago_status SAGO_GPU(attention_backward_f32)(sago_gpu *gpu, const backward_problem *p);
sago_status SAGO_GPU(attention_backward_query)(sago_gpu *gpu, const backward_problem *p);
sago_status SAGO_GPU(attention_backward_key)(sago_gpu *gpu, const backward_problem *p);
/** Queries of one block of attention_backward_query. */
int SAGO_GPU(attention_backward_query_rows)(int width);
}

/** Index of query i of head h in lse and delta. */
static __device__ __forceinline__ int64_t backward_row_at(const backward_problem &p, int b, int h, int i) {
    return ((int64_t)b * p.call.heads + h) * p.padded + i;
}

/** A thread's view of an array of sums: entries between the ends belong to one thread at a time, and each
 * thread keeps what it has for the ends. */
typedef struct diagonal_sums {
    float *inner;
    float first, last;
} diagonal_sums;

static __device__ __forceinline__ void diagonal_add(diagonal_sums *sums, const attention_problem &call,
                                                    int distance, float x) {
    if (distance <= -call.bias_far)
        sums->first += x;
    else if (distance >= call.bias_near_end)
        sums->last += x;
    else
        sums->inner[distance + call.bias_far] += x;
}

/**
 * Writes the block's share of d_bias. sums: [n_arrays, n], their ends complete. All threads of the block call
 * it, after a barrier.
 */
static __device__ __forceinline__ void backward_share(const backward_bias &bias, float *sums, int n_arrays,
                                                      int h, int share) {
    for (int x = (int)threadIdx.x; x < bias.n; x += (int)blockDim.x)
        for (int i = 1; i < n_arrays; i++) sums[x] += sums[i * bias.n + x];
    __syncthreads();
    for (int bucket = (int)threadIdx.x; bucket < bias.n_buckets; bucket += (int)blockDim.x) {
        float sum = 0.0f;
        for (int x = bias.bucket_begin[bucket]; x < bias.bucket_end[bucket]; x++) sum += sums[x];
        bias.shares[((int64_t)h * bias.n_buckets + bucket) * bias.n_shares + share] = sum;
    }
}

#endif
