// SPDX-License-Identifier: Apache-2.0
/*
 * Judging the other ranks by their heartbeats. Four things end a run, each in a line that names a rank:
 *   - a rank is not heard of: it is stopped, dead, or its node is gone;
 *   - a rank of this node has no process any more;
 *   - a rank left (sago_mesh_finish) while others need it;
 *   - a rank lives but does not come to a collective: it entered another one, or it does nothing at all. One
 * that computes or waits for a disk is given 40 times the timeout, and warned about meanwhile. All ranks
 * notice about together; the lowest one speaks and ends the run, the others follow only if it does not.
 */
#include "comm_internal.h"
#include "log.h"
#include "str.h"
#include "transport.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LATE_LIMIT = 40, LEAVE_SECONDS = 20 };

static struct {
    int64_t active_ns, sampled_ns, moved_ns;
    int64_t compute_ns; /* processor time of all threads but the communication thread */
    int64_t failed_ns;  /* since when a failed rank is known; 0: none */
    int failed_rank;
    int64_t nccl_failed_ns; /* since when NCCL reports an error; 0: none */
    int64_t trusted_ns; /* from when on the others' processes are judged again after this one stood still */
    int64_t warn_at_ns[SAGO_MESH_CHANNELS]; /* wait after which the next warning comes */
    uint64_t warned[SAGO_MESH_CHANNELS];    /* about which collective */
} watch;

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t compute_ns(void) {
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void comm_watch_open(int64_t now_ns) {
    memset(&watch, 0, sizeof watch);
    watch.active_ns = watch.sampled_ns = now_ns;
    watch.failed_rank = -1;
}

/* Who wakes up amid the end of a run should not blame those that ended it. */
void comm_watch_stood_still(int64_t now_ns) {
    watch.trusted_ns = now_ns + 3000000000;
}

/* The letter of a process's or thread's state: R, S, D, T, Z ...; '?' when it can't be read. */
static char state_of(const char *path) {
    char line[512];
    FILE *file = fopen(path, "r");
    if (!file) return '?';
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    const char *end = strrchr(line, ')'); /* of the name, which may hold anything */
    return end && end[1] == ' ' && end[2] ? end[2] : '?';
}

static bool waits_for_disk(void) {
    DIR *threads = opendir("/proc/self/task");
    bool found = false;
    for (struct dirent *entry; threads && !found && (entry = readdir(threads));) {
        char path[300];
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        found = entry->d_name[0] != '.' && state_of(path) == 'D';
    }
    if (threads) closedir(threads);
    return found;
}

void comm_device_wait(bool begins) {
    atomic_fetch_add(&comm.n_device_waits, begins ? 1 : -1);
}

int64_t comm_idle_ms(int64_t now_ns) {
    if (now_ns - watch.sampled_ns >= 100000000) {
        int64_t compute = compute_ns();
        bool active = compute - watch.compute_ns > (now_ns - watch.sampled_ns) / 100;
        for (int c = 0; c < SAGO_MESH_CHANNELS; c++) active |= comm.channels[c].moved_ns > watch.sampled_ns;
        watch.compute_ns = compute;
        watch.sampled_ns = now_ns;
        active |= atomic_load(&comm.n_device_waits) > 0;
        if (active || waits_for_disk()) watch.active_ns = now_ns;
    }
    return (now_ns - watch.active_ns) / 1000000;
}

/* Lower ranks that still beat see what this rank sees, and speak first; they may end this process meanwhile.
 */
static void let_lower_ranks_speak(int64_t now_ns, int subject, int64_t wait_ns) {
    char text[128], reason[256];
    snprintf(reason, sizeof reason, "%s has gone wrong", comm_rank_text(subject, text));
    comm_flight_dump_once(reason);
    for (int r = 0; r < comm.rank; r++) {
        if (r == subject || comm_beats[r].left || now_ns - comm_heard_ns[r] > 3000000000) continue;
        nanosleep(&(struct timespec){wait_ns / 1000000000, wait_ns % 1000000000}, NULL);
        return;
    }
}

static bool sees_process(int rank) {
    const comm_identity *mine = &comm.identities[comm.rank], *its = &comm.identities[rank];
    return mine->node == its->node && mine->pid_space == its->pid_space && mine->pid_space != 0;
}

static char process_state(int rank) {
    char path[64];
    if (kill((pid_t)comm.identities[rank].pid, 0) != 0 && errno == ESRCH) return 'X';
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)comm.identities[rank].pid);
    return state_of(path);
}

