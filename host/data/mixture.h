// SPDX-License-Identifier: Apache-2.0
/**
 * Mixture: named members (task sets) with shares, and the order in which their examples are drawn.
 *
 * Sampled order. Draw d is a pure function of (run.seed, d):
 *   member    the i-th member with share s_i gets draws so that after any d draws its count differs from d *
 * s_i by less than the number of members (a digital line, no chance involved); task      the m-th draw of a
 * member takes place m mod W of a pass, W = sum over its tasks of w_t, w_t = min(cap, training examples); a
 * pass is a permutation named by (seed, member, pass), so a pass holds task t exactly w_t times; example the
 * k-th draw of a task is place k mod n of its own permutation: without replacement in an epoch; wording,
 * few-shot or not, exemplars, chain of thought or not: hashes of (seed, d). No state is kept, so any number
 * of ranks sees one order, and a resume continues in it by knowing d alone.
 *
 * Members of format text are corpora under an objective, whose denoisers are their tasks: mixture_text.h.
 *
 * Sequential order: draw d is the d-th training example in file order over the members as listed, once.
 *
 * Tasks are numbered over all members: 0 <= task < sago_mixture_tasks(). The training split is what draws
 * come from; a task that data.holdout matches is never drawn. The evaluation split is data.eval_fraction of
 * each other task, chosen by the hash of the normalised input (equal inputs land on one side, in whatever
 * task), and all of a held-out task but for a few examples that serve as its exemplars. Of text the same
 * holds of documents, whose evaluation pieces are as long as those trained on.
 *
 * After opening, everything here is read-only and safe from several threads. Memory: the indices are mapped
 * files, and an example is read from its file when drawn, so memory does not grow with the data.
 */
#ifndef SAGO_MIXTURE_H
#define SAGO_MIXTURE_H

#include "config.h"
#include "data.h"
#include "tokenizer.h"

typedef struct sago_mixture sago_mixture;

typedef enum sago_split { SAGO_SPLIT_TRAIN, SAGO_SPLIT_EVAL } sago_split;

/**
 * Opens all members: indexes what is new or changed, loads templates, splits, checks for leaks.
 * tokenizer NULL: texts without ids (format ids still fills ids). vocab_size 0: ids are not checked.
 * decoder_only: examples for a model without an encoder: no EOS after the inputs of text, and inputs may be
 * empty. Errors: SAGO_E_INPUT with file:line for damaged data and leaks; SAGO_E_IO; SAGO_E_CONFIG naming the
 * key.
 */
sago_status sago_mixture_open(const sago_config *config, const sago_tokenizer *tokenizer, int64_t vocab_size,
                              bool decoder_only, sago_mixture **out) SAGO_MUST_CHECK;
void sago_mixture_close(sago_mixture *mixture);

/** SAGO_E_CONFIG where no draw is possible because all tasks are held out or have no share: such a mixture is
 * for evaluation alone. */
sago_status sago_mixture_drawable(const sago_mixture *mixture) SAGO_MUST_CHECK;

/**
 * Draw number draw_number, from 0. Fills texts, ids (EOS included, at most data.input_length and
 * data.target_length) and provenance; reuses the memory of *out, which starts zeroed. *end (may be NULL in
 * sampled order) is true, and *out untouched, when a sequential order is past its last example.
 */
sago_status sago_mixture_draw(const sago_mixture *mixture, uint64_t draw_number, sago_example *out,
                              bool *end) SAGO_MUST_CHECK;
void sago_example_free(sago_example *example);

/** Number of draws of a sequential order; -1 for a sampled one, which never ends. */
int64_t sago_mixture_length(const sago_mixture *mixture);

/** Documents of a text member. */
typedef struct sago_text_counts {
    int64_t train, eval; /* trained on, kept for evaluation */
    int64_t dropped;     /* neither: copies of what other members hold out */
    int64_t train_tokens, eval_tokens;
} sago_text_counts;

typedef struct sago_mixture_member {
    const char *name, *format;
    double share;               /* of all draws, in [0, 1] */
    int first_task, n_tasks;    /* its tasks have consecutive numbers */
    sago_text_counts documents; /* of format text */
} sago_mixture_member;
int sago_mixture_members(const sago_mixture *mixture);
void sago_mixture_member_info(const sago_mixture *mixture, int member, sago_mixture_member *out);

typedef struct sago_mixture_task {
    const char *name;
    const char *const *categories;
    int n_categories;
    int member;
    bool held_out;
    bool is_text; /* plain text under an objective: counts are pieces, and its questions have no references:
                     what is asked is the likelihood of their targets */
    int64_t n_examples, n_train, n_eval; /* n_train: drawn from, or for a held-out task only its exemplars */
    double proportion;                   /* expected share of all draws, in [0, 1] */
    const char *category;                /* template category: "multiple_choice", "instruction", ... */
} sago_mixture_task;
int sago_mixture_tasks(const sago_mixture *mixture);
void sago_mixture_task_info(const sago_mixture *mixture, int task, sago_mixture_task *out);

/** True when a pattern is the task's name, member or one of its categories (sago_glob_match, letter case
 * ignored). */
bool sago_mixture_task_matches(const sago_mixture *mixture, int task, const char *pattern);

/** "multiple_choice/letters-answer": file and name of a wording; "" for -1. */
const char *sago_mixture_template_name(const sago_mixture *mixture, int template_);

/** "FILE:LINE" of an example, or "MEMBER: piece N" of text, for messages; new memory. */
char *sago_mixture_example_where(const sago_mixture *mixture, int task, int64_t index);

/** How to render an example for evaluation. */
typedef struct sago_render_options {
    int wording;     /* number among the task's wordings that are not inverted; taken modulo their count */
    int n_exemplars; /* 0: zero-shot; at most 16; fewer when the prompt would not fit */
    bool chain_of_thought; /* where the source has chains (or a wording asks for one) */
    uint64_t seed;         /* names the choice of exemplars and their delimiter */
} sago_render_options;

/** A prompt with what is right about it. */
typedef struct sago_question {
    sago_example example; /* prompt; target_text is the first reference as trained */
    char **references;    /* every right answer, as plain answers without a chain */
    int n_references;
    char **options; /* answers to rank, as the targets would spell them; n_options 0: free answer */
    int n_options;
    int right_option;          /* index of the right one; -1 unknown */
    const char *answer_marker; /* the answer follows the last such text of an output ("the answer is"); "":
                                  all of it */
} sago_question;

/**
 * Example number index (0 <= index < n_train or n_eval) of a split, in an order fixed by the data alone. Of
 * text a piece, cut or masked in a way that is fixed by index; options are not looked at. Reuses the memory
 * of *out, which starts zeroed.
 */
sago_status sago_mixture_question(const sago_mixture *mixture, int task, sago_split split, int64_t index,
                                  const sago_render_options *options, sago_question *out) SAGO_MUST_CHECK;
void sago_question_free(sago_question *question);

#endif
