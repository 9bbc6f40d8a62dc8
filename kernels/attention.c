// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "check.h"

#include <math.h>

int sago_attention_bucket(int64_t relative, int n_buckets, bool bidirectional, int max_distance) {
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

int64_t sago_attention_far(int n_buckets, bool bidirectional, int max_distance) {
    int last = sago_attention_bucket(-(int64_t)max_distance, n_buckets, bidirectional, max_distance);
    int64_t far = max_distance;
    while (far > 0 && sago_attention_bucket(-(far - 1), n_buckets, bidirectional, max_distance) == last)
        far--;
    return far;
}

sago_status sago_attention_check(const char *operation, sago_tensor o, sago_tensor lse, sago_tensor q,
                                 sago_tensor k, sago_tensor v, const sago_attention_args *args,
                                 sago_attention_sizes *sizes) {
    int64_t batch = q.shape[0], queries = q.shape[1], heads = q.shape[2], width = q.shape[3];
    int64_t keys = k.shape[1], groups = k.shape[2];
    bool fits = q.n_dims == 4 && k.n_dims == 4 && v.n_dims == 4 && o.n_dims == 4 && lse.n_dims == 3 &&
                sago_tensor_same_shape(o, q) && sago_tensor_same_shape(k, v) && k.shape[0] == batch &&
                k.shape[3] == width && groups >= 1 && heads >= 1 && heads % groups == 0 &&
                lse.shape[0] == batch && lse.shape[1] == heads && lse.shape[2] == queries &&
                sago_all_dtype(SAGO_F32, SAGO_TENSORS(o, lse, q, k, v));
    SAGO_TRY(sago_check_shapes(
        fits, operation, "o[B, Sq, H, E], lse[B, H, Sq], q[B, Sq, H, E], k[B, Sk, G, E], v[B, Sk, G, E]",
        SAGO_TENSORS(o, lse, q, k, v)));
    fits = args->lo.n_dims == 2 && args->hi.n_dims == 2 && args->lo.shape[0] == batch &&
           args->lo.shape[1] == queries && sago_tensor_same_shape(args->lo, args->hi) &&
           sago_all_dtype(SAGO_I32, SAGO_TENSORS(args->lo, args->hi));
    SAGO_TRY(sago_check_shapes(fits, operation, "q[B, Sq, H, E], lo[B, Sq], hi[B, Sq]",
                               SAGO_TENSORS(q, args->lo, args->hi)));
    int n_buckets = 0;
    if (args->bias.data != NULL) {
        fits = args->bias.n_dims == 2 && args->bias.dtype == SAGO_F32 && args->bias.shape[1] == heads &&
               args->bias.shape[0] >= 1 && args->bias.shape[0] <= 1 << 20;
        SAGO_TRY(sago_check_shapes(fits, operation, "q[B, Sq, H, E], bias[n_buckets, H]",
                                   SAGO_TENSORS(q, args->bias)));
        n_buckets = (int)args->bias.shape[0];
        int exact = (args->bias_bidirectional ? n_buckets / 2 : n_buckets) / 2;
        if ((args->bias_bidirectional && n_buckets % 2 != 0) || args->bias_max_distance <= exact)
            return sago_fail(
                SAGO_E_SHAPE,
                "%s: %d relative buckets do not fit a maximum distance of %d%s: use an even number of "
                "buckets and a larger distance",
                operation, n_buckets, args->bias_max_distance, args->bias_bidirectional ? " both ways" : "");
    }
    if (args->dropout.rate < 0 || !(args->dropout.rate < 1))
        return sago_fail(SAGO_E_SHAPE, "%s: a dropout rate of %g is not in [0, 1)", operation,
                         (double)args->dropout.rate);
    *sizes = (sago_attention_sizes){batch, queries, keys, heads, groups, width, n_buckets};
    return SAGO_OK;
}
