// SPDX-License-Identifier: Apache-2.0
/**
 * SentencePiece (Kudo and Richardson 2018) behind a C interface. sentencepiece.cpp is the only file that
 * knows the library; no exception leaves it. Safe to use from several threads once open.
 *
 * The library trusts a model file: one that is damaged can end the process or be read out of bounds. So the
 * file's structure is checked first, by code of our own (sentencepiece_check.c).
 */
#ifndef SAGO_SENTENCEPIECE_H
#define SAGO_SENTENCEPIECE_H

#include "status.h"
#include "str.h"
#include "tokenizer.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Checks the bytes of a model: a well-formed protocol buffer with 3 to 2^20 pieces, finite scores, T5's
 * special pieces (0 pad, 1 EOS, 2 unknown), and a normalisation table whose trie and strings stay inside of
 * it. name is for messages. *pieces gets their number. Pieces that were declared as symbols and look like
 * sentinels
 * ("<extra_id_7>") are turned into control pieces in the given bytes, so that a text which spells one is
 * text.
 */
sago_status sago_sentencepiece_check(const char *name, unsigned char *bytes, size_t size,
                                     int32_t *pieces) SAGO_MUST_CHECK;

typedef struct sago_sentencepiece sago_sentencepiece;

/** Opens checked bytes. */
sago_status sago_sentencepiece_open(const char *name, const void *bytes, size_t size,
                                    sago_sentencepiece **out) SAGO_MUST_CHECK;
void sago_sentencepiece_close(sago_sentencepiece *model);

sago_status sago_sentencepiece_encode(const sago_sentencepiece *model, const char *text, size_t length,
                                      sago_ids *out) SAGO_MUST_CHECK;
/** ids must be below the number of pieces. */
sago_status sago_sentencepiece_decode(const sago_sentencepiece *model, const int32_t *ids, int64_t n,
                                      sago_str *out) SAGO_MUST_CHECK;

/** The next text to train on: *text points into memory that stays until the next call; *more false at the
 * end. */
typedef struct sago_text_source {
    sago_status (*next)(void *context, const char **text, size_t *length, bool *more);
    void *context;
} sago_text_source;

/** Trains a model of kind unigram or bpe with T5's special ids and normalisation; *model gets the file's
 * bytes. */
sago_status sago_sentencepiece_train(const sago_text_source *texts, int vocab_size, const char *kind,
                                     uint64_t seed, sago_str *model) SAGO_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
