// SPDX-License-Identifier: Apache-2.0
#include "rope.h"
#include "check_layers.h"
#include "cpu_ops.h"

#include <string.h>

enum { GRAIN = 4096 /* elements that are worth threads */ };

/* The rotations of one token, an array each so that loops over pairs are loops over vectors. */
typedef struct rotations {
    float cos[SAGO_ROPE_PAIRS], sin[SAGO_ROPE_PAIRS];
} rotations;

static void rotations_of(rotations *out, const sago_rope_table *table, int64_t pairs, int32_t position,
                         bool inverse) {
    for (int64_t i = 0; i < pairs; i++) {
        sago_rotation r = sago_rope_rotation(table->turns[i], position);
        out->cos[i] = r.cos;
        out->sin[i] = inverse ? -r.sin : r.sin;
    }
}

static void rotate_interleaved(float *out, const float *x, const rotations *r, int64_t pairs) {
#pragma omp simd
    for (int64_t i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        out[2 * i] = a * r->cos[i] - b * r->sin[i];
        out[2 * i + 1] = a * r->sin[i] + b * r->cos[i];
    }
}

static void rotate_halves(float *out, const float *x, const rotations *r, int64_t pairs) {
#pragma omp simd
    for (int64_t i = 0; i < pairs; i++) {
        float a = x[i], b = x[pairs + i];
        out[i] = a * r->cos[i] - b * r->sin[i];
        out[pairs + i] = a * r->sin[i] + b * r->cos[i];
    }
}

sago_status SAGO_CPU(rope)(sago_device *device, sago_tensor out, sago_tensor x, sago_tensor positions,
                           const sago_rope_args *args) {
    SAGO_TRY(sago_fits_rope(device, out, x, positions, args));
    int64_t tokens = x.shape[0] * x.shape[1], heads = x.shape[2], width = x.shape[3], pairs = width / 2;
    sago_rope_table table;
    sago_rope_table_fill(&table, pairs, args->theta);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (tokens * heads * width > GRAIN)
    for (int64_t token = 0; token < tokens; token++) {
        const float *from = (const float *)x.data + token * heads * width;
        float *to = (float *)out.data + token * heads * width;
        int32_t position = ((const int32_t *)positions.data)[token];
        if (position < 0) {
            if (to != from) memcpy(to, from, (size_t)(heads * width) * sizeof(float));
            continue;
        }
        rotations r;
        rotations_of(&r, &table, pairs, position, args->inverse);
        for (int64_t at = 0; at < heads * width; at += width) {
            if (args->style == SAGO_ROPE_HALVES)
                rotate_halves(to + at, from + at, &r, pairs);
            else
                rotate_interleaved(to + at, from + at, &r, pairs);
        }
    }
    return SAGO_OK;
}