static void watch_alive(int64_t now_ns, double timeout) {
    int silent = -1, n_silent = 0;
    char text[128], more[64] = "";
    for (int r = 0; r < comm.size; r++) {
        if (r == comm.rank) continue;
        if (sees_process(r) && now_ns > watch.trusted_ns) {
            char state = process_state(r);
            if (state == 'X' || state == 'Z') {
                let_lower_ranks_speak(now_ns, r, 300000000);
                comm_die(1, "%s has ended without a word: it was killed (out of memory?) or crashed",
                         comm_rank_text(r, text));
            }
        }
        if ((double)(now_ns - comm_heard_ns[r]) * 1e-9 <= timeout) continue;
        if (silent < 0) silent = r;
        n_silent++;
    }
    if (silent < 0) return;
    snprintf(more, sizeof more, " has");
    if (n_silent > 1) snprintf(more, sizeof more, " and %d more have", n_silent - 1);
    const char *cause = "its process is stopped, or its node or the network to it is gone";
    if (sees_process(silent))
        cause = strchr("Tt", process_state(silent)) ? "its process is stopped (SIGSTOP, or a debugger)"
                                                    : "its process gets no processor time";
    let_lower_ranks_speak(now_ns, silent, 1500000000);
    comm_die(1, "%s%s not been heard of for %.0f s: %s", comm_rank_text(silent, text), more, timeout, cause);
}

/* Fails what is in flight. Each rank returns the same message; the lowest one that has not left prints it. */
static void fail(const char *message) {
    sago_error failure = {.status = SAGO_E_COMM};
    snprintf(failure.message, sizeof failure.message, "%s", message);
    for (int r = 0; r < comm.rank; r++) {
        if (comm_beats[r].left) continue;
        comm_share_message(message);
        break;
    }
    comm_fail_jobs(&failure);
}

/* A rank that failed has said why; what others have in flight with it is given up once they need more of it
 * than it has given. They have some time to end by themselves. */
static void watch_failed(int64_t now_ns, bool failed) {
    char text[128];
    for (int r = 0; r < comm.size && watch.failed_rank < 0; r++) {
        if (comm_beats[r].left != 2 || r == comm.rank) continue;
        watch.failed_rank = r;
        watch.failed_ns = now_ns;
    }
    /* What waits for a sum by NCCL has no job here that would show it. */
    if (watch.failed_rank >= 0 && !failed && comm_nccl_is_open()) {
        char line[512];
        snprintf(line, sizeof line, "%s has failed and left the run; its own message says why",
                 comm_rank_text(watch.failed_rank, text));
        fail(line);
    }
    if (watch.failed_rank < 0 || comm.leaving ||
        now_ns - watch.failed_ns < LEAVE_SECONDS * INT64_C(1000000000))
        return;
    let_lower_ranks_speak(now_ns, watch.failed_rank, 1500000000);
    comm_die(1, "%s left %d s ago and this rank has not ended since: ending it",
             comm_rank_text(watch.failed_rank, text), LEAVE_SECONDS);
}

typedef struct pending { /* the oldest collective of a channel */
    comm_kind kind;
    comm_group group;
    uint64_t sequence;
    int64_t since_ns;
    bool awaited, compares; /* compares: a gate, whose verdict says more than what is seen from here */
} pending;

static bool oldest_pending(int c, pending *out) {
    pthread_mutex_lock(&comm.lock);
    const comm_job *job = comm.channels[c].head;
    if (job) {
        int64_t moved = comm.channels[c].moved_ns;
        bool check = job->kind == COMM_CHECK;
        comm_kind kind = check ? (comm_kind)job->record.kind : comm_called_kind(job->kind);
        *out = (pending){kind,          job->group,
                         job->sequence, moved > job->submitted_ns ? moved : job->submitted_ns,
                         job->awaited,  check};
    }
    pthread_mutex_unlock(&comm.lock);
    return job != NULL;
}

