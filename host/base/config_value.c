// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

sago_status config_fail(const config_place *place, const char *format, ...) {
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (place->file)
        return sago_fail(SAGO_E_CONFIG, "%s:%d: %s: %s", place->file, place->line, place->path, text);
    return sago_fail(SAGO_E_CONFIG, "--set %s: %s", place->path, text);
}

void config_value_range(const config_key *key, sago_str *out) {
    switch (key->kind) {
    case CONFIG_BOOL:
        sago_str_puts(out, "true or false");
        break;
    case CONFIG_INT:
        sago_str_printf(out, "a whole number from %lld", (long long)key->low);
        if (key->high < CONFIG_LARGEST)
            sago_str_printf(out, " to %lld", (long long)key->high);
        else
            sago_str_puts(out, " up");
        break;
    case CONFIG_NUMBER:
        sago_str_puts(out, "a number from ");
        config_number_text(key->low, out);
        sago_str_puts(out, " to ");
        config_number_text(key->high, out);
        break;
    case CONFIG_TEXT:
        sago_str_puts(out, "a text");
        break;
    case CONFIG_CHOICE:
        sago_str_puts(out, strchr(key->choices, '|') ? "one of " : "");
        for (const char *p = key->choices; *p; p++) {
            if (*p == '|')
                sago_str_puts(out, ", ");
            else
                sago_str_putc(out, *p);
        }
        break;
    case CONFIG_PATH:
        sago_str_puts(out, "a path");
        if (key->choices) sago_str_printf(out, " or %s", key->choices);
        break;
    case CONFIG_NAME:
        sago_str_puts(out, "a name, or a path that ends with .yaml");
        break;
    case CONFIG_TEXTS:
        sago_str_puts(out, "a list of texts, as [a, b]");
        break;
    case CONFIG_RECORDS:
        sago_str_puts(out, "a list of sections, as [{");
        for (const config_key *k = key->record->keys; k->path; k++)
            if (k == key->record->keys || !k->otherwise)
                sago_str_printf(out, "%s%s: ...", k == key->record->keys ? "" : ", ", k->path);
        sago_str_puts(out, "}]");
        break;
    }
}

/* What the user wrote, cut to a length that fits a message. */
static void describe(const config_node *node, sago_str *out) {
    if (node->kind == CONFIG_NODE_LIST)
        sago_str_puts(out, "a list");
    else if (node->kind == CONFIG_NODE_MAP)
        sago_str_puts(out, "a section");
    else if (node->plain && !node->text[0])
        sago_str_puts(out, "nothing");
    else
        sago_str_printf(out, node->plain ? "%.80s" : "the text \"%.80s\"", node->text);
}

static sago_status unfit(const config_key *key, const config_node *node, const config_place *place) {
    sago_str found = {0}, wanted = {0};
    describe(node, &found);
    config_value_range(key, &wanted);
    sago_status status =
        config_fail(place, "%s is given, %s is needed", sago_str_text(&found), sago_str_text(&wanted));
    sago_str_free(&found);
    sago_str_free(&wanted);
    return status;
}

/* Only digits: no spaces, underscores, hexadecimal or "inf", which the C library would let through. */
static bool is_number(const char *p, bool whole) {
    if (*p == '-' || *p == '+') p++;
    int digits = 0;
    for (; isdigit((unsigned char)*p); p++) digits++;
    if (!whole && *p == '.')
        for (p++; isdigit((unsigned char)*p); p++) digits++;
    if (!digits) return false;
    if (!whole && (*p == 'e' || *p == 'E')) {
        p++;
        if (*p == '-' || *p == '+') p++;
        if (!isdigit((unsigned char)*p)) return false;
        while (isdigit((unsigned char)*p)) p++;
    }
    return *p == '\0';
}

static bool is_choice(const char *choices, const char *text) {
    size_t length = strlen(text);
    if (strchr(text, '|')) return false;
    for (const char *p = choices; p && length; p = strchr(p, '|'), p = p ? p + 1 : NULL)
        if (strncmp(p, text, length) == 0 && (p[length] == '|' || p[length] == '\0')) return true;
    return false;
}

