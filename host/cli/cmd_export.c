// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "hf.h"

#include <string.h>

static sago_status run(const sago_arguments *arguments) {
    const char *format = sago_argument(arguments, "--format");
    if (strcmp(format, "hf") != 0)
        return sago_fail(SAGO_E_USAGE, "--format %s: the format that can be exported is hf (Hugging Face)",
                         format);
    return sago_hf_export(arguments->positional[0], arguments->positional[1], sago_argument_switch(arguments, "--force"));
}

static const sago_option options[] = {
    {"--format", "hf", "format of OUTDIR: hf, a Hugging Face model folder", true},
    {"--force", NULL, "replace another model that OUTDIR holds", false},
    {0},
};

const sago_command sago_command_export = {
    .name = "export",
    .summary = "write a checkpoint as another program's model",
    .usage = "sago export --format hf RUN|CKPT OUTDIR [--force]",
    .details =
        "Writes the newest checkpoint of a run that verifies, or the one named, as config.json, "
        "generation_config.json, model.safetensors (fp32) and, if it has a tokenizer, spiece.model and "
        "tokenizer_config.json, which transformers' T5ForConditionalGeneration.from_pretrained(OUTDIR) "
        "loads. "
        "Files of another model in OUTDIR are replaced with --force alone.",
    .example = "sago export --format hf runs/first exported",
    .options = options,
    .min_positional = 2,
    .max_positional = 2,
    .run = run,
};
