// SPDX-License-Identifier: Apache-2.0
/**
 * What every device's attention has in common: the relative position buckets and the checks of shapes.
 */
#ifndef SAGO_ATTENTION_H
#define SAGO_ATTENTION_H

#include "ops.h"

/** Sizes of one attention call, read from its tensors. */
typedef struct sago_attention_sizes {
    int64_t batch, queries, keys, heads, groups, width; /* B, Sq, Sk, H, G, E */
    int n_buckets;                                      /* 0: no bias */
} sago_attention_sizes;

/**
 * T5's bucket of a key that stands `relative` = key - query positions after its query (Raffel et al. 2020,
 * section 2.1). Bidirectional: half the buckets for each side, the upper half for keys after the query.
 * One-sided: keys after the query count as distance 0. Of a side's n buckets the first n / 2 hold one
 * distance each; the others hold n/2 + floor(ln(distance / (n/2)) / ln(max_distance / (n/2)) * (n - n/2)), at
 * most n - 1.
 */
int sago_attention_bucket(int64_t relative, int n_buckets, bool bidirectional, int max_distance);

/**
 * Distance from which the bucket no longer changes: distances >= it share their side's last bucket (91 and
 * 113 for T5's 32 buckets up to 128).
 */
int64_t sago_attention_far(int n_buckets, bool bidirectional, int max_distance);

/** Shapes, dtypes, ranges' shapes, bias and dropout of a call; fills sizes. */
sago_status sago_attention_check(const char *operation, sago_tensor o, sago_tensor lse, sago_tensor q,
                                 sago_tensor k, sago_tensor v, const sago_attention_args *args,
                                 sago_attention_sizes *sizes) SAGO_MUST_CHECK;

#endif
