// SPDX-License-Identifier: Apache-2.0
#include "mapping.h"

#include "fields.h"
#include "rng.h"
#include "yaml_tree.h"

#include <stdlib.h>
#include <string.h>

static void free_list(char **items, int count) {
    for (int i = 0; i < count; i++) free(items[i]);
    free(items);
}

void sago_mapping_free(sago_mapping *mapping) {
    if (!mapping) return;
    for (int i = 0; i < mapping->n_fields; i++) {
        for (int k = 0; k < mapping->fields[i].n_values; k++) free(mapping->fields[i].values[k].text);
        free(mapping->fields[i].values);
        free(mapping->fields[i].name);
    }
    free(mapping->fields);
    free_list(mapping->columns, mapping->n_columns);
    free_list(mapping->categories, mapping->n_categories);
    free_list(mapping->labels, 2 * mapping->n_labels);
    free(mapping->name), free(mapping->category), free(mapping->records), free(mapping->answer_after);
    free(mapping);
}

static sago_status read_value(const sago_yaml *yaml, const yaml_node_t *node, bool in_list,
                              sago_mapping_value *out) {
    const char *text = sago_yaml_text(node);
    if (!text || !text[0])
        return sago_yaml_fail(yaml, node, "a path, a \"{path}\" pattern or a text is needed");
    out->pattern = strchr(text, '{') != NULL;
    out->constant = in_list && !out->pattern;
    out->text = sago_strdup(text);
    for (const char *p = text; out->pattern && *p; p++) {
        if (*p == '{') {
            const char *end = strpbrk(p + 1, "{}");
            if (!end || *end != '}' || end == p + 1)
                return sago_yaml_fail(yaml, node, "{ without a path and }");
            p = end;
        } else if (*p == '}') {
            return sago_yaml_fail(yaml, node, "} without {");
        }
    }
    return SAGO_OK;
}

static sago_status add_field(sago_yaml *yaml, const char *name, yaml_node_t *node, sago_mapping *out) {
    for (int i = 0; i < out->n_fields; i++)
        if (!strcmp(out->fields[i].name, name))
            return sago_yaml_fail(yaml, node, "field \"%s\" stands twice", name);
    if (out->n_fields == SAGO_FIELDS - 2)
        return sago_yaml_fail(yaml, node, "more than %d fields", SAGO_FIELDS - 2);
    out->fields = sago_realloc(out->fields, (size_t)(out->n_fields + 1) * sizeof *out->fields);
    sago_mapping_field *field = &out->fields[out->n_fields++];
    bool list = node && node->type == YAML_SEQUENCE_NODE;
    int count = list ? sago_yaml_count(node) : 1;
    *field = (sago_mapping_field){.name = sago_strdup(name),
                                  .values = sago_alloc_zero((size_t)count, sizeof *field->values),
                                  .n_values = count};
    if (count == 0) return sago_yaml_fail(yaml, node, "field \"%s\": an empty list", name);
    for (int i = 0; i < count; i++)
        SAGO_TRY(read_value(yaml, list ? sago_yaml_item(yaml, node, i) : node, list, &field->values[i]));
    return SAGO_OK;
}

static sago_status read_choice(const sago_yaml *yaml, const yaml_node_t *node, const char *key,
                               const char *const *choices, int *out) {
    const char *text = sago_yaml_text(node);
    sago_str names = {0};
    for (int i = 0; choices[i]; i++) {
        if (text && !strcmp(text, choices[i])) {
            *out = i;
            sago_str_free(&names);
            return SAGO_OK;
        }
        sago_str_printf(&names, "%s%s", i ? ", " : "", choices[i]);
    }
    sago_status status = sago_yaml_fail(yaml, node, "%s is one of: %s", key, sago_str_text(&names));
    sago_str_free(&names);
    return status;
}

static sago_status read_labels(sago_yaml *yaml, yaml_node_t *node, sago_mapping *out) {
    if (!node || node->type != YAML_MAPPING_NODE)
        return sago_yaml_fail(yaml, node, "labels: pairs \"value: text\" are needed");
    int count = sago_yaml_count(node);
    out->labels = sago_alloc_zero((size_t)(2 * count), sizeof *out->labels);
    for (int i = 0; i < count; i++) {
        const char *key;
        yaml_node_t *value;
        sago_yaml_pair(yaml, node, i, &key, &value);
        if (!sago_yaml_text(value)) return sago_yaml_fail(yaml, value, "labels: a text is needed");
        out->labels[2 * i] = sago_strdup(key);
        out->labels[2 * i + 1] = sago_strdup(sago_yaml_text(value));
        out->n_labels++;
    }
    return SAGO_OK;
}

