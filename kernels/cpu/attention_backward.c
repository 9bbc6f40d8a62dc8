// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "check.h"
#include "cpu_ops.h"
#include "rng.h"

#include <math.h>
#include <string.h>

static float keep(const sago_dropout *d, int64_t row, int64_t token, int64_t column, int64_t width) {
    if (d->rate == 0) return 1;
    uint64_t i = (uint64_t)(((d->first_row + row) * d->row_tokens + token) * width + column);
    uint32_t w[4];
    sago_philox(d->key, i / 4, 0, w);
    return (double)w[i % 4] >= (double)d->rate * 0x1p32 ? 1 / (1 - d->rate) : 0;
}

sago_status SAGO_CPU(attention_backward)(sago_device *device, sago_tensor d_q, sago_tensor d_k,
                                         sago_tensor d_v, sago_tensor d_bias, sago_tensor d_o, sago_tensor o,
                                         sago_tensor lse, sago_tensor q, sago_tensor k, sago_tensor v,
                                         const sago_attention_args *args) {
    sago_attention_sizes z;
    (void)device;
    SAGO_TRY(sago_attention_check("attention_backward", o, lse, q, k, v, args, &z));
    const float *Q = q.data, *K = k.data, *V = v.data, *bias = args->bias.data, *DO = d_o.data;
    const float *O = o.data, *L = lse.data;
    float *DQ = d_q.data, *DK = d_k.data, *DV = d_v.data, *DB = bias ? d_bias.data : NULL;
    const int32_t *lo = args->lo.data, *hi = args->hi.data;
    int64_t H = z.heads, G = z.groups, E = z.width, Sq = z.queries, Sk = z.keys;
    memset(DQ, 0, sago_tensor_bytes(d_q));
    memset(DK, 0, sago_tensor_bytes(d_k));
    memset(DV, 0, sago_tensor_bytes(d_v));
    for (int64_t t = 0; t < z.batch * H * Sq; t++) {
        int64_t b = t / (H * Sq), h = t / Sq % H, i = t % Sq, g = h / (H / G),
                at = ((b * Sq + i) * H + h) * E;
        float D = 0;
        for (int64_t e = 0; e < E; e++) D += DO[at + e] * O[at + e];
        for (int64_t j = lo[b * Sq + i]; j < hi[b * Sq + i]; j++) {
            int64_t kat = ((b * Sk + j) * G + g) * E, bucket = 0;
            float s = 0, dp = 0;
            for (int64_t e = 0; e < E; e++) s += Q[at + e] * K[kat + e], dp += DO[at + e] * V[kat + e];
            s *= args->scale;
            if (bias) {
                bucket = sago_attention_bucket(j - i - args->query_offset, z.n_buckets,
                                               args->bias_bidirectional, args->bias_max_distance) *
                             H +
                         h;
                s += bias[bucket];
            }
            float kept = keep(&args->dropout, b, h * Sq + i, j, Sk), p = expf(s - L[t]),
                  ds = p * (dp * kept - D);
            if (DB) DB[bucket] += ds;
            for (int64_t e = 0; e < E; e++) {
                DV[kat + e] += p * kept * DO[at + e];
                DQ[at + e] += args->scale * ds * K[kat + e];
                DK[kat + e] += args->scale * ds * Q[at + e];
            }
        }
    }
    return SAGO_OK;
}
