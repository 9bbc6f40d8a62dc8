// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "ckpt.h"
#include "file.h"
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A configuration that leaves its shape to model.init gets it from there, where that is a checkpoint already.
 */
static sago_status take_shape_over(sago_config *config) {
    sago_ckpt *ckpt;
    sago_model_shape shape;
    if (config->model.d_model > 0 || !config->model.init[0]) return SAGO_OK;
    SAGO_TRY(sago_wrap(sago_ckpt_open(config->model.init, false, &ckpt), "model.init"));
    sago_status status = sago_model_shape_from_json(json_object_get(sago_ckpt_meta(ckpt), "model"), &shape);
    if (status == SAGO_OK) status = sago_model_shape_into_config(&shape, sago_ckpt_dir(ckpt), config);
    sago_ckpt_close(ckpt);
    return status;
}

static sago_status read_hardware(const sago_arguments *arguments, sago_hardware *out) {
    const char *name = sago_argument(arguments, "--gpu");
    SAGO_TRY(sago_hardware_load(name ? name : "h100-80", out));
    if (!sago_argument_switch(arguments, "--measure")) return SAGO_OK;
    int64_t threads;
    SAGO_TRY(sago_argument_int(arguments, "--threads", 0, 0, 4096, &threads));
    sago_device *device;
    SAGO_TRY(sago_device_open("auto", (int)threads, &device));
    sago_status status = sago_hardware_measure(out, device);
    sago_device_close(device);
    return status;
}

static sago_status read_options(const sago_arguments *arguments, const sago_config *config,
                                const sago_hardware *hardware, sago_plan_options *out) {
    const char *axis = sago_argument(arguments, "--data-axis");
    *out = (sago_plan_options){.data_axis = !axis                          ? SAGO_ANY_AXIS
                                            : strcmp(axis, "sharded") == 0 ? SAGO_ONLY_SHARDED
                                                                           : SAGO_ONLY_REPLICATED};
    if (out->data_axis == SAGO_ONLY_REPLICATED && strcmp(axis, "replicated") != 0)
        return sago_fail(SAGO_E_USAGE, "plan: --data-axis %s: sharded or replicated is needed", axis);
    SAGO_TRY(sago_argument_int(arguments, "--gpus-per-node", hardware->devices_per_node, 1, 1024,
                               &out->devices_per_node));
    /* As many as the configuration's mesh asks for. */
    int64_t devices =
        (config->mesh.data > 0 ? config->mesh.data : 1) * (config->mesh.model > 0 ? config->mesh.model : 1);
    int64_t nodes = (devices + out->devices_per_node - 1) / out->devices_per_node;
    SAGO_TRY(sago_argument_int(arguments, "--nodes", nodes, 1, 1 << 20, &out->nodes));
    return sago_argument_number(arguments, "--price", 0, 0, 1e9, &out->price);
}

static sago_status write_timeline(const sago_arguments *arguments, const sago_planned *planned) {
    const char *path = sago_argument(arguments, "--svg");
    const sago_projection *x = &planned->as_configured;
    sago_timeline timeline;
    sago_str svg = {0};
    SAGO_TRY(sago_plan_timeline(planned, x, &timeline));
    char *title = sago_format("%s on %lld devices: data %lld, model %lld, micro-batch %lld%s",
                              sago_path_base(arguments->positional[0]), (long long)planned->devices,
                              (long long)x->layout.data, (long long)x->layout.model,
                              (long long)x->layout.micro_batch, x->layout.recompute ? ", recomputed" : "");
    sago_timeline_svg(&timeline, &x->step, title, &svg);
    sago_status status = sago_file_replace(path ? path : "timeline.svg", sago_str_text(&svg), svg.length);
    sago_str_free(&svg);
    sago_timeline_free(&timeline);
    free(title);
    return status;
}

static void print(const sago_arguments *arguments, const sago_planned *planned) {
    sago_str text = {0};
    if (sago_argument_switch(arguments, "--json")) {
        json_t *json = sago_plan_to_json(planned);
        sago_json_add(&text, json, 9);
        sago_str_puts(&text, "\n");
        json_decref(json);
    } else {
        sago_plan_text(planned, &text);
    }
    fputs(sago_str_text(&text), stdout);
    sago_str_free(&text);
}

static sago_status run(const sago_arguments *arguments) {
    sago_config *config = NULL;
    sago_hardware hardware;
    sago_plan_options options;
    sago_planned planned;
    if (sago_argument(arguments, "--svg") && !sago_argument_switch(arguments, "--simulate"))
        return sago_fail(SAGO_E_USAGE, "plan: --svg says where --simulate draws to; add --simulate");
    sago_status status = sago_argument_config(arguments, arguments->positional[0], &config);
    if (status == SAGO_OK) status = take_shape_over(config);
    if (status == SAGO_OK) status = read_hardware(arguments, &hardware);
    if (status == SAGO_OK) status = read_options(arguments, config, &hardware, &options);
    if (status == SAGO_OK) status = sago_plan_open(config, &hardware, &options, &planned);
    if (status == SAGO_OK) print(arguments, &planned);
    if (status == SAGO_OK && sago_argument_switch(arguments, "--simulate"))
        status = write_timeline(arguments, &planned);
    sago_config_free(config);
    return status;
}

const sago_command sago_command_plan = {
    .name = "plan",
    .summary = "say what a configuration takes: memory, time, cost, and the mesh to run it on",
    .usage = "sago plan CONFIG [--gpu NAME|FILE.yaml] [--nodes N] [--gpus-per-node N] [--data-axis "
             "sharded|replicated]\n"
             "          [--price P] [--json] [--simulate [--svg FILE]] [--measure [--threads N]] [--set "
             "KEY=VALUE ...]",
    .details = "Allocates nothing. Prints the memory of a device by kind, FLOPs, bytes sent on each axis of "
               "the mesh, time of "
               "a step by the model of docs/plan.md, MFU, tokens a second, days and device-hours: of the "
               "mesh, data axis, micro-batch "
               "and recomputation that are configured, and of the fastest ones that fit, found by trying "
               "all. Rates come "
               "from configs/hardware (a100-40, a100-80, h100-80, h200, cpu) or a file of that form. "
               "--simulate draws the "
               "step that is configured, event by event.",
    .example = "sago plan configs/flan-t5-xl.yaml --gpu h100-80 --nodes 1 --price 2.5",
    .options =
        (const sago_option[]){
            {"--gpu", "NAME", "The devices: a built-in name or a .yaml file (default h100-80)", false},
            {"--nodes", "N", "Nodes (default: what mesh.data and mesh.model ask for)", false},
            {"--gpus-per-node", "N", "Devices of a node (default: the hardware's)", false},
            {"--data-axis", "sharded|replicated",
             "Plans for this kind of data axis alone (default: the configured one, and in the search any)",
             false},
            {"--price", "P", "Of a device for an hour, in your currency", false},
            {"--json", NULL, "Prints one JSON object", false},
            {"--simulate", NULL, "Draws the step's timeline", false},
            {"--svg", "FILE", "Where --simulate draws to (default timeline.svg)", false},
            {"--measure", NULL, "Measures this machine's products and copies in place of the rates of --gpu",
             false},
            {"--threads", "N", "Threads that --measure uses; 0 for all cores (default 0)", false},
            {NULL}},
    .min_positional = 1,
    .max_positional = 1,
    .run = run,
};
