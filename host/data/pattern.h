// SPDX-License-Identifier: Apache-2.0
/**
 * Pattern: a text with fields to fill in, the language of template files.
 *
 *     {question}           the field's text; several values are joined with ", " ("answer": the chosen one)
 *     {options:letters}    in a form: see below
 *     {?passage}...{/}     only where the field is present and not empty
 *     {!passage}...{/}     only where it is not
 *     {{ and }}            braces themselves
 *
 * Forms of a list: letters "(A) x" a line, capitals "A) x" a line, dotted "A. x" a line, numbers "1. x" a
 * line, dashes
 * "- x" a line, lines "x" a line, comma "x, y, z", or "x, y or z", slash "x / y", quoted "x" or "y" in
 * quotes, inline
 * "(A) x (B) y". Forms of the right option: letter "B", bracket "(B)", number "2". Of any text: capital
 * (first letter), small (first letter), trim. A condition does not nest.
 */
#ifndef SAGO_PATTERN_H
#define SAGO_PATTERN_H

#include "fields.h"

typedef struct sago_pattern sago_pattern;

/** Compiles a text of the file at line. SAGO_E_CONFIG with both and what is wrong. */
sago_status sago_pattern_parse(const char *text, const char *file, int line,
                               sago_pattern **out) SAGO_MUST_CHECK;
void sago_pattern_free(sago_pattern *pattern);

/** What "answer" stands for while rendering. */
typedef struct sago_answer {
    int value;  /* which right answer, where there are several */
    int option; /* an option that stands as the answer; -1: the right one */
} sago_answer;

/** Appends the text. NULL pattern: nothing. */
void sago_pattern_render(const sago_pattern *pattern, const sago_fields *fields, sago_answer answer,
                         sago_str *out);

/** Name i of the fields it can't do without (outside of conditions); NULL past the last. */
const char *sago_pattern_needs(const sago_pattern *pattern, int i);

/** True when it names the field anywhere. */
bool sago_pattern_names(const sago_pattern *pattern, const char *field);

#endif
