// SPDX-License-Identifier: Apache-2.0
/**
 * Step directories of a checkpoint folder: their names, what is there, what may go.
 *
 *     step-000120                 a committed checkpoint (digits, padded to six)
 *     step-000120.tmp-ID          one that is being written, or is going; swept when the next writer starts
 */
#ifndef SAGO_STEPS_H
#define SAGO_STEPS_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

#define SAGO_MANIFEST_NAME "MANIFEST.json"

/** "DIR/step-000120". New memory. */
char *sago_step_path(const char *dir, int64_t step);

/** True for the name of a committed step ("step-" and 1 to 18 digits); *step is its number. */
bool sago_step_parse(const char *name, int64_t *step);

/** Numbers of the committed steps in dir, ascending; a folder counts when it holds a MANIFEST. Free with
 * free(). */
sago_status sago_steps_list(const char *dir, int64_t **steps, int *n_steps) SAGO_MUST_CHECK;

/** Removes every step-N.tmp-* in dir. Only for the one process that writes there. */
sago_status sago_steps_sweep(const char *dir) SAGO_MUST_CHECK;

/** How many steps before `newest` sago_steps_retain would remove. Steps after it are left alone and not
 * counted. */
sago_status sago_steps_retain(const char *dir, int64_t newest, int64_t keep, int64_t keep_every, bool remove,
                              int *n_going) SAGO_MUST_CHECK;

/** Removes a step directory so that a crash midway leaves no half of it under its name. */
sago_status sago_step_remove(const char *dir, int64_t step) SAGO_MUST_CHECK;

#endif
