// SPDX-License-Identifier: Apache-2.0
#include "pattern.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef enum form {
    FORM_PLAIN,
    FORM_LETTERS,
    FORM_CAPITALS,
    FORM_DOTTED,
    FORM_NUMBERS,
    FORM_DASHES,
    FORM_LINES,
    FORM_COMMA,
    FORM_OR,
    FORM_SLASH,
    FORM_QUOTED,
    FORM_INLINE,
    FORM_LETTER,
    FORM_BRACKET,
    FORM_NUMBER,
    FORM_CAPITAL,
    FORM_SMALL,
    FORM_TRIM,
    N_FORMS
} form;

static const char *const form_names[N_FORMS] = {
    "",      "letters", "capitals", "dotted", "numbers", "dashes", "lines",   "comma", "or",
    "slash", "quoted",  "inline",   "letter", "bracket", "number", "capital", "small", "trim"};

typedef enum part_kind { PART_TEXT, PART_FIELD, PART_IF, PART_UNLESS, PART_END } part_kind;

typedef struct part {
    part_kind kind;
    form form;
    char *text; /* literal, or field name */
    bool conditional;
} part;

struct sago_pattern {
    part *parts;
    int n_parts;
};

static part *add_part(sago_pattern *pattern, part_kind kind, const char *text, size_t length) {
    pattern->parts = sago_realloc(pattern->parts, (size_t)(pattern->n_parts + 1) * sizeof *pattern->parts);
    part *added = &pattern->parts[pattern->n_parts++];
    *added = (part){.kind = kind, .text = sago_strndup(text, length)};
    return added;
}

void sago_pattern_free(sago_pattern *pattern) {
    if (!pattern) return;
    for (int i = 0; i < pattern->n_parts; i++) free(pattern->parts[i].text);
    free(pattern->parts);
    free(pattern);
}

static bool is_name(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!(islower((unsigned char)text[i]) || isdigit((unsigned char)text[i]) || text[i] == '_'))
            return false;
    return length > 0 && length < 32;
}

/* The inside of one pair of braces. */
static sago_status parse_braces(sago_pattern *pattern, const char *inside, size_t length, bool *open,
                                const char *file, int line) {
    const char kind = length ? inside[0] : '\0';
    if (kind == '/') {
        if (!*open) return sago_fail(SAGO_E_CONFIG, "%s:%d: {/} closes no condition", file, line);
        *open = false;
        add_part(pattern, PART_END, "", 0);
        return SAGO_OK;
    }
    if (kind == '?' || kind == '!') {
        if (*open) return sago_fail(SAGO_E_CONFIG, "%s:%d: a condition inside a condition", file, line);
        if (!is_name(inside + 1, length - 1))
            return sago_fail(SAGO_E_CONFIG, "%s:%d: {%.*s} names no field", file, line, (int)length, inside);
        *open = true;
        add_part(pattern, kind == '?' ? PART_IF : PART_UNLESS, inside + 1, length - 1);
        return SAGO_OK;
    }
    const char *colon = memchr(inside, ':', length);
    size_t name_length = colon ? (size_t)(colon - inside) : length;
    form chosen = FORM_PLAIN;
    if (colon) {
        size_t form_length = length - name_length - 1;
        int i = 1;
        while (i < N_FORMS &&
               !(strlen(form_names[i]) == form_length && !memcmp(form_names[i], colon + 1, form_length)))
            i++;
        if (i == N_FORMS)
            return sago_fail(SAGO_E_CONFIG, "%s:%d: {%.*s}: there is no form \"%.*s\"", file, line,
                             (int)length, inside, (int)form_length, colon + 1);
        chosen = (form)i;
    }
    if (!is_name(inside, name_length))
        return sago_fail(SAGO_E_CONFIG,
                         "%s:%d: {%.*s} names no field (small letters, digits, _; braces are {{ and }})",
                         file, line, (int)length, inside);
    part *added = add_part(pattern, PART_FIELD, inside, name_length);
    added->form = chosen;
    added->conditional = *open;
    return SAGO_OK;
}

sago_status sago_pattern_parse(const char *text, const char *file, int line, sago_pattern **out) {
    sago_pattern *pattern = sago_alloc_zero(1, sizeof *pattern);
    sago_str literal = {0};
    sago_status status = SAGO_OK;
    bool open = false;
    *out = NULL;
    for (const char *p = text; *p && status == SAGO_OK;) {
        if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}')) {
            sago_str_putc(&literal, p[0]);
            p += 2;
        } else if (*p == '{') {
            const char *end = strchr(p, '}');
            if (!end) {
                status = sago_fail(SAGO_E_CONFIG, "%s:%d: { without } (a brace itself is {{)", file, line);
                break;
            }
            if (literal.length) add_part(pattern, PART_TEXT, literal.data, literal.length);
            sago_str_clear(&literal);
            status = parse_braces(pattern, p + 1, (size_t)(end - p - 1), &open, file, line);
            p = end + 1;
        } else if (*p == '}') {
            status = sago_fail(SAGO_E_CONFIG, "%s:%d: } without { (a brace itself is }})", file, line);
        } else {
            sago_str_putc(&literal, *p++);
        }
    }
    if (status == SAGO_OK && open)
        status = sago_fail(SAGO_E_CONFIG, "%s:%d: a condition is not closed by {/}", file, line);
    if (status == SAGO_OK && literal.length) add_part(pattern, PART_TEXT, literal.data, literal.length);
    sago_str_free(&literal);
    if (status != SAGO_OK) {
        sago_pattern_free(pattern);
        return status;
    }
    *out = pattern;
    return SAGO_OK;
}

