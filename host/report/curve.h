// SPDX-License-Identifier: Apache-2.0
/**
 * Curves of runs as SVG, drawn by gnuplot.
 */
#ifndef SAGO_CURVE_H
#define SAGO_CURVE_H

#include "record.h"

typedef enum sago_curve_kind { SAGO_CURVE_LOSS, SAGO_CURVE_THROUGHPUT } sago_curve_kind;

/**
 * Appends an <svg> element with one line a run over the steps: the points faint, their moving median strong.
 * SAGO_E_IO where gnuplot is missing or fails, with the remedy.
 */
sago_status sago_curve_draw(sago_curve_kind kind, const sago_run_record runs[], int n_runs, sago_str *out) SAGO_MUST_CHECK;

#endif
