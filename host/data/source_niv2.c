// SPDX-License-Identifier: Apache-2.0
/* Super-NaturalInstructions: one JSON object a task, with "Definition", "Categories", "Positive Examples"
 * (exemplars written by the task's author) and "Instances" whose "output" lists every right answer. */
#include "json_scan.h"
#include "source.h"

#include <string.h>

static bool is_key(const char *key, size_t length, const char *name) {
    return strlen(name) == length && memcmp(key, name, length) == 0;
}

/* A text or a list of texts into out, one a line (or after `between`). */
static sago_status read_texts(sago_json_scan *scan, const char *name, const char *between, sago_str *out) {
    (void)sago_json_scan_peek(scan);
    size_t start = scan->at;
    sago_where where = {scan->name, scan->line};
    SAGO_TRY(sago_json_scan_skip(scan));
    sago_str wrapped = {0};
    sago_str_printf(&wrapped, "[");
    sago_str_add(&wrapped, scan->text + start, scan->at - start);
    sago_str_putc(&wrapped, ']');
    json_t *value = NULL;
    sago_status status =
        sago_json_parse(sago_str_text(&wrapped), wrapped.length, where.path, where.line, &value);
    sago_str_free(&wrapped);
    SAGO_TRY(status);
    json_t *inner = json_array_get(value, 0), *item;
    size_t i;
    sago_str_clear(out);
    if (json_is_array(inner)) {
        json_array_foreach(inner, i, item) {
            if (out->length) sago_str_puts(out, between);
            if ((status = sago_json_text(item, name, where, out)) != SAGO_OK) break;
        }
    } else {
        status = sago_json_text(inner, name, where, out);
    }
    json_decref(value);
    return status;
}

/* Where a list of records starts, noted on the first walk through the keys. */
typedef struct place {
    size_t at;
    int64_t line;
    bool found;
} place;

static sago_status add_records(const sago_source *source, sago_json_scan scan, place from, sago_scan *out) {
    scan.at = from.at, scan.line = from.line;
    SAGO_TRY(sago_json_scan_enter(&scan, '['));
    for (bool first = true, more;;) {
        SAGO_TRY(sago_json_scan_next(&scan, '[', &first, &more, NULL, NULL));
        if (!more) return SAGO_OK;
        size_t start = scan.at;
        int64_t line = scan.line;
        SAGO_TRY(sago_json_scan_skip(&scan));
        SAGO_TRY(sago_scan_add(source, scan.name, line, scan.text, start, scan.at - start, out));
    }
}

sago_status sago_scan_niv2(const sago_source *source, const char *path, const char *bytes, size_t length,
                           sago_scan *out) {
    sago_json_scan scan = {
        .text = bytes, .length = length, .at = sago_text_start(bytes, length), .line = 1, .name = path};
    place instances = {0}, positive = {0};
    SAGO_TRY(sago_json_scan_enter(&scan, '{'));
    for (bool first = true, more;;) {
        const char *key = NULL;
        size_t key_length = 0;
        SAGO_TRY(sago_json_scan_next(&scan, '{', &first, &more, &key, &key_length));
        if (!more) break;
        place here = {scan.at, scan.line, true};
        if (is_key(key, key_length, "Definition")) {
            SAGO_TRY(read_texts(&scan, "Definition", "\n", &out->note));
        } else if (is_key(key, key_length, "Categories")) {
            SAGO_TRY(read_texts(&scan, "Categories", "\n", &out->categories));
        } else {
            if (is_key(key, key_length, "Instances")) instances = here;
            if (is_key(key, key_length, "Positive Examples")) positive = here;
            SAGO_TRY(sago_json_scan_skip(&scan));
        }
    }
    SAGO_TRY(sago_json_scan_end(&scan));
    if (!instances.found || !out->note.length)
        return sago_fail(SAGO_E_INPUT,
                         "%s:1: the task has no \"%s\"; is it a Super-NaturalInstructions file?", path,
                         instances.found ? "Definition" : "Instances");
    SAGO_TRY(add_records(source, scan, instances, out));
    size_t before = out->n_records;
    if (positive.found && before) SAGO_TRY(add_records(source, scan, positive, out));
    out->n_exemplars = out->n_records - before;
    return SAGO_OK;
}

sago_status sago_parse_niv2(const sago_source *source, sago_where where, const char *note, const char *bytes,
                            size_t length, sago_fields *out) {
    (void)source;
    json_t *object;
    SAGO_TRY(sago_json_parse(bytes, length, where.path, where.line, &object));
    const json_t *input = json_object_get(object, "input"), *output = json_object_get(object, "output");
    sago_status status = SAGO_OK;
    if (!input || !output) {
        status = sago_fail(SAGO_E_INPUT, "%s:%lld: the instance needs \"input\" and \"output\"", where.path,
                           (long long)where.line);
    } else {
        (void)note;
        status = sago_json_text(input, "input", where, sago_fields_add(out, "input"));
        if (status == SAGO_OK) status = sago_fields_add_json(out, "answer", output, "output", where);
    }
    json_decref(object);
    return status;
}
