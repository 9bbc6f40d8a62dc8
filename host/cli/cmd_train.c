// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "eval.h"
#include "file.h"
#include "precision.h"
#include "trainer.h"

#include <stdlib.h>
#include <string.h>

/* The scores of the present weights, where `sago eval` would put those of a checkpoint of this step. */
static sago_status evaluate(void *context, sago_trainer *t) {
    const sago_config *config = context;
    sago_weights weights;
    SAGO_TRY(sago_trainer_whole_weights(t, &weights));
    char *dir = sago_format("%s/eval/step-%06lld", config->run.dir, (long long)t->step);
    sago_loaded_model present = {
        .device = t->device,
        .mesh = t->mesh,
        .model_mesh = t->model_mesh,
        .shape = t->shape,
        .registry = t->registry,
        .tokenizer = t->tokenizer,
        .weights = weights,
        .bf16 = sago_precision_bf16(config, t->device),
        .prefix = strcmp(config->model.attention, "prefix") == 0,
        .loss_chunk_tokens = config->train.loss_chunk,
        .step = t->step,
        .step_dir = config->run.dir,
    };
    const sago_eval_args args = {
        .config = config,
        .mesh = t->mesh,
        .split = SAGO_SPLIT_EVAL,
        .output_dir = dir,
        .label = sago_path_base(dir),
        .checkpoint = config->run.dir,
    };
    sago_status status = sago_wrap(sago_eval_model(&args, &present), "eval.every");
    sago_model_close(present.model); /* all else is the trainer's */
    sago_trainer_release_weights(t, &weights);
    free(dir);
    return status;
}

static sago_status run(const sago_arguments *arguments) {
    sago_config *config = NULL;
    sago_mesh *mesh = NULL;
    char *flight = NULL;
    sago_status status;
    SAGO_TRY_TO(done, sago_argument_config(arguments, arguments->positional[0], &config));
    SAGO_TRY_TO(done, sago_mesh_open(config->mesh.data, config->mesh.model,
                                     (double)config->mesh.timeout_seconds, &mesh));
    sago_mesh_check(mesh, config->comm.check);
    flight = sago_path_join(config->run.dir, "flight");
    SAGO_TRY_TO(done, sago_mesh_record(mesh, flight));
    const sago_train_hooks hooks = {evaluate, config};
    SAGO_TRY_TO(done, sago_train(config, mesh, &hooks));
done:
    sago_mesh_close(mesh);
    sago_config_free(config);
    free(flight);
    return status;
}

const sago_command sago_command_train = {
    .name = "train",
    .summary = "finetune a model on a mixture of tasks, or continue a run",
    .usage = "sago train CONFIG.yaml [--set KEY=VALUE ...]",
    .details = "Trains to run.steps and leaves config.yaml, metrics.jsonl and checkpoints in run.dir. A "
               "run.dir that "
               "holds a run is continued, also on another number of ranks. SIGTERM and SIGINT save and leave "
               "with exit "
               "code 75; the same command then goes on. Starts on several ranks under mpirun or srun.",
    .example = "mpirun -n 2 sago train configs/quickstart.yaml --set run.dir=runs/first",
    .min_positional = 1,
    .max_positional = 1,
    .uses_mesh = true,
    .run = run,
};
