// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "cpu_ops.h"

/**
 * One row. Segments are runs of equal ids, in the same order among queries and keys, so one walk over both
 * finds every query's run: O(Sq + Sk).
 */
static void row_ranges(int32_t *lo, int32_t *hi, const int32_t *query, int64_t n_queries, const int32_t *key,
                       int64_t n_keys, const int32_t *prefix, sago_attention_mode mode) {
    int64_t start = 0, end = 0, inputs_end = 0;
    int32_t segment = 0; /* the one that [start, end) is of; 0: none yet */
    for (int64_t i = 0; i < n_queries; i++) {
        if (query[i] <= 0) {
            lo[i] = hi[i] = 0;
            continue;
        }
        if (query[i] != segment) {
            segment = query[i];
            for (start = end; start < n_keys && key[start] < segment;) start++;
            for (end = start; end < n_keys && key[end] == segment;) end++;
            inputs_end = start;
            if (mode == SAGO_ATTEND_PREFIX)
                for (int64_t j = start; j < end; j++)
                    if (prefix[j] != 0) inputs_end = j + 1;
        }
        int64_t stop = end;
        if (mode != SAGO_ATTEND_FULL) {
            stop = i + 1 < end ? i + 1 : end;
            if (stop < inputs_end) stop = inputs_end;
        }
        bool none = stop <= start;
        lo[i] = none ? 0 : (int32_t)start;
        hi[i] = none ? 0 : (int32_t)stop;
    }
}

sago_status SAGO_CPU(attention_ranges)(sago_device *device, sago_tensor lo, sago_tensor hi,
                                       sago_tensor query_segments, sago_tensor key_segments,
                                       sago_tensor prefix, sago_attention_mode mode) {
    (void)device;
    bool prefixed = mode == SAGO_ATTEND_PREFIX;
    SAGO_TRY(sago_attention_ranges_check(lo, hi, query_segments, key_segments, prefix, mode));
    int64_t rows = query_segments.shape[0], n_queries = query_segments.shape[1],
            n_keys = key_segments.shape[1];
    for (int64_t b = 0; b < rows; b++)
        row_ranges((int32_t *)lo.data + b * n_queries, (int32_t *)hi.data + b * n_queries,
                   (const int32_t *)query_segments.data + b * n_queries, n_queries,
                   (const int32_t *)key_segments.data + b * n_keys, n_keys,
                   prefixed ? (const int32_t *)prefix.data + b * n_keys : NULL, mode);
    return SAGO_OK;
}
