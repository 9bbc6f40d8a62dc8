// SPDX-License-Identifier: Apache-2.0
/**
 * Mapping: how the records of a table become the standard fields of a template category. YAML, described in
 * docs/data-formats.md:
 *
 *     category: multiple_choice
 *     fields:
 *       question: question.stem
 *       options: question.choices[*].text
 *     answer: answerKey
 *     answer_is: letter
 */
#ifndef SAGO_MAPPING_H
#define SAGO_MAPPING_H

#include "status.h"
#include "str.h"

#include <stdbool.h>

typedef enum sago_answer_kind {
    SAGO_ANSWER_TEXT,   /* the answer itself, or after labels */
    SAGO_ANSWER_LETTER, /* "A", "(b)", "C)": names an option */
    SAGO_ANSWER_INDEX,  /* 0, 1, ...: names an option */
    SAGO_ANSWER_NUMBER, /* 1, 2, ...: names an option */
    SAGO_ANSWER_LETTER_OR_INDEX /* a letter, or 0, 1, ... */
} sago_answer_kind;

typedef enum sago_table_kind {
    SAGO_TABLE_AUTO,
    SAGO_TABLE_JSONL,
    SAGO_TABLE_JSON,
    SAGO_TABLE_CSV,
    SAGO_TABLE_TSV
} sago_table_kind;

/** One source of text: a path into the record, a pattern of "{path}" and text, or a constant. */
typedef struct sago_mapping_value {
    char *text;
    bool pattern, constant;
} sago_mapping_value;

typedef struct sago_mapping_field {
    char *name;
    sago_mapping_value *values;
    int n_values;
} sago_mapping_field;

typedef struct sago_mapping {
    char *name;     /* file name without its ending */
    char *category; /* template set */
    char *records;  /* path to the container of the records; "" is the whole document */
    sago_table_kind kind;
    char **columns; /* of a CSV or TSV without a header line; one that is there all the same is passed over */
    int n_columns;
    char **categories; /* task categories for holdout patterns */
    int n_categories;
    sago_mapping_field *fields; /* in the order of the file */
    int n_fields;
    sago_answer_kind answer_is;
    char *answer_after; /* the answer follows this mark, what stands before it is the chain; "": no mark */
    bool option_prefix; /* options bear "A)" or "(A)" themselves, which is taken off */
    bool inverted;      /* inverted wordings may be used */
    char **labels;      /* pairs: value in the record, text for the model */
    int n_labels;
    uint64_t hash; /* of the file's text: a changed mapping makes a new index */
} sago_mapping;

/** Parses the text of a mapping file. SAGO_E_CONFIG names file and line. */
sago_status sago_mapping_parse(const char *name, const char *file, const char *text, size_t length,
                               sago_mapping **out) SAGO_MUST_CHECK;
void sago_mapping_free(sago_mapping *mapping);

#endif
