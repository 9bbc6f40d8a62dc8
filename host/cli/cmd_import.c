// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "file.h"
#include "hf.h"
#include "steps.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* A tokenizer that is none, or gives ids that the model has no row for, is refused before anything is written. */
static sago_status check_tokenizer(const char *dir) {
    json_t *config = NULL;
    sago_model_shape shape = {0};
    sago_tokenizer *tokenizer = NULL;
    char *config_path = sago_path_join(dir, "config.json"), *path = sago_path_join(dir, "spiece.model");
    sago_status status;
    if (!sago_is_file(path)) {
        free(path);
        path = sago_path_join(dir, "tokenizer.model");
    }
    SAGO_TRY_TO(done, sago_json_read(config_path, 1 << 20, &config));
    SAGO_TRY_TO(done, sago_hf_read_config(config, config_path, &shape));
    if (!sago_is_file(path)) goto done;
    SAGO_TRY_TO(done, sago_tokenizer_open(path, &tokenizer));
    bool one = sago_model_decoder_only(&shape);
    int32_t least = sago_tokenizer_least_vocabulary(tokenizer, one);
    if (least > shape.vocab_size)
        status = sago_fail(SAGO_E_INPUT, "%s: has %d ids%s, and the model's vocabulary is %lld", path, (int)least,
                           one ? "" : " with its sentinels", (long long)shape.vocab_size);
done:
    sago_tokenizer_close(tokenizer);
    json_decref(config);
    free(config_path);
    free(path);
    return status;
}

/* A model that is there is somebody's work. What a run holds is refused by sago_hf_import, whatever was asked. */
static sago_status check_free(const char *ckpt_dir) {
    int64_t *steps = NULL;
    int n_steps = 0;
    if (!sago_is_dir(ckpt_dir)) return SAGO_OK;
    sago_status status = sago_steps_list(ckpt_dir, &steps, &n_steps);
    if (status == SAGO_OK && n_steps == 1 && steps[0] == 0)
        status = sago_fail(SAGO_E_BUSY, "%s: holds an imported model already; --force replaces it", ckpt_dir);
    free(steps);
    return status;
}

static sago_status run(const sago_arguments *arguments) {
    const char *format = sago_argument(arguments, "--format");
    if (strcmp(format, "hf") != 0)
        return sago_fail(SAGO_E_USAGE, "--format %s: the format that can be imported is hf (Hugging Face)",
                         format);
    SAGO_TRY(check_tokenizer(arguments->positional[0]));
    if (!sago_argument_switch(arguments, "--force")) SAGO_TRY(check_free(arguments->positional[1]));
    return sago_hf_import(arguments->positional[0], arguments->positional[1]);
}

static const sago_option options[] = {
    {"--format", "hf", "format of DIR: hf, a Hugging Face model folder", true},
    {"--force", NULL, "replace the model that CKPT holds already", false},
    {0},
};

const sago_command sago_command_import = {
    .name = "import",
    .summary = "make a checkpoint from another program's model",
    .usage = "sago import --format hf DIR CKPT [--force]",
    .details = "Reads config.json, model.safetensors (or its parts with model.safetensors.index.json) and, "
               "if there, "
               "spiece.model of a T5 model (1.0, v1.1, Flan-T5, LM-adapted T5, mT5, ByT5) or of one of PaLM's "
               "shape (Cohere). Writes step 0 of the checkpoint "
               "folder CKPT, which model.init and --checkpoint take. Weights in F16 or BF16 become fp32. "
               "A model may be larger than the memory. "
               "A folder that holds an imported model already is refused, unless --force says to replace it.",
    .example = "sago import --format hf flan-t5-small checkpoints/flan-t5-small",
    .options = options,
    .min_positional = 2,
    .max_positional = 2,
    .run = run,
};
