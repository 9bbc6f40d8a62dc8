// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"
#include "file.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_OF_SET = -1 };

typedef struct loader {
    sago_config *config;
    const char *file;   /* NULL: none */
    char *folder;       /* that relative paths of the file count from */
    int line[SAGO_CONFIG_MOST_KEYS]; /* of each key in the file; 0: default, LINE_OF_SET: --set */
} loader;

void config_record_default(const config_key *keys, void *base) {
    for (const config_key *k = keys; k->path; k++) {
        config_value_default(k, config_field(k, base));
        if (k->kind == CONFIG_RECORDS) *config_count(k, base) = 0;
    }
}

static void free_items(const config_record *record, void *items, int count) {
    for (int i = 0; i < count; i++)
        config_record_free(record->keys, (char *)items + (size_t)i * record->bytes);
    free(items);
}

void config_record_free(const config_key *keys, void *base) {
    for (const config_key *k = keys; k->path; k++) {
        if (k->kind == CONFIG_RECORDS)
            free_items(k->record, *(void **)config_field(k, base), *config_count(k, base));
        else
            config_value_free(k, config_field(k, base));
    }
}

void sago_config_free(sago_config *config) {
    if (!config) return;
    config_record_free(config_keys, config);
    free(config->file);
    free(config);
}

/* --- unknown keys
 * --------------------------------------------------------------------------------------------------- */

