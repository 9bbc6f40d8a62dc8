// SPDX-License-Identifier: Apache-2.0
/* A small state whose every element is known from its place, cut in any way, for tests of saving and loading.
 */
#ifndef SAGO_TEST_SAMPLE_H
#define SAGO_TEST_SAMPLE_H

#include "test.h"

#include "ckpt.h"
#include "rng.h"

typedef struct sample_tensor {
    const char *name;
    sago_dtype dtype;
    int n_dims;
    int64_t shape[2];
} sample_tensor;

/* Vectors, matrices, primes, one element, more than one hash block (4 MiB) with rows that straddle its end,
 * and every dtype. */
static const sample_tensor sample[] = {
    {"param/shared.embedding", SAGO_F32, 2, {1301, 1009}},
    {"param/encoder.0.norm", SAGO_F32, 1, {7, 1}},
    {"param/encoder.0.query", SAGO_F32, 2, {13, 5}},
    {"param/one", SAGO_F32, 1, {1, 1}},
    {"param/row", SAGO_F32, 2, {1, 11}},
    {"adafactor/row/encoder.0.query", SAGO_F32, 1, {13, 1}},
    {"counts", SAGO_I32, 2, {6, 4}},
    {"bytes", SAGO_U8, 1, {1000003, 1}},
    {"half", SAGO_BF16, 2, {17, 3}},
};
enum { SAMPLE_TENSORS = sizeof sample / sizeof sample[0], SAMPLE_MAX_PIECES = 256 };

/* Byte b of element i of tensor t in state number `state`. */
static inline unsigned char sample_byte(uint64_t state, int t, int64_t element, int b) {
    return (unsigned char)(sago_mix(sago_mix(state, (uint64_t)t), (uint64_t)element) >> (8 * b));
}

/* The piece rows [r0, r1) x columns [c0, c1) of tensor t, its memory filled with the state (or with 0xEE). */
static inline sago_piece sample_piece(int t, int64_t r0, int64_t r1, int64_t c0, int64_t c1, uint64_t state,
                                      bool filled) {
    const sample_tensor *s = &sample[t];
    int64_t cols = s->n_dims == 2 ? s->shape[1] : 1;
    int element = (int)sago_dtype_bytes(s->dtype);
    sago_piece p = {.name = s->name,
                    .dtype = s->dtype,
                    .n_dims = s->n_dims,
                    .global_shape = {s->shape[0], s->shape[1]},
                    .offset = {r0, c0},
                    .shape = {r1 - r0, c1 - c0}};
    size_t bytes = (size_t)((r1 - r0) * (c1 - c0) * element);
    unsigned char *data = sago_alloc(bytes);
    memset(data, 0xEE, bytes);
    for (int64_t i = 0; filled && i < (r1 - r0) * (c1 - c0); i++)
        for (int b = 0; b < element; b++)
            data[i * element + b] =
                sample_byte(state, t, (r0 + i / (c1 - c0)) * cols + c0 + i % (c1 - c0), b);
    p.data = data;
    return p;
}

static inline void sample_assert_piece(const sago_piece *p, uint64_t state) {
    int t = 0;
    while (strcmp(sample[t].name, p->name) != 0) t++;
    sago_piece want =
        sample_piece(t, p->offset[0], p->offset[0] + p->shape[0], p->n_dims == 2 ? p->offset[1] : 0,
                     p->n_dims == 2 ? p->offset[1] + p->shape[1] : 1, state, true);
    size_t bytes = (size_t)(p->shape[0] * (p->n_dims == 2 ? p->shape[1] : 1)) * sago_dtype_bytes(p->dtype);
    if (bytes && memcmp(p->data, want.data, bytes) != 0) fail_msg("%s: its bytes differ", p->name);
    free(want.data);
}

/* What rank r of n holds: cut 0 by rows, 1 by columns, 2 in a grid of 2 by 2 (ranks 0 to 3), 3 whole on rank
 * t % n. */
static inline int sample_cut(int cut, int r, int n, uint64_t state, bool filled,
                             sago_piece out[SAMPLE_TENSORS]) {
    int count = 0;
    for (int t = 0; t < SAMPLE_TENSORS; t++) {
        int64_t rows = sample[t].shape[0], cols = sample[t].n_dims == 2 ? sample[t].shape[1] : 1;
        int64_t r0 = 0, r1 = rows, c0 = 0, c1 = cols;
        bool matrix = sample[t].n_dims == 2; /* vectors are cut by rows in any case */
        if (cut == 3 && t % n != r) continue;
        if (cut == 1 && matrix)
            c0 = cols * r / n, c1 = cols * (r + 1) / n;
        else if (cut == 2 && matrix)
            r0 = rows * (r / 2) / 2, r1 = rows * (r / 2 + 1) / 2, c0 = cols * (r % 2) / 2,
            c1 = cols * (r % 2 + 1) / 2;
        else if (cut != 3)
            r0 = rows * r / n, r1 = rows * (r + 1) / n;
        out[count++] = sample_piece(t, r0, r1, c0, c1, state, filled);
    }
    return count;
}

static inline void sample_free(sago_piece pieces[], int n) {
    for (int i = 0; i < n; i++) free(pieces[i].data);
}

/* Saves the whole state in one piece a tensor, by one rank, in the foreground. */
static inline sago_status sample_save(const char *dir, int64_t step, uint64_t state, int64_t keep,
                                      int64_t keep_every) {
    sago_piece pieces[SAMPLE_TENSORS];
    int n = sample_cut(3, 0, 1, state, true, pieces);
    json_t *meta = json_pack("{s:I}", "state", (json_int_t)state);
    const sago_side_file file = {SAGO_TOKENIZER_FILE, "a tokenizer", 11};
    const sago_ckpt_save save = {dir, step, meta, pieces, n, &file, 1, keep, keep_every};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(NULL, false, &writer));
    sago_status status = sago_ckpt_writer_start(writer, &save);
    sago_ckpt_writer_close(writer);
    json_decref(meta);
    sample_free(pieces, n);
    return status;
}

static inline void sample_assert_loads(sago_ckpt *ckpt, int cut, int r, int n, uint64_t state) {
    sago_piece pieces[SAMPLE_TENSORS];
    int count = sample_cut(cut, r, n, state, false, pieces);
    assert_ok(sago_ckpt_load(ckpt, pieces, count));
    for (int i = 0; i < count; i++) sample_assert_piece(&pieces[i], state);
    sample_free(pieces, count);
}

#endif
