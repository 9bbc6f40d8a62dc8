// SPDX-License-Identifier: Apache-2.0
/**
 * Report: one self-contained HTML page over one or several runs, and report.json with the same figures. The page needs
 * no script, no network and no second file, and reads well on a phone.
 */
#ifndef SAGO_REPORT_H
#define SAGO_REPORT_H

#include "record.h"

/** Writes DIR/report.html and DIR/report.json. */
sago_status sago_report_write(const char *const run_dirs[], int n_runs, const char *output_dir) SAGO_MUST_CHECK;

/** page.c: the HTML; samples are read from each run's last evaluation. */
sago_status sago_report_page(const sago_run_record runs[], int n_runs, sago_str *out) SAGO_MUST_CHECK;

/** scores.c: the tables of scores, before beside after. */
void sago_report_scores(const sago_run_record *run, sago_str *out);

/** samples.c: some questions with references and the outputs of the first and the last evaluation. */
sago_status sago_report_samples(const sago_run_record *run, sago_str *out) SAGO_MUST_CHECK;

/** Appends text with &, <, > and quotes escaped. */
void sago_html_text(sago_str *out, const char *text);

#endif
