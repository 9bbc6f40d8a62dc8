// SPDX-License-Identifier: Apache-2.0
/**
 * Segment ids of a packed batch become ranges of keys, a thread a query. Ids of a row do not decrease until
 * its padding begins, so a segment's keys are found by two binary searches: no walk along the row, and no
 * order between threads.
 */
#include "attention_common.cuh"

#include "gpu_ops.h"

enum { RANGES_THREADS = 256 };

/** Padding stands after all segments. */
static __device__ __forceinline__ int segment_order(int id) {
    return id > 0 ? id : INT32_MAX;
}

/** How many of n ids stand before the first that is >= segment. */
static __device__ __forceinline__ int keys_before(const int32_t *ids, int n, int segment) {
    int from = 0, to = n;
    while (from < to) {
        int middle = from + (to - from) / 2;
        if (segment_order(ids[middle]) < segment)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/**
 * last[b, j] = the last key j' <= j that belongs to inputs, or -1: a running maximum, a block a row, a piece
 * of blockDim.x keys after the other.
 */
static __global__ void ranges_prefix_kernel(int32_t *last, const int32_t *prefix, int keys) {
    typedef struct room {
        int32_t of_warp[RANGES_THREADS / WARP];
    } room;
    SAGO_SHARED(room, shared);
    const int32_t *from = prefix + (int64_t)blockIdx.x * keys;
    int32_t *to = last + (int64_t)blockIdx.x * keys;
    int lane = (int)(threadIdx.x % WARP), warp = (int)(threadIdx.x / WARP);
    int before = -1; /* of all earlier pieces */
    for (int first = 0; first < keys; first += RANGES_THREADS) {
        int j = first + (int)threadIdx.x;
        int found = j < keys && from[j] != 0 ? j : -1;
        for (int step = 1; step < WARP; step *= 2) {
            int other = __shfl_up_sync(0xffffffffu, found, step);
            if (lane >= step && other > found) found = other;
        }
        if (lane == WARP - 1) shared->of_warp[warp] = found;
        __syncthreads();
        int piece = before;
        for (int w = 0; w < RANGES_THREADS / WARP; w++) {
            int of_warp = shared->of_warp[w];
            if (w < warp && of_warp > found) found = of_warp;
            if (of_warp > piece) piece = of_warp;
        }
        if (before > found) found = before;
        if (j < keys) to[j] = found;
        before = piece;
        __syncthreads();
    }
}

/** last_input: what ranges_prefix_kernel left, or NULL. */
static __global__ void ranges_kernel(int32_t *lo, int32_t *hi, const int32_t *query, const int32_t *key,
                                     const int32_t *last_input, int64_t count, int queries, int keys,
                                     bool causal) {
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int64_t row = at / queries;
    int i = (int)(at % queries), segment = query[at], start = 0, end = 0;
    const int32_t *ids = key + row * keys;
    if (segment > 0) {
        start = keys_before(ids, keys, segment);
        end = segment < INT32_MAX ? start + keys_before(ids + start, keys - start, segment + 1) : start;
    }
    int stop = end;
    if (causal && stop > i + 1) {
        stop = i + 1;
        int inputs_end = last_input ? last_input[row * keys + end - 1] + 1 : 0;
        if (stop < inputs_end) stop = inputs_end;
    }
    bool none = stop <= start;
    lo[at] = none ? 0 : start;
    hi[at] = none ? 0 : stop;
}

extern "C" sago_status SAGO_GPU(attention_ranges)(sago_device *device, sago_tensor lo, sago_tensor hi,
                                                  sago_tensor query_segments, sago_tensor key_segments,
                                                  sago_tensor prefix, sago_attention_mode mode) {
    SAGO_TRY(sago_attention_ranges_check(lo, hi, query_segments, key_segments, prefix, mode));
    sago_gpu *gpu = sago_gpu_of(device);
    int64_t rows = query_segments.shape[0], queries = query_segments.shape[1], keys = key_segments.shape[1];
    int64_t count = rows * queries;
    const int64_t most = INT32_MAX;
    if (rows > most || queries > most || keys > most || count / RANGES_THREADS >= most)
        return sago_fail(SAGO_E_SHAPE, "attention_ranges: more than %lld rows or tokens", (long long)most);
    if (count == 0) return SAGO_OK;
    int32_t *last_input = NULL;
    if (mode == SAGO_ATTEND_PREFIX) {
        SAGO_TRY(SAGO_GPU(workspace)(gpu, (size_t)(rows * keys) * sizeof(int32_t), (void **)&last_input));
        SAGO_TRY(SAGO_LAUNCH(gpu, ranges_prefix_kernel, (unsigned)rows, RANGES_THREADS,
                             RANGES_THREADS / WARP * sizeof(int32_t), last_input,
                             (const int32_t *)prefix.data, (int)keys));
    }
    return SAGO_LAUNCH(gpu, ranges_kernel, (unsigned)((count + RANGES_THREADS - 1) / RANGES_THREADS),
                       RANGES_THREADS, 0, (int32_t *)lo.data, (int32_t *)hi.data,
                       (const int32_t *)query_segments.data, (const int32_t *)key_segments.data,
                       (const int32_t *)last_input, count, (int)queries, (int)keys, mode != SAGO_ATTEND_FULL);
}
