// SPDX-License-Identifier: Apache-2.0
/**
 * Records of an evaluation (eval.h) -> scores.json:
 *
 *     {"label", "checkpoint", "step", "split", "settings": {...},
 *      "overall" | "seen" | "unseen": GROUP, "categories": [GROUP + "name"],
 *      "tasks": [GROUP + "name", "category", "held_out"]}
 *     GROUP = {"tasks", "examples", "exact_match", "token_f1", "rouge_l": SCORE,
 *              "accuracy", "normalised_accuracy": SCORE where questions have options,
 *              "majority": {"exact_match": SCORE}, "copy": {"exact_match", "rouge_l": SCORE}}
 *     SCORE = {"mean", "low", "high"}      percent, 95 % bootstrap interval
 *      "text": [{"name", "category", "held_out", "pieces", "target_tokens",
 *                "loss": SCORE in nats a token, "perplexity": SCORE}]       of plain text, where there is some (text_loss.h)
 *
 * Averages over several tasks are macro averages. Baselines: majority answers every question of a task with the task's
 * most frequent reference (known only after the fact, so it favours the baseline); copy answers with the prompt's last
 * line. Normalised accuracy: (x - chance) / (100 - chance) * 100, chance = 100 / options.
 */
#ifndef SAGO_RECORDS_H
#define SAGO_RECORDS_H

#include "json.h"

/** Fills answer and scores of one record from its outputs and references, in place; one of plain text has all it needs.
 * SAGO_E_INPUT: what is missing. */
sago_status sago_record_score(json_t *record) SAGO_MUST_CHECK;

/** The GROUP objects and tables over an array of scored records; new reference. */
json_t *sago_records_summarise(const json_t *records, int resamples, uint64_t seed);

#endif
