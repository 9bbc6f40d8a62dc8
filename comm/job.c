// SPDX-License-Identifier: Apache-2.0
/*
 * The life of one collective on the caller's thread: taken from those kept for reuse, handed to the
 * communication thread's queue with what checks it, waited for, given back.
 */
#include "comm_internal.h"
#include "log.h"
#include "str.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { SPIN_NS = 50000, DRIVE_NS = 200000 };

/* Jobs are kept for reuse, so that a step allocates nothing. */
comm_job *comm_job_new(const sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind) {
    pthread_mutex_lock(&comm.lock);
    comm_job *job = comm.free_jobs;
    if (job) comm.free_jobs = job->next;
    pthread_mutex_unlock(&comm.lock);
    if (!job) {
        job = sago_alloc(sizeof *job);
        job->first = sago_alloc((size_t)(comm.size + 1) * sizeof *job->first);
    }
    *job = (comm_job){.kind = kind,
                      .axis = axis,
                      .group = comm_group_of(mesh->rank, axis, mesh->size, mesh->axis_size[SAGO_MODEL_AXIS]),
                      .channel = mesh->state->channel,
                      .first = job->first};
    return job;
}

static void keep_for_reuse(comm_job *job) {
    if (!job) return;
    job->next = comm.free_jobs;
    comm.free_jobs = job;
}

void comm_job_give_back(comm_job *job) {
    pthread_mutex_lock(&comm.lock);
    keep_for_reuse(job);
    pthread_mutex_unlock(&comm.lock);
}

/* A gate or a seal for a collective: what this rank says of it, to all ranks that call the same ones. */
comm_job *comm_check_new(const sago_mesh *mesh, const comm_job *job, bool is_seal) {
    bool within = mesh->state->check_within_axis;
    comm_job *check = comm_job_new(mesh, within ? job->axis : SAGO_WORLD_AXIS, COMM_CHECK);
    comm_check_describe(check, job);
    check->within_axis = within;
    check->exclusive = true;
    check->is_seal = is_seal;
    check->subject = job;
    check->model = mesh->axis_size[SAGO_MODEL_AXIS];
    check->input = (const char *)&check->record;
    check->count = sizeof check->record;
    return check;
}

void comm_job_begin(sago_mesh *mesh, comm_job *job) {
    if (job->channel < 0) {
        job->complete = true;
        return;
    }
    if (mesh->state->check) {
        job->exclusive = true;
        job->gate = comm_check_new(mesh, job, false);
        if (comm_has_equal_result(job->kind)) job->seal = comm_check_new(mesh, job, true);
        comm_submit(job->gate);
    }
    comm_submit(job);
    if (job->seal) comm_submit(job->seal);
    /* First messages leave from here, before the communication thread is awake. */
    if (pthread_mutex_trylock(&comm.mpi) != 0) return;
    comm_engine_begin(job->channel);
    pthread_mutex_unlock(&comm.mpi);
}

void comm_wake(void) {
    pthread_mutex_lock(&comm.lock);
    pthread_cond_signal(&comm.work);
    pthread_mutex_unlock(&comm.lock);
}

static bool is_over(const comm_job *job) {
    return job->complete && (!job->gate || job->gate->complete) && (!job->seal || job->seal->complete);
}

/*
 * A caller that waits moves its job itself for as long as something moves: to wake the communication thread
 * and to be woken by it costs as much as the sum of a hundred kilobytes. Once nothing has moved for a while
 * the peer is late, and the communication thread, which sleeps between its looks, takes over.
 */
static void drive(const comm_job *job) {
    int64_t moved_ns = sago_now_ns();
    bool over = false;
    pthread_mutex_lock(&comm.lock);
    comm.n_driving++;
    pthread_mutex_unlock(&comm.lock);
    while (!over && sago_now_ns() - moved_ns < DRIVE_NS) {
        pthread_mutex_lock(&comm.mpi);
        bool moved = comm_engine_poll();
        pthread_mutex_unlock(&comm.mpi);
        int64_t now_ns = sago_now_ns();
        if (moved)
            moved_ns = now_ns;
        else if (now_ns - moved_ns > SPIN_NS)
            sched_yield();
        pthread_mutex_lock(&comm.lock);
        over = is_over(job);
        pthread_mutex_unlock(&comm.lock);
    }
    pthread_mutex_lock(&comm.lock);
    comm.n_driving--;
    comm.driven_ns = sago_now_ns();
    if (!over) pthread_cond_signal(&comm.work);
    pthread_mutex_unlock(&comm.lock);
}

/* Waits for a job, gives it back, and makes its failure the caller's. */
sago_status comm_job_end(sago_mesh *mesh, comm_job *job) {
    sago_status status;
    sago_error failure = {.status = SAGO_OK};
    pthread_mutex_lock(&comm.lock);
    if (!is_over(job)) {
        int64_t since = sago_now_ns();
        job->awaited = true;
        job->awaited_ns = since;
        if (job->gate) job->gate->awaited = true;
        if (job->seal) job->seal->awaited = true;
        comm.n_waiting++;
        pthread_mutex_unlock(&comm.lock);
        if (mesh->state->background)
            comm_wake();
        else
            drive(job);
        pthread_mutex_lock(&comm.lock);
        while (!is_over(job)) pthread_cond_wait(&comm.done, &comm.lock);
        comm.n_waiting--;
        if (!mesh->state->background) comm.exposed_ns += sago_now_ns() - since;
    }
    status = job->status;
    if (job->gate && job->gate->status != SAGO_OK) status = job->gate->status;
    if (job->seal && job->seal->status != SAGO_OK) status = job->seal->status;
    if (status != SAGO_OK) failure = comm.failure;
    keep_for_reuse(job->gate);
    keep_for_reuse(job->seal);
    keep_for_reuse(job);
    pthread_mutex_unlock(&comm.lock);
    return status == SAGO_OK ? SAGO_OK : sago_error_give(&failure);
}

sago_status comm_job_run(sago_mesh *mesh, comm_job *job) {
    comm_job_begin(mesh, job);
    return comm_job_end(mesh, job);
}

sago_status comm_exchange(sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind, const void *block,
                          size_t bytes, void *out) {
    if (mesh->axis_size[axis] == 1 && bytes) memmove(out, block, bytes);
    comm_job *job = comm_job_new(mesh, axis, kind);
    job->input = block;
    job->output = out;
    job->count = (int64_t)bytes;
    return comm_job_run(mesh, job);
}
