// SPDX-License-Identifier: Apache-2.0
/*
 * Collectives on device memory by NCCL, where every rank has a GPU of its own. NCCL itself stands in
 * libsago_cuda.so (kernels/cuda_library.h); here is what the ranks have to agree on, and what becomes of a
 * sum whose peer is gone.
 *
 * NCCL knows no ranks' names and does not notice a peer that stands still. So the heartbeats judge, as for
 * MPI's sums: the communication thread ends NCCL's sums when a rank has failed, which frees the device's work
 * and with it the thread that waits for it. An error that NCCL finds itself is held back until the heartbeats
 * have had the time to say which rank is behind it.
 */
#include "comm_internal.h"
#include "cuda_library.h"
#include "log.h"
#include "rng.h"
#include "str.h"
#include "transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct nccl_state {
    const sago_cuda_entry *cuda;
    sago_nccl *groups[SAGO_N_AXES]; /* NULL: an axis of one rank; axes of the same ranks have one */
    bool aborted;                   /* under the lock below */
    struct nccl_state *next;
} nccl_state;

typedef struct nccl_work {
    sago_mesh_axis axis;
    uint64_t ticket;
} nccl_work;

/* What the communication thread watches: the states of all views of the mesh that have their sums on GPUs, the
 * trainer's and its model's. */
static pthread_mutex_t watched_lock = PTHREAD_MUTEX_INITIALIZER;
static nccl_state *watched;

/* An axis that has a group of its own, and not that of one before it. */
static bool owns_group(const nccl_state *s, int axis) {
    for (int a = 0; a < axis; a++)
        if (s->groups[a] == s->groups[axis]) return false;
    return s->groups[axis] != NULL;
}

/* --- choosing
 * ------------------------------------------------------------------------------------------------------ */

/* A number that two ranks share when they share a GPU; 0: this rank can't use NCCL, and the message says why.
 */
static int64_t gpu_of(const sago_device *device) {
    const sago_cuda_entry *cuda;
    char runtime[32], driver[32], cublaslt[32], nccl[32], address[SAGO_GPU_ADDRESS_BYTES] = "";
    if (strcmp(device->name, "cuda") != 0 || sago_cuda_library(&cuda) != SAGO_OK || !cuda->nccl_id) return 0;
    cuda->versions(runtime, driver, cublaslt, nccl);
    if (!nccl[0] || cuda->gpu_address((sago_device *)device, address) != SAGO_OK) return 0;
    uint64_t gpu = sago_mix(comm.identities[comm.rank].node, sago_hash_bytes(address, strlen(address)));
    return gpu ? (int64_t)gpu : 1;
}

sago_status comm_transport_choose(sago_mesh *mesh, sago_device *device, const comm_transport **out) {
    int64_t *gpus = sago_alloc_zero((size_t)mesh->size, sizeof *gpus);
    char why[96] = "";
    sago_status status = sago_all_gather_i64(mesh, SAGO_WORLD_AXIS, gpu_of(device), gpus);
    for (int r = 0; status == SAGO_OK && r < mesh->size && !why[0]; r++) {
        if (gpus[r] == 0) snprintf(why, sizeof why, "rank %d has no NCCL", r);
        for (int q = 0; q < r && !why[0]; q++)
            if (gpus[q] == gpus[r]) snprintf(why, sizeof why, "ranks %d and %d share a GPU", q, r);
    }
    free(gpus);
    *out = why[0] ? &comm_staged : &comm_nccl;
    if (status == SAGO_OK && strcmp(device->name, "cuda") == 0)
        sago_info(why[0] ? "gradients are summed by MPI through host memory: %s"
                         : "gradients are summed by NCCL%s",
                  why);
    return status;
}

/* --- what becomes of failures
 * -------------------------------------------------------------------------------------- */

bool comm_nccl_is_open(void) {
    pthread_mutex_lock(&watched_lock);
    bool open = watched != NULL;
    pthread_mutex_unlock(&watched_lock);
    return open;
}

void comm_nccl_abort(void) {
    pthread_mutex_lock(&watched_lock);
    for (nccl_state *s = watched; s; s = s->next) {
        for (int a = 0; a < SAGO_N_AXES; a++)
            if (!s->aborted && owns_group(s, a)) s->cuda->nccl_abort(s->groups[a]);
        s->aborted = true;
    }
    pthread_mutex_unlock(&watched_lock);
}

sago_status comm_nccl_poll(void) {
    sago_status status = SAGO_OK;
    pthread_mutex_lock(&watched_lock);
    for (nccl_state *s = watched; s; s = s->next)
        for (int a = 0; a < SAGO_N_AXES && status == SAGO_OK && !s->aborted; a++)
            if (owns_group(s, a)) status = s->cuda->nccl_poll(s->groups[a]);
    pthread_mutex_unlock(&watched_lock);
    return status;
}

