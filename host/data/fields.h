// SPDX-License-Identifier: Apache-2.0
/**
 * Fields: one example of any source in named texts ("question", "options", "answer", ...), each one or
 * several values.
 *
 * Reserved names: "answer" (right answers, first the one to train on), "chain" (reasoning that leads to it)
 * and "targets" say what is right; every other field is given to the model, and together they identify the
 * example.
 */
#ifndef SAGO_FIELDS_H
#define SAGO_FIELDS_H

#include "json.h"
#include "status.h"
#include "str.h"
#include "tokenizer.h"

/** Where a record stands, for messages: "PATH:LINE". */
typedef struct sago_where {
    const char *path;
    int64_t line;
} sago_where;

enum { SAGO_FIELDS = 24 };

typedef struct sago_field {
    const char *name; /* outlives the fields: a literal, or of a table mapping */
    int first, count; /* values in texts */
} sago_field;

typedef struct sago_fields {
    sago_field fields[SAGO_FIELDS];
    int n_fields;
    sago_str *texts;
    int n_texts, capacity;
    int right_option;               /* index in "options" of the right one; -1 unknown */
    sago_ids input_ids, target_ids; /* format ids only */
} sago_fields;

void sago_fields_clear(sago_fields *fields); /* keeps the memory */
void sago_fields_free(sago_fields *fields);

/** Appends a value to the field of this name, which is the newest field or a new one; the text starts empty.
 */
sago_str *sago_fields_add(sago_fields *fields, const char *name);

/** NULL where there is none. */
const sago_field *sago_fields_find(const sago_fields *fields, const char *name);

/** Value i of a field. */
static inline const sago_str *sago_field_value(const sago_fields *fields, const sago_field *field, int i) {
    return &fields->texts[field->first + i];
}

/**
 * Adds a JSON string, number, true or false as text ("39" for 39.0); an array adds each of its items. key is
 * the value's name in the record, for messages.
 */
sago_status sago_fields_add_json(sago_fields *fields, const char *name, const json_t *value, const char *key,
                                 sago_where where) SAGO_MUST_CHECK;

/** The text that a JSON scalar stands for. SAGO_E_INPUT for null, objects, arrays and text with a NUL. */
sago_status sago_json_text(const json_t *value, const char *name, sago_where where,
                           sago_str *out) SAGO_MUST_CHECK;

/**
 * The hash that identifies what the model is given: the normalised text of all fields but answers, or of the
 * input ids. Equal for texts that differ in letter case, white space and punctuation alone.
 */
uint64_t sago_fields_hash(const sago_fields *fields);

/** The hash of one text by the same comparison: that of fields whose only input it is. */
uint64_t sago_text_hash(const char *text, size_t length);

/**
 * Normalises text for comparison: letters to lower case (Latin, Greek, Cyrillic), runs of white space and
 * punctuation to one space. Kept, because they change the question: a point between digits, and + - * / = < >
 * % ^ before a number.
 */
void sago_normalise(const char *text, size_t length, sago_str *out);

#endif
