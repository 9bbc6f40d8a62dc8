// SPDX-License-Identifier: Apache-2.0
#include "t5_reference.h"

#include "layer.h"
#include "rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double *room(int64_t count) {
    return calloc((size_t)count, sizeof(double));
}

static const double *named(const reference *r, const char *stack, int layer, const char *name) {
    char full[128];
    if (layer < 0)
        snprintf(full, sizeof full, "%s.%s", stack, name);
    else
        snprintf(full, sizeof full, "%s.%d.%s", stack, layer, name);
    const sago_param *param = sago_registry_find(r->registry, full);
    if (!param) abort();
    return r->values + param->offset;
}

/* Element (row, token, column) of a tensor of row_tokens tokens of this width, as ops.h has it. */
static double keep(const reference *r, int site, int64_t row, int64_t row_tokens, int64_t token,
                   int64_t width, int64_t column) {
    if (r->dropout == 0) return 1;
    uint64_t i = (uint64_t)((row * row_tokens + token) * width + column);
    uint32_t words[4];
    sago_philox(sago_mix(r->dropout_key, (uint64_t)site), i / 4, 0, words);
    return (double)words[i % 4] >= (double)(float)r->dropout * 0x1p32 ? 1 / (1 - r->dropout) : 0;
}

static void norm(const reference *r, double *y, const double *x, const double *scale, int64_t n) {
    int64_t d = r->shape.d_model;
    for (int64_t t = 0; t < n; t++) {
        double mean = 0;
        for (int64_t i = 0; i < d; i++) mean += x[t * d + i] * x[t * d + i] / (double)d;
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = x[t * d + i] / sqrt(mean + (double)r->shape.norm_epsilon) * scale[i];
    }
}

/* y[n, out] = x[n, in] W[out, in]^T */
static void linear(double *y, const double *x, const double *w, int64_t n, int64_t in, int64_t out) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += x[t * in + i] * w[o * in + i];
            y[t * out + o] = sum;
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
    double *n = room(sq * d), *q = room(sq * w), *k = room(sk * w), *v = room(sk * w), *o = room(sq * w),
           *y = room(sq * d);
    double *p = room(sk);
    char full[64];
    snprintf(full, sizeof full, "%s.norm", name);
    norm(r, n, x->h, named(r, stack, layer, full), sq);
    snprintf(full, sizeof full, "%s.query", name);
    linear(q, n, named(r, stack, layer, full), sq, d, w);
    snprintf(full, sizeof full, "%s.key", name);
    linear(k, memory ? memory->h : n, named(r, stack, layer, full), sk, d, w);
    snprintf(full, sizeof full, "%s.value", name);
    linear(v, memory ? memory->h : n, named(r, stack, layer, full), sk, d, w);
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
                double pj = p[j] / sum * keep(r, probabilities, row, heads * sq, h * sq + i, sk, j);
                for (int64_t c = 0; c < e; c++) o[i * w + h * e + c] += pj * v[j * w + h * e + c];
            }
        }
    snprintf(full, sizeof full, "%s.output", name);
    linear(y, o, named(r, stack, layer, full), sq, w, d);
    for (int64_t i = 0; i < sq; i++)
        for (int64_t c = 0; c < d; c++) x->h[i * d + c] += y[i * d + c] * keep(r, output, row, sq, i, d, c);
    free(n), free(q), free(k), free(v), free(o), free(y), free(p);
}

static void mlp(const reference *r, const char *stack, int layer, int block, int64_t row, side *x) {
    int64_t d = r->shape.d_model, f = r->shape.d_ff, s = x->length;
    double *n = room(s * d), *a = room(s * f), *b = room(s * f), *y = room(s * d);
    norm(r, n, x->h, named(r, stack, layer, "mlp.norm"), s);
    linear(a, n, named(r, stack, layer, r->shape.activation == SAGO_GATED_GELU ? "mlp.gate" : "mlp.in"), s, d, f);
    if (r->shape.activation == SAGO_GATED_GELU) linear(b, n, named(r, stack, layer, "mlp.linear"), s, d, f);
    for (int64_t i = 0; i < s * f; i++) {
        double g = a[i];
        double gelu = 0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
        a[i] = r->shape.activation == SAGO_GATED_GELU ? gelu * b[i] : g > 0 ? g : 0;
        a[i] *= keep(r, block * SAGO_SITES_PER_BLOCK + SAGO_SITE_MLP_INNER, row, s, i / f, f, i % f);
    }
    linear(y, a, named(r, stack, layer, "mlp.out"), s, f, d);
    for (int64_t i = 0; i < s * d; i++)
        x->h[i] +=
            y[i] * keep(r, block * SAGO_SITES_PER_BLOCK + SAGO_SITE_MLP_OUTPUT, row, s, i / d, d, i % d);
    free(n), free(a), free(b), free(y);
}

