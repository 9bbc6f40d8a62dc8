// SPDX-License-Identifier: Apache-2.0
#include "jsonl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LINE_BYTES = 1 << 28 };

sago_status sago_jsonl_open(sago_jsonl *jsonl, const char *input, const char *output) {
    *jsonl = (sago_jsonl){0};
    if (output) SAGO_TRY(sago_file_replaceable(output));
    SAGO_TRY(sago_lines_open(&jsonl->reader, input, MAX_LINE_BYTES));
    struct stat info;
    if (stat(input, &info) == 0) jsonl->total_bytes = info.st_size;
    if (!output) return SAGO_OK;
    jsonl->path = sago_strdup(output);
    jsonl->temporary = sago_file_temporary(output);
    jsonl->out = fopen(jsonl->temporary, "wb");
    if (jsonl->out) return SAGO_OK;
    sago_status status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", output);
    sago_jsonl_close(jsonl);
    return status;
}

sago_status sago_jsonl_where(const sago_jsonl *jsonl, sago_status status) {
    return sago_wrap(status, "%s:%lld", jsonl->reader.path, (long long)jsonl->reader.number);
}

static bool is_blank(const sago_str *line) {
    for (size_t i = 0; i < line->length; i++)
        if (!strchr(" \t", line->data[i]) || line->data[i] == '\0') return false;
    return true;
}

sago_status sago_jsonl_next(sago_jsonl *jsonl, const json_t **record) {
    *record = NULL;
    json_decref(jsonl->record);
    jsonl->record = NULL;
    const sago_str *line = &jsonl->reader.line;
    for (bool more; !jsonl->record;) {
        SAGO_TRY(sago_lines_next(&jsonl->reader, &more));
        if (!more) return SAGO_OK;
        if (is_blank(line)) continue;
        SAGO_TRY(sago_json_parse(sago_str_text(line), line->length, jsonl->reader.path, jsonl->reader.number,
                                 &jsonl->record));
    }
    if (!json_is_object(jsonl->record))
        return sago_jsonl_where(jsonl, sago_fail(SAGO_E_INPUT, "a line has to be a JSON object"));
    *record = jsonl->record;
    return SAGO_OK;
}

double sago_jsonl_fraction(const sago_jsonl *jsonl) {
    double read = (double)jsonl->reader.offset + (double)jsonl->reader.line.length;
    return jsonl->total_bytes > 0 && read < (double)jsonl->total_bytes ? read / (double)jsonl->total_bytes
                                                                       : 1.0;
}

sago_status sago_jsonl_ids(const sago_jsonl *jsonl, const json_t *record, const char *key, int64_t vocabulary,
                           sago_ids *ids) {
    sago_ids_clear(ids);
    const json_t *list = json_object_get(record, key);
    if (!json_is_array(list))
        return sago_jsonl_where(jsonl, sago_fail(SAGO_E_INPUT, "\"%s\" has to be a list of ids", key));
    int64_t end = vocabulary > 0 ? vocabulary : (int64_t)INT32_MAX + 1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value))
            return sago_jsonl_where(jsonl, sago_fail(SAGO_E_INPUT, "%s[%zu] is not a whole number", key, i));
        json_int_t id = json_integer_value(value);
        if (id < 0 || id >= end)
            return sago_jsonl_where(
                jsonl, sago_fail(SAGO_E_INPUT, "%s[%zu]: id %lld is outside of the vocabulary, 0 to %lld",
                                 key, i, (long long)id, (long long)end - 1));
        sago_ids_add(ids, (int32_t)id);
    }
    return SAGO_OK;
}

sago_status sago_jsonl_encode(const sago_jsonl *jsonl, const json_t *record, const char *key,
                              const sago_tokenizer *tokenizer, bool eos, sago_ids *ids) {
    const json_t *value = json_object_get(record, key);
    if (!json_is_string(value))
        return sago_jsonl_where(jsonl, sago_fail(SAGO_E_INPUT, "\"%s\" has to be a text", key));
    SAGO_TRY(sago_jsonl_where(
        jsonl, sago_tokenizer_encode(tokenizer, json_string_value(value), json_string_length(value), ids)));
    if (eos) sago_ids_add(ids, SAGO_EOS_ID);
    return SAGO_OK;
}

void sago_jsonl_add_ids(sago_str *line, const char *key, const int32_t *ids, int64_t n) {
    sago_str_printf(line, "\"%s\": [", key);
    for (int64_t i = 0; i < n; i++) sago_str_printf(line, "%s%d", i ? ", " : "", (int)ids[i]);
    sago_str_putc(line, ']');
}

sago_status sago_jsonl_write(sago_jsonl *jsonl, const sago_str *line) {
    if (!jsonl->path) return SAGO_OK;
    if (fwrite(sago_str_text(line), 1, line->length, jsonl->out) == line->length &&
        putc('\n', jsonl->out) != EOF)
        return SAGO_OK;
    return sago_fail_errno(SAGO_E_IO, "%s: cannot write", jsonl->path);
}

sago_status sago_jsonl_commit(sago_jsonl *jsonl) {
    FILE *out = jsonl->out;
    if (!jsonl->path) return SAGO_OK;
    jsonl->out = NULL;
    sago_status status = sago_file_close_synced(out, jsonl->path);
    if (status == SAGO_OK && rename(jsonl->temporary, jsonl->path) != 0)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot replace", jsonl->path);
    if (status != SAGO_OK) unlink(jsonl->temporary);
    return status;
}

void sago_jsonl_close(sago_jsonl *jsonl) {
    if (jsonl->out) {
        fclose(jsonl->out);
        unlink(jsonl->temporary);
    }
    if (jsonl->reader.file) sago_lines_close(&jsonl->reader);
    json_decref(jsonl->record);
    free(jsonl->path);
    free(jsonl->temporary);
    *jsonl = (sago_jsonl){0};
}
