// SPDX-License-Identifier: Apache-2.0
/**
 * Sources: the published file formats. A source does two things with a file: scan it once into records (byte
 * ranges with line, and hash of what the model is given), and parse one record into fields. One file is one
 * task.
 *
 *     niv2   Super-NaturalInstructions JSON: Definition, Positive Examples, Instances (source_niv2.c)
 *     jsonl  {"inputs": text, "targets": text or list of texts} a line             (source_jsonl.c)
 *     ids    {"input_ids": [...], "target_ids": [...]} a line, used verbatim       (source_jsonl.c)
 *     cot    TSV: question, answer, chain; \n escaped                              (source_cot.c)
 *     table  CSV, TSV, JSONL, JSON through a mapping file                          (source_table.c)
 *     text   plain text to pretrain on: a line, a file, or {"text": ...} a document (source_text.c)
 *
 * Of format text a file is no task but a piece of a corpus (corpus.h), and a record is a part of a document,
 * of at most 2 KiB. In place of a hash it has its number in the document and how many ids it gives. Behind
 * the parts, where other formats have exemplars, stands a record for each document: the hash of its text, and
 * which parts it has.
 */
#ifndef SAGO_SOURCE_H
#define SAGO_SOURCE_H

#include "fields.h"
#include "mapping.h"
#include "status.h"

enum {
    SAGO_LINE_LIMIT_BYTES = 64 << 20, /* longest record; more is taken for a file of another kind */
    SAGO_JSON_DEPTH = 128,
    SAGO_MAX_LABELS = 12 /* a task with at most so many different answers is taken for a classification */
};

typedef enum sago_source_format {
    SAGO_FORMAT_IDS,
    SAGO_FORMAT_JSONL,
    SAGO_FORMAT_NIV2,
    SAGO_FORMAT_COT,
    SAGO_FORMAT_TABLE,
    SAGO_FORMAT_TEXT
} sago_source_format;

typedef struct sago_source {
    sago_source_format format;
    const sago_mapping *mapping;     /* format table only */
    bool inputs_optional;            /* format ids only: input_ids may be empty, for decoder-only models */
    const sago_tokenizer *tokenizer; /* format text only: what counts its ids */
    bool whole_files;                /* format text only: a .txt is one document, not one a line */
} sago_source;

/** One example's bytes in its file; the form stored in the index cache. */
typedef struct sago_record {
    uint64_t offset, hash;
    uint32_t length, line;
} sago_record;

/** Of format text: which part of its document a record is, from 0, and its ids. */
static inline int64_t sago_text_part_of(const sago_record *record) {
    return (int64_t)(record->hash >> 32);
}
static inline int64_t sago_text_tokens_of(const sago_record *record) {
    return (int64_t)(record->hash & 0xFFFFFFFFu);
}

/** Of format text, of a document's record: its parts are the records [first, first + n) of the file. */
typedef struct sago_text_parts {
    int64_t first, n;
} sago_text_parts;
static inline sago_text_parts sago_text_parts_of(const sago_record *document) {
    return (sago_text_parts){(int64_t)document->offset, (int64_t)document->length};
}

/** What a scan finds in one file. */
typedef struct sago_scan {
    sago_record *records;
    size_t n_records, capacity;
    size_t n_exemplars;  /* records at the end that are exemplars only (Positive Examples), or documents */
    sago_str note;       /* what parsing needs beside the record: definition, or header line */
    sago_str categories; /* one a line */
    sago_str
        labels;     /* the answers, one a line, where a file has few different ones; empty for free answers */
    int n_labels;   /* SAGO_MAX_LABELS + 1: too many */
    size_t n_empty; /* examples whose first answer is an empty text */
    int64_t max_id; /* format ids: largest id and the line of its first appearance */
    uint32_t max_id_line;
    sago_record *documents; /* format text, until they stand behind the records */
    size_t n_documents, documents_capacity;
    sago_fields fields; /* scratch */
} sago_scan;

void sago_scan_free(sago_scan *scan);

/** "niv2" and so on. SAGO_E_CONFIG lists the names. */
sago_status sago_source_format_parse(const char *name, sago_source_format *out) SAGO_MUST_CHECK;

/** Whether a folder's file of this name belongs to the source. */
bool sago_source_takes(const sago_source *source, const char *file_name);

/**
 * Scans and checks a whole file. SAGO_E_INPUT with "FILE:LINE" for what can't be read: not JSON, missing
 * fields, bytes that are no UTF-8, NUL bytes, records over SAGO_LINE_LIMIT_BYTES, no records at all. Cost:
 * one pass over the file, memory for its longest record and 24 bytes an example (of text a part and a
 * document).
 */
sago_status sago_source_scan(const sago_source *source, const char *path, sago_scan *out) SAGO_MUST_CHECK;

/** Scans bytes as the contents of a file called path. */
sago_status sago_source_scan_bytes(const sago_source *source, const char *path, const char *bytes,
                                   size_t length, sago_scan *out) SAGO_MUST_CHECK;

/** Parses one record of a file. note is the scan's. exemplar: the record is a Positive Example. */
sago_status sago_source_parse(const sago_source *source, sago_where where, const char *note,
                              const char *bytes, size_t length, sago_fields *out) SAGO_MUST_CHECK;

/** SAGO_E_INPUT where the bytes are no UTF-8 or hold a NUL. */
sago_status sago_source_check_text(sago_where where, const char *bytes, size_t length) SAGO_MUST_CHECK;

/** Of format text: the text of a part, from the bytes of its record. */
sago_status sago_text_part_read(const sago_source *source, sago_where where, const sago_str *bytes,
                                int64_t part, sago_str *out) SAGO_MUST_CHECK;

/** Where the text of a file begins: past a byte order mark. */
size_t sago_text_start(const char *bytes, size_t length);

/** For the sources: parses and hashes the record at these bytes, and adds it. */
sago_status sago_scan_add(const sago_source *source, const char *path, int64_t line, const char *bytes,
                          size_t offset, size_t length, sago_scan *scan) SAGO_MUST_CHECK;

/** SAGO_E_INPUT where a record is larger than SAGO_LINE_LIMIT_BYTES, or one more than an index can number. */
sago_status sago_scan_check(sago_where where, size_t length, const sago_scan *scan) SAGO_MUST_CHECK;
void sago_scan_push(sago_scan *scan, const sago_record *record);

/** For the sources: calls line with [at, stop) of each line that is not blank, without its end. */
typedef sago_status sago_line_function(const sago_source *source, sago_where where, const char *bytes,
                                       size_t at, size_t stop, sago_scan *scan);
sago_status sago_walk_lines(const sago_source *source, const char *path, const char *bytes, size_t length,
                            sago_scan *scan, sago_line_function *line) SAGO_MUST_CHECK;

typedef sago_status sago_scan_function(const sago_source *source, const char *path, const char *bytes,
                                       size_t length, sago_scan *scan);
typedef sago_status sago_parse_function(const sago_source *source, sago_where where, const char *note,
                                        const char *bytes, size_t length, sago_fields *out);
sago_scan_function sago_scan_lines, sago_scan_niv2, sago_scan_table, sago_scan_text;
sago_parse_function sago_parse_ids, sago_parse_jsonl, sago_parse_niv2, sago_parse_cot, sago_parse_table,
    sago_parse_text;

#endif
