// SPDX-License-Identifier: Apache-2.0
/**
 * Dropout masks as loops use them: a factor an element, 0 for dropped ones and 1 / (1 - rate) for kept ones.
 * ops.h says which word of Philox4x32-10 (rng.h) belongs to which element; here sixteen counters run side by
 * side, so that the compiler turns them into vectors.
 */
#ifndef SAGO_DROPOUT_MASK_H
#define SAGO_DROPOUT_MASK_H

#include "ops.h"

#include <math.h>

enum { SAGO_MASK_WORDS = 64, SAGO_MASK_PIECE = 1024 };

/** A mask over a tensor [rows, tokens, width]; see sago_mask_make. */
typedef struct sago_mask {
    uint64_t key;
    int64_t first;      /* index of the tensor's first element in the global batch */
    int64_t row_count;  /* elements of one row here: tokens * width */
    int64_t row_stride; /* elements from one row to the next in the global batch: row_tokens * width */
    uint32_t threshold; /* words below it drop */
    float factor;       /* 1 / (1 - rate) */
} sago_mask;

static inline sago_mask sago_mask_make(const sago_dropout *dropout, int64_t tokens, int64_t width) {
    sago_mask mask = {.key = dropout->key,
                      .first = dropout->first_row * dropout->row_tokens * width,
                      .row_count = tokens * width,
                      .row_stride = dropout->row_tokens * width,
                      .threshold = (uint32_t)ceil((double)dropout->rate * 0x1p32),
                      .factor = 1.0f / (1.0f - dropout->rate)};
    return mask;
}

/** Words of the 64 elements from 4 * counter on. */
static inline void sago_mask_words(uint32_t out[SAGO_MASK_WORDS], uint64_t key, uint64_t counter) {
    uint32_t w0[16], w1[16], w2[16], w3[16];
#pragma omp simd
    for (int i = 0; i < 16; i++) {
        uint64_t at = counter + (uint64_t)i;
        uint32_t c0 = (uint32_t)at, c1 = (uint32_t)(at >> 32), c2 = 0, c3 = 0;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
            uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        w0[i] = c0, w1[i] = c1, w2[i] = c2, w3[i] = c3;
    }
    for (int i = 0; i < 16; i++)
        out[4 * i] = w0[i], out[4 * i + 1] = w1[i], out[4 * i + 2] = w2[i], out[4 * i + 3] = w3[i];
}

/** Factors of count elements from a global index on (the i of sago_dropout in ops.h). */
static inline void sago_mask_run(float *out, const sago_mask *mask, int64_t index, int64_t count) {
    uint32_t words[SAGO_MASK_WORDS];
    for (int64_t done = 0; done < count;) {
        int64_t skip = (index + done) & 3;
        int64_t n = SAGO_MASK_WORDS - skip;
        sago_mask_words(words, mask->key, (uint64_t)(index + done) >> 2);
        if (n > count - done) n = count - done;
        uint32_t threshold = mask->threshold;
        float factor = mask->factor;
        float *to = out + done;
        const uint32_t *from = words + skip;
        if (n == SAGO_MASK_WORDS) {
#pragma omp simd
            for (int i = 0; i < SAGO_MASK_WORDS; i++) to[i] = from[i] >= threshold ? factor : 0.0f;
        } else {
            for (int64_t i = 0; i < n; i++) to[i] = from[i] >= threshold ? factor : 0.0f;
        }
        done += n;
    }
}

/** Factors of elements [flat, flat + count) of the tensor, counted through its own rows. */
static inline void sago_mask_factors(float *out, const sago_mask *mask, int64_t flat, int64_t count) {
    while (count > 0) {
        int64_t row = flat / mask->row_count, at = flat % mask->row_count;
        int64_t n = mask->row_count - at < count ? mask->row_count - at : count;
        sago_mask_run(out, mask, mask->first + row * mask->row_stride + at, n);
        out += n, flat += n, count -= n;
    }
}

#endif
