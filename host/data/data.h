// SPDX-License-Identifier: Apache-2.0
/**
 * Data: a pull-based pipeline of stages,
 *
 *     tasks -> mixture (draw) -> template (text) -> tokenizer (ids) -> packer (rows) -> batch -> prefetch
 *     documents -> corpus (ids) -> objective ----------------------------^
 *
 * Every random choice is a hash of (seed, draw number), so that the order is one, whatever the number of
 * ranks, and the state of the whole pipeline is a small cursor. Each rank walks the same order and keeps its
 * own rows only.
 */
#ifndef SAGO_DATA_H
#define SAGO_DATA_H

#include "batch.h"
#include "config.h"
#include "json.h"
#include "status.h"
#include "tokenizer.h"

/** One tokenized example, and where it came from. */
typedef struct sago_example {
    sago_ids inputs, targets; /* EOS included: of text, after both, or decoder-only after targets alone */
    sago_str input_text, target_text;
    int member, task, template_;   /* indices; template -1 where the source gives finished text */
    int64_t index;                 /* example within its task */
    int64_t exemplars[16];
    int n_exemplars;
    bool chain_of_thought, truncated;
    bool prompt_cut; /* of the two it was the input that was too long: its end is missing */
} sago_example;

typedef struct sago_data sago_data;

/**
 * Opens the training pipeline of a config. vocab_size: ids at or above it are an error (file, line, id).
 * tokenizer may be NULL when every member is of format ids. Rows of a global batch are split over data_size
 * ranks in contiguous runs, the first ranks one longer where they do not divide. decoder_only: rows for
 * models without an encoder (batch.h), where inputs + targets of a row's examples fit into input_length +
 * target_length together, and inputs of text get no EOS.
 */
sago_status sago_data_open(const sago_config *config, const sago_tokenizer *tokenizer, int64_t vocab_size,
                           bool decoder_only, int data_rank, int data_size, sago_data **out) SAGO_MUST_CHECK;
void sago_data_close(sago_data *data);

/** The next global batch's local rows; valid until the next call. *batch is NULL when a sequential source has ended. */
sago_status sago_data_next(sago_data *data, const sago_batch **batch) SAGO_MUST_CHECK;

/** Seconds that the last sago_data_next waited for the prefetch thread. */
double sago_data_wait_seconds(const sago_data *data);

/** The state after the batch that sago_data_next returned last, as JSON; restore continues exactly there. */
json_t *sago_data_cursor(const sago_data *data);
sago_status sago_data_restore(sago_data *data, const json_t *cursor) SAGO_MUST_CHECK;

/** Counts of what was drawn so far, by member and task: {"members": [{"name", "examples", "tokens", "tasks": [...]}]} */
json_t *sago_data_drawn(const sago_data *data);

#endif
