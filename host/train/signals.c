// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t received;

static void on_signal(int number) {
    /* A launcher may forward the same signal twice within moments, so only a later, third one gives up. */
    static volatile sig_atomic_t count;
    received = number;
    if (++count >= 3) _exit(128 + number);
}

void sago_signals_watch(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* which mpirun passes on to all ranks, without killing them after a second */
}

int sago_signal_received(void) { return received; }
