// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"
#include "log.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int *finished_requests;
static MPI_Status *finished_statuses;
static int64_t late_until_ns; /* lateness is told apart up to here: units wait side by side */

sago_status comm_engine_open(void) {
    size_t n = (size_t)comm.size, chunk = n * (32 << 10);
    comm.chunk_bytes = chunk < CHUNK_BYTES_LOW    ? CHUNK_BYTES_LOW
                       : chunk > CHUNK_BYTES_HIGH ? CHUNK_BYTES_HIGH
                                                  : chunk;
    finished_requests = sago_alloc_zero(2 * n, sizeof *finished_requests);
    finished_statuses = sago_alloc_zero(2 * n, sizeof *finished_statuses);
    comm.late_ns = sago_alloc_zero(n, sizeof *comm.late_ns);
    return SAGO_OK;
}

/* A channel's memory is taken when it is first used: most runs have one or two. */
static void open_units(comm_channel *channel) {
    size_t n = (size_t)comm.size;
    for (int u = 0; u < UNITS_IN_FLIGHT; u++) {
        comm_unit *unit = &channel->units[u];
        unit->scratch = sago_alloc_zero(1, comm.chunk_bytes + 8 * n + 64);
        unit->parts = sago_alloc_zero(n, sizeof *unit->parts);
        unit->requests = sago_alloc_zero(2 * n, sizeof *unit->requests);
        unit->expected_bytes = sago_alloc_zero(2 * n, sizeof *unit->expected_bytes);
        unit->peers = sago_alloc_zero(2 * n, sizeof *unit->peers);
    }
}

void comm_engine_close(void) {
    for (int c = 0; c < SAGO_MESH_CHANNELS; c++) {
        free(comm.channels[c].table);
        comm.channels[c].table = NULL;
        for (int u = 0; u < UNITS_IN_FLIGHT; u++) {
            comm_unit *unit = &comm.channels[c].units[u];
            free(unit->scratch);
            free(unit->parts);
            free(unit->requests);
            free(unit->expected_bytes);
            free(unit->peers);
            memset(unit, 0, sizeof *unit);
        }
    }
    while (comm.free_jobs) {
        comm_job *next = comm.free_jobs->next;
        free(comm.free_jobs->first);
        free(comm.free_jobs);
        comm.free_jobs = next;
    }
    free(finished_requests);
    free(finished_statuses);
    free(comm.late_ns);
    comm.late_ns = NULL;
    finished_requests = NULL;
    finished_statuses = NULL;
}

/* Under the lock. */
static void enter(comm_job *job) {
    comm_channel *channel = &comm.channels[job->channel];
    job->sequence = ++channel->submitted;
    channel->newest = comm_called_kind(job->kind);
    if (comm.failure.status == SAGO_OK) job->recorded = comm_flight_begin(job, sago_now_ns());
}

void comm_enter(comm_job *job) {
    pthread_mutex_lock(&comm.lock);
    enter(job);
    pthread_mutex_unlock(&comm.lock);
}

void comm_submit(comm_job *job) {
    pthread_mutex_lock(&comm.lock);
    comm_channel *channel = &comm.channels[job->channel];
    job->submitted_ns = sago_now_ns();
    if (job->kind == COMM_CHECK)
        job->sequence = channel->submitted + !job->is_seal;
    else
        enter(job);
    job->record.sequence = job->sequence;
    job->n_units = comm_unit_count(job);
    if (comm.failure.status != SAGO_OK || job->n_units == 0) {
        job->status = comm.failure.status;
        job->complete = true;
        if (job->status == SAGO_OK) comm_flight_end(job->recorded, job->submitted_ns);
    } else {
        if (channel->tail)
            channel->tail->next = job;
        else
            channel->head = job;
        channel->tail = job;
        if (!channel->starting) channel->starting = job;
    }
    pthread_mutex_unlock(&comm.lock);
}

