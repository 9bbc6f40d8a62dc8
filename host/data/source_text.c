// SPDX-License-Identifier: Apache-2.0
/* Plain text: a document a line of a .txt, a .txt as a whole, or {"text": ...} on a line of a .jsonl. */
#include "source.h"

#include "file.h"

#include <string.h>

/* A part is what is tokenized to read a few of its ids, so small; and large beside a token. */
enum { PART_BYTES = 2048 };

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Length of a text's first part. It ends before white space where there is some in its second half, else at
 * least between two characters. */
static size_t first_part(const char *text, size_t length) {
    if (length <= PART_BYTES) return length;
    for (size_t i = PART_BYTES; i > PART_BYTES / 2; i--)
        if (is_space(text[i])) return i;
    size_t at = PART_BYTES;
    while (at > PART_BYTES - 4 && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    return at;
}

static bool is_json(const char *path) {
    return sago_ends_with(path, ".jsonl");
}

sago_status sago_parse_text(const sago_source *source, sago_where where, const char *note, const char *bytes,
                            size_t length, sago_fields *out) {
    (void)source, (void)note;
    if (!is_json(where.path)) {
        sago_str_add(sago_fields_add(out, "text"), bytes, length);
        return SAGO_OK;
    }
    json_t *object;
    SAGO_TRY(sago_json_parse(bytes, length, where.path, where.line, &object));
    const json_t *text = json_object_get(object, "text");
    sago_status status = SAGO_OK;
    if (!json_is_string(text))
        status =
            sago_fail(SAGO_E_INPUT, "%s:%lld: the line needs \"text\"", where.path, (long long)where.line);
    else
        status = sago_json_text(text, "text", where, sago_fields_add(out, "text"));
    json_decref(object);
    return status;
}

sago_status sago_text_part_read(const sago_source *source, sago_where where, const sago_str *bytes,
                                int64_t part, sago_str *out) {
    sago_str_clear(out);
    if (!is_json(where.path)) {
        sago_str_add(out, sago_str_text(bytes), bytes->length);
        return SAGO_OK;
    }
    sago_fields fields = {0};
    sago_status status = sago_source_parse(source, where, "", sago_str_text(bytes), bytes->length, &fields);
    if (status == SAGO_OK) {
        const sago_str *text = sago_field_value(&fields, sago_fields_find(&fields, "text"), 0);
        const char *at = sago_str_text(text);
        size_t left = text->length;
        for (size_t n; part > 0 && left > 0; part--, at += n, left -= n) n = first_part(at, left);
        sago_str_add(out, at, first_part(at, left));
    }
    sago_fields_free(&fields);
    return status;
}

static void push_document(sago_scan *scan, const sago_record *document) {
    if (scan->n_documents == scan->documents_capacity) {
        scan->documents_capacity = scan->documents_capacity ? 2 * scan->documents_capacity : 64;
        scan->documents = sago_realloc(scan->documents, scan->documents_capacity * sizeof *scan->documents);
    }
    scan->documents[scan->n_documents++] = *document;
}

/* A record for each part, and one for the document. Those of a line of JSON are told apart by their number,
 * others by their place too. */
static sago_status add_document(const sago_source *source, sago_where where, const char *text, size_t length,
                                sago_record place, bool whole, sago_scan *scan) {
    sago_ids *ids = &scan->fields.input_ids; /* scratch */
    size_t blank = 0;
    while (blank < length && is_space(text[blank])) blank++;
    if (blank == length) return SAGO_OK;
    sago_record document = {
        .offset = scan->n_records, .hash = sago_text_hash(text, length), .line = place.line};
    for (uint64_t part = 0; length > 0; part++) {
        size_t n = first_part(text, length);
        sago_ids_clear(ids);
        SAGO_TRY(sago_tokenizer_encode(source->tokenizer, text, n, ids));
        SAGO_TRY(sago_scan_check(where, n, scan));
        sago_record record = place;
        record.hash = part << 32 | (uint64_t)ids->length;
        if (!whole) record.length = (uint32_t)n;
        sago_scan_push(scan, &record);
        if (!whole) place.offset += n;
        text += n;
        length -= n;
    }
    document.length = (uint32_t)(scan->n_records - document.offset);
    push_document(scan, &document);
    return SAGO_OK;
}

static sago_status scan_file(const sago_source *source, const char *path, const char *bytes, size_t length,
                             sago_scan *scan) {
    size_t start = sago_text_start(bytes, length);
    sago_where where = {path, 1};
    SAGO_TRY(sago_source_check_text(where, bytes + start, length - start));
    return add_document(source, where, bytes + start, length - start,
                        (sago_record){.offset = start, .line = 1}, false, scan);
}

/* The line at [at, stop). */
static sago_status scan_line(const sago_source *source, sago_where where, const char *bytes, size_t at,
                             size_t stop, sago_scan *scan) {
    SAGO_TRY(sago_scan_check(where, stop - at, scan));
    SAGO_TRY(sago_source_parse(source, where, "", bytes + at, stop - at, &scan->fields));
    const sago_str *text = sago_field_value(&scan->fields, sago_fields_find(&scan->fields, "text"), 0);
    sago_record place = {.offset = at, .length = (uint32_t)(stop - at), .line = (uint32_t)where.line};
    return add_document(source, where, sago_str_text(text), text->length, place, is_json(where.path), scan);
}

sago_status sago_scan_text(const sago_source *source, const char *path, const char *bytes, size_t length,
                           sago_scan *scan) {
    SAGO_TRY(source->whole_files && !is_json(path)
                 ? scan_file(source, path, bytes, length, scan)
                 : sago_walk_lines(source, path, bytes, length, scan, scan_line));
    for (size_t i = 0; i < scan->n_documents; i++) {
        SAGO_TRY(sago_scan_check((sago_where){path, scan->documents[i].line}, 0, scan));
        sago_scan_push(scan, &scan->documents[i]);
    }
    scan->n_exemplars = scan->n_documents;
    return SAGO_OK;
}
