// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "report.h"

static sago_status run(const sago_arguments *arguments) {
    const char *output = sago_argument(arguments, "--output");
    return sago_report_write(arguments->positional, arguments->n_positional,
                             output ? output : arguments->positional[0]);
}

static const sago_option options[] = {
    {"--output", "DIR", "where report.html and report.json go (default: the first run's folder)", false},
    {0},
};

const sago_command sago_command_report = {
    .name = "report",
    .summary = "write one HTML page over one or several runs",
    .usage = "sago report RUN [RUN ...] [--output DIR]",
    .details = "Reads what the runs left (metrics.jsonl, eval/*/scores.json, mixture.json, environment.json) and writes "
               "report.html, one file that needs no network and no script, and report.json with the same figures.",
    .example = "sago report runs/first",
    .options = options,
    .min_positional = 1,
    .max_positional = 32,
    .uses_mesh = false,
    .run = run,
};
