// SPDX-License-Identifier: Apache-2.0
/* T5 in float64. */
#include "reference.h"

#include "layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void norm(const reference *r, double *y, const double *x, const double *scale, int64_t n) {
    int64_t d = r->shape.d_model;
    for (int64_t t = 0; t < n; t++) {
        double mean = 0;
        for (int64_t i = 0; i < d; i++) mean += x[t * d + i] * x[t * d + i] / (double)d;
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = x[t * d + i] / sqrt(mean + (double)r->shape.norm_epsilon) * scale[i];
    }
}

static int64_t bucket(const sago_model_shape *shape, int64_t relative, bool bidirectional) {
    int64_t buckets = shape->relative_buckets, base = 0, n = -relative;
    if (bidirectional) {
        buckets /= 2;
        if (relative > 0) base = buckets;
        n = llabs(relative);
    } else if (n < 0) {
        n = 0;
    }
    int64_t half = buckets / 2;
    if (n < half) return base + n;
    double far = log((double)n / (double)half) / log((double)shape->relative_max_distance / (double)half);
    int64_t b = half + (int64_t)(far * (double)(buckets - half));
    return base + (b < buckets - 1 ? b : buckets - 1);
}

typedef struct side {
    const int32_t *segments;
    int64_t length;
    double *h; /* [length, D] */
} side;

/* x += dropout(attention(norm(x), memory)) */
static void attention(const reference *r, const char *stack, int layer, const char *name, int block,
                      int64_t row, side *x, const side *memory, bool causal, const double *bias,
                      bool bidirectional) {
    int64_t d = r->shape.d_model, heads = r->shape.n_heads, e = r->shape.head_dim, w = heads * e;
    int64_t sq = x->length, sk = memory ? memory->length : sq;
    int probabilities =
        block * SAGO_SITES_PER_BLOCK + (memory ? SAGO_SITE_CROSS_PROBABILITIES : SAGO_SITE_PROBABILITIES);
    int output = block * SAGO_SITES_PER_BLOCK + (memory ? SAGO_SITE_CROSS_OUTPUT : SAGO_SITE_OUTPUT);
    double *n = reference_room(sq * d), *q = reference_room(sq * w), *k = reference_room(sk * w),
           *v = reference_room(sk * w), *o = reference_room(sq * w), *y = reference_room(sq * d);
    double *p = reference_room(sk);
    char full[64];
    snprintf(full, sizeof full, "%s.norm", name);
    norm(r, n, x->h, reference_named(r, stack, layer, full), sq);
    snprintf(full, sizeof full, "%s.query", name);
    reference_linear(q, n, reference_named(r, stack, layer, full), sq, d, w);
    snprintf(full, sizeof full, "%s.key", name);
    reference_linear(k, memory ? memory->h : n, reference_named(r, stack, layer, full), sk, d, w);
    snprintf(full, sizeof full, "%s.value", name);
    reference_linear(v, memory ? memory->h : n, reference_named(r, stack, layer, full), sk, d, w);
    const int32_t *key_segments = memory ? memory->segments : x->segments;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < sq; i++) {
            double sum = 0;
            for (int64_t j = 0; j < sk; j++) {
                p[j] = 0;
                if (x->segments[i] == 0 || key_segments[j] != x->segments[i] || (causal && j > i)) continue;
                double s = bias ? bias[bucket(&r->shape, j - i, bidirectional) * heads + h] : 0;
                for (int64_t c = 0; c < e; c++) s += q[i * w + h * e + c] * k[j * w + h * e + c];
                p[j] = exp(s);
                sum += p[j];
            }
            for (int64_t j = 0; j < sk && sum > 0; j++) {
                double pj = p[j] / sum * reference_keep(r, probabilities, row, heads * sq, h * sq + i, sk, j);
                for (int64_t c = 0; c < e; c++) o[i * w + h * e + c] += pj * v[j * w + h * e + c];
            }
        }
    snprintf(full, sizeof full, "%s.output", name);
    reference_linear(y, o, reference_named(r, stack, layer, full), sq, w, d);
    for (int64_t i = 0; i < sq; i++)
        for (int64_t c = 0; c < d; c++)
            x->h[i * d + c] += y[i * d + c] * reference_keep(r, output, row, sq, i, d, c);
    free(n), free(q), free(k), free(v), free(o), free(y), free(p);
}

