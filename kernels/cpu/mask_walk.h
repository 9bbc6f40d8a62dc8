// SPDX-License-Identifier: Apache-2.0
/**
 * The walk of the elementwise operations that may drop: pieces of a tensor, each with its mask, over the
 * threads.
 */
#ifndef SAGO_MASK_WALK_H
#define SAGO_MASK_WALK_H

#include "cpu_ops.h"
#include "dropout_mask.h"

/** What a piece function writes and reads; the rest is NULL. */
typedef struct sago_streams {
    float *out, *out2;
    const float *a, *b, *c;
} sago_streams;

/** Elements [at, at + count); keep holds their factors, or is NULL without dropout. */
typedef void sago_piece_function(const sago_streams *s, int64_t at, const float *keep, int64_t count);

/** `like`: a tensor of the shape that all have. grain: elements that are worth a thread. */
static inline void sago_mask_walk(const sago_device *device, sago_piece_function *function,
                                  const sago_streams *s, sago_tensor like, const sago_dropout *dropout,
                                  int64_t grain) {
    bool drops = dropout && dropout->rate > 0.0f;
    sago_mask mask = {0};
    sago_mask_lines lines = {0};
    if (drops) {
        mask = sago_mask_make(dropout, like.shape[2]);
        lines = sago_mask_lines_make(&mask, like.shape[0], like.shape[1], like.shape[2]);
    }
    int64_t count = sago_tensor_count(like), n = sago_cpu_chunks(count, grain);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        int64_t end = sago_cpu_chunk_start(count, n, c + 1);
        float keep[SAGO_MASK_PIECE];
        for (int64_t at = sago_cpu_chunk_start(count, n, c); at < end; at += SAGO_MASK_PIECE) {
            int64_t piece = end - at < SAGO_MASK_PIECE ? end - at : SAGO_MASK_PIECE;
            if (drops) sago_mask_factors(keep, &mask, &lines, at, piece);
            function(s, at, drops ? keep : NULL, piece);
        }
    }
}

#endif
