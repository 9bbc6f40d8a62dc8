// SPDX-License-Identifier: Apache-2.0
#include "reference.h"

#include "rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double *reference_room(int64_t count) {
    return calloc((size_t)count, sizeof(double));
}

const double *reference_named(const reference *r, const char *stack, int layer, const char *name) {
    char full[128];
    if (layer < 0)
        snprintf(full, sizeof full, "%s.%s", stack, name);
    else
        snprintf(full, sizeof full, "%s.%d.%s", stack, layer, name);
    const sago_param *param = sago_registry_find(r->registry, full);
    if (!param) abort();
    return r->values + param->offset;
}

double reference_keep(const reference *r, int site, int64_t row, int64_t row_tokens, int64_t token,
                      int64_t width, int64_t column) {
    if (r->dropout == 0) return 1;
    uint64_t i = (uint64_t)((row * row_tokens + token) * width + column);
    uint32_t words[4];
    sago_philox(sago_mix(r->dropout_key, (uint64_t)site), i / 4, 0, words);
    return (double)words[i % 4] >= (double)(float)r->dropout * 0x1p32 ? 1 / (1 - r->dropout) : 0;
}

void reference_linear(double *y, const double *x, const double *w, int64_t n, int64_t in, int64_t out) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += x[t * in + i] * w[o * in + i];
            y[t * out + o] = sum;
        }
}

/* logits[target_length, V] of a row */
static void logits_of(const reference *r, const sago_batch *batch, int64_t row, double *logits) {
    int64_t st = batch->target_length, d = r->shape.d_model, v = r->shape.vocab_size;
    bool palm = strcmp(r->shape.family, "palm") == 0, tied = r->shape.tied_embeddings;
    double *h = reference_room(st * d);
    (palm ? reference_palm_hidden : reference_t5_hidden)(r, batch, row, h);
    reference_linear(logits, h, reference_named(r, tied ? "shared" : "output", -1, "embedding"), st, d, v);
    double scale = palm ? (double)r->shape.logit_scale : tied ? 1 / sqrt((double)d) : 1;
    for (int64_t i = 0; i < st * v; i++) logits[i] *= scale;
    free(h);
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
    double *logits = reference_room(st * v), total = 0;
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
