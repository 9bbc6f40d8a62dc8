// SPDX-License-Identifier: Apache-2.0
#include "fields.h"

#include "rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void sago_fields_clear(sago_fields *fields) {
    fields->n_fields = 0;
    fields->n_texts = 0;
    fields->right_option = -1;
    sago_ids_clear(&fields->input_ids);
    sago_ids_clear(&fields->target_ids);
}

void sago_fields_free(sago_fields *fields) {
    for (int i = 0; i < fields->capacity; i++) sago_str_free(&fields->texts[i]);
    free(fields->texts);
    sago_ids_free(&fields->input_ids);
    sago_ids_free(&fields->target_ids);
    *fields = (sago_fields){0};
}

sago_str *sago_fields_add(sago_fields *fields, const char *name) {
    if (fields->n_texts == fields->capacity) {
        int capacity = fields->capacity ? 2 * fields->capacity : 16;
        fields->texts = sago_realloc(fields->texts, (size_t)capacity * sizeof *fields->texts);
        memset(fields->texts + fields->capacity, 0,
               (size_t)(capacity - fields->capacity) * sizeof *fields->texts);
        fields->capacity = capacity;
    }
    sago_field *last = fields->n_fields ? &fields->fields[fields->n_fields - 1] : NULL;
    if (!last || strcmp(last->name, name) != 0) {
        /* Mappings are checked against SAGO_FIELDS when they are loaded. */
        last = &fields->fields[fields->n_fields++];
        *last = (sago_field){.name = name, .first = fields->n_texts};
    }
    last->count++;
    sago_str *text = &fields->texts[fields->n_texts++];
    sago_str_clear(text);
    return text;
}

const sago_field *sago_fields_find(const sago_fields *fields, const char *name) {
    for (int i = 0; i < fields->n_fields; i++)
        if (strcmp(fields->fields[i].name, name) == 0) return &fields->fields[i];
    return NULL;
}

sago_status sago_json_text(const json_t *value, const char *name, sago_where where, sago_str *out) {
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        size_t length = json_string_length(value);
        if (memchr(text, '\0', length))
            return sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\" holds a NUL character", where.path,
                             (long long)where.line, name);
        sago_str_add(out, text, length);
        return SAGO_OK;
    }
    if (json_is_integer(value)) {
        sago_str_printf(out, "%lld", (long long)json_integer_value(value));
        return SAGO_OK;
    }
    if (json_is_real(value)) {
        double number = json_real_value(value);
        if (number == floor(number) && fabs(number) < 1e15)
            sago_str_printf(out, "%.0f", number); /* 39.0 in a table is the answer "39" */
        else
            sago_str_printf(out, "%.12g", number);
        return SAGO_OK;
    }
    if (json_is_boolean(value)) {
        sago_str_puts(out, json_is_true(value) ? "true" : "false");
        return SAGO_OK;
    }
    return sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\" is %s; a text or a number is needed there", where.path,
                     (long long)where.line, name,
                     !value                 ? "missing"
                     : json_is_null(value)  ? "null"
                     : json_is_array(value) ? "a list"
                                            : "an object");
}

sago_status sago_fields_add_json(sago_fields *fields, const char *name, const json_t *value, const char *key,
                                 sago_where where) {
    if (!json_is_array(value)) return sago_json_text(value, key, where, sago_fields_add(fields, name));
    size_t i;
    json_t *item;
    if (json_array_size(value) == 0)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\" is an empty list", where.path, (long long)where.line,
                         key);
    json_array_foreach(value, i, item) {
        SAGO_TRY(sago_json_text(item, key, where, sago_fields_add(fields, name)));
    }
    return SAGO_OK;
}

/* Decodes the character at text; *bytes is its length. Texts were checked to be UTF-8 when they were read. */
static uint32_t decode(const unsigned char *text, size_t left, size_t *bytes) {
    unsigned char c = text[0];
    size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (n > left) n = 1;
    uint32_t code = n == 1 ? c : c & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++) code = code << 6 | (text[i] & 0x3F);
    *bytes = n;
    return code;
}

static uint32_t lower(uint32_t c) {
    if (c >= 'A' && c <= 'Z') return c + 32;
    if (c >= 0xC0 && c <= 0xDE && c != 0xD7) return c + 32;
    if (c >= 0x100 && c <= 0x17F && c != 0x130 && c != 0x131 && c != 0x138 && c != 0x149 && c != 0x17F) {
        /* Latin Extended-A alternates upper and lower; which parity is upper changes twice. */
        bool odd_is_upper = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E);
        if (c == 0x178) return 0xFF;
        return (c & 1) == (odd_is_upper ? 1u : 0u) ? c + 1 : c;
    }
    if (c >= 0x391 && c <= 0x3A9) return c + 32;
    if (c >= 0x410 && c <= 0x42F) return c + 32;
    if (c >= 0x400 && c <= 0x40F) return c + 80;
    return c;
}