static void mlp(const reference *r, const char *stack, int layer, int block, int64_t row, side *x) {
    int64_t d = r->shape.d_model, f = r->shape.d_ff, s = x->length;
    double *n = reference_room(s * d), *a = reference_room(s * f), *b = reference_room(s * f),
           *y = reference_room(s * d);
    norm(r, n, x->h, reference_named(r, stack, layer, "mlp.norm"), s);
    bool gated = r->shape.activation != SAGO_RELU;
    reference_linear(a, n, reference_named(r, stack, layer, gated ? "mlp.gate" : "mlp.in"), s, d, f);
    if (gated) reference_linear(b, n, reference_named(r, stack, layer, "mlp.linear"), s, d, f);
    for (int64_t i = 0; i < s * f; i++) {
        double g = a[i], silu = g / (1 + exp(-g));
        double gelu = 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
        a[i] = !gated ? (g > 0 ? g : 0) : (r->shape.activation == SAGO_SWIGLU ? silu : gelu) * b[i];
        a[i] *=
            reference_keep(r, block * SAGO_SITES_PER_BLOCK + SAGO_SITE_MLP_INNER, row, s, i / f, f, i % f);
    }
    reference_linear(y, a, reference_named(r, stack, layer, "mlp.out"), s, f, d);
    for (int64_t i = 0; i < s * d; i++)
        x->h[i] += y[i] * reference_keep(r, block * SAGO_SITES_PER_BLOCK + SAGO_SITE_MLP_OUTPUT, row, s,
                                         i / d, d, i % d);
    free(n), free(a), free(b), free(y);
}

static void stack_of(const reference *r, const char *name, bool decoder, int64_t row, const int32_t *ids,
                     side *x, const side *memory) {
    int64_t d = r->shape.d_model, layers = decoder ? r->shape.decoder_layers : r->shape.encoder_layers;
    const double *table = reference_named(r, "shared", -1, "embedding"),
                 *bias = reference_named(r, name, -1, "relative_bias");
    int input_site = decoder ? SAGO_SITE_DECODER_INPUT : SAGO_SITE_ENCODER_INPUT;
    int final_site = decoder ? SAGO_SITE_DECODER_FINAL : SAGO_SITE_ENCODER_FINAL;
    for (int64_t i = 0; i < x->length * d; i++)
        x->h[i] = x->segments[i / d] ? table[ids[i / d] * d + i % d] *
                                           reference_keep(r, input_site, row, x->length, i / d, d, i % d)
                                     : 0;
    for (int layer = 0; layer < layers; layer++) {
        int block = 1 + layer + (decoder ? (int)r->shape.encoder_layers : 0);
        attention(r, name, layer, decoder ? "self_attention" : "attention", block, row, x, NULL, decoder,
                  bias, !decoder);
        if (decoder) attention(r, name, layer, "cross_attention", block, row, x, memory, false, NULL, true);
        mlp(r, name, layer, block, row, x);
    }
    double *y = reference_room(x->length * d);
    norm(r, y, x->h, reference_named(r, name, -1, "final_norm"), x->length);
    for (int64_t i = 0; i < x->length * d; i++)
        x->h[i] = y[i] * reference_keep(r, final_site, row, x->length, i / d, d, i % d);
    free(y);
}

void reference_t5_hidden(const reference *r, const sago_batch *batch, int64_t row, double *h) {
    int64_t si = batch->input_length, st = batch->target_length, global = batch->first_row + row;
    side inputs = {batch->input_segments + row * si, si, reference_room(si * r->shape.d_model)};
    side targets = {batch->target_segments + row * st, st, h};
    stack_of(r, "encoder", false, global, batch->inputs + row * si, &inputs, NULL);
    stack_of(r, "decoder", true, global, batch->decoder_inputs + row * st, &targets, &inputs);
    free(inputs.h);
}
