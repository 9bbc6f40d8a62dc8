// SPDX-License-Identifier: Apache-2.0
/* Tables: records of CSV (RFC 4180), TSV, JSONL or JSON, made into fields by a mapping. A row of a CSV or TSV
 * becomes a JSON object of its columns, so that one way of addressing serves all. */
#include "json_scan.h"
#include "source.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static sago_table_kind kind_of(const sago_mapping *mapping, const char *path) {
    if (mapping->kind != SAGO_TABLE_AUTO) return mapping->kind;
    if (sago_ends_with(path, ".csv")) return SAGO_TABLE_CSV;
    if (sago_ends_with(path, ".tsv")) return SAGO_TABLE_TSV;
    return sago_ends_with(path, ".json") ? SAGO_TABLE_JSON : SAGO_TABLE_JSONL;
}

/* ---- delimited rows ---- */

/* End of the row that starts at `at` (past its line break); *lines counts the line breaks passed. */
static sago_status find_row(const char *path, int64_t line, bool quotes, const char *bytes, size_t length,
                            size_t at, size_t *stop, size_t *next, int64_t *lines) {
    bool quoted = false;
    *lines = 0;
    for (size_t i = at; i < length; i++) {
        char c = bytes[i];
        if (c == '"' && quotes) {
            bool starts = i == at || bytes[i - 1] == ',';
            if (quoted)
                quoted = false;
            else if (starts || (i > at && bytes[i - 1] == '"'))
                quoted = true; /* an opening quote, or the second of a doubled one */
        } else if (c == '\n') {
            ++*lines;
            if (quoted) continue;
            *stop = i > at && bytes[i - 1] == '\r' ? i - 1 : i;
            *next = i + 1;
            return SAGO_OK;
        }
        if (i - at > SAGO_LINE_LIMIT_BYTES)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: a row longer than %d bytes%s", path, (long long)line,
                             SAGO_LINE_LIMIT_BYTES, quoted ? "; is a quote left open?" : "");
    }
    if (quoted) return sago_fail(SAGO_E_INPUT, "%s:%lld: a quote is left open", path, (long long)line);
    *stop = *next = length;
    if (length > at && bytes[length - 1] == '\r') --*stop;
    ++*lines;
    return SAGO_OK;
}

/* Splits a row into a JSON list of its cells. */
static sago_status split_row(sago_where where, bool quotes, const char *bytes, size_t length, json_t **out) {
    json_t *cells = json_array();
    sago_str cell = {0};
    sago_status status = SAGO_OK;
    for (size_t at = 0;; at++) {
        sago_str_clear(&cell);
        if (quotes && at < length && bytes[at] == '"') {
            for (at++;; at++) {
                if (at >= length) {
                    status = sago_fail(SAGO_E_INPUT, "%s:%lld: a quote is left open", where.path,
                                       (long long)where.line);
                    break;
                }
                if (bytes[at] == '"' && at + 1 < length && bytes[at + 1] == '"')
                    at++;
                else if (bytes[at] == '"')
                    break;
                sago_str_putc(&cell, bytes[at]);
            }
            at++;
            if (status == SAGO_OK && at < length && bytes[at] != ',')
                status = sago_fail(SAGO_E_INPUT,
                                   "%s:%lld: text after a closing quote (a quote inside one is \"\")",
                                   where.path, (long long)where.line);
        } else {
            for (; at < length && bytes[at] != (quotes ? ',' : '\t'); at++) {
                if (!quotes && bytes[at] == '\\' && at + 1 < length &&
                    (bytes[at + 1] == 'n' || bytes[at + 1] == 't'))
                    sago_str_putc(&cell, bytes[++at] == 'n' ? '\n' : '\t');
                else
                    sago_str_putc(&cell, bytes[at]);
            }
        }
        if (status != SAGO_OK) break;
        json_array_append_new(cells, json_stringn(sago_str_text(&cell), cell.length));
        if (at >= length) break;
    }
    sago_str_free(&cell);
    if (status != SAGO_OK) {
        json_decref(cells);
        return status;
    }
    *out = cells;
    return SAGO_OK;
}

/* Whether the first row of a file names columns that the mapping gives: two of them in their places. Some collections
 * were published with a header line and without. */
static sago_status is_header(const sago_mapping *mapping, sago_where where, bool quotes, const char *bytes,
                             size_t length, bool *out) {
    json_t *cells;
    int same = 0;
    SAGO_TRY(split_row(where, quotes, bytes, length, &cells));
    for (int i = 0; i < mapping->n_columns; i++) {
        const char *cell = json_string_value(json_array_get(cells, (size_t)i));
        same += cell && strcasecmp(cell, mapping->columns[i]) == 0;
    }
    *out = same >= 2;
    json_decref(cells);
    return SAGO_OK;
}

