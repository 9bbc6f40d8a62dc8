// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "hf.h"

#include <string.h>

static sago_status run(const sago_arguments *arguments) {
    const char *format = sago_argument(arguments, "--format");
    if (strcmp(format, "hf") != 0)
        return sago_fail(SAGO_E_USAGE, "--format %s: the format that can be exported is hf (Hugging Face)",
                         format);
    int64_t part_bytes;
    SAGO_TRY(sago_argument_int(arguments, "--shard-bytes", SAGO_HF_PART_BYTES, 1, INT64_MAX, &part_bytes));
    return sago_hf_export_parts(arguments->positional[0], arguments->positional[1], part_bytes,
                                sago_argument_switch(arguments, "--force"));
}

static const sago_option options[] = {
    {"--format", "hf", "format of OUTDIR: hf, a Hugging Face model folder", true},
    {"--shard-bytes", "N",
     "most bytes of tensors in one file (5000000000): more go into model-00001-of-0000N.safetensors and so on, with "
     "model.safetensors.index.json",
     false},
    {"--force", NULL, "replace another model that OUTDIR holds", false},
    {0},
};

const sago_command sago_command_export = {
    .name = "export",
    .summary = "write a checkpoint as another program's model",
    .usage = "sago export --format hf RUN|CKPT OUTDIR [--shard-bytes N] [--force]",
    .details =
        "Writes the newest checkpoint of a run that verifies, or the one named, as config.json, "
        "generation_config.json, model.safetensors (fp32) and, if it has a tokenizer, spiece.model and "
        "tokenizer_config.json, which from_pretrained(OUTDIR) of transformers' T5ForConditionalGeneration or "
        "CohereForCausalLM loads. "
        "A model may be larger than the memory. "
        "Files of another model in OUTDIR, and weights of another export, are replaced with --force alone.",
    .example = "sago export --format hf runs/first exported",
    .options = options,
    .min_positional = 2,
    .max_positional = 2,
    .run = run,
};