static void complete(comm_job *job, sago_status status) {
    pthread_mutex_lock(&comm.lock);
    comm_channel *channel = &comm.channels[job->channel];
    comm_job *before = NULL;
    for (comm_job *at = channel->head; at != job; at = at->next) before = at;
    if (before)
        before->next = job->next;
    else
        channel->head = job->next;
    if (channel->tail == job) channel->tail = before;
    if (channel->starting == job) channel->starting = job->next;
    job->next = NULL;
    job->status = status;
    job->complete = true;
    if (status == SAGO_OK) comm_flight_end(job->recorded, sago_now_ns());
    pthread_cond_broadcast(&comm.done);
    pthread_mutex_unlock(&comm.lock);
}

/* Gates and seals come one at a time, so that a channel needs one table of records. */
static void open_check(comm_channel *channel, comm_job *job) {
    if (!channel->table) channel->table = sago_alloc_zero((size_t)comm.size, sizeof *channel->table);
    if (job->is_seal) comm_check_seal(job);
    job->table = channel->table;
    job->output = (char *)channel->table;
}

/* The next unit to start, in the order of submission. */
static bool start_unit(comm_channel *channel, comm_unit *unit) {
    pthread_mutex_lock(&comm.lock);
    comm_job *job = channel->starting;
    bool waits = job && job->exclusive && job != channel->head;
    pthread_mutex_unlock(&comm.lock);
    if (!job || waits) return false;
    if (!unit->scratch) open_units(channel);
    if (job->kind == COMM_CHECK) open_check(channel, job);
    unit->job = job;
    comm_unit_begin(unit);
    if (++job->next_unit == job->n_units) {
        pthread_mutex_lock(&comm.lock);
        channel->starting = job->next;
        pthread_mutex_unlock(&comm.lock);
    }
    return true;
}

/* A message of another length than awaited: the ranks are not in the same collective. */
static void check_message(const comm_unit *unit, int request, const MPI_Status *message, bool has_error) {
    char text[128];
    int bytes = 0, class = MPI_SUCCESS;
    if (has_error && message->MPI_ERROR != MPI_SUCCESS && message->MPI_ERROR != MPI_ERR_PENDING) {
        comm_check(MPI_Error_class(message->MPI_ERROR, &class), "MPI_Error_class");
        if (class != MPI_ERR_TRUNCATE) comm_check(message->MPI_ERROR, comm_kind_name(unit->job->kind));
    }
    if (unit->expected_bytes[request] < 0) return;
    comm_check(MPI_Get_count(message, MPI_BYTE, &bytes), "MPI_Get_count");
    if (bytes == unit->expected_bytes[request] && class == MPI_SUCCESS) return;
    comm_die(
        1,
        "%s sent %s bytes than the %d that were awaited in %s #%llu: the ranks have taken different paths or "
        "sizes",
        comm_rank_text(unit->peers[request], text), class == MPI_SUCCESS ? "fewer" : "more",
        unit->expected_bytes[request], comm_kind_name(unit->job->kind),
        (unsigned long long)unit->job->sequence);
}

/*
 * The n messages that came through last end a round: as far as a caller stood waiting since the ones before,
 * it waited for their ranks. Only collectives of many numbers count, whose messages come straight from the
 * rank that made them.
 */
static void note_late(const comm_unit *unit, int n, int64_t now_ns) {
    const comm_job *job = unit->job;
    if (job->kind != COMM_ALL_REDUCE && job->kind != COMM_REDUCE_SCATTER &&
        job->kind != COMM_ALL_GATHER_PIECES)
        return;
    pthread_mutex_lock(&comm.lock);
    int64_t since = unit->moved_ns > late_until_ns ? unit->moved_ns : late_until_ns;
    if (job->awaited_ns > since) since = job->awaited_ns;
    for (int i = 0; i < n && job->awaited && since < now_ns; i++)
        if (unit->expected_bytes[finished_requests[i]] >= 0)
            comm.late_ns[unit->peers[finished_requests[i]]] += (now_ns - since) / n;
    if (job->awaited) late_until_ns = now_ns;
    pthread_mutex_unlock(&comm.lock);
}

