// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"
#include "log.h"
#include "ops.h"
#include "str.h"
#include "transport.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPIN_NS = 50000, DRIVE_NS = 200000 };

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

/* Jobs are kept for reuse, so that a step allocates nothing. */
static comm_job *new_job(const sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind) {
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

static void give_back(comm_job *job) {
    pthread_mutex_lock(&comm.lock);
    keep_for_reuse(job);
    pthread_mutex_unlock(&comm.lock);
}

/* A gate or a seal for a collective: what this rank says of it, to all ranks. */
static comm_job *new_check(const sago_mesh *mesh, const comm_job *job, bool is_seal) {
    comm_job *check = new_job(mesh, SAGO_WORLD_AXIS, COMM_CHECK);
    comm_check_describe(check, job);
    check->exclusive = true;
    check->is_seal = is_seal;
    check->subject = job;
    check->model = mesh->axis_size[SAGO_MODEL_AXIS];
    check->input = (const char *)&check->record;
    check->count = sizeof check->record;
    return check;
}

static void begin(sago_mesh *mesh, comm_job *job) {
    if (job->channel < 0) {
        job->complete = true;
        return;
    }
    if (mesh->state->check) {
        job->exclusive = true;
        job->gate = new_check(mesh, job, false);
        if (comm_has_equal_result(job->kind)) job->seal = new_check(mesh, job, true);
        comm_submit(job->gate);
    }
    comm_submit(job);
    if (job->seal) comm_submit(job->seal);
    /* First messages leave from here, before the communication thread is awake. */
    if (pthread_mutex_trylock(&comm.mpi) != 0) return;
    comm_engine_begin(job->channel);
    pthread_mutex_unlock(&comm.mpi);
}

static void wake_thread(void) {
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
static sago_status end(sago_mesh *mesh, comm_job *job) {
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
            wake_thread();
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

static sago_status run(sago_mesh *mesh, comm_job *job) {
    begin(mesh, job);
    return end(mesh, job);
}

static sago_status exchange(sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind, const void *block,
                            size_t bytes, void *out) {
    if (mesh->axis_size[axis] == 1 && bytes) memmove(out, block, bytes);
    comm_job *job = new_job(mesh, axis, kind);
    job->input = block;
    job->output = out;
    job->count = (int64_t)bytes;
    return run(mesh, job);
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
    return new_view(mesh, out);
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
    sago_status result = exchange(mesh, SAGO_WORLD_AXIS, COMM_AGREE, &status, sizeof status, all);
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

static sago_status start_sum(sago_mesh *mesh, sago_mesh_axis axis, comm_dtype dtype, void *values,
                             int64_t count, comm_job **out) {
    *out = NULL;
    if (count < 0) return sago_fail(SAGO_E_INTERNAL, "a sum of %lld elements", (long long)count);
    int64_t bytes = count * (int64_t)comm_dtype_bytes(dtype) * mesh->axis_size[axis];
    comm_job *job = new_job(mesh, axis, bytes <= SMALL_SUM_BYTES ? COMM_SMALL_SUM : COMM_ALL_REDUCE);
    job->dtype = dtype;
    job->buffer = values;
    job->count = count;
    begin(mesh, job);
    wake_thread();
    *out = job;
    return SAGO_OK;
}

/* What NCCL does is no job of a channel, but has a number there, and a gate where collectives are checked. */
static sago_status enter_on_device(sago_mesh *mesh, const comm_request *request, comm_job *job) {
    job->kind = request->kind == COMM_ALL_GATHER ? COMM_ALL_GATHER_PIECES : request->kind;
    job->dtype = COMM_F32;
    job->count = 0;
    for (int m = 0; m < request->n_pieces; m++) {
        job->first[m] = job->count;
        job->first[m + 1] = job->count += request->sizes[m];
    }
    if (mesh->state->check) {
        comm_job *gate = new_check(mesh, job, false);
        comm_submit(gate);
        SAGO_TRY(end(mesh, gate));
    }
    comm_enter(job);
    return SAGO_OK;
}

/* Hands a collective to the transport, where device memory has one of its own. */
static sago_status start_on_device(sago_mesh *mesh, const comm_request *request, sago_collective **out) {
    struct sago_mesh_state *state = mesh->state;
    comm_job *job = new_job(mesh, request->axis, COMM_NONE);
    sago_status status = state->transport == &comm_nccl ? enter_on_device(mesh, request, job) : SAGO_OK;
    if (status == SAGO_OK)
        status = state->transport->start(state->transport_state, request, &job->device_work);
    if (status == SAGO_OK)
        *out = job;
    else
        give_back(job);
    return status;
}

sago_status sago_all_reduce_start(sago_mesh *mesh, sago_mesh_axis axis, float *buffer, int64_t count,
                                  sago_collective **out) {
    if (mesh->state->transport && mesh->axis_size[axis] > 1 && count > 0) {
        comm_request request = {.kind = COMM_ALL_REDUCE,
                                .axis = axis,
                                .in = buffer,
                                .out = buffer,
                                .n_pieces = 1,
                                .sizes = &count};
        return start_on_device(mesh, &request, out);
    }
    return start_sum(mesh, axis, COMM_F32, buffer, count, out);
}

/* The one piece of an axis of one rank, in the order of the device's work where it is a device's. */
static sago_status copy_alone(const sago_mesh *mesh, void *to, const void *from, int64_t bytes) {
    sago_device *device = mesh->state->device;
    if (bytes == 0 || to == from) return SAGO_OK;
    if (!device) {
        memmove(to, from, (size_t)bytes);
        return SAGO_OK;
    }
    bool words = (((uintptr_t)to | (uintptr_t)from | (uintptr_t)bytes) & 3) == 0;
    int64_t element = words ? 4 : 2;
    if (bytes % element != 0)
        return sago_fail(SAGO_E_INTERNAL, "all_gather of an odd number of a device's bytes");
    sago_dtype dtype = words ? SAGO_F32 : SAGO_BF16;
    return device->ops->copy(device, sago_tensor_1d(to, dtype, bytes / element),
                             sago_tensor_1d((void *)from, dtype, bytes / element));
}

/* What reduce-scatter and all-gather have in common. The sizes are copied: they need not outlive the start.
 */
static sago_status start_pieces(sago_mesh *mesh, const comm_request *request, sago_collective **out) {
    int n = request->n_pieces;
    bool gathers = request->kind == COMM_ALL_GATHER, even = true;
    int64_t element = gathers ? 1 : (int64_t)sizeof(float), total = 0;
    *out = NULL;
    for (int m = 0; m < n; m++) {
        if (request->sizes[m] < 0)
            return sago_fail(SAGO_E_INTERNAL, "%s: piece %d has %lld elements", comm_kind_name(request->kind),
                             m, (long long)request->sizes[m]);
        total += request->sizes[m];
        even &= request->sizes[m] == request->sizes[0];
    }
    if (mesh->state->transport && n > 1 && total > 0) return start_on_device(mesh, request, out);
    if (n == 1) SAGO_TRY(copy_alone(mesh, request->out, request->in, total * element));
    comm_kind kind = !gathers                           ? COMM_REDUCE_SCATTER
                     : even && total <= SMALL_SUM_BYTES ? COMM_ALL_GATHER
                                                        : COMM_ALL_GATHER_PIECES;
    comm_job *job = new_job(mesh, request->axis, kind);
    job->dtype = COMM_F32;
    job->input = request->in;
    job->output = request->out;
    job->count = kind == COMM_ALL_GATHER ? request->sizes[0] : total;
    job->first[0] = 0;
    for (int m = 0; m < n; m++) job->first[m + 1] = job->first[m] + request->sizes[m];
    begin(mesh, job);
    wake_thread();
    *out = job;
    return SAGO_OK;
}

sago_status sago_reduce_scatter_start(sago_mesh *mesh, sago_mesh_axis axis, const float *in, float *out,
                                      const int64_t counts[], sago_collective **collective) {
    comm_request request = {COMM_REDUCE_SCATTER, axis, in, out, mesh->axis_size[axis], counts};
    return start_pieces(mesh, &request, collective);
}

sago_status sago_all_gather_start(sago_mesh *mesh, sago_mesh_axis axis, const void *in, void *out,
                                  const size_t bytes[], sago_collective **collective) {
    comm_request request = {COMM_ALL_GATHER, axis, in, out, mesh->axis_size[axis], (const int64_t *)bytes};
    return start_pieces(mesh, &request, collective);
}

sago_status sago_collective_wait(sago_mesh *mesh, sago_collective *collective) {
    struct sago_mesh_state *state = mesh->state;
    if (!collective) return SAGO_OK;
    if (!collective->device_work) return end(mesh, collective);
    void *work = collective->device_work;
    comm_flight_awaited(collective->recorded);
    give_back(collective);
    return state->transport->wait(state->transport_state, work);
}

sago_status sago_all_reduce_f64(sago_mesh *mesh, sago_mesh_axis axis, double *values, int64_t count) {
    comm_job *job;
    SAGO_TRY(start_sum(mesh, axis, COMM_F64, values, count, &job));
    return end(mesh, job);
}

sago_status sago_all_reduce_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t *values, int64_t count) {
    comm_job *job;
    SAGO_TRY(start_sum(mesh, axis, COMM_I64, values, count, &job));
    return end(mesh, job);
}

sago_status sago_broadcast(sago_mesh *mesh, sago_mesh_axis axis, void *bytes, size_t size, int root) {
    if (root < 0 || root >= mesh->axis_size[axis])
        return sago_fail(SAGO_E_INTERNAL, "broadcast from member %d of %d", root, mesh->axis_size[axis]);
    comm_job *job = new_job(mesh, axis, COMM_BROADCAST);
    job->buffer = bytes;
    job->count = (int64_t)size;
    job->root = root;
    return run(mesh, job);
}

sago_status sago_all_gather(sago_mesh *mesh, sago_mesh_axis axis, const void *block, size_t bytes,
                            void *out) {
    return exchange(mesh, axis, COMM_ALL_GATHER, block, bytes, out);
}

sago_status sago_all_gather_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t value, int64_t out[]) {
    return exchange(mesh, axis, COMM_ALL_GATHER, &value, sizeof value, out);
}

sago_status sago_gather_bytes(sago_mesh *mesh, sago_mesh_axis axis, const void *bytes, size_t size, int root,
                              char **out, size_t sizes[]) {
    int n = mesh->axis_size[axis];
    bool at_root = mesh->axis_rank[axis] == root;
    size_t total = 0, before = 0;
    *out = NULL;
    if (root < 0 || root >= n) return sago_fail(SAGO_E_INTERNAL, "gather to member %d of %d", root, n);
    int64_t *all = sago_alloc_zero((size_t)n, sizeof *all);
    sago_status status = sago_all_gather_i64(mesh, axis, (int64_t)size, all);
    if (status != SAGO_OK) goto done;
    for (int m = 0; m < n; m++) {
        if (m < root) before += (size_t)all[m];
        total += (size_t)all[m];
    }
    if (at_root) {
        /* One byte more, so that text may be ended by its caller and an empty gather is not NULL. */
        *out = malloc(total + 1);
        if (!*out)
            status = sago_fail(SAGO_E_MEMORY, "no memory to gather %zu bytes from %d ranks on one", total, n);
    }
    /* Root tells whether it has the memory, before anyone sends. */
    int32_t able = status;
    status = sago_broadcast(mesh, axis, &able, sizeof able, root);
    if (status == SAGO_OK && able != SAGO_OK)
        status = at_root
                     ? (sago_status)able
                     : sago_fail((sago_status)able, "rank %d has no memory to gather %zu bytes", root, total);
    if (status != SAGO_OK) goto done;
    comm_job *job = new_job(mesh, axis, COMM_GATHER);
    job->root = root;
    job->input = bytes;
    job->buffer = *out;
    job->sizes = all;
    job->count = (int64_t)size;
    if (at_root && size) memcpy(*out + before, bytes, size);
    status = run(mesh, job);
    if (status == SAGO_OK && at_root) {
        (*out)[total] = '\0';
        for (int m = 0; m < n; m++) sizes[m] = (size_t)all[m];
    }
done:
    free(all);
    if (status != SAGO_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

sago_status sago_barrier(sago_mesh *mesh, sago_mesh_axis axis) {
    char mine = 0;
    if (mesh->axis_size[axis] == 1) return SAGO_OK;
    comm_job *job = new_job(mesh, axis, COMM_BARRIER);
    job->input = &mine;
    job->count = 1;
    return run(mesh, job);
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
