// SPDX-License-Identifier: Apache-2.0
/**
 * Command line: one table entry a command, from which dispatch, --help, the man pages and bash completion are
 * made.
 *
 * Each command lives in cmd_NAME.c and exports `const sago_command sago_command_NAME`; commands.def lists
 * them in the order of --help. A command returns a status and never prints its error or exits: main.c does
 * both.
 */
#ifndef SAGO_CLI_H
#define SAGO_CLI_H

#include "config.h"
#include "mesh.h"
#include "status.h"
#include "str.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct sago_option {
    const char *name;  /* "--input" */
    const char *value; /* "FILE": what follows; NULL for a switch. FILE and DIR are completed as paths, "a|b"
                          by words */
    const char *help;
    bool required;
} sago_option; /* every command also has --set KEY=VALUE (repeatable), --quiet and --help */

typedef struct sago_option_value {
    const char *name, *value; /* value is "" for a switch */
} sago_option_value;

enum { SAGO_MAX_POSITIONAL = 64 };

typedef struct sago_arguments {
    const char *command;
    const char *positional[SAGO_MAX_POSITIONAL];
    int n_positional;
    sago_option_value *options; /* in order of appearance, repeated ones too */
    int n_options;
    char **sets; /* the texts of --set, in order */
    int n_sets;
    bool quiet, help;
} sago_arguments;

typedef struct sago_command {
    const char *name;
    const char *summary;        /* one line */
    const char *usage;          /* "sago train CONFIG|RUN/config.yaml [--set KEY=VALUE ...]" */
    const char *details;        /* some sentences: what it reads and writes, exit codes of its own */
    const char *example;        /* a command line that works */
    const sago_option *options; /* ends with a name of NULL; NULL: none */
    int min_positional, max_positional;
    bool uses_mesh;    /* false: refuses to run on more than one rank, in one clear line */
    const char *verbs; /* "encode decode train": what the first positional must be; NULL: anything */
    sago_status (*run)(const sago_arguments *);
} sago_command;

/** A command's verbs and what each runs; ends with a name of NULL. */
typedef struct sago_verb {
    const char *name;
    sago_status (*run)(const sago_arguments *);
} sago_verb;

/** Runs the verb that the first positional names; it is one of the command's `verbs`. */
sago_status sago_run_verb(const sago_verb *verbs, const sago_arguments *arguments) SAGO_MUST_CHECK;

/** The value of an option, or NULL; the last one when repeated. */
const char *sago_argument(const sago_arguments *arguments, const char *name);
bool sago_argument_switch(const sago_arguments *arguments, const char *name);
/** Every value of a repeated option, in order: the i-th, or NULL. */
const char *sago_argument_nth(const sago_arguments *arguments, const char *name, int i);
/** A whole number within [low, high]; the default when absent. SAGO_E_USAGE names option, value and range. */
sago_status sago_argument_int(const sago_arguments *arguments, const char *name, int64_t otherwise,
                              int64_t low, int64_t high, int64_t *out) SAGO_MUST_CHECK;
/** The same for a number that need not be whole. */
sago_status sago_argument_number(const sago_arguments *arguments, const char *name, double otherwise,
                                 double low, double high, double *out) SAGO_MUST_CHECK;

/**
 * Loads a config file with the command's --set texts applied. path "" or NULL: defaults and --set alone. On
 * several ranks all agree on the outcome, so that a wrong key is one line and not one a rank; every rank must
 * call it.
 */
sago_status sago_argument_config(const sago_arguments *arguments, const char *path,
                                 sago_config **out) SAGO_MUST_CHECK;

extern const sago_command *const sago_commands[]; /* ends with NULL */

/** The command of that name, or NULL. */
const sago_command *sago_command_find(const char *name);

/** Options that every command has; ends with a name of NULL. */
extern const sago_option sago_common_options[];

/**
 * Reads the words after the command's name. With --help among them nothing else is required. SAGO_E_USAGE: an
 * unknown option (with the nearest one), a value missing or too many, a required option or a positional
 * missing.
 */
sago_status sago_arguments_parse(const sago_command *command, int n_words, char *const words[],
                                 sago_arguments *out) SAGO_MUST_CHECK;
void sago_arguments_free(sago_arguments *arguments);

/** The nearest of the words by edit distance, or NULL when none is near enough to be meant. */
const char *sago_nearest(const char *word, const char *const words[], int n_words);

/* help.c, complete.c: texts from the table */
void sago_help_all(sago_str *out);                                  /* sago --help */
void sago_help_command(const sago_command *command, sago_str *out); /* sago COMMAND --help */
void sago_help_man(const sago_command *command, sago_str *out);     /* man page; NULL: sago(1) itself */
void sago_help_completion(sago_str *out);                           /* for bash */

#endif
