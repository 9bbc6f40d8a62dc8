// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "attention_bucket.h"
#include "check.h"

int64_t sago_attention_far(int n_buckets, bool bidirectional, int max_distance) {
    int last = sago_attention_bucket(-(int64_t)max_distance, n_buckets, bidirectional, max_distance);
    int64_t far = max_distance;
    while (far > 0 && sago_attention_bucket(-(far - 1), n_buckets, bidirectional, max_distance) == last)
        far--;
    return far;
}

/** The dtype that a call's activations have; f32 stands for what the device does not store. */
static sago_dtype dtype_of(const sago_device *device, sago_tensor t) {
    return device->stores_bf16 && t.dtype == SAGO_BF16 ? SAGO_BF16 : SAGO_F32;
}

static sago_status check_bias(const sago_device *device, const char *operation, sago_tensor q,
                              const sago_attention_args *args, int *n_buckets) {
    sago_tensor bias = args->bias;
    *n_buckets = 0;
    if (bias.data == NULL) return SAGO_OK;
    bool fits = bias.n_dims == 2 && bias.dtype == dtype_of(device, bias) && bias.shape[1] == q.shape[2] &&
                bias.shape[0] >= 1 && bias.shape[0] <= 1 << 20;
    SAGO_TRY(sago_check_shapes(fits, operation, "q[B, Sq, H, E], bias[n_buckets, H]", SAGO_TENSORS(q, bias)));
    *n_buckets = (int)bias.shape[0];
    int exact = (args->bias_bidirectional ? *n_buckets / 2 : *n_buckets) / 2;
    if ((!args->bias_bidirectional || *n_buckets % 2 == 0) && args->bias_max_distance > exact) return SAGO_OK;
    return sago_fail(SAGO_E_SHAPE,
                     "%s: %d relative buckets do not fit a maximum distance of %d%s: use an even number of "
                     "buckets and a larger distance",
                     operation, *n_buckets, args->bias_max_distance,
                     args->bias_bidirectional ? " both ways" : "");
}

sago_status sago_attention_check(const sago_device *device, const char *operation, sago_tensor o,
                                 sago_tensor lse, sago_tensor q, sago_tensor k, sago_tensor v,
                                 const sago_attention_args *args, sago_attention_sizes *sizes) {
    int64_t batch = q.shape[0], queries = q.shape[1], heads = q.shape[2], width = q.shape[3];
    int64_t keys = k.shape[1], groups = k.shape[2];
    bool fits = q.n_dims == 4 && k.n_dims == 4 && v.n_dims == 4 && o.n_dims == 4 && lse.n_dims == 3 &&
                sago_tensor_same_shape(o, q) && sago_tensor_same_shape(k, v) && k.shape[0] == batch &&
                k.shape[3] == width && groups >= 1 && heads >= 1 && heads % groups == 0 &&
                lse.shape[0] == batch && lse.shape[1] == heads && lse.shape[2] == queries &&
                sago_all_dtype(dtype_of(device, q), SAGO_TENSORS(o, q, k, v)) &&
                sago_all_dtype(SAGO_F32, SAGO_TENSORS(lse));
    SAGO_TRY(sago_check_shapes(
        fits, operation, "o[B, Sq, H, E], lse[B, H, Sq], q[B, Sq, H, E], k[B, Sk, G, E], v[B, Sk, G, E]",
        SAGO_TENSORS(o, lse, q, k, v)));
    fits = args->lo.n_dims == 2 && args->hi.n_dims == 2 && args->lo.shape[0] == batch &&
           args->lo.shape[1] == queries && sago_tensor_same_shape(args->lo, args->hi) &&
           sago_all_dtype(SAGO_I32, SAGO_TENSORS(args->lo, args->hi));
    SAGO_TRY(sago_check_shapes(fits, operation, "q[B, Sq, H, E], lo[B, Sq], hi[B, Sq]",
                               SAGO_TENSORS(q, args->lo, args->hi)));
    if (args->position.data)
        SAGO_TRY(sago_check_shapes(args->position.n_dims == 1 && args->position.shape[0] == 1 &&
                                       args->position.dtype == SAGO_I32 && queries == 1,
                                   operation, "position[1], q[B, 1, H, E]", SAGO_TENSORS(args->position, q)));
    int n_buckets;
    SAGO_TRY(check_bias(device, operation, q, args, &n_buckets));
    if (args->dropout.rate < 0 || !(args->dropout.rate < 1))
        return sago_fail(SAGO_E_SHAPE, "%s: a dropout rate of %g is not in [0, 1)", operation,
                         (double)args->dropout.rate);
    if (args->dropout.rate > 0)
        SAGO_TRY(sago_check_dropout_slice(&args->dropout, operation, heads * queries, keys));
    *sizes = (sago_attention_sizes){batch, queries, keys, heads, groups, width, n_buckets};
    return SAGO_OK;
}

