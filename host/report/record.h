// SPDX-License-Identifier: Apache-2.0
/**
 * Run record: what a report knows of one run, read from its folder. Nothing here is computed by a model.
 */
#ifndef SAGO_RECORD_H
#define SAGO_RECORD_H

#include "json.h"
#include "str.h"

#include <stdbool.h>

typedef struct sago_curve_point {
    int64_t step;
    double loss, accuracy, tokens_per_second, mfu; /* NAN where the line has none */
} sago_curve_point;

/** One evaluation: a folder with scores.json and predictions.jsonl. */
typedef struct sago_run_eval {
    char *dir;
    json_t *scores;
} sago_run_eval;

typedef struct sago_run_record {
    char *dir, *name;
    sago_str config;       /* config.yaml as it stands */
    json_t *environment;   /* NULL when missing */
    json_t *drawn;         /* mixture.json: what was drawn; NULL when missing */
    sago_curve_point *points;
    int64_t n_points;
    json_t *last;          /* last metrics line of a step */
    int64_t n_skipped, n_resumes, n_spikes;
    double target_tokens, input_tokens, seconds; /* sums over the steps */
    double data_wait_seconds, comm_wait_seconds; /* of seconds: waiting for data, and for other ranks */
    double most_memory_gb;                       /* of a device that counts it, else 0 */
    double median_tokens_per_second, median_mfu;
    sago_run_eval *evals;  /* in the order of their checkpoints' steps, then names */
    int n_evals;
} sago_run_record;

/** Reads RUN/. A folder without metrics.jsonl is SAGO_E_INPUT; damaged lines name file and line. */
sago_status sago_run_record_read(const char *dir, sago_run_record *out) SAGO_MUST_CHECK;
void sago_run_record_free(sago_run_record *record);

#endif