static bool is_null(const config_node *node) {
    return node->kind == CONFIG_NODE_SCALAR && node->plain &&
           (!node->text[0] || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

static void set_text(void *field, char *text) {
    free(*(char **)field);
    *(char **)field = text;
}

static sago_status read_path(const config_key *key, const config_node *node, const config_place *place,
                             void *field) {
    const char *text = is_null(node) ? "" : node->text;
    if (text[0] == '~' && (!text[1] || text[1] == '/'))
        return config_fail(place, "'~' is not replaced by the home folder here; write the path in full");
    if (!text[0] && !key->otherwise) return config_fail(place, "a path is needed");
    bool is_name = key->kind == CONFIG_NAME && !sago_ends_with(text, ".yaml");
    if (!text[0] || is_name || is_choice(key->choices, text)) {
        set_text(field, sago_strdup(text));
        return SAGO_OK;
    }
    char *joined = sago_path_join(place->folder, text), *absolute = sago_path_absolute(joined);
    free(joined);
    if (!sago_utf8_valid(absolute, strlen(absolute), NULL)) {
        free(absolute);
        return config_fail(place, "the path is not UTF-8");
    }
    set_text(field, absolute);
    return SAGO_OK;
}

/* An item of a list of texts; a map of one pair stands for "key: value", so that mesh rules need no quotes.
 */
static char *item_text(const config_node *item) {
    if (item->kind == CONFIG_NODE_SCALAR && item->text[0]) return sago_strdup(item->text);
    if (item->kind != CONFIG_NODE_MAP || item->count != 2) return NULL;
    const config_node *key = &item->items[0], *value = &item->items[1];
    if (key->kind != CONFIG_NODE_SCALAR || value->kind != CONFIG_NODE_SCALAR) return NULL;
    return sago_format("%s: %s", key->text, value->text);
}

static void free_list(sago_string_list *list) {
    for (int i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    *list = (sago_string_list){0};
}

static sago_status read_texts(const config_key *key, const config_node *node, const config_place *place,
                              void *field) {
    sago_string_list list = {0};
    bool single =
        !place->file && node->kind == CONFIG_NODE_SCALAR && !is_null(node); /* --set eval.tasks=one */
    if (node->kind != CONFIG_NODE_LIST && !single && !is_null(node)) return unfit(key, node, place);
    int count = single ? 1 : node->count;
    list.items = sago_alloc_zero((size_t)count, sizeof *list.items);
    for (int i = 0; i < count; i++) {
        const config_node *item = single ? node : &node->items[i];
        char *text = item_text(item);
        if (!text) {
            free_list(&list);
            config_place at = *place;
            at.line = item->line;
            return unfit(key, item, &at);
        }
        list.items[list.count++] = text;
    }
    free_list(field);
    *(sago_string_list *)field = list;
    return SAGO_OK;
}

static sago_status read_number(const config_key *key, const config_node *node, const config_place *place,
                               void *field) {
    if (!node->plain || !is_number(node->text, key->kind == CONFIG_INT)) return unfit(key, node, place);
    errno = 0;
    if (key->kind == CONFIG_INT) {
        long long value = strtoll(node->text, NULL, 10);
        if (errno || (double)value < key->low || (double)value > key->high) return unfit(key, node, place);
        *(int64_t *)field = value;
    } else {
        double value = strtod(node->text, NULL); /* too small for a double becomes 0, too large infinite */
        if (!(value >= key->low && value <= key->high)) return unfit(key, node, place);
        *(double *)field = value + 0.0; /* -0 becomes 0 */
    }
    return SAGO_OK;
}

sago_status config_value_read(const config_key *key, const config_node *node, const config_place *place,
                              void *field) {
    if (key->kind == CONFIG_TEXTS) return read_texts(key, node, place, field);
    if (node->kind != CONFIG_NODE_SCALAR) return unfit(key, node, place);
    switch (key->kind) {
    case CONFIG_BOOL:
        if (!node->plain || (strcmp(node->text, "true") && strcmp(node->text, "false")))
            return unfit(key, node, place);
        *(bool *)field = node->text[0] == 't';
        return SAGO_OK;
    case CONFIG_INT:
    case CONFIG_NUMBER:
        return read_number(key, node, place, field);
    case CONFIG_CHOICE:
        if (!is_choice(key->choices, node->text)) return unfit(key, node, place);
        set_text(field, sago_strdup(node->text));
        return SAGO_OK;
    case CONFIG_PATH:
    case CONFIG_NAME:
        return read_path(key, node, place, field);
    default:
        if (is_null(node) && !key->otherwise) return unfit(key, node, place);
        set_text(field, sago_strdup(is_null(node) ? "" : node->text));
        return SAGO_OK;
    }
}

void config_value_default(const config_key *key, void *field) {
    const char *text = key->otherwise ? key->otherwise : "";
    switch (key->kind) {
    case CONFIG_BOOL:
        *(bool *)field = text[0] == 't';
        break;
    case CONFIG_INT:
        *(int64_t *)field = strtoll(text, NULL, 10);
        break;
    case CONFIG_NUMBER:
        *(double *)field = strtod(text, NULL);
        break;
    case CONFIG_TEXTS:
        *(sago_string_list *)field = (sago_string_list){0};
        break;
    case CONFIG_RECORDS:
        *(void **)field = NULL;
        break;
    default:
        *(char **)field = sago_strdup(text);
    }
}

void config_value_free(const config_key *key, void *field) {
    switch (key->kind) {
    case CONFIG_TEXTS:
        free_list(field);
        break;
    case CONFIG_TEXT:
    case CONFIG_CHOICE:
    case CONFIG_PATH:
    case CONFIG_NAME:
        set_text(field, NULL);
        break;
    default:
        break;
    }
}

void config_number_text(double value, sago_str *out) {
    if (fabs(value) < CONFIG_LARGEST && value == floor(value)) {
        sago_str_printf(out, "%lld", (long long)value);
        return;
    }
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    /* YAML 1.1 readers take 1e-06 for a text, and 1.0e-6 for a number. */
    const char *exponent = strchr(text, 'e');
    if (!exponent) {
        sago_str_puts(out, text);
        return;
    }
    sago_str_add(out, text, (size_t)(exponent - text));
    sago_str_printf(out, "%se%+d", strchr(text, '.') ? "" : ".0", atoi(exponent + 1));
}

/* Words that YAML readers take for something else than a text. */
static bool is_word_of_yaml(const char *text) {
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0) return true;
    return false;
}

/* Bytes of a UTF-8 sequence as its code point. */
static unsigned decode(const unsigned char *p, int *length) {
    *length = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : p[0] >= 0xC0 ? 2 : 1;
    unsigned code = *length == 1 ? p[0] : p[0] & (0xFFu >> (*length + 1));
    for (int i = 1; i < *length; i++) code = code << 6 | (p[i] & 0x3F);
    return code;
}

/* Breaks lines, is refused by YAML readers, or can't be seen. */
static bool must_escape(unsigned code) {
    return code < 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0x2028 || code == 0x2029 ||
           code == 0xFEFF || (code & 0xFFFE) == 0xFFFE;
}

void config_scalar_text(const char *text, sago_str *out) {
    bool simple = text[0] && (isalpha((unsigned char)text[0]) || strchr("/._", text[0])) &&
                  !is_word_of_yaml(text) && !(text[0] == '.' && !strchr("./", text[1])) && strcmp(text, ".");
    for (const char *p = text; *p && simple; p++) simple = isalnum((unsigned char)*p) || strchr("/._-+", *p);
    if (simple) {
        sago_str_puts(out, text);
        return;
    }
    sago_str_putc(out, '"');
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int length;
        unsigned code = decode(p, &length);
        if (code == '"' || code == '\\')
            sago_str_printf(out, "\\%c", (int)code);
        else if (code == '\n')
            sago_str_puts(out, "\\n");
        else if (code == '\t')
            sago_str_puts(out, "\\t");
        else if (must_escape(code))
            sago_str_printf(out, code < 0x100 ? "\\x%02X" : code < 0x10000 ? "\\u%04X" : "\\U%08X", code);
        else
            sago_str_add(out, (const char *)p, (size_t)length);
        p += length;
    }
    sago_str_putc(out, '"');
}

void config_value_text(const config_key *key, const void *field, sago_str *out) {
    switch (key->kind) {
    case CONFIG_BOOL:
        sago_str_puts(out, *(const bool *)field ? "true" : "false");
        break;
    case CONFIG_INT:
        sago_str_printf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case CONFIG_NUMBER:
        config_number_text(*(const double *)field, out);
        break;
    case CONFIG_TEXTS: {
        const sago_string_list *list = field;
        sago_str_putc(out, '[');
        for (int i = 0; i < list->count; i++) {
            if (i) sago_str_puts(out, ", ");
            config_scalar_text(list->items[i], out);
        }
        sago_str_putc(out, ']');
        break;
    }
    case CONFIG_RECORDS:
        break; /* written by config_write.c, a line a field */
    default:
        config_scalar_text(*(char *const *)field, out);
    }
}
