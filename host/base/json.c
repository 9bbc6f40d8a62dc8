// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include "file.h"

#include <stdlib.h>

sago_status sago_json_parse(const char *text, size_t length, const char *name, int64_t at_line,
                            json_t **out) {
    json_error_t error;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (*out) return SAGO_OK;
    long long line = (long long)(at_line > 0 ? at_line - 1 + error.line : error.line);
    return sago_fail(SAGO_E_INPUT, "%s:%lld:%d: not JSON: %s", name, line, error.column, error.text);
}

sago_status sago_json_read(const char *path, size_t limit_bytes, json_t **out) {
    sago_str text = {0};
    *out = NULL;
    sago_status status = sago_file_read(path, limit_bytes, &text);
    if (status == SAGO_OK) status = sago_json_parse(sago_str_text(&text), text.length, path, 0, out);
    sago_str_free(&text);
    return status;
}

static int append(const char *bytes, size_t length, void *out) {
    sago_str_add(out, bytes, length);
    return 0;
}

void sago_json_add(sago_str *out, const json_t *value, int digits) {
    json_dump_callback(value, append, out,
                       JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION((size_t)digits));
}

sago_status sago_json_write(const char *path, const json_t *value) {
    sago_str text = {0};
    json_dump_callback(value, append, &text, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    sago_str_putc(&text, '\n');
    sago_status status = sago_file_replace(path, text.data, text.length);
    sago_str_free(&text);
    return status;
}

void sago_json_quote(sago_str *out, const char *bytes, size_t length) {
    sago_str_putc(out, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\') {
            sago_str_putc(out, '\\');
            sago_str_putc(out, (char)c);
        } else if (c == '\n') {
            sago_str_puts(out, "\\n");
        } else if (c == '\t') {
            sago_str_puts(out, "\\t");
        } else if (c < 0x20) {
            sago_str_printf(out, "\\u%04x", c);
        } else if (c < 0x80) {
            sago_str_putc(out, (char)c);
        } else {
            size_t step = sago_utf8_step(bytes + i, length - i);
            if (step) {
                sago_str_add(out, bytes + i, step);
                i += step - 1;
            } else {
                sago_str_puts(out, "\xEF\xBF\xBD");
            }
        }
    }
    sago_str_putc(out, '"');
}
