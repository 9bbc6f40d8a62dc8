// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"
#include "log.h"
#include "rng.h"
#include "str.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

comm_state comm = {
    .size = 1,
    .local_size = 1,
    .n_nodes = 1,
    .mpi = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
    .timeout_seconds = 40, /* until sago_mesh_open knows the configured one */
    .abort_code = -1,
};

/* The variables that mpirun of Open MPI, hydra of MPICH and Slurm's PMI plugins give to what they start. */
bool sago_mesh_launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                                        "PMI_FD"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

int sago_mesh_world_rank(void) {
    return comm.rank;
}
int sago_mesh_world_size(void) {
    return comm.size;
}

enum { NAP_NS = 100000, NAPPING_NS = 2000000 };

/* Callers that wait move their jobs themselves, and a start that comes soon after finds a thread that looks
 * by itself every now and then: to wake one costs more than a small sum. */
static bool naps(bool busy, int64_t now_ns) {
    pthread_mutex_lock(&comm.lock);
    bool naps = comm.n_driving > 0 || (!busy && now_ns - comm.driven_ns < NAPPING_NS);
    pthread_mutex_unlock(&comm.lock);
    return naps;
}

/*
 * Sleeps until something may have happened. A poll that moved nothing is followed by a few that only yield,
 * then by sleeps that grow: the cores belong to the computation, and a peer that has been late for long will
 * not come this microsecond. Callers that are blocked leave their core free, so they are served faster.
 */
static void rest(int empty_polls, bool busy) {
    if (busy && empty_polls < 16) {
        sched_yield();
        return;
    }
    pthread_mutex_lock(&comm.lock);
    int64_t ns = 20000000;
    if (busy) {
        int64_t high = comm.n_waiting ? 100000 : 400000;
        ns = 20000 + (int64_t)(empty_polls - 16) * 2000;
        if (empty_polls > 400) high = 1000000;
        if (ns > high) ns = high;
    }
    bool nothing_new = busy;
    if (!busy) {
        nothing_new = comm.abort_code < 0;
        for (int c = 0; c < SAGO_MESH_CHANNELS; c++) nothing_new &= comm.channels[c].head == NULL;
    }
    if (nothing_new) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += ns;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&comm.work, &comm.lock, &until);
    }
    pthread_mutex_unlock(&comm.lock);
}

static bool look(bool napped, int64_t *looked_ns) {
    int64_t now_ns = sago_now_ns();
    if (napped && now_ns - *looked_ns < NAPPING_NS) return false; /* others look */
    *looked_ns = now_ns;
    pthread_mutex_lock(&comm.mpi);
    bool moved = comm_engine_poll();
    comm_heartbeat_poll(sago_now_ns());
    pthread_mutex_unlock(&comm.mpi);
    return moved;
}

static void *communicate(void *unused) {
    (void)unused;
    pthread_setname_np(pthread_self(), "sago-comm");
    prctl(PR_SET_TIMERSLACK, 1000ul); /* ns: the default of 50 us would be most of a short sleep */
    int empty_polls = 0;
    int64_t looked_ns = 0;
    bool napped = false;
    while (!comm_heartbeat_all_left()) {
        pthread_mutex_lock(&comm.lock);
        int abort_code = comm.abort_code;
        pthread_mutex_unlock(&comm.lock);
        if (abort_code >= 0)
            comm_die(abort_code, "this rank ends the run on all ranks, with exit code %d", abort_code);
        comm_flight_poll();
        bool moved = look(napped, &looked_ns);
        empty_polls = moved ? 0 : empty_polls + 1;
        if (moved) continue;
        bool busy = comm_engine_busy();
        napped = naps(busy, sago_now_ns());
        if (napped)
            nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        else
            rest(empty_polls, busy);
    }
    return NULL;
}

/* Where the kernel forbids one process to read another's memory, as in many containers, Open MPI's shared
 * memory transport would complain at each large message: it is told to copy through its own buffers there. */
static void set_transport_defaults(void) {
    char probe = 1, copy = 0;
    struct iovec to = {&copy, 1}, from = {&probe, 1};
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 1)
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0); /* in MPI_Init and MPI_Finalize */
}

/* mpirun binds one or two ranks to a core each unless told otherwise, which would leave all but two cores of
 * a large node idle. Such a default is taken back; a binding that was asked for stays. */
static void widen_default_binding(void) {
    cpu_set_t mine, all;
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE"), *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    if (!ranks || !local || atoi(ranks) > 2 || getenv("OMPI_MCA_hwloc_base_binding_policy")) return;
    if (getenv("OMPI_MCA_rmaps_base_mapping_policy") || sched_getaffinity(0, sizeof mine, &mine) != 0) return;
    memset(&all, 0xff, sizeof all);
    if (sched_setaffinity(0, sizeof all, &all) != 0 || sched_getaffinity(0, sizeof all, &all) != 0 ||
        CPU_COUNT(&all) <= CPU_COUNT(&mine) * atoi(local))
        sched_setaffinity(0, sizeof mine, &mine);
}

