// SPDX-License-Identifier: Apache-2.0
/**
 * SIGTERM, SIGINT and SIGUSR1 ask a run to save and leave; a third one ends it at once. SIGUSR2 has this rank write
 * its flight record (sago_mesh_record).
 *
 * SIGCONT from the Open MPI process that started the rank asks for the same as SIGTERM: mpirun kills its ranks with
 * SIGCONT, SIGTERM and SIGKILL, odls_base_sigkill_timeout seconds apart (1 where it is not set), and who acts on the
 * first has twice that time.
 */
#ifndef SAGO_SIGNALS_H
#define SAGO_SIGNALS_H

/** Installs the handlers. */
void sago_signals_watch(void);

/** The signal that arrived, or 0. */
int sago_signal_received(void);

#endif
