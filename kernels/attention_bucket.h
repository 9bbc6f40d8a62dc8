// SPDX-License-Identifier: Apache-2.0
/**
 * T5's relative position buckets: one formula for the host's loops and the GPU's kernels.
 */
#ifndef SAGO_ATTENTION_BUCKET_H
#define SAGO_ATTENTION_BUCKET_H

#include "host_device.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * T5's bucket of a key that stands `relative` = key - query positions after its query (Raffel et al. 2020,
 * section 2.1). Bidirectional: half the buckets for each side, the upper half for keys after the query.
 * One-sided: keys after the query count as distance 0. Of a side's n buckets the first n / 2 hold one
 * distance each; the others hold n/2 + floor(ln(distance / (n/2)) / ln(max_distance / (n/2)) * (n - n/2)), at
 * most n - 1.
 */
SAGO_HOST_DEVICE static inline int sago_attention_bucket(int64_t relative, int n_buckets, bool bidirectional,
                                                         int max_distance) {
    int side = n_buckets, first = 0;
    int64_t distance = relative > 0 ? 0 : -relative;
    if (bidirectional) {
        side = n_buckets / 2;
        if (relative > 0) first = side, distance = relative;
    }
    int exact = side / 2;
    if (distance < exact) return first + (int)distance;
    if (exact < 1) return first;
    /* The published models compute this in fp32, where the borders that are whole numbers (16, 32, 64) come
       out whole; in double they may fall short by one rounding, hence the small amount on top. */
    double octave = log((double)distance / exact) / log((double)max_distance / exact) * (side - exact) + 1e-9;
    int bucket = octave < side ? exact + (int)octave : side - 1;
    return first + (bucket < side ? bucket : side - 1);
}

#endif
