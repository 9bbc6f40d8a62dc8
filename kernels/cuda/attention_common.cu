// SPDX-License-Identifier: Apache-2.0
#include "attention_common.cuh"

#include "attention_bucket.h"

/* Entry e of head h: the bias of distance e - far - ATTENTION_BIAS_PAD, cut to where the buckets change, less
 * the position. */
template <typename T>
static __global__ void attention_bias_kernel(float *out, const T *table, int stride, int far, int heads,
                                             int n_buckets, bool bidirectional, int max_distance,
                                             const int32_t *position, float unit) {
    int at = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= stride) return;
    int distance = at - far - ATTENTION_BIAS_PAD;
    distance = distance < -far ? -far : distance > far ? far : distance;
    if (position) distance -= *position;
    int bucket = sago_attention_bucket(distance, n_buckets, bidirectional, max_distance);
    for (int h = (int)blockIdx.y; h < heads; h += (int)gridDim.y)
        out[(int64_t)h * stride + at] = to_float(table[(int64_t)bucket * heads + h]) * unit;
}

sago_status SAGO_GPU(attention_width)(const char *operation, int64_t width) {
    if (width <= ATTENTION_MAX_WIDTH) return SAGO_OK;
    return sago_fail(SAGO_E_SHAPE, "%s: heads of width %lld are wider than the %d that GPU devices take",
                     operation, (long long)width, ATTENTION_MAX_WIDTH);
}

sago_status SAGO_GPU(attention_prepare)(sago_gpu *gpu, const char *operation,
                                        const sago_attention_sizes *sizes, const sago_attention_args *args,
                                        float bias_unit, size_t extra_bytes, void **extra,
                                        attention_problem *out) {
    const int64_t most = 1 << 30;
    SAGO_TRY(SAGO_GPU(attention_width)(operation, sizes->width));
    if (sizes->queries > most || sizes->keys > most || args->dropout.pitch > most ||
        args->query_offset > most || args->query_offset < -most || sizes->batch * sizes->heads > most)
        return sago_fail(SAGO_E_SHAPE, "%s: more than %lld queries, keys or heads", operation,
                         (long long)most);
    attention_problem p = {};
    p.batch = (int)sizes->batch, p.queries = (int)sizes->queries, p.keys = (int)sizes->keys;
    p.heads = (int)sizes->heads, p.groups = (int)sizes->groups, p.width = (int)sizes->width;
    p.shared = p.heads / p.groups;
    p.scale = args->scale;
    p.lo = (const int32_t *)args->lo.data, p.hi = (const int32_t *)args->hi.data;
    p.query_offset = (int)args->query_offset;
    p.dropped = args->dropout.rate > 0;
    p.mask = sago_mask_make(&args->dropout, sizes->keys);
    p.dropout_pitch = (int)p.mask.pitch;
    p.dropout_quads = p.mask.first % 4 == 0 && p.mask.pitch % 4 == 0; /* and so is the stride of rows */
    const int32_t *position = (const int32_t *)args->position.data;
    size_t bias_bytes = 0;
    if (sizes->n_buckets > 0) {
        int64_t far = sago_attention_far(sizes->n_buckets, args->bias_bidirectional, args->bias_max_distance);
        int64_t farthest =
            sizes->queries + sizes->keys + (p.query_offset < 0 ? -p.query_offset : p.query_offset);
        p.bias_far = (int)(far < farthest && !position ? far : farthest);
        p.bias_near_end = args->bias_bidirectional || position ? p.bias_far : 0;
        p.bias_stride = 2 * (p.bias_far + ATTENTION_BIAS_PAD) + 1;
        bias_bytes = ((size_t)p.heads * (size_t)p.bias_stride * sizeof(float) + 255) / 256 * 256;
    }
    char *workspace = NULL;
    if (bias_bytes + extra_bytes > 0)
        SAGO_TRY(SAGO_GPU(workspace)(gpu, bias_bytes + extra_bytes, (void **)&workspace));
    if (extra) *extra = workspace + bias_bytes;
    if (bias_bytes > 0) {
        unsigned threads = 128, blocks = ((unsigned)p.bias_stride + threads - 1) / threads;
        unsigned rows = p.heads < 1024 ? (unsigned)p.heads : 1024;
        p.bias = (const float *)workspace;
        SAGO_BY_DTYPE(args->bias, T,
                      SAGO_TRY(SAGO_LAUNCH(gpu, attention_bias_kernel<T>, dim3(blocks, rows), threads, 0,
                                           (float *)workspace, (const T *)args->bias.data, p.bias_stride,
                                           p.bias_far, p.heads, sizes->n_buckets, args->bias_bidirectional,
                                           args->bias_max_distance, position, bias_unit)));
    }
    *out = p;
    return SAGO_OK;
}