sago_status sago_attention_backward_check(sago_tensor d_q, sago_tensor d_k, sago_tensor d_v,
                                          sago_tensor d_bias, sago_tensor d_o, sago_tensor q, sago_tensor k,
                                          const sago_attention_args *args) {
    bool fits = sago_tensor_same_shape(d_q, q) && sago_tensor_same_shape(d_o, q) &&
                sago_tensor_same_shape(d_k, k) && sago_tensor_same_shape(d_v, k) &&
                sago_all_dtype(q.dtype, SAGO_TENSORS(d_q, d_k, d_v, d_o));
    SAGO_TRY(sago_check_shapes(fits, "attention_backward", "d_q and d_o as q, d_k and d_v as k, q, k",
                               SAGO_TENSORS(d_q, d_o, d_k, d_v, q, k)));
    if (args->position.data)
        return sago_fail(SAGO_E_SHAPE, "attention_backward: a position that the device knows is for forward alone");
    if (args->bias.data == NULL) return SAGO_OK;
    return sago_check_shapes(
        sago_tensor_same_shape(d_bias, args->bias) && sago_all_dtype(SAGO_F32, SAGO_TENSORS(d_bias)),
        "attention_backward", "d_bias as bias[n_buckets, H], but f32", SAGO_TENSORS(d_bias, args->bias));
}

sago_status sago_attention_ranges_check(sago_tensor lo, sago_tensor hi, sago_tensor query_segments,
                                        sago_tensor key_segments, sago_tensor prefix,
                                        sago_attention_mode mode) {
    bool fits = query_segments.n_dims == 2 && key_segments.n_dims == 2 &&
                sago_tensor_same_shape(lo, query_segments) && sago_tensor_same_shape(hi, query_segments) &&
                key_segments.shape[0] == query_segments.shape[0] &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(lo, hi, query_segments, key_segments));
    SAGO_TRY(sago_check_shapes(fits, "attention_ranges",
                               "lo[B, Sq], hi[B, Sq], query_segments[B, Sq], key_segments[B, Sk]",
                               SAGO_TENSORS(lo, hi, query_segments, key_segments)));
    if (mode != SAGO_ATTEND_FULL)
        SAGO_TRY(sago_check_shapes(query_segments.shape[1] == key_segments.shape[1], "attention_ranges",
                                   "query_segments[B, S], key_segments[B, S] (causal: queries are the keys)",
                                   SAGO_TENSORS(query_segments, key_segments)));
    if (mode != SAGO_ATTEND_PREFIX) return SAGO_OK;
    return sago_check_shapes(
        sago_tensor_same_shape(prefix, key_segments) && prefix.dtype == SAGO_I32 && prefix.data != NULL,
        "attention_ranges", "key_segments[B, Sk], prefix[B, Sk]", SAGO_TENSORS(key_segments, prefix));
}

sago_status sago_cache_append_check(const sago_device *device, sago_tensor cache, sago_tensor in,
                                    sago_tensor position) {
    bool fits = cache.n_dims == 4 && in.n_dims == 4 && in.shape[1] == 1 && in.shape[0] == cache.shape[0] &&
                in.shape[2] == cache.shape[2] && in.shape[3] == cache.shape[3] && position.n_dims == 1 &&
                position.shape[0] == cache.shape[0] &&
                sago_all_dtype(dtype_of(device, cache), SAGO_TENSORS(cache, in)) &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(position));
    return sago_check_shapes(fits, "cache_append", "cache[B, S, G, E], in[B, 1, G, E], position[B]",
                             SAGO_TENSORS(cache, in, position));
}
