// SPDX-License-Identifier: Apache-2.0
/*
 * The collectives of mesh.h: what each asks for, and where it goes, a queue of MPI's or the transport of a
 * device.
 */
#include "comm_internal.h"
#include "ops.h"
#include "str.h"
#include "transport.h"

#include <stdlib.h>
#include <string.h>

static sago_status start_sum(sago_mesh *mesh, sago_mesh_axis axis, comm_dtype dtype, void *values,
                             int64_t count, comm_job **out) {
    *out = NULL;
    if (count < 0) return sago_fail(SAGO_E_INTERNAL, "a sum of %lld elements", (long long)count);
    int64_t bytes = count * (int64_t)comm_dtype_bytes(dtype) * mesh->axis_size[axis];
    comm_job *job = comm_job_new(mesh, axis, bytes <= SMALL_SUM_BYTES ? COMM_SMALL_SUM : COMM_ALL_REDUCE);
    job->dtype = dtype;
    job->buffer = values;
    job->count = count;
    comm_job_begin(mesh, job);
    comm_wake();
    *out = job;
    return SAGO_OK;
}

/* What NCCL does is no job of a channel, but has a number there, and a gate where collectives are checked. */
static sago_status enter_on_device(sago_mesh *mesh, const comm_request *request, comm_job *job) {
    job->kind = request->kind == COMM_ALL_GATHER ? COMM_ALL_GATHER_PIECES : request->kind;
    job->dtype = request->dtype;
    job->count = 0;
    for (int m = 0; m < request->n_pieces; m++) {
        job->first[m] = job->count;
        job->first[m + 1] = job->count += request->sizes[m];
    }
    if (mesh->state->check) {
        comm_job *gate = comm_check_new(mesh, job, false);
        comm_submit(gate);
        SAGO_TRY(comm_job_end(mesh, gate));
    }
    comm_enter(job);
    return SAGO_OK;
}

/* Hands a collective to the transport, where device memory has one of its own. */
static sago_status start_on_device(sago_mesh *mesh, const comm_request *request, sago_collective **out) {
    struct sago_mesh_state *state = mesh->state;
    comm_job *job = comm_job_new(mesh, request->axis, COMM_NONE);
    sago_status status = state->transport == &comm_nccl ? enter_on_device(mesh, request, job) : SAGO_OK;
    if (status == SAGO_OK)
        status = state->transport->start(state->transport_state, request, &job->device_work);
    if (status == SAGO_OK)
        *out = job;
    else
        comm_job_give_back(job);
    return status;
}

static sago_status start_all_reduce(sago_mesh *mesh, sago_mesh_axis axis, comm_dtype dtype, void *buffer,
                                    int64_t count, sago_collective **out) {
    if (mesh->state->transport && mesh->axis_size[axis] > 1 && count > 0) {
        comm_request request = {.kind = COMM_ALL_REDUCE,
                                .dtype = dtype,
                                .axis = axis,
                                .in = buffer,
                                .out = buffer,
                                .n_pieces = 1,
                                .sizes = &count};
        return start_on_device(mesh, &request, out);
    }
    return start_sum(mesh, axis, dtype, buffer, count, out);
}

sago_status sago_all_reduce_start(sago_mesh *mesh, sago_mesh_axis axis, float *buffer, int64_t count,
                                  sago_collective **out) {
    return start_all_reduce(mesh, axis, COMM_F32, buffer, count, out);
}

sago_status sago_all_reduce_f64_start(sago_mesh *mesh, sago_mesh_axis axis, double *buffer, int64_t count,
                                      sago_collective **out) {
    return start_all_reduce(mesh, axis, COMM_F64, buffer, count, out);
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
    comm_job *job = comm_job_new(mesh, request->axis, kind);
    job->dtype = COMM_F32;
    job->input = request->in;
    job->output = request->out;
    job->count = kind == COMM_ALL_GATHER ? request->sizes[0] : total;
    job->first[0] = 0;
    for (int m = 0; m < n; m++) job->first[m + 1] = job->first[m] + request->sizes[m];
    comm_job_begin(mesh, job);
    comm_wake();
    *out = job;
    return SAGO_OK;
}

sago_status sago_reduce_scatter_start(sago_mesh *mesh, sago_mesh_axis axis, const float *in, float *out,
                                      const int64_t counts[], sago_collective **collective) {
    comm_request request = {COMM_REDUCE_SCATTER, COMM_F32, axis, in, out, mesh->axis_size[axis], counts};
    return start_pieces(mesh, &request, collective);
}

sago_status sago_all_gather_start(sago_mesh *mesh, sago_mesh_axis axis, const void *in, void *out,
                                  const size_t bytes[], sago_collective **collective) {
    comm_request request = {COMM_ALL_GATHER, COMM_F32, axis, in, out, mesh->axis_size[axis],
                            (const int64_t *)bytes};
    return start_pieces(mesh, &request, collective);
}

sago_status sago_collective_wait(sago_mesh *mesh, sago_collective *collective) {
    struct sago_mesh_state *state = mesh->state;
    if (!collective) return SAGO_OK;
    if (!collective->device_work) return comm_job_end(mesh, collective);
    void *work = collective->device_work;
    comm_flight_awaited(collective->recorded);
    comm_job_give_back(collective);
    return state->transport->wait(state->transport_state, work);
}

sago_status sago_all_reduce_f64(sago_mesh *mesh, sago_mesh_axis axis, double *values, int64_t count) {
    comm_job *job;
    SAGO_TRY(start_sum(mesh, axis, COMM_F64, values, count, &job));
    return comm_job_end(mesh, job);
}

sago_status sago_all_reduce_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t *values, int64_t count) {
    comm_job *job;
    SAGO_TRY(start_sum(mesh, axis, COMM_I64, values, count, &job));
    return comm_job_end(mesh, job);
}

sago_status sago_broadcast(sago_mesh *mesh, sago_mesh_axis axis, void *bytes, size_t size, int root) {
    if (root < 0 || root >= mesh->axis_size[axis])
        return sago_fail(SAGO_E_INTERNAL, "broadcast from member %d of %d", root, mesh->axis_size[axis]);
    comm_job *job = comm_job_new(mesh, axis, COMM_BROADCAST);
    job->buffer = bytes;
    job->count = (int64_t)size;
    job->root = root;
    return comm_job_run(mesh, job);
}

sago_status sago_all_gather(sago_mesh *mesh, sago_mesh_axis axis, const void *block, size_t bytes,
                            void *out) {
    return comm_exchange(mesh, axis, COMM_ALL_GATHER, block, bytes, out);
}

sago_status sago_all_gather_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t value, int64_t out[]) {
    return comm_exchange(mesh, axis, COMM_ALL_GATHER, &value, sizeof value, out);
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
    comm_job *job = comm_job_new(mesh, axis, COMM_GATHER);
    job->root = root;
    job->input = bytes;
    job->buffer = *out;
    job->sizes = all;
    job->count = (int64_t)size;
    if (at_root && size) memcpy(*out + before, bytes, size);
    status = comm_job_run(mesh, job);
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
    comm_job *job = comm_job_new(mesh, axis, COMM_BARRIER);
    job->input = &mine;
    job->count = 1;
    return comm_job_run(mesh, job);
}
