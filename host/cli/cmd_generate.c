// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "prompt_lines.h"

/* "output_ids": [...], "output": text, "logprob": sum unless that was not asked for */
static sago_status add_output(sago_prompt_lines *lines, const sago_prediction *one, sago_str *line) {
    sago_jsonl_add_ids(line, "output_ids", one->ids, one->n_ids);
    if (lines->loaded.tokenizer) {
        sago_str_clear(&lines->text);
        SAGO_TRY(sago_tokenizer_decode(lines->loaded.tokenizer, one->ids, one->n_ids, &lines->text));
        sago_str_puts(line, ", \"output\": ");
        sago_json_quote(line, sago_str_text(&lines->text), lines->text.length);
    }
    if (!lines->args.ids_alone) sago_str_printf(line, ", \"logprob\": %.9g", one->logprob);
    return SAGO_OK;
}

static sago_status write_outputs(sago_prompt_lines *lines, const sago_prompt *prompt,
                                 const sago_prediction *generated, sago_str *line) {
    (void)prompt;
    sago_str_puts(line, "{");
    SAGO_TRY(add_output(lines, &generated[0], line));
    if (lines->args.samples > 1) {
        sago_str_puts(line, ", \"samples\": [");
        for (int s = 0; s < lines->args.samples; s++) {
            sago_str_puts(line, s ? ", {" : "{");
            SAGO_TRY(add_output(lines, &generated[s], line));
            sago_str_puts(line, "}");
        }
        sago_str_puts(line, "]");
    }
    sago_str_puts(line, "}");
    return SAGO_OK;
}

static sago_status run(const sago_arguments *arguments) {
    sago_prompt_work work = {.write = write_outputs};
    int64_t new_tokens, top_k, samples, seed;
    double temperature, top_p;
    SAGO_TRY(sago_argument_int(arguments, "--max-new-tokens", 128, 1, 65536, &new_tokens));
    SAGO_TRY(sago_argument_number(arguments, "--temperature", 0, 0, 100, &temperature));
    SAGO_TRY(sago_argument_int(arguments, "--top-k", 0, 0, 1 << 20, &top_k));
    SAGO_TRY(sago_argument_number(arguments, "--top-p", 1, 0, 1, &top_p));
    SAGO_TRY(sago_argument_int(arguments, "--samples", 1, 1, 1024, &samples));
    SAGO_TRY(sago_argument_int(arguments, "--seed", 1, 0, INT64_MAX, &seed));
    if (top_p == 0) return sago_fail(SAGO_E_USAGE, "--top-p: 0 leaves no token; above 0, at most 1");
    if (samples > 1 && temperature == 0)
        return sago_fail(SAGO_E_USAGE,
                         "--samples %lld: all would be the same at temperature 0; set --temperature",
                         (long long)samples);
    work.args.max_new_tokens = (int)new_tokens;
    work.args.samples = (int)samples;
    work.args.ids_alone = sago_argument_switch(arguments, "--no-logprob");
    work.args.sample = (sago_sample_args){
        .temperature = (float)temperature, .top_k = (int)top_k, .top_p = (float)top_p, .key = (uint64_t)seed};
    return sago_prompt_lines_run(arguments, &work);
}

static const sago_option options[] = {
    {"--checkpoint", "CKPT", "weights: a step, run or imported folder", true},
    {"--input", "FILE", "JSONL: input_ids, or inputs as text", true},
    {"--output", "FILE",
     "JSONL: output_ids, output where there is a tokenizer, logprob; a line for each input line", true},
    {"--max-new-tokens", "N", "where an output ends that has not ended by itself (default 128)", false},
    {"--temperature", "X",
     "0: the most likely token (default); else logits are divided by it and tokens drawn", false},
    {"--top-k", "N", "draw among the N most likely tokens (default 0: all)", false},
    {"--top-p", "X", "draw among the fewest tokens that reach this probability (default 1: all)", false},
    {"--samples", "N", "outputs a prompt, as a list \"samples\" (default 1)", false},
    {"--seed", "N", "names the draws of sampling (default 1); --batch does not change them", false},
    {"--no-logprob", NULL, "leave the log-probability out; at temperature 0, up to 8 rows at once are faster so", false},
    {"--batch", "N", "rows computed at once (default eval.batch)", false},
    {0},
};

const sago_command sago_command_generate = {
    .name = "generate",
    .summary = "write outputs for prompts",
    .usage = "sago generate --checkpoint CKPT --input FILE --output FILE [--max-new-tokens N] [--temperature "
             "X] ...",
    .details = "Ids are used as they are; text is encoded by the checkpoint's tokenizer, with EOS for an encoder. An output "
               "ends with "
               "EOS, which output_ids holds, or after --max-new-tokens.",
    .example =
        "sago generate --checkpoint runs/first --input prompts.jsonl --output out.jsonl --max-new-tokens 64",
    .options = options,
    .run = run,
    .uses_mesh = true,
};
