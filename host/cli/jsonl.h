// SPDX-License-Identifier: Apache-2.0
/**
 * JSONL commands: read a line, write a line. The output takes its name only when all of it is written, so
 * that a command that fails or is killed leaves what stood there before.
 */
#ifndef SAGO_JSONL_H
#define SAGO_JSONL_H

#include "file.h"
#include "json.h"
#include "tokenizer.h"

typedef struct sago_jsonl {
    sago_line_reader reader;
    FILE *out;
    char *path, *temporary; /* of the output */
    int64_t total_bytes;    /* of the input */
    json_t *record;         /* the present line */
} sago_jsonl;

/** Opens input and a temporary file beside output. The two may be the same file. output NULL: another rank writes, and
 * what this one would write goes nowhere. */
sago_status sago_jsonl_open(sago_jsonl *jsonl, const char *input, const char *output) SAGO_MUST_CHECK;

/** The next line that is not blank, as an object; NULL at the end. It stays until the next call. */
sago_status sago_jsonl_next(sago_jsonl *jsonl, const json_t **record) SAGO_MUST_CHECK;

/** Share of the input read so far. */
double sago_jsonl_fraction(const sago_jsonl *jsonl);

/** Puts "FILE:LINE: " before the message of a status that is not SAGO_OK. */
sago_status sago_jsonl_where(const sago_jsonl *jsonl, sago_status status) SAGO_MUST_CHECK;

/** Replaces ids by the numbers of record[key]; ids at or above vocabulary (0: any) or below 0 are an error.
 */
sago_status sago_jsonl_ids(const sago_jsonl *jsonl, const json_t *record, const char *key, int64_t vocabulary,
                           sago_ids *ids) SAGO_MUST_CHECK;

/** Appends the ids of record[key], a string, and EOS if asked to. */
sago_status sago_jsonl_encode(const sago_jsonl *jsonl, const json_t *record, const char *key,
                              const sago_tokenizer *tokenizer, bool eos, sago_ids *ids) SAGO_MUST_CHECK;

/** "key": [1, 2, 3] */
void sago_jsonl_add_ids(sago_str *line, const char *key, const int32_t *ids, int64_t n);

/** Writes line and a newline. */
sago_status sago_jsonl_write(sago_jsonl *jsonl, const sago_str *line) SAGO_MUST_CHECK;

/** Syncs the output and gives it its name. */
sago_status sago_jsonl_commit(sago_jsonl *jsonl) SAGO_MUST_CHECK;

/** Closes; without a commit the output is removed. Safe on a zeroed or failed one. */
void sago_jsonl_close(sago_jsonl *jsonl);

#endif
