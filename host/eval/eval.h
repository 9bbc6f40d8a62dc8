// SPDX-License-Identifier: Apache-2.0
/**
 * Evaluation: questions of a mixture's evaluation split -> outputs of a model -> scores.
 *
 * Everything between model and scores is a line of JSON a question (a record), so that recorded outputs can be scored
 * again without a model:
 *
 *     {"task", "category", "held_out", "index", "prompt", "references": [...], "marker", "outputs": [...], "answer",
 *      "exact_match", "token_f1", "rouge_l",                            scores of answer, in [0, 1]
 *      "options": [...], "right_option", "option_logprobs": [...], "chosen_option", "accuracy"}   where there are options
 *
 * or of a piece of plain text {"task", "category", "held_out", "index", "target_tokens", "logprob"} (text_loss.h).
 * "prompt_cut": true stands where the prompt exceeds data.input_length, so that the model never saw its end.
 * Several outputs (eval.samples > 1) vote: the most frequent extracted answer counts (self-consistency, Wang et al.
 * 2022). accuracy ranks the options by log-probability, a token's mean with eval.length_normalised. A folder of scores
 * holds predictions.jsonl (the records) and scores.json (records.h).
 */
#ifndef SAGO_EVAL_H
#define SAGO_EVAL_H

#include "config.h"
#include "loaded_model.h"
#include "mixture.h"

typedef struct sago_eval_args {
    const sago_config *config;   /* its data and eval sections */
    sago_mesh *mesh;             /* questions are shared out over all its ranks */
    sago_split split;
    const char *output_dir;      /* where rank 0 writes predictions.jsonl and scores.json; made */
    const char *label;           /* what scores.json calls this evaluation, such as "before" */
    const char *checkpoint;      /* for scores.json */
} sago_eval_args;

/** Runs the evaluation that args->config describes. Collective. */
sago_status sago_eval_model(const sago_eval_args *args, sago_loaded_model *loaded) SAGO_MUST_CHECK;

/** Scores recorded outputs: lines with "references" (or "targets": one text) and "outputs" (or "output": one text). */
sago_status sago_eval_records(const sago_eval_args *args, const char *predictions) SAGO_MUST_CHECK;

#endif
