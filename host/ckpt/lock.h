// SPDX-License-Identifier: Apache-2.0
/**
 * Run lock: one process at a time writes to a run's folder. An flock on DIR/.lock, so it goes with the
 * process however that ends; the file's text says who holds it.
 */
#ifndef SAGO_LOCK_H
#define SAGO_LOCK_H

#include "status.h"

typedef struct sago_run_lock sago_run_lock;

/** SAGO_E_BUSY: "DIR: in use by process N on host H". SAGO_E_IO when the file can't be made. */
sago_status sago_run_lock_take(const char *dir, sago_run_lock **out) SAGO_MUST_CHECK;
void sago_run_lock_release(sago_run_lock *lock); /* NULL is fine */

#endif
