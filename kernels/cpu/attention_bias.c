// SPDX-License-Identifier: Apache-2.0
#include "attention_bucket.h"
#include "attention_tile.h"

attention_bias SAGO_CPU(attention_bias_fill)(void *memory, const sago_attention_sizes *z,
                                             const sago_attention_args *args) {
    attention_bias bias = {0};
    if (z->n_buckets == 0) return bias;
    bias.stride = lanes_up(z->queries + z->keys) + LANES;
    bias.rows = memory;
    bias.buckets = (int32_t *)(bias.rows + z->heads * bias.stride);
    int64_t offset = args->query_offset + (args->position.data ? *(const int32_t *)args->position.data : 0);
    int64_t count = z->queries + z->keys - 1, origin = z->queries - 1 + offset;
    int64_t far = sago_attention_far(z->n_buckets, args->bias_bidirectional, args->bias_max_distance);
    for (int64_t d = 0; d < count; d++) {
        int64_t relative = d - origin;
        bool as_before =
            d > 0 && (relative > far || relative <= -far); /* only near distances cost a logarithm */
        bias.buckets[d] = as_before ? bias.buckets[d - 1]
                                    : sago_attention_bucket(relative, z->n_buckets, args->bias_bidirectional,
                                                            args->bias_max_distance);
    }
    const float *table = args->bias.data;
    for (int64_t h = 0; h < z->heads; h++) {
        float *row = bias.rows + h * bias.stride;
        for (int64_t d = 0; d < count; d++) row[d] = table[bias.buckets[d] * z->heads + h];
        for (int64_t d = count; d < bias.stride; d++) row[d] = 0.0f;
    }
    return bias;
}