static sago_status read_key(sago_yaml *yaml, const char *key, yaml_node_t *value, sago_mapping *out) {
    static const char *const kinds[] = {"auto", "jsonl", "json", "csv", "tsv", NULL};
    static const char *const answers[] = {"text", "letter", "index", "number", "letter_or_index", NULL};
    int choice = 0;
    if (!strcmp(key, "category")) return sago_yaml_read_text(yaml, value, key, &out->category);
    if (!strcmp(key, "records")) return sago_yaml_read_text(yaml, value, key, &out->records);
    if (!strcmp(key, "answer_after")) return sago_yaml_read_text(yaml, value, key, &out->answer_after);
    if (!strcmp(key, "columns")) return sago_yaml_read_list(yaml, value, key, &out->columns, &out->n_columns);
    if (!strcmp(key, "categories"))
        return sago_yaml_read_list(yaml, value, key, &out->categories, &out->n_categories);
    if (!strcmp(key, "answer")) return add_field(yaml, "answer", value, out);
    if (!strcmp(key, "chain")) return add_field(yaml, "chain", value, out);
    if (!strcmp(key, "labels")) return read_labels(yaml, value, out);
    if (!strcmp(key, "option_prefix")) return sago_yaml_read_bool(yaml, value, key, &out->option_prefix);
    if (!strcmp(key, "inverted")) return sago_yaml_read_bool(yaml, value, key, &out->inverted);
    if (!strcmp(key, "kind")) {
        SAGO_TRY(read_choice(yaml, value, key, kinds, &choice));
        out->kind = (sago_table_kind)choice;
        return SAGO_OK;
    }
    if (!strcmp(key, "answer_is")) {
        SAGO_TRY(read_choice(yaml, value, key, answers, &choice));
        out->answer_is = (sago_answer_kind)choice;
        return SAGO_OK;
    }
    if (strcmp(key, "fields") != 0)
        return sago_yaml_fail(
            yaml, value,
            "unknown key \"%s\"; there are category, kind, records, columns, categories, fields, "
            "answer, answer_is, answer_after, chain, labels, option_prefix, inverted",
            key);
    if (!value || value->type != YAML_MAPPING_NODE)
        return sago_yaml_fail(yaml, value, "fields: pairs are needed");
    for (int i = 0; i < sago_yaml_count(value); i++) {
        const char *name;
        yaml_node_t *node;
        sago_yaml_pair(yaml, value, i, &name, &node);
        SAGO_TRY(add_field(yaml, name, node, out));
    }
    return SAGO_OK;
}

static bool has_field(const sago_mapping *mapping, const char *name) {
    for (int i = 0; i < mapping->n_fields; i++)
        if (!strcmp(mapping->fields[i].name, name)) return true;
    return false;
}

sago_status sago_mapping_parse(const char *name, const char *file, const char *text, size_t length,
                               sago_mapping **out) {
    sago_mapping *mapping = sago_alloc_zero(1, sizeof *mapping);
    sago_yaml yaml;
    *out = NULL;
    mapping->name = sago_strdup(name);
    mapping->category = sago_strdup("");
    mapping->records = sago_strdup("");
    mapping->answer_after = sago_strdup("");
    mapping->inverted = true;
    mapping->hash = sago_hash_bytes(text, length);
    sago_status status = sago_yaml_parse(&yaml, file, text, length);
    if (status == SAGO_OK) {
        yaml_node_t *root = sago_yaml_root(&yaml);
        if (!root || root->type != YAML_MAPPING_NODE)
            status = sago_yaml_fail(&yaml, root, "a mapping needs keys");
        for (int i = 0; status == SAGO_OK && i < sago_yaml_count(root); i++) {
            const char *key;
            yaml_node_t *value;
            sago_yaml_pair(&yaml, root, i, &key, &value);
            status = read_key(&yaml, key, value, mapping);
        }
        if (status == SAGO_OK && !mapping->category[0])
            status = sago_yaml_fail(&yaml, root, "category is missing");
        if (status == SAGO_OK && !has_field(mapping, "answer"))
            status = sago_yaml_fail(&yaml, root, "answer is missing");
        if (status == SAGO_OK && mapping->answer_is != SAGO_ANSWER_TEXT && !has_field(mapping, "options"))
            status =
                sago_yaml_fail(&yaml, root, "answer_is names an option, but there is no field \"options\"");
    }
    sago_yaml_free(&yaml);
    if (status != SAGO_OK) {
        sago_mapping_free(mapping);
        return status;
    }
    *out = mapping;
    return SAGO_OK;
}
