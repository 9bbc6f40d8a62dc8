// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_WIDTH = 96 };

static const char about[] =
    "sago: finetunes, evaluates and exports T5-family language models on mixtures of instruction tasks";

/* Text broken at spaces to the width, each line after the first indented; newlines of the text stay. */
static void add_wrapped(sago_str *out, const char *text, int indent, int width) {
    int column = indent;
    while (*text) {
        if (*text == '\n') {
            do text++;
            while (*text == ' ');
            sago_str_printf(out, "\n%*s", *text && *text != '\n' ? indent : 0, "");
            column = indent;
            continue;
        }
        int length = (int)strcspn(text, " \n");
        if (column > indent && column + length > width) {
            while (out->length && out->data[out->length - 1] == ' ') out->data[--out->length] = '\0';
            sago_str_printf(out, "\n%*s", indent, "");
            column = indent;
        }
        sago_str_add(out, text, (size_t)length);
        column += length;
        text += length;
        while (*text == ' ') {
            sago_str_putc(out, ' ');
            column++;
            text++;
        }
    }
    sago_str_putc(out, '\n');
}

void sago_help_all(sago_str *out) {
    sago_str_printf(out, "%s\n\nusage: sago COMMAND [ARGUMENTS] [--set KEY=VALUE ...]\n\n", about);
    for (int i = 0; sago_commands[i]; i++) {
        sago_str_printf(out, "  %-10s ", sago_commands[i]->name);
        add_wrapped(out, sago_commands[i]->summary, 13, TEXT_WIDTH);
    }
    sago_str_puts(
        out,
        "\n'sago COMMAND --help' says more and shows an example. Commands that compute with a model run on\n"
        "several processes by 'mpirun -n N sago COMMAND ...'. Exit codes: 0 done, 1 failed, 2 a command "
        "line\n"
        "or configuration that is wrong, 75 interrupted after saving (run again and it goes on).\n");
}

static void add_options(sago_str *out, const sago_option *options) {
    for (; options && options->name; options++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s%s", options->name, options->value ? " " : "",
                 options->value ? options->value : "");
        sago_str_printf(out, "  %-24s ", name);
        if (strlen(name) > 24) sago_str_printf(out, "\n%27s", "");
        sago_str text = {0};
        sago_str_printf(&text, "%s%s", options->help, options->required ? " (required)" : "");
        add_wrapped(out, sago_str_text(&text), 27, TEXT_WIDTH);
        sago_str_free(&text);
    }
}

void sago_help_command(const sago_command *command, sago_str *out) {
    sago_str_printf(out, "sago %s: ", command->name);
    add_wrapped(out, command->summary, 0, TEXT_WIDTH);
    sago_str_puts(out, "\nusage: ");
    add_wrapped(out, command->usage, 7, TEXT_WIDTH);
    if (command->details && command->details[0]) {
        sago_str_putc(out, '\n');
        add_wrapped(out, command->details, 0, TEXT_WIDTH);
    }
    sago_str_puts(out, "\noptions:\n");
    add_options(out, command->options);
    add_options(out, sago_common_options);
    sago_str_printf(out, "\nexample:\n  ");
    add_wrapped(out, command->example, 2, 1000);
    sago_str_puts(out, command->uses_mesh ? "\nRuns on several processes too: mpirun -n N sago " : "");
    if (command->uses_mesh) sago_str_printf(out, "%s ...\n", command->name);
}

/* roff: backslashes and hyphens escaped, a leading dot or quote guarded. */
static void add_roff(sago_str *out, const char *text) {
    bool line_start = true;
    for (; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) sago_str_puts(out, "\\&");
        if (*text == '\\')
            sago_str_puts(out, "\\e");
        else if (*text == '-')
            sago_str_puts(out, "\\-");
        else
            sago_str_putc(out, *text);
        line_start = *text == '\n';
    }
}

static void add_roff_options(sago_str *out, const sago_option *options) {
    for (; options && options->name; options++) {
        sago_str_puts(out, ".TP\n\\fB");
        add_roff(out, options->name);
        sago_str_puts(out, "\\fR");
        if (options->value) {
            sago_str_puts(out, " \\fI");
            add_roff(out, options->value);
            sago_str_puts(out, "\\fR");
        }
        sago_str_putc(out, '\n');
        add_roff(out, options->help);
        sago_str_puts(out, options->required ? " (required)\n" : "\n");
    }
}

static void add_exit_codes(sago_str *out) {
    sago_str_puts(
        out,
        ".SH EXIT STATUS\n0 done; 1 failed; 2 a command line or configuration that is wrong; 75 interrupted "
        "by SIGTERM or SIGINT after saving: run again and it goes on.\n");
}

static void add_man_of_all(sago_str *out) {
    sago_str_printf(out, ".TH SAGO 1 \"\" \"sago %s\" \"User Commands\"\n.SH NAME\nsago \\- ", SAGO_VERSION);
    add_roff(out, strchr(about, ' ') + 1);
    sago_str_puts(
        out,
        "\n.SH SYNOPSIS\n.B sago\n.I COMMAND\n[\\fIARGUMENTS\\fR] [\\fB\\-\\-set\\fR \\fIKEY=VALUE\\fR ...]\n"
        ".SH COMMANDS\n");
    for (int i = 0; sago_commands[i]; i++) {
        sago_str_printf(out, ".TP\n\\fBsago\\-%s\\fR(1)\n", sago_commands[i]->name);
        add_roff(out, sago_commands[i]->summary);
        sago_str_putc(out, '\n');
    }
    sago_str_puts(out, ".SH OPTIONS OF EVERY COMMAND\n");
    add_roff_options(out, sago_common_options);
    add_exit_codes(out);
}

void sago_help_man(const sago_command *command, sago_str *out) {
    sago_str_puts(out, ".\\\" Generated from the command table; see CONTRIBUTING.md.\n");
    if (!command) {
        add_man_of_all(out);
        return;
    }
    sago_str_puts(out, ".TH SAGO\\-");
    for (const char *p = command->name; *p; p++)
        sago_str_putc(out, (char)(*p - ('a' <= *p && *p <= 'z' ? 32 : 0)));
    sago_str_printf(out, " 1 \"\" \"sago %s\" \"User Commands\"\n.SH NAME\nsago\\-%s \\- ", SAGO_VERSION,
                    command->name);
    add_roff(out, command->summary);
    sago_str_puts(out, "\n.SH SYNOPSIS\n");
    add_roff(out, command->usage);
    sago_str_puts(out, "\n.SH DESCRIPTION\n");
    add_roff(out, command->details && command->details[0] ? command->details : command->summary);
    if (command->uses_mesh)
        sago_str_puts(out, "\n.PP\nRuns on several processes too, started by \\fBmpirun\\fR(1).");
    sago_str_puts(out, "\n.SH OPTIONS\n");
    add_roff_options(out, command->options);
    add_roff_options(out, sago_common_options);
    sago_str_puts(out, ".SH EXAMPLE\n.nf\n");
    add_roff(out, command->example);
    sago_str_puts(out, "\n.fi\n");
    add_exit_codes(out);
    sago_str_puts(out, ".SH SEE ALSO\n\\fBsago\\fR(1)\n");
}
