// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"
#include "log.h"
#include "ops.h"
#include "str.h"
#include "transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

comm_group comm_group_of(int rank, sago_mesh_axis axis, int ranks, int model) {
    switch (axis) {
    case SAGO_DATA_AXIS:
        return (comm_group){
            .first = rank % model, .stride = model, .size = ranks / model, .me = rank / model};
    case SAGO_MODEL_AXIS:
        return (comm_group){.first = rank / model * model, .stride = 1, .size = model, .me = rank % model};
    default:
        return (comm_group){.first = 0, .stride = 1, .size = ranks, .me = rank};
    }
}

/* Every view of the mesh takes a channel, so that all ranks number their collectives alike. */
static sago_status new_view(const sago_mesh *like, sago_mesh **out) {
    sago_mesh *mesh = sago_alloc_zero(1, sizeof *mesh);
    bool check = like->state && like->state->check;
    *mesh = *like;
    mesh->state = sago_alloc_zero(1, sizeof *mesh->state); /* a view has no transport of its own */
    mesh->state->channel = -1;
    mesh->state->check = check;
    if (mesh->size > 1) {
        pthread_mutex_lock(&comm.lock);
        for (int c = 0; c < SAGO_MESH_CHANNELS && mesh->state->channel < 0; c++) {
            if (comm.channels[c].used) continue;
            comm.channels[c].used = true;
            mesh->state->channel = c;
        }
        pthread_mutex_unlock(&comm.lock);
        if (mesh->state->channel < 0) {
            free(mesh->state);
            free(mesh);
            return sago_fail(SAGO_E_INTERNAL, "more than %d meshes or channels are open", SAGO_MESH_CHANNELS);
        }
    }
    *out = mesh;
    return SAGO_OK;
}

static sago_status shared_failure(sago_status status) {
    comm_share_message(sago_message());
    return status;
}

int comm_split_model_axis(const comm_identity identities[], int ranks, int model) {
    for (int r = 0; r < ranks; r++)
        if (identities[r].node != identities[r / model * model].node) return r / model * model;
    return -1;
}

/* Works, but not well: a model axis exchanges activations in every layer, a data axis once a step. */
static void warn_of_split_axis(const sago_mesh *mesh) {
    int model = mesh->axis_size[SAGO_MODEL_AXIS];
    int first = comm.identities ? comm_split_model_axis(comm.identities, mesh->size, model) : -1,
        other = first;
    if (first < 0 || mesh->rank != 0) return;
    while (comm.identities[other].node == comm.identities[first].node) other++;
    sago_warn(
        "mesh.model=%d: ranks %d to %d lie on several nodes (%s, %s), so that every layer waits for the "
        "network between them: start the ranks of a node one after another (mpirun --map-by slot or "
        "ppr:N:node), and let mesh.model divide their number",
        model, first, first + model - 1, comm.identities[first].host, comm.identities[other].host);
}

sago_status sago_mesh_open(int64_t data, int64_t model, double timeout_seconds, sago_mesh **out) {
    *out = NULL;
    if (sago_mesh_launched() && !comm.started)
        return sago_fail(SAGO_E_INTERNAL, "sago_mesh_open before sago_mesh_start");
    int64_t ranks = comm.size;
    if (model <= 0) model = 1;
    if (data <= 0) data = ranks / model;
    if (data < 1 || data > ranks || model > ranks || data * model != ranks) {
        int64_t wanted = data < 1 ? model : data * model;
        return shared_failure(
            sago_fail(SAGO_E_COMM,
                      "mesh.data=%lld x mesh.model=%lld needs %lld rank%s, but this run has %lld: start "
                      "it with mpirun -n %lld, or set mesh.data=0 for as many as there are",
                      (long long)data, (long long)model, (long long)wanted, wanted == 1 ? "" : "s",
                      (long long)ranks, (long long)wanted));
    }
    sago_mesh like = {.rank = comm.rank,
                      .size = comm.size,
                      .axis_rank = {(int)(comm.rank / model), (int)(comm.rank % model), comm.rank},
                      .axis_size = {(int)data, (int)model, comm.size},
                      .local_rank = comm.local_rank,
                      .local_size = comm.local_size};
    SAGO_TRY(new_view(&like, out));
    warn_of_split_axis(*out);
    if (timeout_seconds > 0) {
        pthread_mutex_lock(&comm.lock);
        comm.timeout_seconds = timeout_seconds;
        pthread_mutex_unlock(&comm.lock);
    }
    return SAGO_OK;
}

sago_status sago_mesh_channel(const sago_mesh *mesh, sago_mesh **out) {
    SAGO_TRY(new_view(mesh, out));
    (*out)->state->background = true;
    return SAGO_OK;
}

sago_status sago_mesh_second_order(const sago_mesh *mesh, sago_mesh **out) {
    SAGO_TRY(new_view(mesh, out));
    (*out)->state->check_within_axis = true;
    return SAGO_OK;
}

static void close_transport(sago_mesh *mesh) {
    if (mesh->state->transport) mesh->state->transport->close(mesh->state->transport_state);
    mesh->state->transport = NULL;
    mesh->state->transport_state = NULL;
    mesh->state->device = NULL;
}

sago_status sago_mesh_use_device(sago_mesh *mesh, struct sago_device *device) {
    close_transport(mesh);
    if (!device || !device->asynchronous) return SAGO_OK;
    mesh->state->device = device;
    if (mesh->size == 1) return SAGO_OK;
    const comm_transport *transport;
    SAGO_TRY(comm_transport_choose(mesh, device, &transport));
    sago_status opened = transport->open(mesh, device, &mesh->state->transport_state);
    if (opened == SAGO_OK) mesh->state->transport = transport;
    sago_status status = sago_agree(mesh, opened);
    if (status != SAGO_OK) close_transport(mesh);
    return status;
}

