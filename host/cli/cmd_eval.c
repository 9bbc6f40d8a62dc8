// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "ckpt.h"
#include "eval.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

/* A run's folder stands for its config.yaml and its newest checkpoint. */
static sago_status load_config(const sago_arguments *arguments, sago_config **config) {
    const char *what = arguments->n_positional ? arguments->positional[0] : "";
    char *path = sago_is_dir(what) ? sago_path_join(what, "config.yaml") : sago_strdup(what);
    sago_status status = SAGO_OK;
    if (sago_is_dir(what) && !sago_is_file(path))
        status = sago_fail(SAGO_E_USAGE, "eval: %s is no run's folder, it has no config.yaml; give a configuration with "
                                         "the tasks, and weights by --checkpoint", what);
    if (status == SAGO_OK) status = sago_argument_config(arguments, path, config);
    free(path);
    return status;
}

/* --tasks A,B takes the place of eval.tasks. */
static sago_status choose_tasks(sago_config *config, const char *list) {
    if (!list) return SAGO_OK;
    sago_string_list *tasks = &config->eval.tasks;
    for (int i = 0; i < tasks->count; i++) free(tasks->items[i]);
    tasks->count = 0;
    char *copy = sago_strdup(list);
    for (char *save = NULL, *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        tasks->items = sago_realloc(tasks->items, (size_t)(tasks->count + 1) * sizeof *tasks->items);
        tasks->items[tasks->count++] = sago_strdup(one);
    }
    free(copy);
    if (tasks->count > 0) return SAGO_OK;
    return sago_fail(SAGO_E_USAGE, "eval: --tasks '%s' names no task; leave it away to evaluate all", list);
}

static sago_status evaluate_model(const sago_arguments *arguments, sago_eval_args *args) {
    const sago_config *config = args->config;
    const char *given = sago_argument(arguments, "--checkpoint"), *what = arguments->positional[0];
    const char *from = given ? given : sago_is_dir(what) ? what : config->run.dir[0] && sago_ckpt_exists(config->run.dir)
                                                              ? config->run.dir
                                                              : config->model.init;
    if (!from[0])
        return sago_fail(SAGO_E_USAGE, "eval: no weights to evaluate; give a run's folder, --checkpoint CKPT, or set "
                                       "model.init");
    if (config->eval.samples > 1 && config->eval.temperature == 0)
        return sago_fail(SAGO_E_USAGE, "eval.samples: all %lld would be the same at temperature 0; set eval.temperature",
                         (long long)config->eval.samples);
    sago_loaded_model loaded;
    SAGO_TRY(sago_agree(args->mesh, sago_loaded_model_open(from, config, args->mesh, &loaded)));
    /* A run's folder may have been moved since its config.yaml was written. */
    const char *home = sago_is_dir(what) ? what : config->run.dir[0] ? config->run.dir : ".";
    char *dir = args->output_dir ? sago_strdup(args->output_dir)
                                 : sago_format("%s/eval/step-%06lld", home, (long long)loaded.step);
    args->output_dir = dir;
    args->checkpoint = loaded.step_dir;
    if (!args->label) args->label = sago_path_base(dir);
    sago_status status = sago_eval_model(args, &loaded);
    sago_loaded_model_close(&loaded);
    free(dir);
    return status;
}

static sago_status run(const sago_arguments *arguments) {
    sago_config *config = NULL;
    sago_mesh *mesh = NULL;
    sago_status status;
    const char *split = sago_argument(arguments, "--split"), *recorded = sago_argument(arguments, "--predictions");
    if (split && strcmp(split, "eval") != 0 && strcmp(split, "train") != 0)
        return sago_fail(SAGO_E_USAGE, "--split: %s is not a split; use eval or train", split);
    if (arguments->n_positional == 0 && !recorded)
        return sago_fail(SAGO_E_USAGE, "eval: needs a CONFIG.yaml or a run's folder (or --predictions FILE)");
    SAGO_TRY_TO(done, load_config(arguments, &config));
    SAGO_TRY_TO(done, choose_tasks(config, sago_argument(arguments, "--tasks")));
    /* A run that was trained on several ranks a model is evaluated by one process as it is. */
    int64_t model = sago_mesh_world_size() == 1 ? 1 : config->mesh.model;
    SAGO_TRY_TO(done, sago_mesh_open(0, model, (double)config->mesh.timeout_seconds, &mesh));
    sago_mesh_check(mesh, config->comm.check);
    sago_eval_args args = {
        .config = config,
        .mesh = mesh,
        .split = split && strcmp(split, "train") == 0 ? SAGO_SPLIT_TRAIN : SAGO_SPLIT_EVAL,
        .output_dir = sago_argument(arguments, "--output"),
        .label = sago_argument(arguments, "--label"),
    };
    if (!recorded) {
        status = evaluate_model(arguments, &args);
        goto done;
    }
    if (!args.output_dir) args.output_dir = "eval";
    if (!args.label) args.label = sago_path_base(recorded);
    args.checkpoint = "";
    status = sago_agree(mesh, mesh->rank == 0 ? sago_eval_records(&args, recorded) : SAGO_OK);
done:
    sago_mesh_close(mesh);
    sago_config_free(config);
    return status;
}

static const sago_option options[] = {
    {"--checkpoint", "CKPT", "weights to evaluate: a step, run or imported folder (default: the run's newest, else model.init)", false},
    {"--tasks", "PATTERN,...", "tasks or categories to evaluate instead of eval.tasks", false},
    {"--split", "eval|train", "evaluation examples (default), or those that were trained on", false},
    {"--output", "DIR", "where predictions.jsonl and scores.json go (default RUN/eval/step-N)", false},
    {"--label", "NAME", "what the scores are called in reports (default: the last part of --output)", false},
    {"--predictions", "FILE", "score these recorded outputs (JSONL with references and outputs); no model is loaded", false},
    {0},
};

const sago_command sago_command_eval = {
    .name = "eval",
    .summary = "score a model, or recorded outputs, on the tasks of a configuration",
    .usage = "sago eval CONFIG.yaml|RUN [--checkpoint CKPT] [--tasks PATTERN,...] [--output DIR]\n"
             "       sago eval --predictions FILE [--output DIR]",
    .details = "Asks the evaluation questions of the mixture (held-out tasks, and data.eval_fraction of the others) and "
               "writes exact match, token F1, ROUGE-L and accuracy by ranking options, a task, a category and overall, "
               "with 95 % bootstrap intervals, beside every prompt and output. Of plain text it gives the loss in nats a token "
               "and the perplexity under the objective, on the documents that are kept for evaluation. The keys are eval.*.",
    .example = "sago eval runs/first --tasks 'arithmetic,*reverse*' --set eval.examples_per_task=50",
    .options = options,
    .min_positional = 0,
    .max_positional = 1,
    .uses_mesh = true,
    .run = run,
};