static sago_status known_failure(void) {
    pthread_mutex_lock(&comm.lock);
    sago_error failure = comm.failure;
    pthread_mutex_unlock(&comm.lock);
    return failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&failure);
}

/* NCCL says that something is wrong; the heartbeats say who, or end this process, within the timeout. What the
 * GPU itself reports is this rank's own trouble. */
static sago_status explain(sago_status status) {
    sago_error found;
    if (status != SAGO_E_COMM) return status;
    sago_error_take(status, &found);
    pthread_mutex_lock(&comm.lock);
    int64_t until = sago_now_ns() + (int64_t)((comm.timeout_seconds + 5) * 1e9);
    pthread_mutex_unlock(&comm.lock);
    while (sago_now_ns() < until) {
        SAGO_TRY(known_failure());
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return sago_error_give(&found);
}

/* --- the transport
 * ------------------------------------------------------------------------------------------------- */

static void nccl_close(void *state) {
    nccl_state *s = state;
    pthread_mutex_lock(&watched_lock);
    for (nccl_state **at = &watched; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_mutex_unlock(&watched_lock);
    for (int a = SAGO_N_AXES - 1; a >= 0; a--)
        if (owns_group(s, a)) s->cuda->nccl_close(s->groups[a]);
    free(s);
}

/* The first of the axis makes an id, all take it and meet. */
static sago_status connect(nccl_state *s, sago_mesh *mesh, sago_device *device, sago_mesh_axis axis) {
    char id[SAGO_NCCL_ID_BYTES] = {0};
    pthread_mutex_lock(&comm.lock);
    double timeout_seconds = comm.timeout_seconds;
    pthread_mutex_unlock(&comm.lock);
    SAGO_TRY(sago_agree(mesh, mesh->axis_rank[axis] == 0 ? s->cuda->nccl_id(id) : SAGO_OK));
    SAGO_TRY(sago_broadcast(mesh, axis, id, sizeof id, 0));
    return sago_agree(mesh, s->cuda->nccl_open(device, id, mesh->axis_rank[axis], mesh->axis_size[axis],
                                               timeout_seconds, &s->groups[axis]));
}

static sago_status nccl_open(sago_mesh *mesh, sago_device *device, void **state) {
    nccl_state *s = sago_alloc_zero(1, sizeof *s);
    sago_status status = sago_cuda_library(&s->cuda);
    for (int a = 0; a < SAGO_N_AXES && status == SAGO_OK; a++) {
        for (int b = 0; b < a && !s->groups[a]; b++)
            if (a == SAGO_WORLD_AXIS && mesh->axis_size[b] == mesh->size) s->groups[a] = s->groups[b];
        if (mesh->axis_size[a] > 1 && !s->groups[a]) status = connect(s, mesh, device, (sago_mesh_axis)a);
    }
    if (status != SAGO_OK) {
        nccl_close(s);
        return status;
    }
    pthread_mutex_lock(&watched_lock);
    s->next = watched;
    watched = s;
    pthread_mutex_unlock(&watched_lock);
    *state = s;
    return SAGO_OK;
}

static sago_status call(nccl_state *s, const comm_request *r, uint64_t *ticket) {
    sago_nccl *group = s->groups[r->axis];
    switch (r->kind) {
    case COMM_REDUCE_SCATTER:
        return s->cuda->nccl_reduce_scatter(group, r->in, r->out, r->sizes, ticket);
    case COMM_ALL_GATHER:
        return s->cuda->nccl_all_gather(group, r->in, r->out, r->sizes, ticket);
    default:
        return s->cuda->nccl_sum(group, r->out, r->sizes[0], r->dtype == COMM_F64, ticket);
    }
}

static sago_status nccl_start(void *state, const comm_request *request, void **out) {
    nccl_state *s = state;
    uint64_t ticket;
    SAGO_TRY(known_failure());
    SAGO_TRY(explain(call(s, request, &ticket)));
    nccl_work *work = sago_alloc(sizeof *work);
    *work = (nccl_work){request->axis, ticket};
    *out = work;
    return SAGO_OK;
}

static sago_status nccl_wait(void *state, void *handle) {
    nccl_state *s = state;
    nccl_work work = *(nccl_work *)handle;
    free(handle);
    SAGO_TRY(known_failure());
    return explain(s->cuda->nccl_join(s->groups[work.axis], work.ticket));
}

static double nccl_exposed_seconds(void *state) {
    nccl_state *s = state;
    double seconds = 0;
    for (int a = 0; a < SAGO_N_AXES; a++)
        if (owns_group(s, a)) seconds += s->cuda->nccl_exposed_seconds(s->groups[a]);
    return seconds;
}

const comm_transport comm_nccl = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .start = nccl_start,
    .wait = nccl_wait,
    .exposed_seconds = nccl_exposed_seconds,
};
