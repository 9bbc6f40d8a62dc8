// SPDX-License-Identifier: Apache-2.0
/**
 * One save, from pieces in memory to a committed step directory. Collective over the mesh; writer.c decides
 * on which thread.
 */
#ifndef SAGO_SAVE_H
#define SAGO_SAVE_H

#include "ckpt.h"

#include <stdbool.h>

typedef struct sago_save_job {
    sago_mesh *mesh; /* whose collectives this save may use; NULL: one rank */
    sago_ckpt_save save;
    bool sweep;     /* remove what an earlier process left unfinished */
    bool committed; /* out, the same on every rank: the step stands under its name */
} sago_save_job;

/**
 * The commit protocol. Returns the same status on every rank. A failure before the commit leaves nothing
 * behind; one after it (the new step does not verify, an old one can't be removed) leaves every step in
 * place.
 */
sago_status sago_save_run(sago_save_job *job) SAGO_MUST_CHECK;

#endif
