// SPDX-License-Identifier: Apache-2.0
/**
 * Corpus: documents of a text member, all or a choice of them, as one stream of ids, at any place of which
 * reading can begin.
 *
 * A pass is the stream of its documents, each once, in the order that a key names (a permutation computed
 * place by place), or in file order. Documents follow one another with nothing between them, or with EOS
 * after each. The index knows how many ids each part of a document gives, so a place is found without
 * tokenizing what lies before it: a binary search over sums at every 64th document of the pass, then a walk.
 * These sums are made when a pass is first read (one look at the index a document) and take 8 bytes a 64
 * documents; the last few passes' are kept.
 *
 * Safe to use from several threads.
 */
#ifndef SAGO_CORPUS_H
#define SAGO_CORPUS_H

#include "index.h"
#include "source.h"
#include "tokenizer.h"

typedef struct sago_corpus sago_corpus;

/** Whether a corpus holds a document, whose record stands behind the parts of its file. Asked once each, in
 * file order. */
typedef bool sago_corpus_choice(void *context, int file, const sago_record *document);

/** index: of a source of format text, which outlives the corpus as source does. ends: EOS after each
 * document. choose: which documents are in it, NULL: all. Memory: two bits a document where some are not. */
void sago_corpus_open(const sago_index *index, const sago_source *source, bool ends,
                      sago_corpus_choice *choose, void *context, sago_corpus **out);
void sago_corpus_close(sago_corpus *corpus);

int64_t sago_corpus_documents(const sago_corpus *corpus);
int64_t sago_corpus_tokens(const sago_corpus *corpus); /* of a pass: the same in any order */

typedef struct sago_corpus_order {
    bool shuffled; /* false: file order */
    uint64_t key;
} sago_corpus_order;

/** Appends ids [first, first + n) of a pass; the caller stays below sago_corpus_tokens. SAGO_E_INPUT where a
 * file or what the tokenizer makes of it is not what was indexed. */
sago_status sago_corpus_read(sago_corpus *corpus, sago_corpus_order order, int64_t first, int64_t n,
                             sago_ids *out) SAGO_MUST_CHECK;

#endif
