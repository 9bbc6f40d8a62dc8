// SPDX-License-Identifier: Apache-2.0
/* Lines of JSON: {"inputs": text, "targets": text or list}, and {"input_ids": [...], "target_ids": [...]}.
 * Also the walk over lines that the other line formats share. */
#include "source.h"

#include <string.h>

sago_status sago_walk_lines(const sago_source *source, const char *path, const char *bytes, size_t length,
                            sago_scan *scan, sago_line_function *take) {
    int64_t line = 0;
    for (size_t at = sago_text_start(bytes, length); at < length;) {
        line++;
        const char *end = memchr(bytes + at, '\n', length - at);
        size_t stop = end ? (size_t)(end - bytes) : length, next = end ? stop + 1 : length;
        if (stop > at && bytes[stop - 1] == '\r') stop--;
        size_t blank = at;
        while (blank < stop && (bytes[blank] == ' ' || bytes[blank] == '\t')) blank++;
        if (blank < stop) SAGO_TRY(take(source, (sago_where){path, line}, bytes, at, stop, scan));
        at = next;
    }
    return SAGO_OK;
}

static sago_status add_line(const sago_source *source, sago_where where, const char *bytes, size_t at,
                            size_t stop, sago_scan *scan) {
    return sago_scan_add(source, where.path, where.line, bytes, at, stop - at, scan);
}

sago_status sago_scan_lines(const sago_source *source, const char *path, const char *bytes, size_t length,
                            sago_scan *scan) {
    return sago_walk_lines(source, path, bytes, length, scan, add_line);
}

static sago_status parse_object(sago_where where, const char *bytes, size_t length, json_t **out) {
    SAGO_TRY(sago_json_parse(bytes, length, where.path, where.line, out));
    if (json_is_object(*out)) return SAGO_OK;
    json_decref(*out);
    *out = NULL;
    return sago_fail(SAGO_E_INPUT, "%s:%lld: an object {...} is expected on the line", where.path,
                     (long long)where.line);
}

static sago_status missing(sago_where where, const char *first, const char *second) {
    return sago_fail(SAGO_E_INPUT, "%s:%lld: the line needs \"%s\" and \"%s\"", where.path,
                     (long long)where.line, first, second);
}

sago_status sago_parse_jsonl(const sago_source *source, sago_where where, const char *note, const char *bytes,
                             size_t length, sago_fields *out) {
    (void)source, (void)note;
    json_t *object;
    SAGO_TRY(parse_object(where, bytes, length, &object));
    const json_t *inputs = json_object_get(object, "inputs"), *targets = json_object_get(object, "targets");
    sago_status status = SAGO_OK;
    if (!inputs || !targets) {
        status = missing(where, "inputs", "targets");
    } else {
        status = sago_json_text(inputs, "inputs", where, sago_fields_add(out, "inputs"));
        if (status == SAGO_OK) status = sago_fields_add_json(out, "answer", targets, "targets", where);
    }
    json_decref(object);
    return status;
}

static sago_status parse_id_list(const json_t *list, const char *name, sago_where where, sago_ids *out) {
    if (!json_is_array(list))
        return sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\" is not a list of ids", where.path,
                         (long long)where.line, name);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item))
            return sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\"[%zu] is not an id", where.path,
                             (long long)where.line, name, i);
        if (id < 0 || id > INT32_MAX)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: id %lld is outside of every vocabulary", where.path,
                             (long long)where.line, (long long)id);
        sago_ids_add(out, (int32_t)id);
    }
    return SAGO_OK;
}

sago_status sago_parse_ids(const sago_source *source, sago_where where, const char *note, const char *bytes,
                           size_t length, sago_fields *out) {
    (void)note;
    json_t *object;
    SAGO_TRY(parse_object(where, bytes, length, &object));
    const json_t *inputs = json_object_get(object, "input_ids"),
                 *targets = json_object_get(object, "target_ids");
    sago_status status = SAGO_OK;
    if (!inputs || !targets) {
        status = missing(where, "input_ids", "target_ids");
    } else {
        status = parse_id_list(inputs, "input_ids", where, &out->input_ids);
        if (status == SAGO_OK) status = parse_id_list(targets, "target_ids", where, &out->target_ids);
        const char *empty = !out->target_ids.length                              ? "target_ids"
                            : !out->input_ids.length && !source->inputs_optional ? "input_ids"
                                                                                 : NULL;
        if (status == SAGO_OK && empty)
            status =
                sago_fail(SAGO_E_INPUT, "%s:%lld: \"%s\" is empty", where.path, (long long)where.line, empty);
    }
    json_decref(object);
    return status;
}