static sago_status scan_rows(const sago_source *source, const char *path, bool quotes, const char *bytes,
                             size_t length, sago_scan *scan) {
    bool header = source->mapping->n_columns == 0, first = true;
    size_t at = sago_text_start(bytes, length), stop = 0, next = 0;
    int64_t line = 1, lines = 0;
    for (; at < length; at = next, line += lines) {
        SAGO_TRY(find_row(path, line, quotes, bytes, length, at, &stop, &next, &lines));
        if (stop == at) continue;
        if (header) {
            json_t *names;
            size_t wrong;
            if (!sago_utf8_valid(bytes + at, stop - at, &wrong) || memchr(bytes + at, '\0', stop - at))
                return sago_fail(SAGO_E_INPUT, "%s:%lld: the header is not UTF-8 text", path,
                                 (long long)line);
            SAGO_TRY(split_row((sago_where){path, line}, quotes, bytes + at, stop - at, &names));
            sago_json_add(&scan->note, names, 17);
            json_decref(names);
            header = false;
            continue;
        }
        bool named = false;
        if (first && source->mapping->n_columns > 0)
            SAGO_TRY(is_header(source->mapping, (sago_where){path, line}, quotes, bytes + at, stop - at, &named));
        first = false;
        if (!named) SAGO_TRY(sago_scan_add(source, path, line, bytes, at, stop - at, scan));
    }
    return SAGO_OK;
}

/* A row as an object: column name -> cell. */
static sago_status parse_row(const sago_mapping *mapping, sago_where where, const char *note, bool quotes,
                             const char *bytes, size_t length, json_t **out) {
    json_t *cells = NULL, *names = NULL, *object = json_object();
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, split_row(where, quotes, bytes, length, &cells));
    if (mapping->n_columns == 0)
        SAGO_TRY_TO(done, sago_json_parse(note, strlen(note), where.path, 1, &names));
    size_t expected = names ? json_array_size(names) : (size_t)mapping->n_columns,
           got = json_array_size(cells);
    if (got != expected) {
        status = sago_fail(SAGO_E_INPUT, "%s:%lld: %zu columns; %s %zu", where.path, (long long)where.line,
                           got, names ? "the header has" : "the mapping has", expected);
        goto done;
    }
    for (size_t i = 0; i < expected; i++) {
        const char *name = names ? json_string_value(json_array_get(names, i)) : mapping->columns[i];
        json_object_set(object, name, json_array_get(cells, i));
    }
done:
    json_decref(cells), json_decref(names);
    if (status != SAGO_OK) {
        json_decref(object);
        return status;
    }
    *out = object;
    return SAGO_OK;
}

/* ---- JSON documents ---- */

/* Moves the scan to the value at a path of keys ("data.examples"). */
static sago_status find_container(sago_json_scan *scan, const char *records) {
    for (const char *at = records; *at;) {
        size_t wanted = strcspn(at, ".");
        SAGO_TRY(sago_json_scan_enter(scan, '{'));
        for (bool first = true, more;;) {
            const char *key = NULL;
            size_t key_length = 0;
            SAGO_TRY(sago_json_scan_next(scan, '{', &first, &more, &key, &key_length));
            if (!more)
                return sago_fail(SAGO_E_INPUT,
                                 "%s:%lld: there is no \"%s\", where the mapping's records should be",
                                 scan->name, (long long)scan->line, records);
            if (key_length == wanted && memcmp(key, at, wanted) == 0) break;
            SAGO_TRY(sago_json_scan_skip(scan));
        }
        at += wanted;
        if (*at == '.') at++;
    }
    return SAGO_OK;
}

static sago_status scan_document(const sago_source *source, const char *path, const char *bytes,
                                 size_t length, sago_scan *out) {
    sago_json_scan scan = {.text = bytes,
                           .length = length,
                           .at = sago_text_start(bytes, length),
                           .line = 1,
                           .name = path},
                   whole = scan;
    SAGO_TRY(sago_json_scan_skip(&whole));
    SAGO_TRY(sago_json_scan_end(&whole));
    SAGO_TRY(find_container(&scan, source->mapping->records));
    char bracket = sago_json_scan_peek(&scan);
    if (bracket != '[' && bracket != '{')
        return sago_fail(SAGO_E_INPUT, "%s:%lld: records must be a list, or an object of objects", path,
                         (long long)scan.line);
    scan.at++;
    for (bool first = true, more;;) {
        const char *key;
        size_t key_length;
        SAGO_TRY(sago_json_scan_next(&scan, bracket, &first, &more, &key, &key_length));
        if (!more) return SAGO_OK;
        size_t start = scan.at;
        int64_t line = scan.line;
        if (sago_json_scan_peek(&scan) != '{')
            return sago_fail(
                SAGO_E_INPUT, "%s:%lld: a record must be an object {...}%s", path, (long long)line,
                source->mapping->records[0] ? ""
                                            : "; if the records stand deeper, name the place by records:");
        SAGO_TRY(sago_json_scan_skip(&scan));
        SAGO_TRY(sago_scan_add(source, path, line, bytes, start, scan.at - start, out));
    }
}

