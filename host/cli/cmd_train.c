// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "trainer.h"

static sago_status run(const sago_arguments *arguments) {
    sago_config *config = NULL;
    sago_mesh *mesh = NULL;
    sago_status status;
    SAGO_TRY_TO(done, sago_argument_config(arguments, arguments->positional[0], &config));
    SAGO_TRY_TO(done, sago_mesh_open(config->mesh.data, config->mesh.model,
                                     (double)config->mesh.timeout_seconds, &mesh));
    SAGO_TRY_TO(done, sago_train(config, mesh, NULL));
done:
    sago_mesh_close(mesh);
    sago_config_free(config);
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
