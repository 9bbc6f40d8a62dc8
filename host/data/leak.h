// SPDX-License-Identifier: Apache-2.0
/**
 * Leaks: inputs that training sees and that are evaluated in held-out tasks too, compared by the hash of the
 * normalised text (of niv2 with its instruction). Held out are all questions of tasks that data.holdout
 * matches, and all documents of text members whose every task it matches; what data.eval_fraction keeps is
 * chosen by the same hash, so its copies are kept with it wherever they stand.
 *
 * An instruction task that leaks is refused, since somebody wrote it into two tasks. A corpus of the web
 * always holds some copies, so such documents are left out of training and counted (mixture_text.h).
 *
 * Cost: a hash set of the held-out inputs and one look-up a training example or document; no file is read.
 */
#ifndef SAGO_LEAK_H
#define SAGO_LEAK_H

#include "task.h"

typedef struct sago_leaks sago_leaks;

/** The held-out inputs; *out NULL where there are none. Tasks know their splits. */
void sago_leaks_open(const sago_mixture *mixture, sago_leaks **out);
void sago_leaks_close(sago_leaks *leaks);

/** A record of a member's index. */
typedef struct sago_leak_place {
    int member, entry;
    uint32_t record;
} sago_leak_place;

/** Where an input is held out, NULL: nowhere (or leaks NULL). stored: the task (file) of the record. */
const sago_leak_place *sago_leaks_find(const sago_leaks *leaks, const sago_index_task *stored,
                                       const sago_record *record);

/** "FILE:LINE"; new memory. */
char *sago_leak_where(const sago_mixture *mixture, const sago_leak_place *place);

/** Looks up what instruction tasks train on. SAGO_E_INPUT names both lines of the first match. */
sago_status sago_leaks_check(const sago_mixture *mixture, const sago_leaks *leaks) SAGO_MUST_CHECK;

#endif
