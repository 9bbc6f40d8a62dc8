// SPDX-License-Identifier: Apache-2.0
/**
 * Backward attention on the GPU: what its files share. docs/kernels/attention.md says how the pieces fit
 * together.
 *
 * Per call: small kernels prepare what both big ones read (attention_backward.cu), then one kernel makes dQ
 * and the blocks' shares of d_bias, another dK and dV (attention_backward_simt.cu for f32,
 * attention_backward_query.cu and attention_backward_key.cu for bf16), and last ones add, in their order,
 * what several blocks left of dK and dV, and the shares of d_bias.
 */
#ifndef SAGO_ATTENTION_BACKWARD_CUH
#define SAGO_ATTENTION_BACKWARD_CUH

#include "attention_common.cuh"

enum {
    BACKWARD_TILE = 32, /* queries that one entry of spans describes; the kernels of dK and dV step by it */
    BACKWARD_SHARED_ENTRIES = 512, /* most sums of the bias by distance that a block keeps in shared memory */
    BACKWARD_PAD = 128,            /* lse, delta, ranges and spans have entries up to a multiple of it */
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

/**
 * The query heads that share a key/value head, split over `n` blocks of the kernels of dK and dV where their
 * keys alone would not fill a GPU. Each leaves its sums here, and backward_join adds them in the order of the
 * splits.
 */
typedef struct backward_split {
    int n;            /* 1: blocks write dK and dV themselves */
    int pitch;        /* floats of a row: the width, up to a multiple of 4 */
    float *d_k, *d_v; /* [n, B, Sk, G, pitch], dK scaled */
} backward_split;

typedef struct backward_problem {
    attention_problem call;
    const void *q, *k, *v, *o, *d_o;
    void *d_q, *d_k, *d_v;
    int padded;               /* queries, up to a multiple of BACKWARD_PAD */
    const float *lse, *delta; /* [B, H, padded]: lse in the kernels' unit, +inf for queries without keys; D */
    const attention_range *ranges; /* [B, padded] */
    const attention_span *spans;   /* [B, padded / BACKWARD_TILE] */
    backward_bias bias;
    backward_split split;
} backward_problem;

extern "C" {
/** dQ with the shares of d_bias, and dK with dV; bf16 has a launch for each. */
sago_status SAGO_GPU(attention_backward_f32)(sago_gpu *gpu, const backward_problem *p);
sago_status SAGO_GPU(attention_backward_query)(sago_gpu *gpu, const backward_problem *p);
sago_status SAGO_GPU(attention_backward_key)(sago_gpu *gpu, const backward_problem *p);
/** Queries of one block of attention_backward_query, and keys of one of attention_backward_key. */
int SAGO_GPU(attention_backward_query_rows)(const sago_gpu *gpu, int width);
int SAGO_GPU(attention_backward_key_rows)(int width);
/** The least shared memory that a block of each can do with, whatever the bias. */
size_t SAGO_GPU(attention_backward_f32_bytes)(int width);
size_t SAGO_GPU(attention_backward_query_bytes)(int width);
size_t SAGO_GPU(attention_backward_key_bytes)(int width);
}

/** Index of query i of head h in lse and delta. */
static __device__ __forceinline__ int64_t backward_row_at(const backward_problem &p, int b, int h, int i) {
    return ((int64_t)b * p.call.heads + h) * p.padded + i;
}

/** Query heads [first, last) of a block of the kernels of dK and dV. */
typedef struct backward_heads {
    int first, last;
} backward_heads;

/** Of split number `split` of a group; where they are not equally many, the first splits have one more. */
static __device__ __forceinline__ backward_heads backward_heads_of(const backward_problem &p, int group,
                                                                   int split) {
    int each = p.call.shared / p.split.n, more = p.call.shared % p.split.n;
    backward_heads heads;
    heads.first = group * p.call.shared + split * each + (split < more ? split : more);
    heads.last = heads.first + each + (split < more);
    return heads;
}

/** Element (b, j, group, 0) of what a split leaves of dK or dV. */
static __device__ __forceinline__ int64_t backward_split_at(const backward_problem &p, int split, int b,
                                                            int j, int group) {
    return ((((int64_t)split * p.call.batch + b) * p.call.keys + j) * p.call.groups + group) * p.split.pitch;
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
