// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include "file.h"
#include "rng.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLES_A_KIND = 4 };

/* Records of an evaluation's questions, or an empty array where it kept none. Plain text has no answers to show. */
static sago_status read_records(const sago_run_eval *eval, json_t **out) {
    *out = json_array();
    char *path = sago_path_join(eval->dir, "predictions.jsonl");
    sago_line_reader reader = {0};
    sago_status status = SAGO_OK;
    if (sago_is_file(path)) status = sago_lines_open(&reader, path, 1u << 26);
    while (status == SAGO_OK && reader.file) {
        bool more;
        json_t *record = NULL;
        status = sago_lines_next(&reader, &more);
        if (status != SAGO_OK || !more) break;
        status = sago_json_parse(sago_str_text(&reader.line), reader.line.length, path, reader.number, &record);
        if (record && !json_object_get(record, "target_tokens")) json_array_append(*out, record);
        json_decref(record);
    }
    sago_lines_close(&reader);
    free(path);
    return status;
}

static const char *text_at(const json_t *record, const char *key) {
    const char *text = json_string_value(json_object_get(record, key));
    return text ? text : "";
}

static const json_t *same_question(const json_t *records, const json_t *record) {
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *other = json_array_get(records, i);
        if (strcmp(text_at(other, "task"), text_at(record, "task")) == 0 &&
            json_integer_value(json_object_get(other, "index")) == json_integer_value(json_object_get(record, "index")))
            return other;
    }
    return NULL;
}

static void answer_line(const char *label, const json_t *record, sago_str *out) {
    bool right = json_number_value(json_object_get(record, "exact_match")) == 1;
    sago_str_puts(out, "<dt>");
    sago_html_text(out, label);
    sago_str_printf(out, "</dt><dd class=%s>", right ? "right" : "wrong");
    sago_html_text(out, text_at(record, "answer"));
    sago_str_puts(out, right ? " ✓</dd>\n" : " ✗</dd>\n");
}

static void sample(const sago_run_record *run, const json_t *record, const json_t *before, sago_str *out) {
    const sago_run_eval *last = &run->evals[run->n_evals - 1];
    sago_str_puts(out, "<article><h4>");
    sago_html_text(out, text_at(record, "task"));
    sago_str_puts(out, json_is_true(json_object_get(record, "held_out")) ? " <small>never seen</small></h4><pre>"
                                                                         : "</h4><pre>");
    sago_html_text(out, text_at(record, "prompt"));
    sago_str_puts(out, "</pre><dl><dt>reference</dt><dd>");
    sago_html_text(out, json_string_value(json_array_get(json_object_get(record, "references"), 0)));
    sago_str_puts(out, "</dd>\n");
    if (before) answer_line(text_at(run->evals[0].scores, "label"), before, out);
    answer_line(text_at(last->scores, "label"), record, out);
    sago_str_puts(out, "</dl></article>\n");
}

sago_status sago_report_samples(const sago_run_record *run, sago_str *out) {
    if (run->n_evals == 0) return SAGO_OK;
    json_t *records = NULL, *before = NULL;
    sago_status status = read_records(&run->evals[run->n_evals - 1], &records);
    if (status == SAGO_OK && run->n_evals > 1) status = read_records(&run->evals[0], &before);
    size_t n = json_array_size(records);
    if (status == SAGO_OK && n > 0) {
        sago_str_puts(out, "<h2>Samples</h2><p>Chosen by a fixed hash, not by hand.</p>\n");
        /* Right and wrong ones as they come: a walk over a permutation takes so many of seen, so many of unseen. */
        int left[2] = {SAMPLES_A_KIND, SAMPLES_A_KIND};
        for (size_t i = 0; i < n && (left[0] || left[1]); i++) {
            const json_t *record = json_array_get(records, sago_permute(i, n, 1));
            int kind = json_is_true(json_object_get(record, "held_out"));
            if (left[kind] == 0) continue;
            left[kind]--;
            sample(run, record, before ? same_question(before, record) : NULL, out);
        }
    }
    json_decref(records);
    json_decref(before);
    return status;
}
