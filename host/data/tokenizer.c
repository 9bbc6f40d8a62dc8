// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.h"

#include "file.h"
#include "rng.h"
#include "sentencepiece.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTE_ID = 3, BYTE_PIECES = FIRST_BYTE_ID + 256 };
enum { MAX_MODEL_BYTES = 1 << 28, MAX_TEXT_BYTES = 1 << 24 };

struct sago_tokenizer {
    sago_sentencepiece *model; /* NULL: bytes */
    sago_str bytes;
    uint64_t hash;
    int32_t pieces;
};

sago_status sago_tokenizer_from_bytes(const char *name, const void *bytes, size_t size,
                                      sago_tokenizer **out) {
    *out = NULL;
    sago_tokenizer *tokenizer = sago_alloc_zero(1, sizeof *tokenizer);
    sago_str checked = {0};
    sago_status status = SAGO_OK;
    sago_str_add(&tokenizer->bytes, bytes, size);
    tokenizer->hash = sago_hash_bytes(bytes, size);
    if (size == 5 && memcmp(bytes, "bytes", 5) == 0) {
        tokenizer->pieces = BYTE_PIECES;
    } else {
        sago_str_add(&checked, bytes, size);
        SAGO_TRY_TO(done,
                    sago_sentencepiece_check(name, (unsigned char *)checked.data, size, &tokenizer->pieces));
        SAGO_TRY_TO(done, sago_sentencepiece_open(name, checked.data, size, &tokenizer->model));
    }
    *out = tokenizer;
    tokenizer = NULL;
done:
    sago_str_free(&checked);
    sago_tokenizer_close(tokenizer);
    return status;
}

sago_status sago_tokenizer_open(const char *path, sago_tokenizer **out) {
    *out = NULL;
    if (strcmp(path, "bytes") == 0) return sago_tokenizer_from_bytes(path, path, 5, out);
    sago_str bytes = {0};
    sago_status status = sago_file_read(path, MAX_MODEL_BYTES, &bytes);
    if (status == SAGO_OK) status = sago_tokenizer_from_bytes(path, sago_str_text(&bytes), bytes.length, out);
    sago_str_free(&bytes);
    return status;
}

void sago_tokenizer_close(sago_tokenizer *tokenizer) {
    if (!tokenizer) return;
    sago_sentencepiece_close(tokenizer->model);
    sago_str_free(&tokenizer->bytes);
    free(tokenizer);
}

int32_t sago_tokenizer_size(const sago_tokenizer *tokenizer) {
    return tokenizer->pieces + SAGO_SENTINELS;
}

int32_t sago_tokenizer_least_vocabulary(const sago_tokenizer *tokenizer, bool decoder_only) {
    return sago_tokenizer_size(tokenizer) - (decoder_only ? SAGO_SENTINELS : 0);
}

int32_t sago_tokenizer_sentinel(const sago_tokenizer *tokenizer, int i) {
    return sago_tokenizer_size(tokenizer) - 1 - i;
}

const void *sago_tokenizer_bytes(const sago_tokenizer *tokenizer, size_t *size) {
    *size = tokenizer->bytes.length;
    return tokenizer->bytes.data;
}

uint64_t sago_tokenizer_hash(const sago_tokenizer *tokenizer) {
    return tokenizer->hash;
}

void sago_ids_add(sago_ids *ids, int32_t id) {
    if (ids->length == ids->capacity) {
        ids->capacity = ids->capacity ? 2 * ids->capacity : 64;
        ids->data = sago_realloc(ids->data, (size_t)ids->capacity * sizeof *ids->data);
    }
    ids->data[ids->length++] = id;
}

void sago_ids_clear(sago_ids *ids) {
    ids->length = 0;
}

void sago_ids_free(sago_ids *ids) {
    free(ids->data);
    *ids = (sago_ids){0};
}

sago_status sago_tokenizer_encode(const sago_tokenizer *tokenizer, const char *text, size_t length,
                                  sago_ids *out) {
    if (length > MAX_TEXT_BYTES)
        return sago_fail(SAGO_E_INPUT, "a text of %zu bytes is longer than the %d that are tokenized at once",
                         length, (int)MAX_TEXT_BYTES);
    if (tokenizer->model) return sago_sentencepiece_encode(tokenizer->model, text, length, out);
    for (size_t i = 0; i < length; i++) sago_ids_add(out, FIRST_BYTE_ID + (unsigned char)text[i]);
    return SAGO_OK;
}

sago_status sago_tokenizer_decode(const sago_tokenizer *tokenizer, const int32_t *ids, int64_t n,
                                  sago_str *out) {
    if (!tokenizer->model) {
        for (int64_t i = 0; i < n; i++)
            if (ids[i] >= FIRST_BYTE_ID && ids[i] < BYTE_PIECES)
                sago_str_putc(out, (char)(ids[i] - FIRST_BYTE_ID));
        return SAGO_OK;
    }
    sago_ids known = {0};
    for (int64_t i = 0; i < n; i++)
        if (ids[i] > SAGO_EOS_ID && ids[i] < tokenizer->pieces) sago_ids_add(&known, ids[i]);
    sago_status status = SAGO_OK;
    if (known.length > 0) status = sago_sentencepiece_decode(tokenizer->model, known.data, known.length, out);
    sago_ids_free(&known);
    return status;
}