const char *sago_mesh_transport(const sago_mesh *mesh) {
    return mesh->state->transport ? mesh->state->transport->name : "mpi";
}

void sago_mesh_check(sago_mesh *mesh, bool on) {
    mesh->state->check = on;
}

void sago_mesh_close(sago_mesh *mesh) {
    if (!mesh) return;
    close_transport(mesh);
    if (mesh->state->channel >= 0) {
        pthread_mutex_lock(&comm.lock);
        comm.channels[mesh->state->channel].used = false;
        pthread_mutex_unlock(&comm.lock);
    }
    free(mesh->state);
    free(mesh);
}

int sago_mesh_cores(const sago_mesh *mesh) {
    (void)mesh;
    cpu_set_t mine, all;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0 || CPU_COUNT(&mine) < 1) return 1;
    if (!comm.identities || comm.local_size == 1) return CPU_COUNT(&mine);
    bool shared = false;
    all = mine;
    for (int r = 0; r < comm.size; r++) {
        if (r == comm.rank || comm.identities[r].node != comm.identities[comm.rank].node) continue;
        for (int i = 0; i < (int)sizeof comm.identities[r].cores * 8 && i < CPU_SETSIZE; i++) {
            if (!(comm.identities[r].cores[i / 8] >> i % 8 & 1)) continue;
            shared |= CPU_ISSET(i, &mine);
            CPU_SET(i, &all);
        }
    }
    if (!shared) return CPU_COUNT(&mine);
    int share = CPU_COUNT(&all) / comm.local_size;
    return share > 0 ? share : 1;
}

sago_status sago_agree(sago_mesh *mesh, sago_status mine) {
    if (mesh->size == 1) return mine;
    sago_error own, theirs;
    sago_error_take(mine, &own);
    own.status = mine;
    int32_t status = (int32_t)mine;
    int32_t *all = sago_alloc_zero((size_t)mesh->size, sizeof *all);
    sago_status result = comm_exchange(mesh, SAGO_WORLD_AXIS, COMM_AGREE, &status, sizeof status, all);
    int failed = 0;
    if (result == SAGO_OK)
        while (failed < mesh->size && all[failed] == SAGO_OK) failed++;
    free(all);
    /* A broken mesh hides this rank's own failure no more than its own message does. */
    if (result != SAGO_OK) return mine == SAGO_OK ? result : sago_error_give(&own);
    if (failed == mesh->size) return SAGO_OK;
    memset(&theirs, 0, sizeof theirs);
    if (failed == mesh->rank) theirs = own;
    result = sago_broadcast(mesh, SAGO_WORLD_AXIS, &theirs, sizeof theirs, failed);
    if (result != SAGO_OK) return mine == SAGO_OK ? result : sago_error_give(&own);
    theirs.message[SAGO_ERROR_BYTES - 1] = '\0';
    return shared_failure(sago_fail(theirs.status, "rank %d: %s", failed, theirs.message));
}

void sago_mesh_abort(sago_mesh *mesh, int exit_code) {
    (void)mesh;
    if (comm.has_thread) {
        pthread_mutex_lock(&comm.lock);
        comm.abort_code = exit_code;
        pthread_cond_signal(&comm.work);
        pthread_mutex_unlock(&comm.lock);
        /* The thread that owns MPI ends the process; should it be unable to, this one does. */
        nanosleep(&(struct timespec){.tv_sec = 10}, NULL);
    }
    _exit(exit_code);
}

double sago_mesh_exposed_seconds(sago_mesh *mesh) {
    const struct sago_mesh_state *state = mesh->state;
    double of_sums = state->transport ? state->transport->exposed_seconds(state->transport_state) : 0;
    pthread_mutex_lock(&comm.lock);
    int64_t ns = comm.exposed_ns;
    comm.exposed_ns = 0;
    pthread_mutex_unlock(&comm.lock);
    return (double)ns * 1e-9 + of_sums;
}

void sago_mesh_late_seconds(sago_mesh *mesh, double seconds[]) {
    pthread_mutex_lock(&comm.lock);
    for (int r = 0; r < mesh->size; r++) {
        seconds[r] = comm.late_ns ? (double)comm.late_ns[r] * 1e-9 : 0;
        if (comm.late_ns) comm.late_ns[r] = 0;
    }
    pthread_mutex_unlock(&comm.lock);
}

const char *sago_mesh_host(int rank) {
    return comm.identities ? comm.identities[rank].host : "this host";
}

void sago_mesh_describe(const sago_mesh *mesh, char text[256]) {
    static const char *const levels[] = {"single", "funneled", "serialized", "multiple"};
    if (!comm.started) {
        snprintf(text, 256, "one process, no MPI launcher");
        return;
    }
    int level = comm.thread_level == MPI_THREAD_MULTIPLE     ? 3
                : comm.thread_level == MPI_THREAD_SERIALIZED ? 2
                : comm.thread_level == MPI_THREAD_FUNNELED   ? 1
                                                             : 0;
    snprintf(text, 256, "%s, %d rank%s on %d node%s, thread level %s", comm.library, mesh->size,
             mesh->size == 1 ? "" : "s", comm.n_nodes, comm.n_nodes == 1 ? "" : "s", levels[level]);
}