/* Tests the unit's messages and posts its next round when all are through. True when anything moved. */
static bool move_unit(comm_channel *channel, comm_unit *unit) {
    bool moved = false;
    if (unit->n_open) {
        int n = 0;
        int code = MPI_Testsome(unit->n_requests, unit->requests, &n, finished_requests, finished_statuses);
        if (code != MPI_ERR_IN_STATUS) comm_check(code, comm_kind_name(unit->job->kind));
        for (int i = 0; i < n; i++)
            check_message(unit, finished_requests[i], &finished_statuses[i], code == MPI_ERR_IN_STATUS);
        unit->n_open -= n;
        moved = n > 0;
        int64_t now = moved ? sago_now_ns() : 0;
        if (moved && unit->n_open == 0) note_late(unit, n, now);
        if (moved) unit->moved_ns = now;
    }
    while (unit->n_open == 0) {
        moved = true;
        unit->moved_ns = sago_now_ns();
        if (comm_unit_advance(unit)) continue;
        comm_job *job = unit->job;
        unit->job = NULL;
        channel->moved_ns = sago_now_ns();
        if (++job->finished_units == job->n_units && (job->kind != COMM_CHECK || comm_check_passes(job)))
            complete(job, SAGO_OK);
        break;
    }
    return moved;
}

void comm_engine_begin(int c) {
    comm_channel *channel = &comm.channels[c];
    for (int u = 0; u < UNITS_IN_FLIGHT; u++) {
        comm_unit *unit = &channel->units[u];
        if (!unit->job && start_unit(channel, unit)) (void)comm_unit_advance(unit);
    }
}

bool comm_engine_poll(void) {
    bool moved = false;
    for (int c = 0; c < SAGO_MESH_CHANNELS; c++) {
        comm_channel *channel = &comm.channels[c];
        for (int u = 0; u < UNITS_IN_FLIGHT; u++) {
            comm_unit *unit = &channel->units[u];
            if (!unit->job && !start_unit(channel, unit)) continue;
            if (move_unit(channel, unit)) moved = true;
        }
    }
    return moved;
}

bool comm_engine_busy(void) {
    bool busy = false;
    pthread_mutex_lock(&comm.lock);
    for (int c = 0; c < SAGO_MESH_CHANNELS; c++) busy |= comm.channels[c].head != NULL;
    pthread_mutex_unlock(&comm.lock);
    return busy;
}

/* Receives write into callers' memory, which they free once the job is complete: so they are cancelled or
 * seen through first. Sends only read it, and only if the other rank still takes them, which one that has
 * left does not. */
static bool cancel_receives(comm_unit *unit, bool first) {
    bool open = false;
    for (int i = 0; i < unit->n_requests; i++) {
        if (unit->expected_bytes[i] < 0 || unit->requests[i] == MPI_REQUEST_NULL) continue;
        int through = 0;
        if (first) comm_check(MPI_Cancel(&unit->requests[i]), "MPI_Cancel");
        comm_check(MPI_Test(&unit->requests[i], &through, MPI_STATUS_IGNORE), "MPI_Test");
        open |= !through;
    }
    return open;
}

void comm_fail_jobs(const sago_error *failure) {
    pthread_mutex_lock(&comm.lock);
    if (comm.failure.status == SAGO_OK) comm.failure = *failure;
    pthread_mutex_unlock(&comm.lock);
    comm_flight_dump_once(failure->message);
    bool open = true;
    for (int attempt = 0; open && attempt < 2000; attempt++) {
        open = false;
        for (int c = 0; c < SAGO_MESH_CHANNELS; c++)
            for (int u = 0; u < UNITS_IN_FLIGHT; u++)
                if (comm.channels[c].units[u].job)
                    open |= cancel_receives(&comm.channels[c].units[u], attempt == 0);
        if (open) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    for (int c = 0; c < SAGO_MESH_CHANNELS; c++) {
        comm_channel *channel = &comm.channels[c];
        for (int u = 0; u < UNITS_IN_FLIGHT; u++) channel->units[u].job = NULL;
        while (channel->head) complete(channel->head, SAGO_E_COMM);
    }
}
