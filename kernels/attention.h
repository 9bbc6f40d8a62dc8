// SPDX-License-Identifier: Apache-2.0
/**
 * What every device's attention has in common: the relative position buckets and the checks of shapes.
 */
#ifndef SAGO_ATTENTION_H
#define SAGO_ATTENTION_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops.h"

/** Sizes of one attention call, read from its tensors. */
typedef struct sago_attention_sizes {
    int64_t batch, queries, keys, heads, groups, width; /* B, Sq, Sk, H, G, E */
    int n_buckets;                                      /* 0: no bias */
} sago_attention_sizes;

/**
 * Distance from which the bucket no longer changes: distances >= it share their side's last bucket (91 and
 * 113 for T5's 32 buckets up to 128).
 */
int64_t sago_attention_far(int n_buckets, bool bidirectional, int max_distance);

/**
 * Shapes, dtypes, ranges' shapes, bias and dropout of a call; fills sizes. o, q, k and v have one dtype, f32
 * or, where the device stores it, bf16; lse is f32; the bias has either dtype.
 */
sago_status sago_attention_check(const sago_device *device, const char *operation, sago_tensor o,
                                 sago_tensor lse, sago_tensor q, sago_tensor k, sago_tensor v,
                                 const sago_attention_args *args,
                                 sago_attention_sizes *sizes) SAGO_MUST_CHECK;

/** What attention_backward adds to that: d_q, d_k, d_v and d_o have q's dtype, d_bias is f32. */
sago_status sago_attention_backward_check(sago_tensor d_q, sago_tensor d_k, sago_tensor d_v,
                                          sago_tensor d_bias, sago_tensor d_o, sago_tensor q, sago_tensor k,
                                          const sago_attention_args *args) SAGO_MUST_CHECK;

sago_status sago_attention_ranges_check(sago_tensor lo, sago_tensor hi, sago_tensor query_segments,
                                        sago_tensor key_segments, sago_tensor prefix,
                                        sago_attention_mode mode) SAGO_MUST_CHECK;

/** Shapes and dtypes alone; positions are looked at by the device. */
sago_status sago_cache_append_check(const sago_device *device, sago_tensor cache, sago_tensor in,
                                    sago_tensor position) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