/* ---- fields ---- */

/* Appends the texts at a path to the list. */
static sago_status resolve(const json_t *value, const char *path, const char *field, sago_where where,
                           json_t *out) {
    for (const char *at = path; *at;) {
        const json_t *exact = json_object_get(value, at);
        if (exact) { /* a column name may hold points and brackets itself */
            value = exact;
            break;
        }
        if (*at == '.') at++;
        if (*at == '[') {
            const char *end = strchr(at, ']');
            if (!end || !json_is_array(value)) break;
            if (at[1] == '*') {
                size_t i;
                json_t *item;
                if (json_array_size(value) == 0)
                    return sago_fail(SAGO_E_INPUT, "%s:%lld: field \"%s\": an empty list", where.path,
                                     (long long)where.line, field);
                json_array_foreach(value, i, item) {
                    SAGO_TRY(resolve(item, end + 1, field, where, out));
                }
                return SAGO_OK;
            }
            value = json_array_get(value, (size_t)strtoul(at + 1, NULL, 10));
            at = end + 1;
        } else {
            size_t n = strcspn(at, ".[");
            char *key = sago_strndup(at, n);
            value = json_object_get(value, key);
            free(key);
            at += n;
        }
        if (!value)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: field \"%s\": the record has no \"%s\"", where.path,
                             (long long)where.line, field, path);
    }
    sago_str text = {0};
    sago_status status = sago_json_text(value, path, where, &text);
    const char *start = sago_str_text(&text), *end = start + text.length;
    while (start < end && isspace((unsigned char)*start)) start++;
    while (end > start && isspace((unsigned char)end[-1])) end--;
    if (status == SAGO_OK) json_array_append_new(out, json_stringn(start, (size_t)(end - start)));
    sago_str_free(&text);
    return status;
}

/* "{Body} {Question}": fills in each path. */
static sago_status fill_pattern(const json_t *record, const char *pattern, const char *field,
                                sago_where where, sago_str *out) {
    for (const char *p = pattern; *p;) {
        if (*p != '{') {
            /* A full stop after a text that ends with one would be the second. */
            bool doubled = *p == '.' && out->length && out->data[out->length - 1] == '.';
            if (!doubled) sago_str_putc(out, *p);
            p++;
            continue;
        }
        const char *end = strchr(p, '}');
        char *path = sago_strndup(p + 1, (size_t)(end - p - 1));
        json_t *texts = json_array();
        sago_status status = resolve(record, path, field, where, texts);
        for (size_t i = 0; status == SAGO_OK && i < json_array_size(texts); i++) {
            if (i) sago_str_puts(out, ", ");
            sago_str_puts(out, json_string_value(json_array_get(texts, i)));
        }
        json_decref(texts);
        free(path);
        SAGO_TRY(status);
        p = end + 1;
    }
    return SAGO_OK;
}

static sago_status fill_field(const json_t *record, const sago_mapping_field *field, sago_where where,
                              sago_fields *out) {
    for (int i = 0; i < field->n_values; i++) {
        const sago_mapping_value *value = &field->values[i];
        if (value->constant) {
            sago_str_puts(sago_fields_add(out, field->name), value->text);
        } else if (value->pattern) {
            sago_str text = {0};
            sago_status status = fill_pattern(record, value->text, field->name, where, &text);
            if (status == SAGO_OK) sago_str_puts(sago_fields_add(out, field->name), sago_str_text(&text));
            sago_str_free(&text);
            SAGO_TRY(status);
        } else {
            json_t *texts = json_array();
            sago_status status = resolve(record, value->text, field->name, where, texts);
            for (size_t k = 0; status == SAGO_OK && k < json_array_size(texts); k++) {
                json_t *text = json_array_get(texts, k);
                sago_str_add(sago_fields_add(out, field->name), json_string_value(text),
                             json_string_length(text));
            }
            json_decref(texts);
            SAGO_TRY(status);
        }
    }
    return SAGO_OK;
}

static void take_prefix_off(sago_str *text) {
    const char *t = sago_str_text(text);
    size_t skip = t[0] == '(' ? 1 : 0;
    if (!isalnum((unsigned char)t[skip]) || !strchr(").:", t[skip + 1]) || !t[skip + 1]) return;
    skip += 2;
    while (t[skip] == ' ') skip++;
    memmove(text->data, text->data + skip, text->length - skip + 1);
    text->length -= skip;
}

