// SPDX-License-Identifier: Apache-2.0
#include "record.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double number_at(const json_t *line, const char *key) {
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of what field() gives, NANs left out. */
static double median_of(const sago_run_record *r, size_t offset) {
    double *values = sago_alloc((size_t)(r->n_points + 1) * sizeof *values);
    size_t n = 0;
    for (int64_t i = 0; i < r->n_points; i++) {
        double x = *(const double *)((const char *)&r->points[i] + offset);
        if (isfinite(x)) values[n++] = x;
    }
    qsort(values, n, sizeof *values, by_value);
    double median = n ? values[n / 2] : NAN;
    free(values);
    return median;
}

static void add_event(sago_run_record *r, const char *event) {
    r->n_resumes += strcmp(event, "resume") == 0;
    r->n_spikes += strcmp(event, "spike") == 0;
}

static void add_step(sago_run_record *r, const json_t *line) {
    if ((r->n_points & (r->n_points - 1)) == 0)
        r->points = sago_realloc(r->points, (r->n_points ? 2 * (size_t)r->n_points : 1) * sizeof *r->points);
    r->points[r->n_points++] = (sago_curve_point){
        .step = json_integer_value(json_object_get(line, "step")),
        .loss = number_at(line, "loss"),
        .accuracy = number_at(line, "accuracy"),
        .tokens_per_second = number_at(line, "tokens_per_second"),
        .mfu = number_at(line, "mfu"),
    };
    r->n_skipped += json_is_true(json_object_get(line, "skipped"));
    r->target_tokens += json_number_value(json_object_get(line, "target_tokens"));
    r->input_tokens += json_number_value(json_object_get(line, "input_tokens"));
    r->seconds += json_number_value(json_object_get(line, "step_seconds"));
    r->data_wait_seconds += json_number_value(json_object_get(line, "data_wait"));
    r->comm_wait_seconds += json_number_value(json_object_get(line, "comm_wait"));
    r->most_memory_gb = fmax(r->most_memory_gb, json_number_value(json_object_get(line, "device_memory_gb")));
}

static sago_status read_metrics(sago_run_record *r) {
    char *path = sago_path_join(r->dir, "metrics.jsonl");
    sago_line_reader reader = {0};
    sago_status status;
    if (!sago_is_file(path)) {
        status = sago_fail(SAGO_E_INPUT, "%s: no run's folder, it has no metrics.jsonl", r->dir);
        goto done;
    }
    SAGO_TRY_TO(done, sago_lines_open(&reader, path, 1u << 24));
    for (bool more;;) {
        SAGO_TRY_TO(done, sago_lines_next(&reader, &more));
        if (!more) break;
        json_t *line = NULL;
        bool ended = reader.next_offset - reader.offset > (int64_t)reader.line.length;
        status = sago_json_parse(sago_str_text(&reader.line), reader.line.length, path, reader.number, &line);
        /* A run that was killed, or goes on right now, may leave the beginning of a line: it is no step yet. */
        if (status != SAGO_OK && !ended) status = SAGO_OK;
        if (status != SAGO_OK) goto done;
        if (!line) break;
        const char *event = json_string_value(json_object_get(line, "event"));
        if (event) {
            add_event(r, event);
            json_decref(line);
        } else if (!json_is_integer(json_object_get(line, "step"))) {
            json_decref(line);
            status = sago_fail(SAGO_E_INPUT, "%s:%lld: neither a step nor an event", path, (long long)reader.number);
            goto done;
        } else {
            add_step(r, line);
            json_decref(r->last);
            r->last = line;
        }
    }
    if (r->n_points == 0) status = sago_fail(SAGO_E_INPUT, "%s: no step yet; report on a run that has trained", path);
done:
    sago_lines_close(&reader);
    free(path);
    return status;
}

/* Optional files: missing is fine, damaged is not. */
static sago_status read_optional(const char *dir, const char *name, json_t **out) {
    char *path = sago_path_join(dir, name);
    sago_status status = sago_is_file(path) ? sago_json_read(path, 1u << 28, out) : SAGO_OK;
    free(path);
    return status;
}

static int by_step(const void *a, const void *b) {
    const sago_run_eval *x = a, *y = b;
    json_int_t i = json_integer_value(json_object_get(x->scores, "step"));
    json_int_t j = json_integer_value(json_object_get(y->scores, "step"));
    return i != j ? (i > j) - (i < j) : strcmp(x->dir, y->dir);
}

static sago_status read_evals(sago_run_record *r) {
    char *folder = sago_path_join(r->dir, "eval");
    sago_names names = {0};
    sago_status status = SAGO_OK;
    if (sago_is_dir(folder)) status = sago_dir_list(folder, &names);
    for (size_t i = 0; i < names.count && status == SAGO_OK; i++) {
        char *dir = sago_path_join(folder, names.names[i]);
        json_t *scores = NULL;
        status = read_optional(dir, "scores.json", &scores);
        if (!scores) {
            free(dir);
            continue;
        }
        r->evals = sago_realloc(r->evals, (size_t)(r->n_evals + 1) * sizeof *r->evals);
        r->evals[r->n_evals++] = (sago_run_eval){dir, scores};
    }
    if (r->n_evals) qsort(r->evals, (size_t)r->n_evals, sizeof *r->evals, by_step);
    /* What is called "before" was before, whatever step its checkpoint counts. */
    for (int i = 1; i < r->n_evals; i++) {
        if (strcmp(sago_path_base(r->evals[i].dir), "before") != 0) continue;
        sago_run_eval first = r->evals[i];
        memmove(r->evals + 1, r->evals, (size_t)i * sizeof *r->evals);
        r->evals[0] = first;
    }
    sago_names_free(&names);
    free(folder);
    return status;
}

sago_status sago_run_record_read(const char *dir, sago_run_record *out) {
    *out = (sago_run_record){.dir = sago_path_absolute(dir)};
    out->name = sago_strdup(sago_path_base(out->dir));
    char *config = sago_path_join(dir, "config.yaml");
    sago_status status = read_metrics(out);
    if (status == SAGO_OK && sago_is_file(config)) status = sago_file_read(config, 1u << 24, &out->config);
    if (status == SAGO_OK) status = read_optional(dir, "environment.json", &out->environment);
    if (status == SAGO_OK) status = read_optional(dir, "mixture.json", &out->drawn);
    if (status == SAGO_OK) status = read_evals(out);
    out->median_tokens_per_second = median_of(out, offsetof(sago_curve_point, tokens_per_second));
    out->median_mfu = median_of(out, offsetof(sago_curve_point, mfu));
    free(config);
    if (status != SAGO_OK) sago_run_record_free(out);
    return status;
}

void sago_run_record_free(sago_run_record *r) {
    for (int i = 0; i < r->n_evals; i++) {
        free(r->evals[i].dir);
        json_decref(r->evals[i].scores);
    }
    free(r->evals);
    free(r->points);
    free(r->dir);
    free(r->name);
    sago_str_free(&r->config);
    json_decref(r->environment);
    json_decref(r->drawn);
    json_decref(r->last);
    *r = (sago_run_record){0};
}
