// SPDX-License-Identifier: Apache-2.0
/**
 * Log: lines for a person on standard error. Rank 0 speaks; other ranks only warn, with their number in
 * front. On a terminal one progress line is redrawn in place; elsewhere progress comes as plain lines now and
 * then.
 */
#ifndef SAGO_LOG_H
#define SAGO_LOG_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

/** Sets who this process is; before it, messages carry no rank. */
void sago_log_identity(int rank, int n_ranks);
void sago_log_quiet(bool quiet); /* only warnings and errors */

void sago_info(const char *format, ...) SAGO_PRINTF(1, 2); /* rank 0 only */
void sago_warn(const char *format, ...) SAGO_PRINTF(1, 2); /* any rank: "sago: rank 2: warning: ..." */
void sago_error_line(const char *message);                 /* any rank: "sago: rank 2: error: ..." */

/** Progress of a stage: fraction in [0, 1], and text. Throttled: a terminal 10 times a second, else every 5
 * s. */
void sago_progress(const char *stage, double fraction, const char *format, ...) SAGO_PRINTF(3, 4);
void sago_progress_end(void); /* leaves the last state of the line standing */

/** Monotonic nanoseconds. */
int64_t sago_now_ns(void);

/** "1h02m", "3m05s", "12s" into text; returns text. */
const char *sago_duration_text(double seconds, char text[32]);

#endif
