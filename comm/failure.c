// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"
#include "log.h"
#include "str.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

comm_kind comm_called_kind(comm_kind kind) {
    return kind == COMM_SMALL_SUM ? COMM_ALL_REDUCE : kind == COMM_ALL_GATHER_PIECES ? COMM_ALL_GATHER : kind;
}

const char *comm_kind_name(comm_kind kind) {
    switch (kind) {
    case COMM_ALL_REDUCE:
    case COMM_SMALL_SUM:
        return "all_reduce";
    case COMM_REDUCE_SCATTER:
        return "reduce_scatter";
    case COMM_ALL_GATHER:
    case COMM_ALL_GATHER_PIECES:
        return "all_gather";
    case COMM_BROADCAST:
        return "broadcast";
    case COMM_GATHER:
        return "gather";
    case COMM_BARRIER:
        return "barrier";
    case COMM_AGREE:
        return "agree";
    case COMM_CHECK:
        return "check";
    default:
        return "no collective";
    }
}

const char *comm_rank_text(int rank, char text[128]) {
    if (comm.identities)
        snprintf(text, 128, "rank %d (host %s, pid %lld)", rank, comm.identities[rank].host,
                 (long long)comm.identities[rank].pid);
    else
        snprintf(text, 128, "rank %d", rank);
    return text;
}

void comm_share_message(const char *message) {
    pthread_mutex_lock(&comm.lock);
    snprintf(comm.shared_message, sizeof comm.shared_message, "%s", message);
    pthread_mutex_unlock(&comm.lock);
}

bool sago_mesh_failure_is_shared(void) {
    pthread_mutex_lock(&comm.lock);
    bool shared = comm.shared_message[0] && sago_ends_with(sago_message(), comm.shared_message);
    pthread_mutex_unlock(&comm.lock);
    return shared;
}

void comm_die(int exit_code, const char *format, ...) {
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sago_error_line(text);
    /* Should the launcher be gone too, MPI_Abort may never come back: the alarm's default action ends this
     * process. */
    sigset_t only_alarm;
    sigemptyset(&only_alarm);
    sigaddset(&only_alarm, SIGALRM);
    signal(SIGALRM, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &only_alarm, NULL);
    alarm(5);
    comm_flight_dump(text, true);
    if (comm.started) MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

void comm_check(int code, const char *what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    comm_die(1, "%s failed: %s", what, text);
}
