// SPDX-License-Identifier: Apache-2.0
#include "source.h"

#include "file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    sago_scan_function *scan;
    sago_parse_function *parse;
    const char *const endings[5];
} formats[] = {
    [SAGO_FORMAT_IDS] = {"ids", sago_scan_lines, sago_parse_ids, {".jsonl"}},
    [SAGO_FORMAT_JSONL] = {"jsonl", sago_scan_lines, sago_parse_jsonl, {".jsonl"}},
    [SAGO_FORMAT_NIV2] = {"niv2", sago_scan_niv2, sago_parse_niv2, {".json"}},
    [SAGO_FORMAT_COT] = {"cot", sago_scan_lines, sago_parse_cot, {".tsv"}},
    [SAGO_FORMAT_TABLE] = {"table", sago_scan_table, sago_parse_table, {".csv", ".tsv", ".jsonl", ".json"}},
    [SAGO_FORMAT_TEXT] = {"text", sago_scan_text, sago_parse_text, {".txt", ".jsonl"}},
};

sago_status sago_source_format_parse(const char *name, sago_source_format *out) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            *out = (sago_source_format)i;
            return SAGO_OK;
        }
    }
    return sago_fail(SAGO_E_CONFIG,
                     "data.mixture: format \"%s\" is none of niv2, jsonl, cot, table, ids, text", name);
}

bool sago_source_takes(const sago_source *source, const char *file_name) {
    if (file_name[0] == '.') return false;
    for (const char *const *ending = formats[source->format].endings; *ending; ending++)
        if (sago_ends_with(file_name, *ending)) return true;
    return false;
}

void sago_scan_free(sago_scan *scan) {
    free(scan->records);
    free(scan->documents);
    sago_str_free(&scan->note);
    sago_str_free(&scan->categories);
    sago_str_free(&scan->labels);
    sago_fields_free(&scan->fields);
    *scan = (sago_scan){0};
}

sago_status sago_source_check_text(sago_where where, const char *bytes, size_t length) {
    size_t wrong;
    if (!sago_utf8_valid(bytes, length, &wrong))
        return sago_fail(SAGO_E_INPUT, "%s:%lld: byte %zu of the record (0x%02x) is not UTF-8", where.path,
                         (long long)where.line, wrong + 1, (unsigned char)bytes[wrong]);
    if (memchr(bytes, '\0', length))
        return sago_fail(SAGO_E_INPUT, "%s:%lld: holds a NUL byte", where.path, (long long)where.line);
    return SAGO_OK;
}

sago_status sago_source_parse(const sago_source *source, sago_where where, const char *note,
                              const char *bytes, size_t length, sago_fields *out) {
    sago_fields_clear(out);
    SAGO_TRY(sago_source_check_text(where, bytes, length));
    return formats[source->format].parse(source, where, note, bytes, length, out);
}

static void note_ids(const sago_ids *ids, int64_t line, sago_scan *scan) {
    for (int64_t i = 0; i < ids->length; i++)
        if (ids->data[i] > scan->max_id) scan->max_id = ids->data[i], scan->max_id_line = (uint32_t)line;
}

/* Collects the different answers as long as they are few and short. */
static void note_label(const sago_fields *fields, sago_scan *scan) {
    const sago_field *answer = sago_fields_find(fields, "answer");
    if (!answer) return;
    const char *text = sago_str_text(sago_field_value(fields, answer, 0));
    size_t length = strlen(text);
    scan->n_empty += length == 0;
    if (scan->n_labels > SAGO_MAX_LABELS) return;
    if (length == 0 || length > 64 || strchr(text, '\n')) {
        scan->n_labels = SAGO_MAX_LABELS + 1;
        return;
    }
    for (const char *known = sago_str_text(&scan->labels); *known;) {
        const char *end = strchr(known, '\n');
        if ((size_t)(end - known) == length && memcmp(known, text, length) == 0) return;
        known = end + 1;
    }
    scan->n_labels++;
    sago_str_puts(&scan->labels, text);
    sago_str_putc(&scan->labels, '\n');
}

sago_status sago_scan_check(sago_where where, size_t length, const sago_scan *scan) {
    if (length > SAGO_LINE_LIMIT_BYTES)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: a record of %zu bytes; at most %d are read", where.path,
                         (long long)where.line, length, SAGO_LINE_LIMIT_BYTES);
    if (where.line > UINT32_MAX || scan->n_records >= UINT32_MAX)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: more than %u lines", where.path, (long long)where.line,
                         UINT32_MAX);
    return SAGO_OK;
}

void sago_scan_push(sago_scan *scan, const sago_record *record) {
    if (scan->n_records == scan->capacity) {
        scan->capacity = scan->capacity ? 2 * scan->capacity : 64;
        scan->records = sago_realloc(scan->records, scan->capacity * sizeof *scan->records);
    }
    scan->records[scan->n_records++] = *record;
}

sago_status sago_scan_add(const sago_source *source, const char *path, int64_t line, const char *bytes,
                          size_t offset, size_t length, sago_scan *scan) {
    sago_where where = {path, line};
    SAGO_TRY(sago_scan_check(where, length, scan));
    SAGO_TRY(
        sago_source_parse(source, where, sago_str_text(&scan->note), bytes + offset, length, &scan->fields));
    note_ids(&scan->fields.input_ids, line, scan);
    note_ids(&scan->fields.target_ids, line, scan);
    note_label(&scan->fields, scan);
    sago_record record = {.offset = offset,
                          .hash = sago_fields_hash(&scan->fields),
                          .length = (uint32_t)length,
                          .line = (uint32_t)line};
    sago_scan_push(scan, &record);
    return SAGO_OK;
}

size_t sago_text_start(const char *bytes, size_t length) {
    return length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

sago_status sago_source_scan_bytes(const sago_source *source, const char *path, const char *bytes,
                                   size_t length, sago_scan *out) {
    *out = (sago_scan){.max_id = -1};
    sago_status status = formats[source->format].scan(source, path, bytes, length, out);
    if (status == SAGO_OK && out->n_records == 0)
        status = sago_fail(SAGO_E_INPUT, "%s:1: the file holds no examples", path);
    /* With fewer than four examples an answer, few answers say nothing about the kind of task. */
    if (out->n_labels > SAGO_MAX_LABELS || out->n_records < 4 * (size_t)out->n_labels || out->n_labels < 2)
        sago_str_clear(&out->labels);
    if (status != SAGO_OK) sago_scan_free(out);
    return status;
}

sago_status sago_source_scan(const sago_source *source, const char *path, sago_scan *out) {
    *out = (sago_scan){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open", path);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return sago_fail(SAGO_E_IO, "%s: is not a regular file", path);
    }
    size_t length = (size_t)info.st_size;
    if (length == 0) {
        close(fd);
        return sago_fail(SAGO_E_INPUT, "%s:1: the file is empty", path);
    }
    /* Mapped, not read: pages of a large file come and go, so that memory stays that of the longest record.
     */
    char *bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED) return sago_fail_errno(SAGO_E_IO, "%s: cannot map", path);
    madvise(bytes, length, MADV_SEQUENTIAL);
    sago_status status = sago_source_scan_bytes(source, path, bytes, length, out);
    munmap(bytes, length);
    return status;
}
