// SPDX-License-Identifier: Apache-2.0
/**
 * JSON: jansson behind the few calls that sago makes, with messages that name file and line.
 */
#ifndef SAGO_JSON_H
#define SAGO_JSON_H

#include "status.h"
#include "str.h"

#include <jansson.h>

/** Parses text of a file called name. at_line (0: unknown) is the line of the file that text starts at. */
sago_status sago_json_parse(const char *text, size_t length, const char *name, int64_t at_line,
                            json_t **out) SAGO_MUST_CHECK;

/** Reads and parses a whole file of at most limit_bytes (0: no limit). */
sago_status sago_json_read(const char *path, size_t limit_bytes, json_t **out) SAGO_MUST_CHECK;

/** Appends compact JSON text, numbers with 9 (float) to 17 significant digits as given. */
void sago_json_add(sago_str *out, const json_t *value, int digits);

/** Replaces path atomically by the value, indented by two. */
sago_status sago_json_write(const char *path, const json_t *value) SAGO_MUST_CHECK;

/** Appends a JSON string literal of these bytes; bytes that are not UTF-8 become U+FFFD. */
void sago_json_quote(sago_str *out, const char *bytes, size_t length);

#endif
