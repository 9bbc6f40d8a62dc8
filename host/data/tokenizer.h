// SPDX-License-Identifier: Apache-2.0
/**
 * Tokenizer: text to ids and back. SentencePiece models through their C++ library, or bytes (ByT5: id = byte
 * + 3).
 *
 * Ids 0 pad, 1 EOS, 2 unknown. 100 sentinels stand above the pieces: sentinel i is size - 1 - i. Text is
 * never parsed for sentinels or control pieces. Safe to use from several threads at once.
 */
#ifndef SAGO_TOKENIZER_H
#define SAGO_TOKENIZER_H

#include "status.h"
#include "str.h"

#include <stdint.h>

enum { SAGO_PAD_ID = 0, SAGO_EOS_ID = 1, SAGO_UNK_ID = 2, SAGO_SENTINELS = 100 };

typedef struct sago_tokenizer sago_tokenizer;

/** Opens "bytes" or a SentencePiece model file. SAGO_E_INPUT for a file that is no model. */
sago_status sago_tokenizer_open(const char *path, sago_tokenizer **out) SAGO_MUST_CHECK;

/** The same from a model's bytes; name is for messages. */
sago_status sago_tokenizer_from_bytes(const char *name, const void *bytes, size_t size,
                                      sago_tokenizer **out) SAGO_MUST_CHECK;
void sago_tokenizer_close(sago_tokenizer *tokenizer);

int32_t sago_tokenizer_size(const sago_tokenizer *tokenizer); /* pieces and sentinels */
/** Ids that a model's vocabulary must have room for: all of a T5's; of a decoder alone the pieces, for its published
 * vocabularies have no sentinels (an objective that needs them says so). */
int32_t sago_tokenizer_least_vocabulary(const sago_tokenizer *tokenizer, bool decoder_only);
int32_t sago_tokenizer_sentinel(const sago_tokenizer *tokenizer, int i);

/** The model file's bytes, to travel in checkpoints; for "bytes" the text "bytes". */
const void *sago_tokenizer_bytes(const sago_tokenizer *tokenizer, size_t *size);
uint64_t sago_tokenizer_hash(const sago_tokenizer *tokenizer);

typedef struct sago_ids {
    int32_t *data;
    int64_t length, capacity;
} sago_ids;
void sago_ids_add(sago_ids *ids, int32_t id);
void sago_ids_clear(sago_ids *ids);
void sago_ids_free(sago_ids *ids);

/** Appends the ids of text; no EOS. */
sago_status sago_tokenizer_encode(const sago_tokenizer *tokenizer, const char *text, size_t length,
                                  sago_ids *out) SAGO_MUST_CHECK;

/** Appends the text of ids; pad, EOS and ids past the pieces give nothing. */
sago_status sago_tokenizer_decode(const sago_tokenizer *tokenizer, const int32_t *ids, int64_t n,
                                  sago_str *out) SAGO_MUST_CHECK;

typedef struct sago_tokenizer_training {
    const char *const *files; /* .txt, .jsonl (inputs, targets, text) */
    int n_files;
    int vocab_size;     /* pieces, without sentinels */
    const char *output; /* model file */
    const char *kind;   /* unigram | bpe */
    uint64_t seed;
} sago_tokenizer_training;
sago_status sago_tokenizer_train(const sago_tokenizer_training *training) SAGO_MUST_CHECK;

#endif
