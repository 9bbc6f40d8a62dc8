// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static void add_option_names(sago_str *out, const sago_option *options) {
    for (; options && options->name; options++) sago_str_printf(out, " %s", options->name);
}

/* "--format) words" lines for options whose value is one of some words; "hf|seqio" names them. */
static void add_value_cases(sago_str *out, const sago_command *command) {
    for (const sago_option *o = command->options; o && o->name; o++) {
        if (!o->value || !strchr(o->value, '|')) continue;
        char *words = sago_strdup(o->value);
        for (char *p = words; *p; p++)
            if (*p == '|') *p = ' ';
        sago_str_printf(out, "        %s:%s) words=\"%s\" ;;\n", command->name, o->name, words);
        free(words);
    }
}

void sago_help_completion(sago_str *out) {
    sago_str_puts(out, "# bash completion for sago. Generated from the command table; see CONTRIBUTING.md.\n"
                       "_sago() {\n"
                       "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} "
                       "words=\"\" options=\"\" verbs=\"\"\n"
                       "    COMPREPLY=()\n"
                       "    if [[ $COMP_CWORD -eq 1 ]]; then\n"
                       "        COMPREPLY=($(compgen -W \"--help --version help");
    for (int i = 0; sago_commands[i]; i++) sago_str_printf(out, " %s", sago_commands[i]->name);
    sago_str_puts(out, "\" -- \"$word\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n");
    for (int i = 0; sago_commands[i]; i++) {
        sago_str_printf(out, "        %s) options=\"", sago_commands[i]->name);
        sago_str text = {0};
        add_option_names(&text, sago_commands[i]->options);
        add_option_names(&text, sago_common_options);
        sago_str_puts(out, sago_str_text(&text) + 1);
        sago_str_free(&text);
        sago_str_putc(out, '"');
        if (sago_commands[i]->verbs) sago_str_printf(out, " verbs=\"%s\"", sago_commands[i]->verbs);
        sago_str_puts(out, " ;;\n");
    }
    sago_str_puts(out, "    esac\n    case ${COMP_WORDS[1]}:$before in\n");
    for (int i = 0; sago_commands[i]; i++) add_value_cases(out, sago_commands[i]);
    sago_str_puts(out, "    esac\n"
                       "    if [[ $before == --set ]]; then\n"
                       "        compopt -o nospace 2>/dev/null\n"
                       "        COMPREPLY=($(compgen -S = -W \"");
    for (int i = 0; sago_config_key(i); i++) sago_str_printf(out, "%s%s", i ? " " : "", sago_config_key(i));
    sago_str_puts(out, "\" -- \"$word\"))\n        return\n    fi\n"
                       "    if [[ -n $words ]]; then\n"
                       "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                       "    elif [[ $word == -* ]]; then\n"
                       "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
                       "    elif [[ $COMP_CWORD -eq 2 && -n $verbs ]]; then\n"
                       "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
                       "    else\n"
                       "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
                       "    fi\n"
                       "}\n"
                       "complete -o filenames -F _sago sago\n");
}
