// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "check_layers.h"
#include "cpu_ops.h"

#include <string.h>

enum {
    TOKENS = 32,   /* tokens of a chunk at least */
    COLUMNS = 256, /* columns of a table row that one task takes */
    DIGIT_BITS = 11,
    DIGITS = 1 << DIGIT_BITS,
};

sago_status SAGO_CPU(embedding_forward)(sago_device *device, sago_tensor y, sago_tensor table,
                                        sago_tensor ids, float factor) {
    int64_t tokens = sago_tensor_count(ids), width = sago_width(table);
    SAGO_TRY(sago_fits_embedding_forward(device, y, table, ids));
    const int32_t *id = ids.data;
    SAGO_TRY(sago_check_ids("embedding_forward", id, tokens, table.shape[0]));
    int64_t n = sago_cpu_chunks(tokens, TOKENS);
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (n > 1)
    for (int64_t c = 0; c < n; c++) {
        for (int64_t t = tokens * c / n; t < tokens * (c + 1) / n; t++) {
            float *out = (float *)y.data + t * width;
            if (id[t] < 0) {
                memset(out, 0, (size_t)width * sizeof(float));
                continue;
            }
            const float *row = (const float *)table.data + id[t] * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] = row[i] * factor;
        }
    }
    return SAGO_OK;
}

/* Tokens in the order of their ids, equal ids in the order of the tokens: a radix sort keeps it. Returns
 * where. */
static uint64_t *sort_tokens(uint64_t *keys, uint64_t *other, int64_t n, int64_t vocabulary) {
    for (int shift = 0; shift == 0 || (vocabulary - 1) >> shift; shift += DIGIT_BITS) {
        int64_t start[DIGITS] = {0}, at = 0;
        for (int64_t i = 0; i < n; i++) start[(keys[i] >> (32 + shift)) & (DIGITS - 1)]++;
        for (int digit = 0; digit < DIGITS; digit++) {
            int64_t count = start[digit];
            start[digit] = at;
            at += count;
        }
        for (int64_t i = 0; i < n; i++) other[start[(keys[i] >> (32 + shift)) & (DIGITS - 1)]++] = keys[i];
        uint64_t *swap = keys;
        keys = other, other = swap;
    }
    return keys;
}

sago_status SAGO_CPU(embedding_backward)(sago_device *device, sago_tensor d_table, sago_tensor d_y,
                                         sago_tensor ids, float factor) {
    int64_t tokens = sago_tensor_count(ids), width = sago_width(d_table);
    SAGO_TRY(sago_fits_embedding_backward(device, d_table, d_y, ids));
    const int32_t *id = ids.data;
    SAGO_TRY(sago_check_ids("embedding_backward", id, tokens, d_table.shape[0]));
    void *scratch;
    SAGO_TRY(sago_cpu_scratch(device, (size_t)tokens * 3 * sizeof(uint64_t), &scratch));
    uint64_t *keys = scratch;
    int64_t n = 0, runs = 0;
    for (int64_t t = 0; t < tokens; t++)
        if (id[t] >= 0) keys[n++] = (uint64_t)id[t] << 32 | (uint64_t)t;
    int64_t *run = (int64_t *)(keys + 2 * tokens); /* where the tokens of each distinct id begin */
    keys = sort_tokens(keys, keys + tokens, n, d_table.shape[0]);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || keys[i] >> 32 != keys[i - 1] >> 32) run[runs++] = i;

    /* A task is one id and some columns: a frequent id doesn't keep one thread alone at work. */
    int64_t column_blocks = (width + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for collapse(2) schedule(dynamic, 16) num_threads(device->n_threads) if (n > TOKENS)
    for (int64_t r = 0; r < runs; r++) {
        for (int64_t block = 0; block < column_blocks; block++) {
            int64_t first = block * COLUMNS, end = first + COLUMNS < width ? first + COLUMNS : width;
            int64_t last = r + 1 < runs ? run[r + 1] : n;
            float *out = (float *)d_table.data + (int64_t)(keys[run[r]] >> 32) * width;
            for (int64_t k = run[r]; k < last; k++) {
                const float *in = (const float *)d_y.data + (int64_t)(keys[k] & UINT32_MAX) * width;
#pragma omp simd
                for (int64_t i = first; i < end; i++) out[i] += in[i] * factor;
            }
        }
    }
    return SAGO_OK;
}
