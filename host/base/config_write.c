// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "train.spike.threshold" below "train": two more spaces a dot. */
static void indent(sago_str *out, int depth) {
    sago_str_printf(out, "%*s", 2 * depth, "");
}

static int depth_of(const char *path) {
    int depth = 0;
    for (; *path; path++) depth += *path == '.';
    return depth;
}

static void write_records(const config_key *list, const void *base, int depth, sago_str *out) {
    const char *items = *(char *const *)config_field(list, base);
    int count = *config_count(list, base);
    sago_str_puts(out, count ? "\n" : " []\n");
    for (int i = 0; i < count; i++) {
        for (const config_key *k = list->record->keys; k->path; k++) {
            indent(out, depth);
            sago_str_printf(out, "%s%s: ", k == list->record->keys ? "- " : "  ", k->path);
            config_value_text(k, config_field(k, items + (size_t)i * list->record->bytes), out);
            sago_str_putc(out, '\n');
        }
    }
}

/* Opens the sections of path that the key before it did not stand in. */
static void write_sections(const char *path, const char *before, sago_str *out) {
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t length = (size_t)(dot - path) + 1;
        if (strncmp(path, before, length) == 0) continue;
        const char *name = dot;
        while (name > path && name[-1] != '.') name--;
        int depth = 0;
        for (const char *p = path; p < name; p++) depth += *p == '.';
        indent(out, depth);
        sago_str_printf(out, "%.*s:\n", (int)(dot - name), name);
    }
}

void sago_config_write(const sago_config *config, sago_str *out) {
    const char *before = "";
    sago_str_puts(out, "# The resolved configuration: every key, with the value that counted.\n");
    for (const config_key *k = config_keys; k->path; before = k->path, k++) {
        write_sections(k->path, before, out);
        int depth = depth_of(k->path);
        const char *leaf = strrchr(k->path, '.');
        indent(out, depth);
        sago_str_printf(out, "%s:", leaf ? leaf + 1 : k->path);
        if (k->kind == CONFIG_RECORDS) {
            write_records(k, config, depth + 1, out);
        } else {
            sago_str_putc(out, ' ');
            config_value_text(k, config_field(k, config), out);
            sago_str_putc(out, '\n');
        }
    }
}

/* Two values of one key, as far as they differ. */
static sago_status differ(const char *path, const char *before, const char *now) {
    return sago_fail(SAGO_E_CONFIG,
                     "%s: %.300s in the run, %.300s now: this may not change when a run continues; give it "
                     "its own run.dir",
                     path, before, now);
}

static sago_status compare_value(const config_key *key, const char *path, const void *before,
                                 const void *now) {
    sago_str a = {0}, b = {0};
    config_value_text(key, config_field(key, before), &a);
    config_value_text(key, config_field(key, now), &b);
    sago_status status = SAGO_OK;
    if (strcmp(sago_str_text(&a), sago_str_text(&b)) != 0)
        status = differ(path, sago_str_text(&a), sago_str_text(&b));
    sago_str_free(&a);
    sago_str_free(&b);
    return status;
}

static sago_status compare_records(const config_key *list, const sago_config *before,
                                   const sago_config *now) {
    int n = *config_count(list, before), m = *config_count(list, now);
    if (n != m) {
        char a[32], b[32];
        snprintf(a, sizeof a, "%d %ss", n, list->record->noun);
        snprintf(b, sizeof b, "%d %ss", m, list->record->noun);
        return differ(list->path, a, b);
    }
    const char *old_items = *(char *const *)config_field(list, before),
               *items = *(char *const *)config_field(list, now);
    for (int i = 0; i < n; i++) {
        for (const config_key *k = list->record->keys; k->path; k++) {
            size_t offset = (size_t)i * list->record->bytes;
            char *path = sago_format("%s.%d.%s", list->path, i, k->path);
            sago_status status = compare_value(k, path, old_items + offset, items + offset);
            free(path);
            SAGO_TRY(status);
        }
    }
    return SAGO_OK;
}

sago_status sago_config_check_resume(const sago_config *before, const sago_config *now) {
    for (const config_key *k = config_keys; k->path; k++) {
        if (k->may_change) continue;
        SAGO_TRY(k->kind == CONFIG_RECORDS ? compare_records(k, before, now)
                                           : compare_value(k, k->path, before, now));
    }
    return SAGO_OK;
}
