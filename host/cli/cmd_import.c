// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "hf.h"

#include <string.h>

static sago_status run(const sago_arguments *arguments) {
    const char *format = sago_argument(arguments, "--format");
    if (strcmp(format, "hf") != 0)
        return sago_fail(SAGO_E_USAGE, "--format %s: the format that can be imported is hf (Hugging Face)",
                         format);
    return sago_hf_import(arguments->positional[0], arguments->positional[1]);
}

static const sago_option options[] = {
    {"--format", "hf", "format of DIR: hf, a Hugging Face model folder", true},
    {0},
};

const sago_command sago_command_import = {
    .name = "import",
    .summary = "make a checkpoint from another program's model",
    .usage = "sago import --format hf DIR CKPT",
    .details = "Reads config.json, model.safetensors (or its parts with model.safetensors.index.json) and, "
               "if there, "
               "spiece.model of a T5 model: 1.0, v1.1, Flan-T5, LM-adapted T5, mT5, ByT5. Writes step 0 of "
               "the checkpoint "
               "folder CKPT, which model.init and --checkpoint take. Weights in F16 or BF16 become fp32.",
    .example = "sago import --format hf flan-t5-small checkpoints/flan-t5-small",
    .options = options,
    .min_positional = 2,
    .max_positional = 2,
    .run = run,
};
