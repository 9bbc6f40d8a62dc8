// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include "file.h"
#include "log.h"

#include <math.h>
#include <stdlib.h>

static json_t *number_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *run_json(const sago_run_record *r) {
    json_t *out = json_object(), *evals = json_array();
    json_object_set_new(out, "name", json_string(r->name));
    json_object_set_new(out, "dir", json_string(r->dir));
    json_object_set_new(out, "steps", json_integer((json_int_t)r->points[r->n_points - 1].step));
    json_object_set(out, "last_step", r->last);
    json_object_set_new(out, "training_seconds", number_or_null(r->seconds));
    json_object_set_new(out, "data_wait_seconds", number_or_null(r->data_wait_seconds));
    json_object_set_new(out, "comm_wait_seconds", number_or_null(r->comm_wait_seconds));
    if (r->most_memory_gb > 0) json_object_set_new(out, "device_memory_gb", json_real(r->most_memory_gb));
    json_object_set_new(out, "input_tokens", number_or_null(r->input_tokens));
    json_object_set_new(out, "target_tokens", number_or_null(r->target_tokens));
    json_object_set_new(out, "median_tokens_per_second", number_or_null(r->median_tokens_per_second));
    json_object_set_new(out, "median_mfu", number_or_null(r->median_mfu));
    json_object_set_new(out, "resumes", json_integer((json_int_t)r->n_resumes));
    json_object_set_new(out, "skipped_steps", json_integer((json_int_t)r->n_skipped));
    json_object_set_new(out, "loss_spikes", json_integer((json_int_t)r->n_spikes));
    for (int i = 0; i < r->n_evals; i++) json_array_append(evals, r->evals[i].scores);
    json_object_set_new(out, "evaluations", evals);
    if (r->drawn) json_object_set(out, "drawn", r->drawn);
    if (r->environment) json_object_set(out, "environment", r->environment);
    json_object_set_new(out, "config", json_string(sago_str_text(&r->config)));
    return out;
}

static sago_status write_both(const sago_run_record runs[], int n, const char *dir) {
    char *page_path = sago_path_join(dir, "report.html"), *json_path = sago_path_join(dir, "report.json");
    sago_str page = {0};
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, run_json(&runs[i]));
    json_t *whole = json_pack("{s:s, s:o}", "sago", SAGO_VERSION, "runs", list);
    sago_status status = sago_dir_make(dir);
    if (status == SAGO_OK) status = sago_report_page(runs, n, &page);
    if (status == SAGO_OK) status = sago_file_replace(page_path, page.data, page.length);
    if (status == SAGO_OK) status = sago_json_write(json_path, whole);
    if (status == SAGO_OK) sago_info("report: %s", page_path);
    json_decref(whole);
    sago_str_free(&page);
    free(page_path);
    free(json_path);
    return status;
}

sago_status sago_report_write(const char *const run_dirs[], int n_runs, const char *output_dir) {
    sago_run_record *runs = sago_alloc_zero((size_t)n_runs, sizeof *runs);
    sago_status status = SAGO_OK;
    int read = 0;
    for (; read < n_runs && status == SAGO_OK; read++) status = sago_run_record_read(run_dirs[read], &runs[read]);
    if (status == SAGO_OK) status = write_both(runs, n_runs, output_dir);
    for (int i = 0; i < read; i++) sago_run_record_free(&runs[i]);
    free(runs);
    return status;
}
