// SPDX-License-Identifier: Apache-2.0
/**
 * Task: one file of examples inside the mixture, with its split and the wordings that fit its fields.
 */
#ifndef SAGO_TASK_H
#define SAGO_TASK_H

#include "index.h"
#include "mixture.h"
#include "split.h"
#include "template.h"

/** The wordings of a set that the fields of a member allow. */
typedef struct sago_wording_list {
    int *all;   /* numbers as of sago_templates_find */
    int *plain; /* those that are not inverted: what evaluation uses */
    int n_all, n_plain;
} sago_wording_list;

typedef struct sago_text_member sago_text_member;

typedef struct sago_member {
    char *name, *format;
    sago_source source;
    sago_index *index;
    sago_text_member *text; /* format text (mixture_text.h), else NULL: its tasks are denoisers, not files */
    double share;           /* normalised */
    int64_t cap;
    int first_task, n_tasks;
    sago_wording_list direct, chain_zero, chain_few;
    const char *category;
    /* Drawing: cumulative weights over its tasks, n_tasks + 1 of them. */
    uint64_t *cumulative;
    uint32_t ratio;  /* share among this and later members, as a fraction of 2^32 */
    bool takes_rest; /* the last member with a share */
} sago_member;

typedef struct sago_task {
    int member, entry; /* entry: number in the member's index, or of text its denoiser */
    bool held_out;
    char **categories;
    int n_categories;
    sago_split_counts split;
    int64_t weight;        /* min(cap, training examples); 0 when held out */
    uint32_t *train_order; /* sequential order only: training examples in file order; NULL: all of them */
} sago_task;

struct sago_mixture {
    const sago_config *config;
    const sago_tokenizer *tokenizer;
    int64_t vocab_size;
    sago_templates *templates;
    sago_member *members;
    int n_members;
    sago_task *tasks;
    int n_tasks;
    bool sequential, decoder_only;
    bool undrawable;           /* nothing to train on */
    int64_t *sequential_start; /* draws before each task, n_tasks + 1 */
};

/** Example number (in file order) of place i in a split. */
uint32_t sago_task_example(const sago_mixture *mixture, const sago_task *task, sago_split split, int64_t i);

/** Reads and parses a record of a task; fields starts zeroed or used. */
sago_status sago_task_read(const sago_mixture *mixture, const sago_task *task, uint32_t record,
                           sago_fields *fields) SAGO_MUST_CHECK;

/** What render.c is told about a prompt. */
typedef struct sago_rendering {
    bool chain;
    int n_exemplars;
    uint64_t exemplar_key, style_key;
    int answer;  /* which right answer the target is */
    int wording; /* number of the wording; -1: finished text */
} sago_rendering;

/** Whether the fields and the member allow a chain-of-thought prompt. */
bool sago_render_has_chain(const sago_member *member, const sago_fields *fields);

/** Fills texts, ids and provenance of out from a query whose fields were read. */
sago_status sago_render(const sago_mixture *mixture, int task, uint32_t record, sago_fields *fields,
                        const sago_rendering *how, sago_example *out) SAGO_MUST_CHECK;

/** Whether all tasks of a member are held out: it is there for evaluation. */
bool sago_member_held_out(const sago_mixture *mixture, int member);

#endif
