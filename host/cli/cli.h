// SPDX-License-Identifier: Apache-2.0
/**
 * Command line: one table entry a command, from which dispatch, --help, the man pages and bash completion are made.
 * Each command lives in cmd_NAME.c and exports `const sago_command sago_command_NAME`; commands.c lists them.
 */
#ifndef SAGO_CLI_H
#define SAGO_CLI_H

#include "config.h"
#include "mesh.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct sago_option {
    const char *name;  /* "--input" */
    const char *value; /* "FILE": what follows; NULL for a switch */
    const char *help;
    bool required;
} sago_option; /* every command also has --set KEY=VALUE (repeatable), --quiet and --help */

typedef struct sago_arguments {
    const char *command;
    const char *positional[64];
    int n_positional;
    const struct { const char *name, *value; } *options; /* in order of appearance, repeated ones too */
    int n_options;
    char **sets; /* the texts of --set, in order */
    int n_sets;
} sago_arguments;

typedef struct sago_command {
    const char *name;
    const char *summary;  /* one line */
    const char *usage;    /* "sago train CONFIG|RUN/config.yaml [--set KEY=VALUE ...]" */
    const char *details;  /* some sentences: what it reads and writes, exit codes of its own */
    const char *example;  /* a command line that works */
    const sago_option *options; /* ends with a name of NULL; NULL: none */
    int min_positional, max_positional;
    bool uses_mesh;       /* false: refuses to run on more than one rank, in one clear line */
    sago_status (*run)(const sago_arguments *);
} sago_command;

/** The value of an option, or NULL; the last one when repeated. */
const char *sago_argument(const sago_arguments *arguments, const char *name);
bool sago_argument_switch(const sago_arguments *arguments, const char *name);
/** Every value of a repeated option, in order: the i-th, or NULL. */
const char *sago_argument_nth(const sago_arguments *arguments, const char *name, int i);
/** A whole number within [low, high]; the default when absent. SAGO_E_USAGE names option, value and range. */
sago_status sago_argument_int(const sago_arguments *arguments, const char *name, int64_t otherwise, int64_t low,
                              int64_t high, int64_t *out) SAGO_MUST_CHECK;

extern const sago_command *const sago_commands[]; /* ends with NULL */

#endif
