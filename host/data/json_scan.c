// SPDX-License-Identifier: Apache-2.0
#include "json_scan.h"

#include "source.h"

static sago_status wrong(const sago_json_scan *scan, const char *what) {
    return sago_fail(SAGO_E_INPUT, "%s:%lld: not JSON: %s", scan->name, (long long)scan->line, what);
}

char sago_json_scan_peek(sago_json_scan *scan) {
    for (; scan->at < scan->length; scan->at++) {
        char c = scan->text[scan->at];
        if (c == '\n')
            scan->line++;
        else if (c != ' ' && c != '\t' && c != '\r')
            return c;
    }
    return '\0';
}

static sago_status skip_string(sago_json_scan *scan) {
    for (scan->at++; scan->at < scan->length; scan->at++) {
        char c = scan->text[scan->at];
        if (c == '"') {
            scan->at++;
            return SAGO_OK;
        }
        if (c == '\\') scan->at++;
        if (c == '\n') return wrong(scan, "a line ends inside a text");
    }
    scan->at = scan->length;
    return wrong(scan, "the file ends inside a text");
}

sago_status sago_json_scan_skip(sago_json_scan *scan) {
    char open[SAGO_JSON_DEPTH];
    int depth = 0;
    do {
        char c = sago_json_scan_peek(scan);
        if (c == '"') {
            SAGO_TRY(skip_string(scan));
        } else if (c == '{' || c == '[') {
            if (depth == SAGO_JSON_DEPTH) return wrong(scan, "nested too deep");
            open[depth++] = c;
            scan->at++;
        } else if (c == '}' || c == ']') {
            if (depth == 0 || open[depth - 1] != (c == '}' ? '{' : '['))
                return wrong(scan, "brackets do not match");
            depth--;
            scan->at++;
        } else if (c == '\0') {
            return wrong(scan, scan->at < scan->length ? "a NUL byte" : "the file ends inside a value");
        } else if ((unsigned char)c < ' ') {
            return wrong(scan, "a control character");
        } else if (c == ',' || c == ':') {
            if (depth == 0) return wrong(scan, "a value is missing");
            scan->at++;
        } else {
            for (; scan->at < scan->length; scan->at++) {
                c = scan->text[scan->at];
                if (c == ',' || c == ':' || c == '}' || c == ']' || c == '"' || (unsigned char)c <= ' ')
                    break;
            }
        }
    } while (depth > 0);
    return SAGO_OK;
}

sago_status sago_json_scan_enter(sago_json_scan *scan, char bracket) {
    if (sago_json_scan_peek(scan) != bracket)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: %s is expected here", scan->name, (long long)scan->line,
                         bracket == '{' ? "an object {...}" : "a list [...]");
    scan->at++;
    return SAGO_OK;
}

sago_status sago_json_scan_next(sago_json_scan *scan, char bracket, bool *first, bool *more, const char **key,
                                size_t *key_length) {
    char c = sago_json_scan_peek(scan), close = bracket == '{' ? '}' : ']';
    *more = false;
    if (c == close) {
        scan->at++;
        return SAGO_OK;
    }
    if (!*first) {
        if (c != ',') return wrong(scan, c ? "a comma is missing" : "the file ends too early");
        scan->at++;
        c = sago_json_scan_peek(scan);
    }
    *first = false;
    if (bracket == '{') {
        if (c != '"') return wrong(scan, c ? "a key in quotes is missing" : "the file ends too early");
        size_t start = scan->at + 1;
        SAGO_TRY(skip_string(scan));
        *key = scan->text + start;
        *key_length = scan->at - 1 - start;
        if (sago_json_scan_peek(scan) != ':') return wrong(scan, "a colon is missing");
        scan->at++;
        c = sago_json_scan_peek(scan);
    }
    if (c == '\0') return wrong(scan, "the file ends too early");
    *more = true;
    return SAGO_OK;
}

sago_status sago_json_scan_end(sago_json_scan *scan) {
    if (sago_json_scan_peek(scan) != '\0' || scan->at < scan->length)
        return wrong(scan, "text after the end");
    return SAGO_OK;
}