static const char *leaf_of(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* A small slip in the whole path counts most; then the same name in another section; then a larger slip. */
static const char *nearest_key(const config_key *keys, const char *path) {
    const char *best = NULL;
    int best_rank = INT_MAX, limit = 2 + (int)strlen(leaf_of(path)) / 3;
    for (const config_key *k = keys; k->path; k++) {
        int distance = sago_edit_distance(path, k->path), rank = INT_MAX;
        if (distance <= 2)
            rank = distance;
        else if (strcmp(leaf_of(path), leaf_of(k->path)) == 0)
            rank = 100 + distance;
        else if (distance <= limit)
            rank = 200 + distance;
        if (rank < best_rank) best = k->path, best_rank = rank;
    }
    return best;
}

/* The keys of the section that path stands in. */
static void list_siblings(const config_key *keys, const char *path, sago_str *out) {
    size_t length = (size_t)(leaf_of(path) - path);
    const char *between = "";
    if (keys == config_keys && length == 0) {
        for (const config_section *s = config_sections; s->path; s++) {
            if (!s->path[0] || strchr(s->path, '.')) continue;
            sago_str_printf(out, "%s%s", between, s->path);
            between = ", ";
        }
    }
    for (const config_key *k = keys; k->path; k++) {
        if (strncmp(k->path, path, length) || strchr(k->path + length, '.')) continue;
        sago_str_printf(out, "%s%s", between, k->path + length);
        between = ", ";
    }
}

static sago_status unknown_key(const config_key *keys, const config_place *place, const char *path) {
    const char *near = nearest_key(keys, path);
    if (near) return config_fail(place, "unknown key; did you mean %s?", near);
    if (keys == config_keys && !config_is_section(path)) {
        for (const config_section *s = config_sections; s->path; s++)
            if (s->path[0] && sago_edit_distance(path, s->path) <= 2)
                return config_fail(place, "unknown key; did you mean %s?", s->path);
    }
    sago_str all = {0};
    list_siblings(keys, path, &all);
    sago_status status = all.length
                             ? config_fail(place, "unknown key; the keys here: %s", sago_str_text(&all))
                             : config_fail(place, "unknown key; docs/config.md lists all");
    sago_str_free(&all);
    return status;
}

/* --- lists of records
 * ------------------------------------------------------------------------------------------------- */

static sago_status read_record(const config_record *record, const config_node *node,
                               const config_place *place, void *base) {
    int line[64] = {0};
    if (node->kind != CONFIG_NODE_MAP)
        return config_fail(place, "a section is needed, as {%s: ...}", record->keys->path);
    for (int i = 0; i < node->count; i += 2) {
        const config_node *key = &node->items[i], *value = &node->items[i + 1];
        if (key->kind != CONFIG_NODE_SCALAR) return config_fail(place, "a key is no text");
        char path[256];
        snprintf(path, sizeof path, "%s.%.100s", place->path, key->text);
        config_place at = {place->file, key->line, path, place->folder};
        const config_key *k = config_find(record->keys, key->text);
        if (!k) return unknown_key(record->keys, &at, key->text);
        if (line[k - record->keys])
            return config_fail(&at, "given twice, first in line %d", line[k - record->keys]);
        line[k - record->keys] = key->line;
        SAGO_TRY(config_value_read(k, value, &at, config_field(k, base)));
    }
    for (const config_key *k = record->keys; k->path; k++)
        if (!k->otherwise && !line[k - record->keys]) return config_fail(place, "%s is missing", k->path);
    return SAGO_OK;
}

static sago_status read_records(const config_key *key, const config_node *node, const config_place *place,
                                void *base) {
    const config_record *record = key->record;
    bool nothing = node->kind == CONFIG_NODE_SCALAR && node->plain && !node->text[0];
    if (node->kind != CONFIG_NODE_LIST && !nothing) {
        sago_str wanted = {0};
        config_value_range(key, &wanted);
        sago_status status = config_fail(place, "%s is needed", sago_str_text(&wanted));
        sago_str_free(&wanted);
        return status;
    }
    char *items = sago_alloc_zero((size_t)node->count, record->bytes);
    sago_status status = SAGO_OK;
    int count = 0;
    while (count < node->count && status == SAGO_OK) {
        void *item = items + (size_t)count * record->bytes;
        char path[256];
        snprintf(path, sizeof path, "%.100s.%d", key->path, count);
        config_place at = {place->file, node->items[count].line, path, place->folder};
        config_record_default(record->keys, item);
        status = read_record(record, &node->items[count++], &at, item);
    }
    if (status != SAGO_OK) {
        free_items(record, items, count);
        return status;
    }
    free_items(record, *(void **)config_field(key, base), *config_count(key, base));
    *(void **)config_field(key, base) = items;
    *config_count(key, base) = count;
    return SAGO_OK;
}

/* --- the file
 * ----------------------------------------------------------------------------------------------------------
 */

static sago_status read_map(loader *l, const config_node *map, const char *prefix) {
    for (int i = 0; i < map->count; i += 2) {
        const config_node *name = &map->items[i], *value = &map->items[i + 1];
        char path[256];
        config_place place = {l->file, name->line, path, l->folder};
        snprintf(path, sizeof path, "%s", prefix);
        if (name->kind != CONFIG_NODE_SCALAR) return config_fail(&place, "a key is no text");
        snprintf(path, sizeof path, "%s%s%.100s", prefix, prefix[0] ? "." : "", name->text);
        for (int j = 0; j < i; j += 2)
            if (strcmp(map->items[j].text, name->text) == 0)
                return config_fail(&place, "given twice, first in line %d", map->items[j].line);
        const config_key *key = config_find(config_keys, path);
        bool nothing = value->kind == CONFIG_NODE_SCALAR && value->plain && !value->text[0];
        if (!key && config_is_section(path) && (nothing || value->kind == CONFIG_NODE_MAP)) {
            SAGO_TRY(read_map(l, value, path));
            continue;
        }
        if (!key && config_is_section(path))
            return config_fail(&place, "this is a section; its keys go below it");
        if (!key) return unknown_key(config_keys, &place, path);
        int *line = &l->line[key - config_keys];
        if (*line) return config_fail(&place, "given twice, first in line %d", *line);
        *line = name->line;
        SAGO_TRY(key->kind == CONFIG_RECORDS
                     ? read_records(key, value, &place, l->config)
                     : config_value_read(key, value, &place, config_field(key, l->config)));
    }
    return SAGO_OK;
}

/* The folder without links, so that ".." in a path means what it means to the system. */
static char *real_folder(const char *file) {
    char *folder = sago_path_dir(file), *real = realpath(folder, NULL);
    char *out = sago_strdup(real ? real : folder);
    free(folder);
    free(real);
    return out;
}

static sago_status read_file(loader *l, const char *path) {
    sago_str text = {0};
    config_node root = {0};
    l->config->file = sago_path_absolute(path);
    l->file = path;
    l->folder = real_folder(l->config->file);
    sago_status status = sago_file_read(path, CONFIG_MAX_BYTES, &text);
    if (status == SAGO_OK) status = config_yaml_parse(sago_str_text(&text), text.length, path, &root);
    if (status == SAGO_OK && root.kind != CONFIG_NODE_MAP)
        status = sago_fail(SAGO_E_CONFIG, "%s:%d: no configuration: a file of \"key: value\" lines is needed",
                           path, root.line);
    if (status == SAGO_OK) status = read_map(l, &root, "");
    config_node_free(&root);
    sago_str_free(&text);
    return status;
}

/* --- --set
 * --------------------------------------------------------------------------------------------------------------
 */

/* "data.mixture.niv2.share" or "data.mixture.0.share": the key of the list, the item, and the key inside it.
 */
static const config_key *find_item(const sago_config *config, const char *path, void **item,
                                   const config_key **list) {
    for (const config_key *k = config_keys; k->path; k++) {
        size_t length = strlen(k->path);
        if (k->kind != CONFIG_RECORDS || strncmp(path, k->path, length) || path[length] != '.') continue;
        const char *name = path + length + 1, *leaf = leaf_of(path);
        if (leaf <= name) return NULL;
        *list = k;
        size_t n = (size_t)(leaf - 1 - name);
        for (int i = 0; i < *config_count(k, config); i++) {
            char *here = *(char **)config_field(k, config) + (size_t)i * k->record->bytes, number[16];
            const char *called = *(char **)config_field(k->record->keys, here);
            snprintf(number, sizeof number, "%d", i);
            if ((strlen(called) != n || memcmp(called, name, n)) &&
                (strlen(number) != n || memcmp(number, name, n)))
                continue;
            *item = here;
            return config_find(k->record->keys, leaf);
        }
    }
    return NULL;
}

/* Lists are YAML; everything else is the text as it stands, so that paths and numbers need no quoting. */
static sago_status read_set_value(const config_key *key, const char *value, const config_place *place,
                                  void *base) {
    config_node node = {.line = 1};
    sago_status status = SAGO_OK;
    if (key->kind == CONFIG_TEXTS || key->kind == CONFIG_RECORDS) {
        status = config_yaml_parse(value[0] ? value : "[]", value[0] ? strlen(value) : 2, "", &node);
        if (status != SAGO_OK) return sago_wrap(status, "--set %s", place->path);
    } else {
        node =
            (config_node){.kind = CONFIG_NODE_SCALAR, .line = 1, .plain = true, .text = sago_strdup(value)};
    }
    if (key->kind == CONFIG_RECORDS)
        status = read_records(key, &node, place, base);
    else
        status = config_value_read(key, &node, place, config_field(key, base));
    config_node_free(&node);
    return status;
}

static sago_status apply_set(loader *l, const char *text, const char *folder) {
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return sago_fail(SAGO_E_CONFIG, "--set %s: KEY=VALUE is needed, as --set run.steps=100", text);
    if (!sago_utf8_valid(text, strlen(text), NULL))
        return sago_fail(SAGO_E_CONFIG, "--set %s: not UTF-8", text);
    char *path = sago_strndup(text, (size_t)(equals - text));
    config_place place = {NULL, 0, path, folder};
    const config_key *key = config_find(config_keys, path), *list = NULL;
    void *item = NULL;
    sago_status status;
    if (key) {
        l->line[key - config_keys] = LINE_OF_SET;
        status = read_set_value(key, equals + 1, &place, l->config);
    } else if ((key = find_item(l->config, path, &item, &list))) {
        l->line[list - config_keys] = LINE_OF_SET;
        status = read_set_value(key, equals + 1, &place, item);
    } else if (item) {
        status = unknown_key(list->record->keys, &place, leaf_of(path));
    } else if (list) {
        status = config_fail(&place, "%s has no such %s; its %d are numbered from 0", list->path,
                             list->record->noun, *config_count(list, l->config));
    } else if (config_is_section(path)) {
        status = config_fail(&place, "this is a section; set its keys one by one");
    } else {
        status = unknown_key(config_keys, &place, path);
    }
    free(path);
    return status;
}

static sago_status check_whole(const loader *l) {
    const char *path = NULL;
    sago_status status = config_check(l->config, &path);
    if (status == SAGO_OK) return status;
    const config_key *key = path ? config_find(config_keys, path) : NULL;
    int line = key ? l->line[key - config_keys] : 0;
    if (line == LINE_OF_SET) return sago_wrap(status, "--set");
    if (line > 0) return sago_wrap(status, "%s:%d", l->file, line);
    return l->file ? sago_wrap(status, "%s", l->file) : status;
}

bool sago_config_given(const sago_config *config, const char *key) {
    const config_key *found = config_find(config_keys, key);
    return found && config->given[found - config_keys];
}

sago_status sago_config_load(const char *path, char *const sets[], int n_sets, sago_config **out) {
    loader l = {.config = sago_alloc_zero(1, sizeof(sago_config))};
    char *here = sago_path_absolute(".");
    sago_status status = SAGO_OK;
    *out = NULL;
    config_record_default(config_keys, l.config);
    if (path && path[0])
        status = read_file(&l, path);
    else
        l.config->file = sago_strdup("");
    for (int i = 0; i < n_sets && status == SAGO_OK; i++) status = apply_set(&l, sets[i], here);
    if (status == SAGO_OK) status = check_whole(&l);
    for (int i = 0; i < SAGO_CONFIG_MOST_KEYS; i++) l.config->given[i] = l.line[i] != 0;
    free(here);
    free(l.folder);
    if (status != SAGO_OK) {
        sago_config_free(l.config);
        return status;
    }
    *out = l.config;
    return SAGO_OK;
}
