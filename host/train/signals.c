// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include "mesh.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t received;
static pid_t launcher; /* Open MPI's process that started this rank, 0 without one */

static void on_signal(int number, siginfo_t *info, void *context) {
    (void)context;
    if (number == SIGCONT) {
        if (launcher && info->si_code == SI_USER && info->si_pid == launcher) received = SIGTERM;
        return;
    }
    /* A launcher may forward the same signal twice within moments, so only a later, third one gives up. */
    static volatile sig_atomic_t count;
    received = number;
    if (++count >= 3) _exit(128 + number);
}

static void on_record(int number) {
    (void)number;
    sago_mesh_record_now();
}

static void *wait_for_signals(void *unused) {
    (void)unused;
    while (pause() == -1) {
    }
    return NULL;
}

/*
 * Signals go to a thread that does nothing else. oneDNN's matrix products point the stack pointer into
 * buffers of the heap for a while, and the system writes what it saves for a handler below the stack pointer:
 * a signal in the middle of a product would be written over other memory. Threads that begin after this one
 * (OpenMP's) block them as well.
 */
void sago_signals_watch(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
    struct sigaction record = {.sa_handler = on_record, .sa_flags = SA_RESTART};
    /* USR1 is what mpirun passes on without killing the ranks (USR2 too), CONT the first of the three by which it
     * kills them. */
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGCONT};
    launcher = getenv("OMPI_COMM_WORLD_SIZE") ? getppid() : 0;
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGUSR2);
    sigemptyset(&record.sa_mask);
    sigaction(SIGUSR2, &record, NULL);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sigaddset(&watched, numbers[i]);
        sigaddset(&action.sa_mask, numbers[i]);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
    pthread_t thread;
    if (pthread_create(&thread, NULL, wait_for_signals, NULL) != 0) return;
    pthread_detach(thread);
    pthread_sigmask(SIG_BLOCK, &watched, NULL);
}

int sago_signal_received(void) {
    return received;
}
