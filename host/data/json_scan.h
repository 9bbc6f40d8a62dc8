// SPDX-License-Identifier: Apache-2.0
/**
 * JSON scanning: finds the byte ranges of values in a document of any size without building it, so that a
 * record can later be read alone. Ranges are then parsed by json.h, which checks them fully.
 */
#ifndef SAGO_JSON_SCAN_H
#define SAGO_JSON_SCAN_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct sago_json_scan {
    const char *text;
    size_t length, at;
    int64_t line; /* of at, from 1 */
    const char *name;
} sago_json_scan;

/** Skips white space; the next byte, or 0 at the end. */
char sago_json_scan_peek(sago_json_scan *scan);

/** Passes over one value; nesting deeper than SAGO_JSON_DEPTH is an error. */
sago_status sago_json_scan_skip(sago_json_scan *scan) SAGO_MUST_CHECK;

/** Enters '{' or '['. */
sago_status sago_json_scan_enter(sago_json_scan *scan, char bracket) SAGO_MUST_CHECK;

/**
 * Inside an object or array that was entered: moves to the next value. *more is false after the closing
 * bracket. In an object the key's bytes (escapes as written) go to key and key_length; in an array these are
 * untouched.
 */
sago_status sago_json_scan_next(sago_json_scan *scan, char bracket, bool *first, bool *more, const char **key,
                                size_t *key_length) SAGO_MUST_CHECK;

/** Refuses anything but white space up to the end. */
sago_status sago_json_scan_end(sago_json_scan *scan) SAGO_MUST_CHECK;

#endif
