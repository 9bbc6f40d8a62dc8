// SPDX-License-Identifier: Apache-2.0
/**
 * The bundled task set: small English tasks in the published formats, made from word lists by a seed, so that
 * the whole road can be walked without any data of others.
 *
 *     DIR/niv2/NAME.json     position, selection, membership, counting, reordering: an operation on a list of
 * words of a kind. Each operation stands with most kinds, each kind with most operations, so a task that is
 * held out is a new pair of known parts. DIR/jsonl/NAME.jsonl   comparing numbers, days, short passages,
 * opposites, sentiment: finished texts DIR/cot/NAME.tsv       sums, coins, last letters: question, answer,
 * chain DIR/table/NAME.csv     sums: question, answer; for the mapping question_answer DIR/choice/NAME.jsonl
 * questions with options, as CommonsenseQA; for the mapping commonsense_qa DIR/corpus.txt         every text,
 * one a line: what a tokenizer is trained on
 *
 * Each task has a large space of inputs made of few facts, so an input that was never seen can be answered by
 * what was learnt from others. Equal seeds give equal bytes.
 */
#ifndef SAGO_GENERATE_H
#define SAGO_GENERATE_H

#include "status.h"
#include "str.h"

#include <stdint.h>

/** Writes all of it; dir is made. examples: how many a task, at most. Errors: SAGO_E_IO. */
sago_status sago_generate(const char *dir, uint64_t seed, int examples) SAGO_MUST_CHECK;

/* ---- inside: what the families share ---- */

enum {
    SAGO_KIND_ANIMAL,
    SAGO_KIND_FRUIT,
    SAGO_KIND_COLOR,
    SAGO_KIND_TOOL,
    SAGO_KIND_CLOTHES,
    SAGO_KIND_NAME,
    SAGO_KINDS
};
enum { SAGO_KIND_WORDS = 12 };

typedef struct sago_kind {
    const char *one, *many, *article; /* "animal", "animals", "an" */
    const char *words[SAGO_KIND_WORDS];
} sago_kind;
extern const sago_kind sago_kinds[SAGO_KINDS];

/** A stream of random numbers for one example. */
typedef struct sago_dice {
    uint64_t key, count;
} sago_dice;
int sago_dice_roll(sago_dice *dice, int n);                      /* in [0, n) */
void sago_dice_choose(sago_dice *dice, int n, int k, int out[]); /* k different numbers below n */
const char *sago_dice_word(sago_dice *dice, int kind);

/** One example of a family. */
typedef struct sago_made {
    sago_str input, output, chain;
    const char *options[8]; /* multiple choice */
    int n_options, right;
} sago_made;

/** Makes an example of the operation on a kind; both are the family's own numbers. */
typedef void sago_make(sago_dice *dice, int operation, int kind, sago_made *out);

typedef struct sago_made_task {
    char name[64], category[32];
    sago_str definition; /* niv2 only */
    sago_make *make;
    int operation, kind;
    const char *folder; /* "niv2", "jsonl", "cot", "table", "choice" */
} sago_made_task;

typedef struct sago_made_tasks {
    sago_made_task *items;
    int count, capacity;
} sago_made_tasks;
sago_made_task *sago_made_tasks_add(sago_made_tasks *tasks, const char *folder, const char *category,
                                    sago_make *make, int operation, int kind, const char *name, ...)
    SAGO_PRINTF(7, 8);

void sago_made_lists(sago_made_tasks *tasks);  /* generate_lists.c */
void sago_made_texts(sago_made_tasks *tasks);  /* generate_texts.c */
void sago_made_chains(sago_made_tasks *tasks); /* generate_chains.c */

#endif
