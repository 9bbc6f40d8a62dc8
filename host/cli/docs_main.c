// SPDX-License-Identifier: Apache-2.0
/* sago-docs [--check] SOURCE_ROOT: writes the pages that are made from tables, or says which of them are
 * stale: docs/config.md, docs/man/sago*.1 and docs/completion/sago.bash. `ninja docs` runs it. */
#include "cli.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool only_check;
static int n_stale;

static sago_status page(const char *root, const char *name, const sago_str *text) {
    char *path = sago_path_join(root, name), *folder = sago_path_dir(path);
    sago_str old = {0};
    sago_status status = SAGO_OK;
    bool same = sago_is_file(path) && sago_file_read(path, 0, &old) == SAGO_OK &&
                old.length == text->length &&
                memcmp(sago_str_text(&old), sago_str_text(text), old.length) == 0;
    if (!same && only_check) {
        printf("%s is stale; 'ninja docs' in the build folder writes it anew\n", name);
        n_stale++;
    } else if (!same) {
        status = sago_dir_make(folder);
        if (status == SAGO_OK) status = sago_file_replace(path, sago_str_text(text), text->length);
        printf("%s\n", name);
    }
    sago_str_free(&old);
    free(path);
    free(folder);
    return status;
}

static sago_status man_page(const char *root, const sago_command *command) {
    sago_str text = {0};
    char *name = command ? sago_format("docs/man/sago-%s.1", command->name) : sago_strdup("docs/man/sago.1");
    sago_help_man(command, &text);
    sago_status status = page(root, name, &text);
    free(name);
    sago_str_free(&text);
    return status;
}

static sago_status all_pages(const char *root) {
    sago_str text = {0};
    sago_config_document(&text);
    sago_status status = page(root, "docs/config.md", &text);
    sago_str_clear(&text);
    sago_help_completion(&text);
    if (status == SAGO_OK) status = page(root, "docs/completion/sago.bash", &text);
    sago_str_free(&text);
    if (status == SAGO_OK) status = man_page(root, NULL);
    for (int i = 0; sago_commands[i] && status == SAGO_OK; i++) status = man_page(root, sago_commands[i]);
    return status;
}

int main(int argc, char *argv[]) {
    only_check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc != 2 && !only_check) {
        fprintf(stderr, "usage: sago-docs [--check] SOURCE_ROOT\n");
        return 2;
    }
    sago_status status = all_pages(argv[argc - 1]);
    if (status != SAGO_OK) fprintf(stderr, "sago-docs: %s\n", sago_message());
    return status != SAGO_OK || n_stale > 0;
}