static void stack_of(const reference *r, const char *name, bool decoder, int64_t row, const int32_t *ids,
                     side *x, const side *memory) {
    int64_t d = r->shape.d_model, layers = decoder ? r->shape.decoder_layers : r->shape.encoder_layers;
    const double *table = named(r, "shared", -1, "embedding"), *bias = named(r, name, -1, "relative_bias");
    int input_site = decoder ? SAGO_SITE_DECODER_INPUT : SAGO_SITE_ENCODER_INPUT;
    int final_site = decoder ? SAGO_SITE_DECODER_FINAL : SAGO_SITE_ENCODER_FINAL;
    for (int64_t i = 0; i < x->length * d; i++)
        x->h[i] = x->segments[i / d]
                      ? table[ids[i / d] * d + i % d] * keep(r, input_site, row, x->length, i / d, d, i % d)
                      : 0;
    for (int layer = 0; layer < layers; layer++) {
        int block = 1 + layer + (decoder ? (int)r->shape.encoder_layers : 0);
        attention(r, name, layer, decoder ? "self_attention" : "attention", block, row, x, NULL, decoder,
                  bias, !decoder);
        if (decoder) attention(r, name, layer, "cross_attention", block, row, x, memory, false, NULL, true);
        mlp(r, name, layer, block, row, x);
    }
    double *y = room(x->length * d);
    norm(r, y, x->h, named(r, name, -1, "final_norm"), x->length);
    for (int64_t i = 0; i < x->length * d; i++)
        x->h[i] = y[i] * keep(r, final_site, row, x->length, i / d, d, i % d);
    free(y);
}

/* logits[target_length, V] of a row */
static void logits_of(const reference *r, const sago_batch *batch, int64_t row, double *logits) {
    int64_t si = batch->input_length, st = batch->target_length, d = r->shape.d_model,
            v = r->shape.vocab_size;
    side inputs = {batch->input_segments + row * si, si, room(si * d)};
    side targets = {batch->target_segments + row * st, st, room(st * d)};
    int64_t global = batch->first_row + row;
    stack_of(r, "encoder", false, global, batch->inputs + row * si, &inputs, NULL);
    stack_of(r, "decoder", true, global, batch->decoder_inputs + row * st, &targets, &inputs);
    bool tied = r->shape.tied_embeddings;
    linear(logits, targets.h, named(r, tied ? "shared" : "output", -1, "embedding"), st, d, v);
    for (int64_t i = 0; i < st * v && tied; i++) logits[i] /= sqrt((double)d);
    free(inputs.h), free(targets.h);
}

static double lse_of(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp(x[i]);
    return log(sum);
}

void reference_logprobs(const reference *r, const sago_batch *batch, int64_t row, double *out) {
    int64_t v = r->shape.vocab_size;
    logits_of(r, batch, row, out);
    for (int64_t t = 0; t < batch->target_length; t++) {
        double lse = lse_of(out + t * v, v);
        for (int64_t i = 0; i < v; i++) out[t * v + i] -= lse;
    }
}

double reference_objective(const reference *r, const sago_batch *batch) {
    int64_t v = r->shape.vocab_size, st = batch->target_length;
    double *logits = room(st * v), total = 0;
    for (int64_t row = 0; row < batch->n_rows; row++) {
        bool any = false;
        for (int64_t t = 0; t < st; t++) any = any || batch->weights[row * st + t] != 0;
        if (!any) continue;
        logits_of(r, batch, row, logits);
        for (int64_t t = 0; t < st; t++) {
            double lse = lse_of(logits + t * v, v), mean = 0;
            for (int64_t i = 0; i < v; i++) mean += logits[t * v + i] / (double)v;
            double target = logits[t * v + batch->targets[row * st + t]];
            double ce = lse - (1 - r->label_smoothing) * target - r->label_smoothing * mean;
            total += (double)batch->weights[row * st + t] * (ce + r->z_loss * lse * lse);
        }
    }
    free(logits);
    return total;
}
