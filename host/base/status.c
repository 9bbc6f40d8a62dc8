// SPDX-License-Identifier: Apache-2.0
#include "status.h"
#include "str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[SAGO_ERROR_BYTES];

/* A message is one line of a log in UTF-8: bytes that would break the line, the terminal or the encoding are
 * shown as \xNN. */
static void store(const char *text) {
    size_t at = 0, length = strlen(text);
    for (size_t i = 0; i < length && at + 5 < sizeof error_text;) {
        unsigned char c = (unsigned char)text[i];
        size_t step = sago_utf8_step(text + i, length - i);
        if (step == 0 || c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(error_text + at, sizeof error_text - at, "\\x%02x", c);
            i++;
        } else {
            memcpy(error_text + at, text + i, step);
            at += step;
            i += step;
        }
    }
    error_text[at] = '\0';
}

sago_status sago_fail(sago_status status, const char *format, ...) {
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    store(text);
    return status;
}

sago_status sago_fail_errno(sago_status status, const char *format, ...) {
    int error = errno;
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof text)
        snprintf(text + used, sizeof text - (size_t)used, ": %s", strerror(error));
    store(text);
    return status;
}

sago_status sago_wrap(sago_status status, const char *format, ...) {
    if (status == SAGO_OK) return status;
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof text)
        snprintf(text + used, sizeof text - (size_t)used, ": %s", error_text);
    store(text);
    return status;
}

const char *sago_message(void) {
    return error_text;
}

void sago_error_take(sago_status status, sago_error *out) {
    out->status = status;
    memcpy(out->message, error_text, sizeof out->message);
}

sago_status sago_error_give(const sago_error *error) {
    if (error->status != SAGO_OK) memcpy(error_text, error->message, sizeof error_text);
    return error->status;
}

const char *sago_status_name(sago_status status) {
    static const char *const names[SAGO_STATUS_COUNT] = {
        "ok",     "usage", "config",  "input", "io",        "memory",      "shape",
        "device", "comm",  "corrupt", "busy",  "nonfinite", "interrupted", "internal"};
    return (unsigned)status < SAGO_STATUS_COUNT ? names[status] : "unknown";
}

int sago_status_exit_code(sago_status status) {
    switch (status) {
    case SAGO_OK:
        return 0;
    case SAGO_E_USAGE:
    case SAGO_E_CONFIG:
        return 2;
    case SAGO_E_INTERRUPTED:
        return 75; /* EX_TEMPFAIL of sysexits.h: run again and it goes on */
    default:
        return 1;
    }
}
