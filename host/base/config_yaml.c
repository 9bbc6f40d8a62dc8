// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* What libyaml reads comes from users: everything that could make it or us grow without bound is refused
 * early. */
typedef struct reader {
    yaml_parser_t parser;
    const char *text, *name;
    size_t length;
    int n_nodes;
} reader;

static sago_status fail_line(const reader *r, int line, const char *what) {
    if (r->name[0]) return sago_fail(SAGO_E_CONFIG, "%s:%d: %s", r->name, line, what);
    return sago_fail(SAGO_E_CONFIG, "%s", what);
}

/* Does the line begin with spaces that have a tab among them? The commonest mistake, and libyaml says it
 * obscurely. */
static bool tab_indents(const reader *r, int line) {
    const char *p = r->text, *end = r->text + r->length;
    for (int i = 1; i < line && p; i++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (p) p++;
    }
    for (; p && p < end && (*p == ' ' || *p == '\t'); p++)
        if (*p == '\t') return true;
    return false;
}

static int line_of_offset(const reader *r, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < offset && i < r->length; i++) line += r->text[i] == '\n';
    return line;
}

static sago_status fail_syntax(const reader *r) {
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) return sago_fail(SAGO_E_MEMORY, "%s: no memory to read it", r->name);
    char text[512];
    int line =
        p->error == YAML_READER_ERROR ? line_of_offset(r, p->problem_offset) : (int)p->problem_mark.line + 1;
    const char *problem = p->problem ? p->problem : "cannot be understood";
    int context_line = (int)p->context_mark.line + 1;
    if (tab_indents(r, line) || (p->context && tab_indents(r, context_line)))
        snprintf(text, sizeof text, "not YAML: a tab in the indentation; use spaces");
    else if (p->context && context_line != line)
        snprintf(text, sizeof text, "not YAML: %s (%s from line %d)", problem, p->context, context_line);
    else
        snprintf(text, sizeof text, "not YAML: %s", problem);
    return fail_line(r, line, text);
}

static sago_status next_event(reader *r, yaml_event_t *event) {
    return yaml_parser_parse(&r->parser, event) ? SAGO_OK : fail_syntax(r);
}

static config_node *add_item(config_node *parent) {
    if (parent->count == parent->room) {
        parent->room = parent->room ? 2 * parent->room : 8;
        parent->items = sago_realloc(parent->items, (size_t)parent->room * sizeof *parent->items);
    }
    config_node *item = &parent->items[parent->count++];
    *item = (config_node){0};
    return item;
}

static sago_status read_scalar(const reader *r, const yaml_event_t *event, config_node *out) {
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (memchr(value, '\0', length)) return fail_line(r, out->line, "a NUL byte inside a text");
    if (event->data.scalar.tag) return fail_line(r, out->line, "tags (!...) are not used here");
    out->kind = CONFIG_NODE_SCALAR;
    out->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    out->text = sago_strndup(value, length);
    return SAGO_OK;
}

static sago_status read_node(reader *r, const yaml_event_t *event, int depth, config_node *out);

/* Items up to the end event of a list or a map. */
static sago_status read_items(reader *r, int depth, config_node *out) {
    for (;;) {
        yaml_event_t event;
        SAGO_TRY(next_event(r, &event));
        bool end = event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
        sago_status status = end ? SAGO_OK : read_node(r, &event, depth, add_item(out));
        yaml_event_delete(&event);
        if (end || status != SAGO_OK) return status;
    }
}

static sago_status read_node(reader *r, const yaml_event_t *event, int depth, config_node *out) {
    out->line = (int)event->start_mark.line + 1;
    if (++r->n_nodes > CONFIG_MAX_NODES)
        return fail_line(r, out->line, "too many values for a configuration");
    if (depth > CONFIG_MAX_DEPTH) return fail_line(r, out->line, "nested too deeply for a configuration");
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r, event, out);
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.tag) return fail_line(r, out->line, "tags (!...) are not used here");
        out->kind = CONFIG_NODE_LIST;
        return read_items(r, depth + 1, out);
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.tag) return fail_line(r, out->line, "tags (!...) are not used here");
        out->kind = CONFIG_NODE_MAP;
        return read_items(r, depth + 1, out);
    case YAML_ALIAS_EVENT:
        return fail_line(r, out->line, "aliases (*name) are not used here; repeat the value");
    default:
        return fail_line(r, out->line, "not YAML: a value is missing");
    }
}

/* Stream start, document start, one node, document end, stream end. */
static sago_status read_document(reader *r, config_node *out) {
    sago_status status = SAGO_OK;
    bool found = false;
    for (bool end = false; !end && status == SAGO_OK;) {
        yaml_event_t event;
        SAGO_TRY(next_event(r, &event));
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_STREAM_END_EVENT:
            end = true;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (found)
                status = fail_line(r, (int)event.start_mark.line + 1, "a second document; one is needed");
            break;
        default:
            found = true, status = read_node(r, &event, 0, out);
        }
        yaml_event_delete(&event);
    }
    if (status == SAGO_OK && !found) status = fail_line(r, 1, "is empty");
    return status;
}

sago_status config_yaml_parse(const char *text, size_t length, const char *name, config_node *out) {
    reader r = {.text = text, .name = name, .length = length};
    *out = (config_node){.line = 1};
    size_t at;
    if (!sago_utf8_valid(text, length, &at)) return fail_line(&r, line_of_offset(&r, at), "not UTF-8");
    if (!yaml_parser_initialize(&r.parser)) return sago_fail(SAGO_E_MEMORY, "%s: no memory to read it", name);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    sago_status status = read_document(&r, out);
    yaml_parser_delete(&r.parser);
    if (status != SAGO_OK) config_node_free(out);
    return status;
}

void config_node_free(config_node *node) {
    for (int i = 0; i < node->count; i++) config_node_free(&node->items[i]);
    free(node->items);
    free(node->text);
    *node = (config_node){0};
}
