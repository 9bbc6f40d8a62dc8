// SPDX-License-Identifier: Apache-2.0
#include "yaml_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sago_status check_keys(const sago_yaml *yaml) {
    yaml_document_t *document = (yaml_document_t *)(uintptr_t)&yaml->document;
    for (yaml_node_t *node = document->nodes.start; node < document->nodes.top; node++) {
        if (node->type != YAML_MAPPING_NODE) continue;
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
             pair++) {
            yaml_node_t *key = yaml_document_get_node(document, pair->key);
            if (!sago_yaml_text(key)) return sago_yaml_fail(yaml, key, "a key must be a word");
            for (yaml_node_pair_t *other = node->data.mapping.pairs.start; other < pair; other++)
                if (!strcmp(sago_yaml_text(yaml_document_get_node(document, other->key)),
                            sago_yaml_text(key)))
                    return sago_yaml_fail(yaml, key, "\"%s\" stands twice", sago_yaml_text(key));
        }
    }
    return SAGO_OK;
}

sago_status sago_yaml_parse(sago_yaml *yaml, const char *name, const char *text, size_t length) {
    *yaml = (sago_yaml){.name = name};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return sago_fail(SAGO_E_MEMORY, "%s: no memory to read it", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    sago_status status = SAGO_OK;
    if (!yaml_parser_load(&parser, &yaml->document)) {
        status = sago_fail(SAGO_E_CONFIG, "%s:%zu: not YAML: %s", name, parser.problem_mark.line + 1,
                           parser.problem ? parser.problem : "unreadable");
    } else {
        yaml->loaded = true;
        status = check_keys(yaml);
        if (status != SAGO_OK) sago_yaml_free(yaml);
    }
    yaml_parser_delete(&parser);
    return status;
}

void sago_yaml_free(sago_yaml *yaml) {
    if (yaml->loaded) yaml_document_delete(&yaml->document);
    yaml->loaded = false;
}

yaml_node_t *sago_yaml_root(sago_yaml *yaml) {
    return yaml_document_get_root_node(&yaml->document);
}

yaml_node_t *sago_yaml_node(sago_yaml *yaml, int id) {
    return yaml_document_get_node(&yaml->document, id);
}

int sago_yaml_line(const yaml_node_t *node) {
    return node ? (int)node->start_mark.line + 1 : 1;
}

sago_status sago_yaml_fail(const sago_yaml *yaml, const yaml_node_t *node, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return sago_fail(SAGO_E_CONFIG, "%s:%d: %s", yaml->name, sago_yaml_line(node), text);
}

const char *sago_yaml_text(const yaml_node_t *node) {
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

int sago_yaml_count(const yaml_node_t *node) {
    if (node && node->type == YAML_SEQUENCE_NODE)
        return (int)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (node && node->type == YAML_MAPPING_NODE)
        return (int)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    return 0;
}

yaml_node_t *sago_yaml_item(sago_yaml *yaml, yaml_node_t *node, int i) {
    return sago_yaml_node(yaml, node->data.sequence.items.start[i]);
}

void sago_yaml_pair(sago_yaml *yaml, yaml_node_t *node, int i, const char **key, yaml_node_t **value) {
    const yaml_node_pair_t *pair = &node->data.mapping.pairs.start[i];
    *key = sago_yaml_text(sago_yaml_node(yaml, pair->key));
    *value = sago_yaml_node(yaml, pair->value);
}

sago_status sago_yaml_read_text(const sago_yaml *yaml, const yaml_node_t *node, const char *key, char **out) {
    const char *text = sago_yaml_text(node);
    if (!text) return sago_yaml_fail(yaml, node, "%s: a text is needed", key);
    free(*out);
    *out = sago_strdup(text);
    return SAGO_OK;
}

sago_status sago_yaml_read_list(sago_yaml *yaml, yaml_node_t *node, const char *key, char ***out,
                                int *count) {
    if (!node || node->type != YAML_SEQUENCE_NODE)
        return sago_yaml_fail(yaml, node, "%s: a list is needed", key);
    int n = sago_yaml_count(node);
    char **items = sago_alloc_zero((size_t)n, sizeof *items);
    *out = items;
    *count = n;
    for (int i = 0; i < n; i++) items[i] = sago_strdup("");
    for (int i = 0; i < n; i++)
        SAGO_TRY(sago_yaml_read_text(yaml, sago_yaml_item(yaml, node, i), key, &items[i]));
    return SAGO_OK;
}

sago_status sago_yaml_read_bool(const sago_yaml *yaml, const yaml_node_t *node, const char *key, bool *out) {
    const char *text = sago_yaml_text(node);
    if (text && strcmp(text, "true") == 0)
        *out = true;
    else if (text && strcmp(text, "false") == 0)
        *out = false;
    else
        return sago_yaml_fail(yaml, node, "%s: true or false is needed", key);
    return SAGO_OK;
}
