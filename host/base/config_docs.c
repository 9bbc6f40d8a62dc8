// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <stdlib.h>
#include <string.h>

/* Does the key stand in the section itself, not in one below it? */
static bool belongs(const char *path, const char *section) {
    size_t length = strlen(section);
    if (length && (strncmp(path, section, length) || path[length] != '.')) return false;
    return !strchr(path + length + (length ? 1 : 0), '.');
}

static void add_row(const config_key *key, const char *prefix, sago_str *out) {
    sago_str range = {0};
    config_value_range(key, &range);
    sago_str_printf(out, "| `%s%s` | ", prefix, key->path);
    for (const char *p = sago_str_text(&range); *p; p++) sago_str_printf(out, *p == '|' ? "\\|" : "%c", *p);
    if (!key->otherwise && key->kind != CONFIG_RECORDS)
        sago_str_puts(out, " | required | ");
    else if (key->kind == CONFIG_RECORDS)
        sago_str_puts(out, " | `[]` | ");
    else
        sago_str_printf(out, key->otherwise[0] ? " | `%s` | " : " | empty | ", key->otherwise);
    sago_str_printf(out, "%s | %s |\n", key->may_change ? "yes" : "no", key->doc);
    sago_str_free(&range);
}

void sago_config_document(sago_str *out) {
    sago_str_puts(out, "# Configuration\n\n"
                       "This page is generated from the schema (`host/base/config_schema.c`); `ninja -C "
                       "build docs` writes it anew.\n\n"
                       "One YAML file holds a configuration; every command takes `--set KEY=VALUE`, any "
                       "number of times, the last one\n"
                       "counts. A key that is not in these tables, a value of the wrong type and one out of "
                       "its range are errors that\n"
                       "name file, line and key. Relative paths in the file count from the file's folder, "
                       "those of `--set` from the\n"
                       "current one. Values of `--set` are taken as they stand; lists are YAML: `--set "
                       "'eval.tasks=[niv2, cot]'`. An item\n"
                       "of a list of sections is named by its number from 0 or by its name: `--set "
                       "data.mixture.niv2.share=2`.\n\n"
                       "A run keeps its resolved configuration in `RUN/config.yaml`, every key with the "
                       "value that counted and every path\n"
                       "absolute: `sago train RUN/config.yaml --set run.dir=NEW` repeats it. \"Resume\" says "
                       "whether a key may change\n"
                       "when `sago train` continues a run.\n");
    for (const config_section *s = config_sections; s->path; s++) {
        sago_str_printf(out,
                        "\n## %s\n\n%s\n\n| key | takes | default | resume | meaning |\n| --- | --- | --- | "
                        "--- | --- |\n",
                        s->path[0] ? s->path : "top level", s->doc);
        for (const config_key *k = config_keys; k->path; k++) {
            if (!belongs(k->path, s->path)) continue;
            add_row(k, "", out);
            if (k->kind != CONFIG_RECORDS) continue;
            char *prefix = sago_format("%s[].", k->path);
            for (const config_key *inner = k->record->keys; inner->path; inner++) add_row(inner, prefix, out);
            free(prefix);
        }
    }
}
