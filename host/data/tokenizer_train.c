// SPDX-License-Identifier: Apache-2.0
#include "file.h"
#include "json.h"
#include "log.h"
#include "sentencepiece.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINE_BYTES = 1 << 24, MIN_PIECES = 8, MAX_PIECES = 1 << 20 };

/* Walks the texts of all files: each line of a text file, or each of a JSON line's fields below, in this
 * order. */
static const char *const fields[] = {"text", "inputs", "targets", NULL};

typedef struct corpus {
    const sago_tokenizer_training *training;
    int file; /* index of the open file */
    bool open, is_json;
    sago_line_reader reader;
    json_t *record;
    int field;
    int64_t n_texts;
    int64_t read_bytes, total_bytes; /* of the files before this one, of all */
} corpus;

static sago_status next_record(corpus *c, bool *more) {
    for (;;) {
        if (!c->open) {
            *more = c->file < c->training->n_files;
            if (!*more) return SAGO_OK;
            const char *path = c->training->files[c->file];
            SAGO_TRY(sago_lines_open(&c->reader, path, MAX_LINE_BYTES));
            c->open = true;
            c->is_json = sago_ends_with(path, ".jsonl");
        }
        SAGO_TRY(sago_lines_next(&c->reader, more));
        if (*more) return SAGO_OK;
        c->read_bytes += c->reader.next_offset;
        sago_lines_close(&c->reader);
        c->open = false;
        c->file++;
    }
}

/* Once a text. Files that grow meanwhile, and pipes, whose size nobody knows, end at 100 %. */
static void show(const corpus *c) {
    if (c->n_texts % 1000 != 1) return;
    double read = (double)c->read_bytes + (double)c->reader.offset;
    sago_progress("reading", c->total_bytes > 0 ? read / (double)c->total_bytes : 0, "%lld texts",
                  (long long)c->n_texts);
}

static sago_status next_text(void *context, const char **text, size_t *length, bool *more) {
    corpus *c = context;
    for (;;) {
        while (c->record && fields[c->field]) {
            const json_t *value = json_object_get(c->record, fields[c->field++]);
            if (!json_is_string(value) || json_string_length(value) == 0) continue;
            *text = json_string_value(value);
            *length = json_string_length(value);
            *more = true;
            c->n_texts++;
            show(c);
            return SAGO_OK;
        }
        json_decref(c->record);
        c->record = NULL;
        c->field = 0;
        SAGO_TRY(next_record(c, more));
        if (!*more) return SAGO_OK;
        const sago_str *line = &c->reader.line;
        if (line->length == 0) continue;
        if (!c->is_json) {
            *text = sago_str_text(line);
            *length = line->length;
            c->n_texts++;
            show(c);
            return SAGO_OK;
        }
        SAGO_TRY(
            sago_json_parse(sago_str_text(line), line->length, c->reader.path, c->reader.number, &c->record));
        if (!json_is_object(c->record))
            return sago_fail(SAGO_E_INPUT,
                             "%s:%lld: a JSON object with text, or inputs and targets, is needed",
                             c->reader.path, (long long)c->reader.number);
    }
}

sago_status sago_tokenizer_train(const sago_tokenizer_training *training) {
    if (strcmp(training->kind, "unigram") != 0 && strcmp(training->kind, "bpe") != 0)
        return sago_fail(SAGO_E_USAGE, "tokenizer train: kind \"%s\": unigram or bpe", training->kind);
    if (training->vocab_size < MIN_PIECES || training->vocab_size > MAX_PIECES)
        return sago_fail(SAGO_E_USAGE, "tokenizer train: a vocabulary of %d pieces: %d to %d",
                         training->vocab_size, (int)MIN_PIECES, (int)MAX_PIECES);
    corpus c = {.training = training};
    for (int i = 0; i < training->n_files; i++) {
        struct stat info;
        if (stat(training->files[i], &info) == 0) c.total_bytes += info.st_size;
    }
    sago_str model = {0};
    sago_tokenizer *check = NULL;
    sago_text_source source = {next_text, &c};
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, sago_sentencepiece_train(&source, training->vocab_size, training->kind, training->seed,
                                               &model));
    SAGO_TRY_TO(done, sago_tokenizer_from_bytes(training->output, model.data, model.length, &check));
    SAGO_TRY_TO(done, sago_file_replace(training->output, model.data, model.length));
done:
    sago_progress_end();
    if (status == SAGO_E_INPUT && c.n_texts == 0 && c.file == training->n_files)
        status = sago_fail(SAGO_E_INPUT, "tokenizer train: no text in %s%s", training->files[0],
                           training->n_files > 1 ? " and the other files" : "");
    if (c.open) sago_lines_close(&c.reader);
    json_decref(c.record);
    sago_tokenizer_close(check);
    sago_str_free(&model);
    return status;
}
