// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AGREE_SECONDS = 60 };

const sago_option sago_common_options[] = {
    {"--set", "KEY=VALUE", "Sets a key of the configuration; may be repeated, the last one counts", false},
    {"--quiet", NULL, "Prints warnings and errors alone on standard error", false},
    {"--help", NULL, "Prints this help", false},
    {NULL},
};

const char *sago_nearest(const char *word, const char *const words[], int n_words) {
    const char *best = NULL;
    /* A third of the letters may be wrong; a word that merely begins so is near as well. */
    int limit = 1 + (int)strlen(word) / 3;
    for (int i = 0; i < n_words; i++) {
        int distance = sago_edit_distance(word, words[i]);
        if (strlen(word) >= 3 && distance > 1 && sago_starts_with(words[i], word)) distance = 1;
        if (distance <= limit && distance < (int)strlen(words[i])) best = words[i], limit = distance - 1;
    }
    return best;
}

static const sago_option *find_option(const sago_option *options, const char *name, size_t length) {
    for (; options && options->name; options++)
        if (strlen(options->name) == length && memcmp(options->name, name, length) == 0) return options;
    return NULL;
}

static sago_status unknown_option(const sago_command *command, const char *name, size_t length) {
    const char *known[128];
    int n_known = 0;
    for (const sago_option *o = command->options; o && o->name && n_known < 100; o++)
        known[n_known++] = o->name;
    for (const sago_option *o = sago_common_options; o->name; o++) known[n_known++] = o->name;
    char *word = sago_strndup(name, length);
    const char *near = sago_nearest(word, known, n_known);
    sago_status status =
        near ? sago_fail(SAGO_E_USAGE, "%s: unknown option %s; did you mean %s?", command->name, word, near)
             : sago_fail(SAGO_E_USAGE, "%s: unknown option %s; 'sago %s --help' lists them all",
                         command->name, word, command->name);
    free(word);
    return status;
}

static sago_status add_set(const sago_command *command, sago_arguments *out, const char *text) {
    if (!strchr(text, '=') || text[0] == '=')
        return sago_fail(SAGO_E_USAGE, "%s: --set %s: KEY=VALUE is needed, as --set run.steps=100",
                         command->name, text);
    out->sets = sago_realloc(out->sets, (size_t)(out->n_sets + 1) * sizeof *out->sets);
    out->sets[out->n_sets++] = sago_strdup(text);
    return SAGO_OK;
}

static void add_option(sago_arguments *out, const char *name, const char *value) {
    out->options = sago_realloc(out->options, (size_t)(out->n_options + 1) * sizeof *out->options);
    out->options[out->n_options++] = (sago_option_value){name, value};
}

/* An option at words[*at]; moves *at on to its value where that is a word of its own. */
static sago_status read_option(const sago_command *command, int n_words, char *const words[], int *at,
                               sago_arguments *out) {
    const char *word = words[*at];
    if (strcmp(word, "-h") == 0) word = "--help";
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const sago_option *option = find_option(command->options, word, length);
    if (!option) option = find_option(sago_common_options, word, length);
    if (!option) return unknown_option(command, word, length);
    const char *value = "";
    if (!option->value) {
        if (equals) return sago_fail(SAGO_E_USAGE, "%s: %s takes no value", command->name, option->name);
    } else if (equals) {
        value = equals + 1;
    } else if (*at + 1 < n_words && strncmp(words[*at + 1], "--", 2) != 0) {
        value = words[++*at];
    } else {
        return sago_fail(SAGO_E_USAGE, "%s: %s needs a value: %s %s", command->name, option->name,
                         option->name, option->value);
    }
    if (strcmp(option->name, "--set") == 0) return add_set(command, out, value);
    if (strcmp(option->name, "--help") == 0) out->help = true;
    if (strcmp(option->name, "--quiet") == 0) out->quiet = true;
    add_option(out, option->name, value);
    return SAGO_OK;
}

sago_status sago_run_verb(const sago_verb *verbs, const sago_arguments *arguments) {
    for (; verbs->name; verbs++)
        if (strcmp(verbs->name, arguments->positional[0]) == 0) return verbs->run(arguments);
    return sago_fail(SAGO_E_INTERNAL, "%s %s: nothing runs it", arguments->command, arguments->positional[0]);
}

/* The first positional of a command with verbs. */
static sago_status check_verb(const sago_command *command, const char *verb) {
    const char *known[16];
    int n_known = 0;
    char *words = sago_strdup(command->verbs), *save = NULL;
    for (char *w = strtok_r(words, " ", &save); w && n_known < 16; w = strtok_r(NULL, " ", &save))
        known[n_known++] = w;
    sago_status status = SAGO_OK;
    bool found = false;
    for (int i = 0; i < n_known && !found; i++) found = strcmp(known[i], verb) == 0;
    if (!found) {
        const char *near = sago_nearest(verb, known, n_known);
        status = near ? sago_fail(SAGO_E_USAGE, "%s: unknown word '%s'; did you mean '%s'?", command->name,
                                  verb, near)
                      : sago_fail(SAGO_E_USAGE, "%s: unknown word '%s'; one of: %s", command->name, verb,
                                  command->verbs);
    }
    free(words);
    return status;
}

