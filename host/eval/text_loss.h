// SPDX-License-Identifier: Apache-2.0
/**
 * Text loss: how likely a model finds plain text under the objective that it learns from, on documents that
 * it never saw. Of a piece (mixture.h) with targets y of n ids, after inputs x:
 *
 *     logprob = sum over i of log p(y_i | x, y_<i)
 *
 * and of a task over its pieces: loss = - sum of logprob / sum of n, nats a target token, EOS and sentinels
 * among them; perplexity = exp(loss). For causal-lm that is the perplexity of text in windows of one row's
 * length that do not overlap. Losses compare between models of one tokenizer and one row length alone.
 */
#ifndef SAGO_TEXT_LOSS_H
#define SAGO_TEXT_LOSS_H

#include "eval.h"
#include "json.h"

/** Scores this rank's share of a text task's pieces, at most eval.examples_per_task of them all, and appends
 * a record of each. *item numbers pieces and questions of all ranks. name: what scores call the task. */
sago_status sago_text_loss(const sago_eval_args *args, sago_loaded_model *loaded, const sago_mixture *mixture,
                           int task, const char *name, int64_t *item, json_t *records) SAGO_MUST_CHECK;

/** Whether a record is of text: it has "target_tokens". SAGO_E_INPUT where its numbers can't be. */
sago_status sago_text_record_check(const json_t *record, bool *is_text) SAGO_MUST_CHECK;

/** The array "text" of scores.json (records.h), a row a task in the order of category and name; new
 * reference. */
json_t *sago_text_summarise(const json_t *records, int resamples, uint64_t seed);

#endif
