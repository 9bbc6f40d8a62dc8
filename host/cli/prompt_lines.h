// SPDX-License-Identifier: Apache-2.0
/**
 * Prompt lines: what score and generate share. Lines are read some hundred at a time, computed in batches of
 * like length, and written in the order of the input, so that memory does not grow with the file.
 */
#ifndef SAGO_PROMPT_LINES_H
#define SAGO_PROMPT_LINES_H

#include "cli.h"
#include "jsonl.h"
#include "predict.h"

typedef struct sago_prompt_lines {
    sago_loaded_model loaded;
    sago_jsonl jsonl;
    sago_predict_args args;
    sago_str text; /* room for one output */
} sago_prompt_lines;

typedef struct sago_prompt_work {
    bool with_targets;      /* score; else generate */
    sago_predict_args args; /* batch is filled in from --batch or eval.batch */
    /** Adds the line for one prompt; predictions: one, or args.samples of them. */
    sago_status (*write)(sago_prompt_lines *lines, const sago_prompt *prompt,
                         const sago_prediction *predictions, sago_str *line);
} sago_prompt_work;

/** Reads --checkpoint, --input, --output, --batch and --set, and does the work. */
sago_status sago_prompt_lines_run(const sago_arguments *arguments,
                                  const sago_prompt_work *work) SAGO_MUST_CHECK;

#endif