static bool is_digit(uint32_t c) {
    return c >= '0' && c <= '9';
}

static bool is_space(uint32_t c) {
    return c <= ' ' || c == 0xA0 || (c >= 0x2000 && c <= 0x200B) || c == 0x202F || c == 0x3000 || c == 0xFEFF;
}

static bool is_punctuation(uint32_t c) {
    if (c < 0x80) return !(is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
    return (c >= 0xA1 && c <= 0xBF && c != 0xAA && c != 0xB5 && c != 0xBA) || (c >= 0x2010 && c <= 0x205E) ||
           (c >= 0x3001 && c <= 0x3011) || (c >= 0xFF01 && c <= 0xFF0F);
}

static void put_utf8(sago_str *out, uint32_t c) {
    if (c < 0x80) {
        sago_str_putc(out, (char)c);
    } else if (c < 0x800) {
        sago_str_putc(out, (char)(0xC0 | c >> 6));
        sago_str_putc(out, (char)(0x80 | (c & 0x3F)));
    } else {
        if (c < 0x10000) {
            sago_str_putc(out, (char)(0xE0 | c >> 12));
        } else {
            sago_str_putc(out, (char)(0xF0 | c >> 18));
            sago_str_putc(out, (char)(0x80 | (c >> 12 & 0x3F)));
        }
        sago_str_putc(out, (char)(0x80 | (c >> 6 & 0x3F)));
        sago_str_putc(out, (char)(0x80 | (c & 0x3F)));
    }
}

static bool number_follows(const unsigned char *text, size_t length, size_t at) {
    while (at < length && text[at] == ' ') at++;
    return at < length && is_digit(text[at]);
}

void sago_normalise(const char *text, size_t length, sago_str *out) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t start = out->length, step;
    bool gap = false;
    uint32_t before = 0;
    for (size_t i = 0; i < length; i += step) {
        uint32_t c = decode(bytes + i, length - i, &step);
        bool operator_ = c < 0x80 && c && strchr("+-*/=<>%^", (int)c) && number_follows(bytes, length, i + 1);
        bool point = c == '.' && is_digit(before) && i + 1 < length && is_digit(bytes[i + 1]);
        before = c;
        if (operator_) {
            /* "2+2" and "2 + 2" are one text: an operator stands between spaces. */
            if (out->length > start) sago_str_putc(out, ' ');
            sago_str_putc(out, (char)c);
            gap = true;
        } else if (!point && (is_space(c) || is_punctuation(c))) {
            gap = true;
        } else {
            if (gap && out->length > start) sago_str_putc(out, ' ');
            gap = false;
            put_utf8(out, lower(c));
        }
    }
}

uint64_t sago_text_hash(const char *text, size_t length) {
    sago_str folded = {0};
    sago_normalise(text, length, &folded);
    /* A text of punctuation alone folds to nothing; it is then compared as it stands. */
    uint64_t hash =
        folded.length ? sago_hash_bytes(folded.data, folded.length) : sago_hash_bytes(text, length);
    sago_str_free(&folded);
    return hash;
}

uint64_t sago_fields_hash(const sago_fields *fields) {
    if (fields->input_ids.length)
        return sago_hash_bytes(fields->input_ids.data,
                               (size_t)fields->input_ids.length * sizeof *fields->input_ids.data);
    sago_str raw = {0};
    for (int i = 0; i < fields->n_fields; i++) {
        const sago_field *field = &fields->fields[i];
        if (!strcmp(field->name, "answer") || !strcmp(field->name, "chain") ||
            !strcmp(field->name, "targets"))
            continue;
        /* The word that usually stands before options in a prompt lets a table match the same question as
         * text. */
        if (!strcmp(field->name, "options")) sago_str_puts(&raw, "Options: ");
        for (int k = 0; k < field->count; k++) {
            const sago_str *value = sago_field_value(fields, field, k);
            sago_str_add(&raw, sago_str_text(value), value->length);
            sago_str_putc(&raw, '\n');
        }
    }
    uint64_t hash = sago_text_hash(sago_str_text(&raw), raw.length);
    sago_str_free(&raw);
    return hash;
}
