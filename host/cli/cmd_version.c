// SPDX-License-Identifier: Apache-2.0
#include "build.h"
#include "cli.h"
#include "json.h"

#include <stdio.h>

static void print_json(void) {
    json_t *libraries = json_object();
    for (const sago_build_part *part = sago_build_libraries(); part->name; part++)
        json_object_set_new(libraries, part->name, json_string(part->version));
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s, s:o}", "version", sago_build_version(), "commit", sago_build_commit(),
                  "compiler", sago_build_compiler(), "target", sago_build_target(), "libraries", libraries);
    sago_str text = {0};
    sago_json_add(&text, all, 9);
    printf("%s\n", sago_str_text(&text));
    sago_str_free(&text);
    json_decref(all);
}

static sago_status run(const sago_arguments *arguments) {
    if (sago_argument_switch(arguments, "--json")) {
        print_json();
        return SAGO_OK;
    }
    printf("sago %s\n", sago_build_version());
    if (sago_build_commit()[0]) printf("commit     %s\n", sago_build_commit());
    printf("compiler   %s\ntarget     %s\nlibraries ", sago_build_compiler(), sago_build_target());
    const char *between = " ";
    for (const sago_build_part *part = sago_build_libraries(); part->name; part++, between = ", ")
        printf("%s%s %s", between, part->name, part->version);
    printf("\n");
    return SAGO_OK;
}

const sago_command sago_command_version = {
    .name = "version",
    .summary = "print the version, the commit, the compiler and the libraries it was built with",
    .usage = "sago version [--json]",
    .details = "Writes a few lines to standard output, or one JSON object with --json.",
    .example = "sago version",
    .options = (const sago_option[]){{"--json", NULL, "Prints one JSON object", false}, {NULL}},
    .run = run,
};