/* A collective that can't complete, whatever time it gets. */
static void watch_paths(int64_t now_ns, int c, const pending *job) {
    char text[128], line[512];
    for (int m = 0; m < job->group.size; m++) {
        int r = job->group.first + m * job->group.stride;
        const comm_beat *its = &comm_beats[r];
        if (r == comm.rank) continue;
        if (its->left && its->entered[c] < job->sequence) {
            if (its->left == 2)
                snprintf(line, sizeof line, "%s has failed and left the run; its own message says why",
                         comm_rank_text(r, text));
            else
                snprintf(line, sizeof line, "%s has left the run while this rank waits for it in %s #%llu",
                         comm_rank_text(r, text), comm_kind_name(job->kind),
                         (unsigned long long)job->sequence);
            fail(line);
            if (watch.failed_rank < 0) watch.failed_rank = r, watch.failed_ns = now_ns;
            return;
        }
        if (!job->compares && now_ns - job->since_ns > 2000000000 && its->entered[c] == job->sequence &&
            its->kind[c] != (int32_t)job->kind) {
            let_lower_ranks_speak(now_ns, r, 1500000000);
            comm_die(1,
                     "%s entered %s as collective #%llu where this rank entered %s: the ranks have taken "
                     "different "
                     "paths",
                     comm_rank_text(r, text), comm_kind_name((comm_kind)its->kind[c]),
                     (unsigned long long)job->sequence, comm_kind_name(job->kind));
        }
    }
}

static bool all_idle(int64_t limit_ms) {
    for (int r = 0; r < comm.size; r++)
        if (comm_beats[r].idle_ms < limit_ms) return false;
    return true;
}

static void watch_late(int64_t now_ns, int c, const pending *job, double timeout) {
    int64_t limit_ms = (int64_t)(timeout * 1e3), wait_ns = now_ns - job->since_ns;
    double waited = (double)wait_ns * 1e-9;
    if (!job->awaited || waited < timeout) return;
    char text[128];
    const char *name = comm_kind_name(job->kind);
    unsigned long long number = job->sequence;
    bool stuck = all_idle(limit_ms);
    int missing = -1;
    for (int m = 0; m < job->group.size; m++) {
        int r = job->group.first + m * job->group.stride;
        const comm_beat *its = &comm_beats[r];
        if (r == comm.rank || its->entered[c] >= job->sequence) continue;
        if (missing < 0) missing = r;
        if (!stuck && (its->idle_ms < limit_ms || its->waits) && waited < LATE_LIMIT * timeout) continue;
        let_lower_ranks_speak(now_ns, r, 1500000000);
        comm_die(1, "%s has not entered %s #%llu, where this rank has been waiting for %.0f s%s",
                 comm_rank_text(r, text), name, number, waited,
                 its->idle_ms < limit_ms
                     ? ", though it is alive and working"
                     : ": it is alive but does nothing, so it is stuck or took another path");
    }
    if (missing < 0) {
        if (stuck)
            comm_die(1,
                     "every rank is in %s #%llu, but no data has moved for %.0f s: the network between them "
                     "is broken",
                     name, number, waited);
        return;
    }
    /* A little after the limit, so that a rank that is about to be found idle is not called working first. */
    if (watch.warned[c] != job->sequence) watch.warn_at_ns[c] = (int64_t)(1.25e9 * timeout);
    watch.warned[c] = job->sequence;
    if (wait_ns < watch.warn_at_ns[c]) return;
    watch.warn_at_ns[c] = 2 * wait_ns;
    for (int r = 0; r < comm.rank; r++)
        if (comm_beats[r].waits) return; /* a lower rank that waits too says it */
    sago_warn("waiting for %s in %s #%llu for %.0f s: it is alive and working", comm_rank_text(missing, text),
              name, number, waited);
}

/* Sums by NCCL end with the run; what NCCL itself finds is told when nobody else has said more for the
 * timeout. */
static void watch_nccl(int64_t now_ns, double timeout, bool failed) {
    if (!comm_nccl_is_open()) return;
    if (failed) {
        comm_nccl_abort();
        return;
    }
    if (comm_nccl_poll() == SAGO_OK) {
        watch.nccl_failed_ns = 0;
        return;
    }
    if (watch.nccl_failed_ns == 0) watch.nccl_failed_ns = now_ns;
    if ((double)(now_ns - watch.nccl_failed_ns) * 1e-9 > timeout) fail(sago_message());
}

void comm_watch(int64_t now_ns) {
    pthread_mutex_lock(&comm.lock);
    double timeout = comm.timeout_seconds;
    bool failed = comm.failure.status != SAGO_OK;
    pthread_mutex_unlock(&comm.lock);
    watch_alive(now_ns, timeout);
    watch_failed(now_ns, failed);
    watch_nccl(now_ns, timeout, failed);
    for (int c = 0; c < SAGO_MESH_CHANNELS && !failed; c++) {
        pending job;
        if (!oldest_pending(c, &job)) continue;
        watch_paths(now_ns, c, &job);
        watch_late(now_ns, c, &job, timeout);
    }
}