const char *sago_pattern_needs(const sago_pattern *pattern, int i) {
    for (int k = 0; pattern && k < pattern->n_parts; k++) {
        const part *at = &pattern->parts[k];
        if (at->kind == PART_FIELD && !at->conditional && i-- == 0) return at->text;
    }
    return NULL;
}

bool sago_pattern_names(const sago_pattern *pattern, const char *field) {
    for (int k = 0; pattern && k < pattern->n_parts; k++)
        if (pattern->parts[k].kind == PART_FIELD && strcmp(pattern->parts[k].text, field) == 0) return true;
    return false;
}

static void add_value(sago_str *out, const sago_str *value) {
    sago_str_add(out, sago_str_text(value), value->length);
}

static void add_option(sago_str *out, form how, int i, int count, const sago_str *value) {
    switch (how) {
    case FORM_LETTERS:
        sago_str_printf(out, "%s(%c) ", i ? "\n" : "", 'A' + i % 26);
        break;
    case FORM_CAPITALS:
        sago_str_printf(out, "%s%c) ", i ? "\n" : "", 'A' + i % 26);
        break;
    case FORM_DOTTED:
        sago_str_printf(out, "%s%c. ", i ? "\n" : "", 'A' + i % 26);
        break;
    case FORM_NUMBERS:
        sago_str_printf(out, "%s%d. ", i ? "\n" : "", i + 1);
        break;
    case FORM_DASHES:
        sago_str_puts(out, i ? "\n- " : "- ");
        break;
    case FORM_LINES:
        sago_str_puts(out, i ? "\n" : "");
        break;
    case FORM_INLINE:
        sago_str_printf(out, "%s(%c) ", i ? " " : "", 'A' + i % 26);
        break;
    case FORM_SLASH:
        sago_str_puts(out, i ? " / " : "");
        break;
    case FORM_OR:
    case FORM_QUOTED:
        sago_str_puts(out, i == 0 ? "" : i == count - 1 ? " or " : ", ");
        break;
    default:
        sago_str_puts(out, i ? ", " : "");
        break;
    }
    if (how == FORM_QUOTED) sago_str_putc(out, '"');
    add_value(out, value);
    if (how == FORM_QUOTED) sago_str_putc(out, '"');
}

static void add_answer(const sago_fields *fields, const sago_field *field, sago_answer answer, form how,
                       sago_str *out) {
    int right = answer.option >= 0 ? answer.option : fields->right_option;
    if ((how == FORM_LETTER || how == FORM_BRACKET || how == FORM_NUMBER) && right >= 0) {
        if (how == FORM_LETTER)
            sago_str_putc(out, (char)('A' + right % 26));
        else if (how == FORM_BRACKET)
            sago_str_printf(out, "(%c)", 'A' + right % 26);
        else
            sago_str_printf(out, "%d", right + 1);
        return;
    }
    const sago_field *options = sago_fields_find(fields, "options");
    if (answer.option >= 0 && options && answer.option < options->count)
        add_value(out, sago_field_value(fields, options, answer.option));
    else
        add_value(out, sago_field_value(fields, field, answer.value % field->count));
}

static void change_case(sago_str *out, size_t start, form how) {
    if (out->length > start && how == FORM_CAPITAL)
        out->data[start] = (char)toupper((unsigned char)out->data[start]);
    if (out->length > start && how == FORM_SMALL)
        out->data[start] = (char)tolower((unsigned char)out->data[start]);
    if (how != FORM_TRIM) return;
    size_t skip = start;
    while (skip < out->length && isspace((unsigned char)out->data[skip])) skip++;
    memmove(out->data + start, out->data + skip, out->length - skip);
    out->length -= skip - start;
    while (out->length > start && isspace((unsigned char)out->data[out->length - 1])) out->length--;
    out->data[out->length] = '\0';
}

static void add_field(const part *at, const sago_fields *fields, sago_answer answer, sago_str *out) {
    const sago_field *field = sago_fields_find(fields, at->text);
    if (!field) return;
    size_t start = out->length;
    if (strcmp(at->text, "answer") == 0)
        add_answer(fields, field, answer, at->form, out);
    else
        for (int i = 0; i < field->count; i++)
            add_option(out, at->form, i, field->count, sago_field_value(fields, field, i));
    change_case(out, start, at->form);
}

static bool present(const sago_fields *fields, const char *name) {
    const sago_field *field = sago_fields_find(fields, name);
    return field && sago_field_value(fields, field, 0)->length > 0;
}

void sago_pattern_render(const sago_pattern *pattern, const sago_fields *fields, sago_answer answer,
                         sago_str *out) {
    bool shown = true;
    for (int i = 0; pattern && i < pattern->n_parts; i++) {
        const part *at = &pattern->parts[i];
        if (at->kind == PART_IF || at->kind == PART_UNLESS)
            shown = present(fields, at->text) == (at->kind == PART_IF);
        else if (at->kind == PART_END)
            shown = true;
        else if (!shown)
            continue;
        else if (at->kind == PART_TEXT)
            sago_str_puts(out, at->text);
        else
            add_field(at, fields, answer, out);
    }
}
