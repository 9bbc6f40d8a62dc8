// SPDX-License-Identifier: Apache-2.0
/* PaLM in float64. */
#include "reference.h"

#include "layer.h"

#include <math.h>
#include <stdlib.h>

/* A row on its way through the layers. */
typedef struct row_state {
    int64_t row, length; /* row of the global batch */
    const int32_t *segments, *prefix;
    double *h; /* [length, D] */
} row_state;

static int site_of(int layer, int site) {
    return (1 + layer) * SAGO_SITES_PER_BLOCK + site;
}

static void norm(const reference *r, double *y, const double *x, const double *scale, int64_t n) {
    int64_t d = r->shape.d_model;
    for (int64_t t = 0; t < n; t++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < d; i++) mean += x[t * d + i] / (double)d;
        for (int64_t i = 0; i < d; i++) variance += (x[t * d + i] - mean) * (x[t * d + i] - mean) / (double)d;
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = (x[t * d + i] - mean) / sqrt(variance + (double)r->shape.norm_epsilon) * scale[i];
    }
}

/* Turns pair c of every head by position * theta^(-2 c / E); positions begin anew with each segment. Products of queries
 * and keys depend on the distance alone, so where positions begin shows in rounding only. */
static void turn(const reference *r, const row_state *s, double *x, int64_t heads) {
    int64_t e = r->shape.head_dim, position = 0;
    for (int64_t t = 0; t < s->length; t++) {
        position = t > 0 && s->segments[t] == s->segments[t - 1] ? position + 1 : 0;
        for (int64_t h = 0; h < heads; h++)
            for (int64_t c = 0; c < e / 2; c++) {
                double *head = x + (t * heads + h) * e;
                double *a = r->shape.rope_interleaved ? head + 2 * c : head + c;
                double *b = r->shape.rope_interleaved ? head + 2 * c + 1 : head + c + e / 2;
                double angle = (double)position * pow(r->shape.rope_theta, -2 * (double)c / (double)e);
                double turned = *a * cos(angle) - *b * sin(angle);
                *b = *a * sin(angle) + *b * cos(angle);
                *a = turned;
            }
    }
}

static bool sees(const reference *r, const row_state *s, int64_t query, int64_t key) {
    if (s->segments[query] == 0 || s->segments[key] != s->segments[query]) return false;
    return key <= query || (r->prefix && s->prefix[query] && s->prefix[key]);
}

/* y = attention(n) */
static void attention(const reference *r, int layer, const row_state *s, double *y, const double *n) {
    int64_t d = r->shape.d_model, heads = r->shape.n_heads, kv = r->shape.kv_heads, e = r->shape.head_dim;
    int64_t length = s->length, w = heads * e, kw = kv * e;
    double *q = reference_room(length * w), *k = reference_room(length * kw),
           *v = reference_room(length * kw), *o = reference_room(length * w), *p = reference_room(length);
    reference_linear(q, n, reference_named(r, "decoder", layer, "attention.query"), length, d, w);
    reference_linear(k, n, reference_named(r, "decoder", layer, "attention.key"), length, d, kw);
    reference_linear(v, n, reference_named(r, "decoder", layer, "attention.value"), length, d, kw);
    turn(r, s, q, heads);
    turn(r, s, k, kv);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < length; i++) {
            int64_t shared = h / (heads / kv); /* the key/value head of this query head's group */
            double sum = 0;
            for (int64_t j = 0; j < length; j++) {
                p[j] = 0;
                if (!sees(r, s, i, j)) continue;
                double dot = 0;
                for (int64_t c = 0; c < e; c++) dot += q[i * w + h * e + c] * k[j * kw + shared * e + c];
                p[j] = exp(dot / sqrt((double)e));
                sum += p[j];
            }
            for (int64_t j = 0; j < length && sum > 0; j++) {
                double pj = p[j] / sum *
                            reference_keep(r, site_of(layer, SAGO_SITE_PROBABILITIES), s->row, heads * length,
                                           h * length + i, length, j);
                for (int64_t c = 0; c < e; c++) o[i * w + h * e + c] += pj * v[j * kw + shared * e + c];
            }
        }
    reference_linear(y, o, reference_named(r, "decoder", layer, "attention.output"), length, w, d);
    free(q), free(k), free(v), free(o), free(p);
}

/* y = MLP(n) */
static void mlp(const reference *r, int layer, const row_state *s, double *y, const double *n) {
    int64_t d = r->shape.d_model, f = r->shape.d_ff, length = s->length;
    double *a = reference_room(length * f), *b = reference_room(length * f);
    reference_linear(a, n, reference_named(r, "decoder", layer, "mlp.gate"), length, d, f);
    reference_linear(b, n, reference_named(r, "decoder", layer, "mlp.linear"), length, d, f);
    for (int64_t i = 0; i < length * f; i++)
        a[i] *= b[i] / (1 + exp(-a[i])) *
                reference_keep(r, site_of(layer, SAGO_SITE_MLP_INNER), s->row, length, i / f, f, i % f);
    reference_linear(y, a, reference_named(r, "decoder", layer, "mlp.out"), length, f, d);
    free(a), free(b);
}

void reference_palm_hidden(const reference *r, const sago_batch *batch, int64_t row, double *h) {
    int64_t length = batch->target_length, d = r->shape.d_model, n = length * d;
    const int32_t *ids = batch->decoder_inputs + row * length;
    row_state s = {batch->first_row + row, length, batch->target_segments + row * length,
                   batch->prefix + row * length, h};
    const double *table = reference_named(r, "shared", -1, "embedding");
    double *normed = reference_room(n), *one = reference_room(n), *other = reference_room(n);
    for (int64_t i = 0; i < n; i++)
        h[i] = s.segments[i / d]
                   ? table[ids[i / d] * d + i % d] *
                         reference_keep(r, SAGO_SITE_DECODER_INPUT, s.row, length, i / d, d, i % d)
                   : 0;
    for (int layer = 0; layer < r->shape.decoder_layers; layer++) {
        norm(r, normed, h, reference_named(r, "decoder", layer, "norm"), length);
        attention(r, layer, &s, one, normed);
        mlp(r, layer, &s, other, normed);
        for (int64_t i = 0; i < n; i++)
            h[i] += (one[i] + other[i]) *
                    reference_keep(r, site_of(layer, SAGO_SITE_OUTPUT), s.row, length, i / d, d, i % d);
    }
    norm(r, normed, h, reference_named(r, "decoder", -1, "final_norm"), length);
    for (int64_t i = 0; i < n; i++)
        h[i] = normed[i] * reference_keep(r, SAGO_SITE_DECODER_FINAL, s.row, length, i / d, d, i % d);
    free(normed), free(one), free(other);
}