/* "reasoning #### 72": what stands before the mark becomes the chain. */
static void split_answer(const char *mark, sago_fields *out) {
    const sago_field *answer = sago_fields_find(out, "answer");
    const char *text = sago_str_text(&out->texts[answer->first]);
    const char *at = strstr(text, mark);
    if (!at) return;
    char *chain = sago_strndup(text, (size_t)(at - text)), *right = sago_strdup(at + strlen(mark));
    sago_str *to = &out->texts[answer->first];
    char *start = right + strspn(right, " \n\t"), *end = start + strlen(start);
    while (end > start && isspace((unsigned char)end[-1])) *--end = '\0';
    sago_str_clear(to);
    sago_str_puts(to, start);
    for (end = chain + strlen(chain); end > chain && isspace((unsigned char)end[-1]);) *--end = '\0';
    if (*chain && !sago_fields_find(out, "chain")) sago_str_puts(sago_fields_add(out, "chain"), chain);
    free(chain), free(right);
}

/* Sets right_option, and the answer's text where the record names an option. */
static sago_status settle_answer(const sago_mapping *mapping, sago_where where, sago_fields *out) {
    const sago_field *answer = sago_fields_find(out, "answer"), *options = sago_fields_find(out, "options");
    sago_str *text = &out->texts[answer->first];
    for (int i = 0; i < mapping->n_labels; i++) {
        if (strcmp(mapping->labels[2 * i], sago_str_text(text)) == 0) {
            sago_str_clear(text);
            sago_str_puts(text, mapping->labels[2 * i + 1]);
            break;
        }
    }
    for (int i = 0; mapping->option_prefix && options && i < options->count; i++)
        take_prefix_off(&out->texts[options->first + i]);
    if (mapping->answer_is == SAGO_ANSWER_TEXT) {
        for (int i = 0; options && i < options->count && out->right_option < 0; i++)
            if (!strcmp(sago_str_text(&out->texts[options->first + i]), sago_str_text(text)))
                out->right_option = i;
        return SAGO_OK;
    }
    const char *t = sago_str_text(text);
    long right = -1;
    bool digits = isdigit((unsigned char)*t) && mapping->answer_is != SAGO_ANSWER_LETTER;
    if (mapping->answer_is == SAGO_ANSWER_LETTER || (mapping->answer_is == SAGO_ANSWER_LETTER_OR_INDEX && !digits)) {
        while (*t == '(' || *t == ' ') t++;
        if (isalpha((unsigned char)*t) && !isalnum((unsigned char)t[1]))
            right = toupper((unsigned char)*t) - 'A';
    } else {
        char *end;
        right = strtol(t, &end, 10) - (mapping->answer_is == SAGO_ANSWER_NUMBER ? 1 : 0);
        if (end == t || *end) right = -1;
    }
    if (right < 0 || right >= options->count)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: the answer \"%s\" names none of the %d options", where.path,
                         (long long)where.line, sago_str_text(text), options->count);
    out->right_option = (int)right;
    const sago_str *chosen = &out->texts[options->first + right];
    sago_str_clear(text);
    sago_str_add(text, sago_str_text(chosen), chosen->length);
    return SAGO_OK;
}

sago_status sago_parse_table(const sago_source *source, sago_where where, const char *note, const char *bytes,
                             size_t length, sago_fields *out) {
    const sago_mapping *mapping = source->mapping;
    sago_table_kind kind = kind_of(mapping, where.path);
    json_t *record = NULL;
    if (kind == SAGO_TABLE_CSV || kind == SAGO_TABLE_TSV)
        SAGO_TRY(parse_row(mapping, where, note, kind == SAGO_TABLE_CSV, bytes, length, &record));
    else
        SAGO_TRY(sago_json_parse(bytes, length, where.path, where.line, &record));
    sago_status status = SAGO_OK;
    if (!json_is_object(record))
        status = sago_fail(SAGO_E_INPUT, "%s:%lld: a record must be an object {...}", where.path,
                           (long long)where.line);
    for (int i = 0; status == SAGO_OK && i < mapping->n_fields; i++)
        status = fill_field(record, &mapping->fields[i], where, out);
    if (status == SAGO_OK && mapping->answer_after[0]) split_answer(mapping->answer_after, out);
    if (status == SAGO_OK) status = settle_answer(mapping, where, out);
    json_decref(record);
    return status;
}

sago_status sago_scan_table(const sago_source *source, const char *path, const char *bytes, size_t length,
                            sago_scan *scan) {
    switch (kind_of(source->mapping, path)) {
    case SAGO_TABLE_CSV:
        return scan_rows(source, path, true, bytes, length, scan);
    case SAGO_TABLE_TSV:
        return scan_rows(source, path, false, bytes, length, scan);
    case SAGO_TABLE_JSON:
        return scan_document(source, path, bytes, length, scan);
    default:
        return sago_scan_lines(source, path, bytes, length, scan);
    }
}