static void identify(comm_identity *identity) {
    memset(identity, 0, sizeof *identity);
    gethostname(identity->host, sizeof identity->host - 1);
    identity->pid = getpid();
    struct stat space;
    if (stat("/proc/self/ns/pid", &space) == 0) identity->pid_space = (uint64_t)space.st_ino;
    char boot[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file) {
        if (!fgets(boot, sizeof boot, file)) boot[0] = '\0';
        fclose(file);
    }
    identity->node = sago_mix(sago_hash_bytes(boot, strlen(boot)),
                              sago_hash_bytes(identity->host, strlen(identity->host)));
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) CPU_SET(0, &cores);
    identity->n_cores = CPU_COUNT(&cores);
    for (int i = 0; i < (int)sizeof identity->cores * 8; i++)
        if (i < CPU_SETSIZE && CPU_ISSET(i, &cores)) identity->cores[i / 8] |= (uint8_t)(1 << i % 8);
}

static sago_status meet(void) {
    comm.identities = sago_alloc_zero((size_t)comm.size, sizeof *comm.identities);
    comm_identity mine;
    identify(&mine);
    comm_check(
        MPI_Allgather(&mine, sizeof mine, MPI_BYTE, comm.identities, sizeof mine, MPI_BYTE, MPI_COMM_WORLD),
        "MPI_Allgather");
    comm.local_rank = comm.local_size = comm.n_nodes = 0;
    for (int r = 0; r < comm.size; r++) {
        bool same = comm.identities[r].node == mine.node, first = true;
        comm.local_size += same;
        comm.local_rank += same && r < comm.rank;
        for (int q = 0; q < r && first; q++) first = comm.identities[q].node != comm.identities[r].node;
        comm.n_nodes += first;
    }
    return SAGO_OK;
}

/* A rank that stops or dies while MPI starts can't be named yet, but must not hold the others either. */
static void *watch_start(void *done) {
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    int limit_seconds = ranks && atoi(ranks) <= 64 ? 55 : 300;
    for (int i = 0; i < limit_seconds * 10; i++) {
        if (atomic_load((atomic_bool *)done)) return NULL;
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    if (atomic_load((atomic_bool *)done)) return NULL;
    sago_error_line(
        "MPI has not started within a minute: a rank has stopped or can't be reached; look at mpirun's "
        "own messages, the hostfile and the network");
    _exit(1);
}

/* A program that has business of its own with MPI (benchmarks/comm) starts it before and ends it after. */
static sago_status start_mpi(void) {
    int initialized = 0, code = MPI_Initialized(&initialized);
    if (code == MPI_SUCCESS && initialized) {
        code = MPI_Query_thread(&comm.thread_level);
    } else if (code == MPI_SUCCESS) {
        set_transport_defaults();
        widen_default_binding();
        code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &comm.thread_level);
        comm.owns_mpi = true;
    }
    if (code != MPI_SUCCESS) return sago_fail(SAGO_E_COMM, "MPI_Init_thread failed with code %d", code);
    comm.started = true;
    char library[MPI_MAX_LIBRARY_VERSION_STRING] = "MPI";
    int length = 0;
    comm_check(MPI_Get_library_version(library, &length), "MPI_Get_library_version");
    library[strcspn(library, ",\n")] = '\0';
    snprintf(comm.library, sizeof comm.library, "%.120s", library);
    return SAGO_OK;
}

sago_status sago_mesh_start(void) {
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!sago_mesh_launched()) {
        if (tasks && atoi(tasks) > 1)
            return sago_fail(
                SAGO_E_COMM,
                "srun started %s tasks without an MPI plugin, so that none sees the others: start with "
                "srun --mpi=pmix (srun --mpi=list shows what there is), or with mpirun",
                tasks);
        return SAGO_OK;
    }
    if (comm.started) return sago_fail(SAGO_E_INTERNAL, "sago_mesh_start was called twice");
    atomic_bool ready = false;
    pthread_t watcher;
    bool watched = pthread_create(&watcher, NULL, watch_start, &ready) == 0;
    SAGO_TRY(start_mpi());
    comm_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    comm_check(MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank), "MPI_Comm_rank");
    comm_check(MPI_Comm_size(MPI_COMM_WORLD, &comm.size), "MPI_Comm_size");
    sago_log_identity(comm.rank, comm.size);
    sago_status status = meet();
    atomic_store(&ready, true);
    if (watched) pthread_join(watcher, NULL);
    if (status != SAGO_OK || comm.size == 1) return status;
    if (comm.thread_level < MPI_THREAD_SERIALIZED)
        return sago_fail(SAGO_E_COMM, "this MPI has no MPI_THREAD_SERIALIZED, which sago needs");
    SAGO_TRY(comm_engine_open());
    SAGO_TRY(comm_heartbeat_open());

    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&comm.work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    /* Signals are for the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&comm.thread, NULL, communicate, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) comm_die(1, "no communication thread could be started: %s", strerror(failed));
    comm.has_thread = true;
    return SAGO_OK;
}

void sago_mesh_finish(int exit_code) {
    if (comm.has_thread) {
        bool failed = exit_code != 0 && exit_code != sago_status_exit_code(SAGO_E_INTERRUPTED);
        if (failed) comm_flight_dump_once(sago_message());
        pthread_mutex_lock(&comm.lock);
        comm.leaving = failed ? 2 : 1;
        pthread_cond_signal(&comm.work);
        pthread_mutex_unlock(&comm.lock);
        pthread_join(comm.thread, NULL);
        comm.has_thread = false;
        comm_heartbeat_close();
        comm_engine_close();
    }
    if (comm.owns_mpi) {
        /* The others are about to end too, and whoever stops right here must not hold them. */
        alarm(30);
        MPI_Finalize();
        alarm(0);
    }
    comm.started = comm.owns_mpi = false;
    free(comm.identities);
    comm.identities = NULL;
    comm.rank = 0;
    comm.size = 1;
}