/* A usage may go on in a second line, and an error is one. */
static int usage_bytes(const sago_command *command) { return (int)strcspn(command->usage, "\n"); }

static sago_status check_complete(const sago_command *command, const sago_arguments *out) {
    if (command->verbs && out->n_positional) SAGO_TRY(check_verb(command, out->positional[0]));
    if (out->n_positional < command->min_positional)
        return sago_fail(SAGO_E_USAGE, "%s: %d of %d arguments given; usage: %.*s", command->name,
                         out->n_positional, command->min_positional, usage_bytes(command), command->usage);
    if (out->n_positional > command->max_positional)
        return sago_fail(SAGO_E_USAGE, "%s: unexpected argument '%s'; usage: %.*s", command->name,
                         out->positional[command->max_positional], usage_bytes(command), command->usage);
    for (const sago_option *o = command->options; o && o->name; o++)
        if (o->required && !sago_argument(out, o->name))
            return sago_fail(SAGO_E_USAGE, "%s: %s %s is required; usage: %.*s", command->name, o->name,
                             o->value ? o->value : "", usage_bytes(command), command->usage);
    return SAGO_OK;
}

sago_status sago_arguments_parse(const sago_command *command, int n_words, char *const words[],
                                 sago_arguments *out) {
    *out = (sago_arguments){.command = command->name};
    bool only_positional = false;
    for (int i = 0; i < n_words; i++) {
        const char *word = words[i];
        if (!only_positional && strcmp(word, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && word[0] == '-' && word[1]) {
            SAGO_TRY(read_option(command, n_words, words, &i, out));
        } else if (out->n_positional == SAGO_MAX_POSITIONAL) {
            return sago_fail(SAGO_E_USAGE, "%s: more than %d arguments", command->name, SAGO_MAX_POSITIONAL);
        } else {
            out->positional[out->n_positional++] = word;
        }
    }
    return out->help ? SAGO_OK : check_complete(command, out);
}

void sago_arguments_free(sago_arguments *arguments) {
    for (int i = 0; i < arguments->n_sets; i++) free(arguments->sets[i]);
    free(arguments->sets);
    free(arguments->options);
    *arguments = (sago_arguments){0};
}

const char *sago_argument(const sago_arguments *arguments, const char *name) {
    const char *value = NULL;
    for (int i = 0; i < arguments->n_options; i++)
        if (strcmp(arguments->options[i].name, name) == 0) value = arguments->options[i].value;
    return value;
}

bool sago_argument_switch(const sago_arguments *arguments, const char *name) {
    return sago_argument(arguments, name) != NULL;
}

const char *sago_argument_nth(const sago_arguments *arguments, const char *name, int i) {
    for (int k = 0; k < arguments->n_options; k++)
        if (strcmp(arguments->options[k].name, name) == 0 && i-- == 0) return arguments->options[k].value;
    return NULL;
}

sago_status sago_argument_int(const sago_arguments *arguments, const char *name, int64_t otherwise,
                              int64_t low, int64_t high, int64_t *out) {
    const char *text = sago_argument(arguments, name);
    *out = otherwise;
    if (!text) return SAGO_OK;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool whole =
        (text[0] == '-' ? text[1] : text[0]) >= '0' && (text[0] == '-' ? text[1] : text[0]) <= '9' && !*end;
    if (!whole || errno || value < low || value > high)
        return sago_fail(SAGO_E_USAGE, "%s: %s %s: a whole number from %lld to %lld is needed",
                         arguments->command, name, text, (long long)low, (long long)high);
    *out = value;
    return SAGO_OK;
}

sago_status sago_argument_number(const sago_arguments *arguments, const char *name, double otherwise,
                                 double low, double high, double *out) {
    const char *text = sago_argument(arguments, name);
    *out = otherwise;
    if (!text) return SAGO_OK;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < low || value > high)
        return sago_fail(SAGO_E_USAGE, "%s: %s %s: a number from %g to %g is needed", arguments->command,
                         name, text, low, high);
    *out = value;
    return SAGO_OK;
}

sago_status sago_argument_config(const sago_arguments *arguments, const char *path, sago_config **out) {
    sago_status status = sago_config_load(path, arguments->sets, arguments->n_sets, out);
    if (sago_mesh_world_size() == 1) return status;
    sago_error error;
    sago_error_take(status, &error);
    sago_mesh *mesh = NULL;
    SAGO_TRY_TO(done, sago_mesh_open(0, 1, AGREE_SECONDS, &mesh));
    status = sago_agree(mesh, sago_error_give(&error));
done:
    sago_mesh_close(mesh);
    if (status != SAGO_OK) {
        sago_config_free(*out);
        *out = NULL;
    }
    return status;
}
