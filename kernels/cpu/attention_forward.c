// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "cpu_ops.h"
#include "rng.h"

#include <math.h>

static float keep(const sago_dropout *d, int64_t row, int64_t token, int64_t column, int64_t width) {
    if (d->rate == 0) return 1;
    uint64_t i = (uint64_t)(((d->first_row + row) * d->row_tokens + token) * width + column);
    uint32_t w[4];
    sago_philox(d->key, i / 4, 0, w);
    return (double)w[i % 4] >= (double)d->rate * 0x1p32 ? 1 / (1 - d->rate) : 0;
}

sago_status SAGO_CPU(attention_forward)(sago_device *device, sago_tensor o, sago_tensor lse, sago_tensor q,
                                        sago_tensor k, sago_tensor v, const sago_attention_args *args) {
    sago_attention_sizes z;
    SAGO_TRY(sago_attention_check("attention_forward", o, lse, q, k, v, args, &z));
    const float *Q = q.data, *K = k.data, *V = v.data, *bias = args->bias.data;
    float *O = o.data, *L = lse.data;
    const int32_t *lo = args->lo.data, *hi = args->hi.data;
    int64_t H = z.heads, G = z.groups, E = z.width, Sq = z.queries, Sk = z.keys;
#pragma omp parallel for num_threads(device->n_threads)
    for (int64_t t = 0; t < z.batch * H * Sq; t++) {
        int64_t b = t / (H * Sq), h = t / Sq % H, i = t % Sq, g = h / (H / G);
        const float *qi = Q + ((b * Sq + i) * H + h) * E;
        float *oi = O + ((b * Sq + i) * H + h) * E, top = -INFINITY, sum = 0;
        for (int64_t e = 0; e < E; e++) oi[e] = 0;
        for (int64_t j = lo[b * Sq + i]; j < hi[b * Sq + i]; j++) {
            const float *kj = K + ((b * Sk + j) * G + g) * E, *vj = V + ((b * Sk + j) * G + g) * E;
            float s = 0;
            for (int64_t e = 0; e < E; e++) s += qi[e] * kj[e];
            s *= args->scale;
            if (bias)
                s += bias[sago_attention_bucket(j - i - args->query_offset, z.n_buckets,
                                                args->bias_bidirectional, args->bias_max_distance) *
                              H +
                          h];
            float next = s > top ? s : top, shrink = expf(top - next), p = expf(s - next);
            float w = p * keep(&args->dropout, b, h * Sq + i, j, Sk);
            top = next, sum = sum * shrink + p;
            for (int64_t e = 0; e < E; e++) oi[e] = oi[e] * shrink + w * vj[e];
        }
        L[t] = sum > 0 ? top + logf(sum) : -INFINITY;
        for (int64_t e = 0; e < E; e++) oi[e] = sum > 0 ? oi[e] / sum : 0;
    }
    return SAGO_OK;
}
