// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "prompt_lines.h"

static sago_status write_scores(sago_prompt_lines *lines, const sago_prompt *prompt,
                                const sago_prediction *scored, sago_str *line) {
    (void)lines;
    sago_str_printf(line, "{\"logprob\": %.9g, \"target_logprobs\": [", scored->logprob);
    for (int64_t i = 0; i < prompt->n_targets; i++)
        sago_str_printf(line, "%s%.9g", i ? ", " : "", (double)scored->logprobs[i]);
    sago_str_puts(line, "]}");
    return SAGO_OK;
}

static sago_status run(const sago_arguments *arguments) {
    return sago_prompt_lines_run(arguments, &(sago_prompt_work){.with_targets = true, .write = write_scores});
}

static const sago_option options[] = {
    {"--checkpoint", "CKPT", "weights: a step, run or imported folder", true},
    {"--input", "FILE", "JSONL: input_ids and target_ids, or inputs and targets as text", true},
    {"--output", "FILE", "JSONL: logprob and target_logprobs, a line for each line of the input", true},
    {"--batch", "N", "rows computed at once (default eval.batch)", false},
    {0},
};

const sago_command sago_command_score = {
    .name = "score",
    .summary = "log-probabilities of given targets",
    .usage = "sago score --checkpoint CKPT --input FILE --output FILE [--batch N] [--set KEY=VALUE ...]",
    .details =
        "Ids are used as they are; text is encoded by the checkpoint's tokenizer, with EOS after targets "
        "and an encoder's inputs. Each output line has the sum over the targets and one log-probability a target id. "
        "Several ranks (mpirun, with --set mesh.model=N) share one model.",
    .example = "sago score --checkpoint runs/first --input pairs.jsonl --output scores.jsonl",
    .options = options,
    .run = run,
    .uses_mesh = true,
};
