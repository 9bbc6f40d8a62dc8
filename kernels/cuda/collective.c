// SPDX-License-Identifier: Apache-2.0
/**
 * Collectives between GPUs by NCCL, on a stream of their own: one waits, on the device, for the work handed
 * over before it, and work waits for it only from the join on. The host waits nowhere.
 *
 * The communicator is non-blocking: a call that would wait for a peer comes back, and is asked for its
 * outcome until it has one or the time is over. So a peer that never comes is an error here, and not a
 * process that hangs.
 */
#include "collective.h"

#include "gpu.h"
#include "log.h"
#include "str.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SUMS = 256,        /* that may be joined one by one; an older one is joined by a newer one's event */
    LATE_LIMIT = 40,   /* timeouts that a rank may be late for a collective, as for MPI's; heartbeats judge */
    LEAVE_SECONDS = 5, /* for what is under way when a run ends */
};

static struct {
    pthread_mutex_t lock;
    void *library;
    ncclResult_t (*version)(int *);
    ncclResult_t (*unique_id)(ncclUniqueId *);
    ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
    ncclResult_t (*async_error)(ncclComm_t, ncclResult_t *);
    ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                               cudaStream_t);
    ncclResult_t (*reduce_scatter)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                                   cudaStream_t);
    ncclResult_t (*all_gather)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t);
    ncclResult_t (*reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, int, ncclComm_t,
                           cudaStream_t);
    ncclResult_t (*broadcast)(const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
    ncclResult_t (*group_start)(void);
    ncclResult_t (*group_end)(void);
    ncclResult_t (*abort)(ncclComm_t);
    ncclResult_t (*destroy)(ncclComm_t);
    ncclResult_t (*finalize)(ncclComm_t);
    const char *(*error)(ncclResult_t);
    const char *(*last_error)(ncclComm_t);
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct sago_nccl {
    sago_gpu *gpu;
    ncclComm_t communicator;
    int rank, size;
    double timeout_seconds;
    pthread_mutex_t lock; /* of the communicator: the thread that computes and the one that watches */
    bool aborted;
    sago_stream *stream;
    uint64_t newest;
    cudaEvent_t ready;           /* the compute stream has come to a sum */
    cudaEvent_t done[SUMS];      /* that sum is over; by ticket */
    cudaEvent_t waited[SUMS][2]; /* before and after the compute stream's wait in a join */
    uint64_t joins, counted;     /* joins so far, and those whose time has been told */
};

static sago_status find_library(void) {
    const struct {
        const char *name;
        void *to;
    } calls[] = {
        {"ncclGetVersion", &lib.version},
        {"ncclGetUniqueId", &lib.unique_id},
        {"ncclCommInitRankConfig", &lib.init},
        {"ncclCommGetAsyncError", &lib.async_error},
        {"ncclAllReduce", &lib.all_reduce},
        {"ncclCommAbort", &lib.abort},
        {"ncclCommDestroy", &lib.destroy},
        {"ncclCommFinalize", &lib.finalize},
        {"ncclGetErrorString", &lib.error},
        {"ncclGetLastError", &lib.last_error},
        {"ncclReduceScatter", &lib.reduce_scatter},
        {"ncclAllGather", &lib.all_gather},
        {"ncclReduce", &lib.reduce},
        {"ncclBroadcast", &lib.broadcast},
        {"ncclGroupStart", &lib.group_start},
        {"ncclGroupEnd", &lib.group_end},
    };
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return sago_fail(SAGO_E_DEVICE, "nccl: %s", dlerror());
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *found = dlsym(library, calls[i].name);
        if (!found) {
            dlclose(library);
            return sago_fail(SAGO_E_DEVICE, "nccl: this libnccl.so.2 has no %s; 2.14 or newer is needed",
                             calls[i].name);
        }
        memcpy(calls[i].to, &found, sizeof found);
    }
    lib.library = library;
    return SAGO_OK;
}

static sago_status open_library(void) {
    pthread_mutex_lock(&lib.lock);
    sago_status status = lib.library ? SAGO_OK : find_library();
    pthread_mutex_unlock(&lib.lock);
    return status;
}

void sago_cuda_nccl_version(char text[32]) {
    int version = 0;
    text[0] = '\0';
    if (open_library() == SAGO_OK && lib.version(&version) == ncclSuccess)
        snprintf(text, 32, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

static sago_status cuda_check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return SAGO_OK;
    return sago_fail(SAGO_E_DEVICE, "nccl: %s: %s", what, cudaGetErrorString(error));
}

static sago_status check(ncclResult_t result, ncclComm_t communicator, const char *what) {
    if (result == ncclSuccess) return SAGO_OK;
    const char *more = communicator ? lib.last_error(communicator) : "";
    return sago_fail(SAGO_E_COMM, "nccl: %s: %s%s%s", what, lib.error(result), more && more[0] ? ": " : "",
                     more ? more : "");
}

sago_status sago_cuda_gpu_address(sago_device *device, char address[SAGO_GPU_ADDRESS_BYTES]) {
    return cuda_check(
        cudaDeviceGetPCIBusId(address, SAGO_GPU_ADDRESS_BYTES, sago_gpu_of(device)->properties.index),
        "asking for the GPU's address");
}

sago_status sago_cuda_nccl_id(char id[SAGO_NCCL_ID_BYTES]) {
    ncclUniqueId made;
    _Static_assert(sizeof made == SAGO_NCCL_ID_BYTES, "the size of NCCL's ids");
    SAGO_TRY(open_library());
    SAGO_TRY(check(lib.unique_id(&made), NULL, "making an id"));
    memcpy(id, &made, sizeof made);
    return SAGO_OK;
}

static sago_status check_open(const sago_nccl *nccl) {
    return nccl->aborted ? sago_fail(SAGO_E_COMM, "nccl: sums were ended because a rank failed") : SAGO_OK;
}

/*
 * The outcome of a call that came back before it was done. Under the lock, which is free while this waits: the
 * thread that watches the other ranks may then end the communicator. A collective's start takes some 0.1 ms, in
 * which it is not worth to sleep.
 */
static sago_status settle(sago_nccl *nccl, ncclResult_t result, const char *what, double seconds) {
    int64_t since = sago_now_ns();
    while (result == ncclInProgress) {
        ncclResult_t now = ncclInProgress;
        SAGO_TRY(check(lib.async_error(nccl->communicator, &now), NULL, what));
        result = now;
        if (result != ncclInProgress) break;
        int64_t waited = sago_now_ns() - since;
        if ((double)waited * 1e-9 > seconds)
            return sago_fail(SAGO_E_COMM,
                             "nccl: %s: not done after %.0f s; a rank or the way to it is missing", what,
                             seconds);
        pthread_mutex_unlock(&nccl->lock);
        if (waited < 300000)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        pthread_mutex_lock(&nccl->lock);
        SAGO_TRY(check_open(nccl));
    }
    return check(result, nccl->communicator, what);
}

/* Its kernels, which are few and small, go before those of computation when both wait. */
static sago_status open_stream(sago_nccl *nccl) {
    int least, greatest;
    SAGO_TRY(cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of streams"));
    return cuda_check(
        cudaStreamCreateWithPriority((cudaStream_t *)&nccl->stream, cudaStreamNonBlocking, greatest), "a stream");
}

sago_status sago_cuda_nccl_open(sago_device *device, const char id[SAGO_NCCL_ID_BYTES], int rank, int size,
                                double timeout_seconds, sago_nccl **out) {
    *out = NULL;
    SAGO_TRY(open_library());
    sago_nccl *nccl = sago_alloc_zero(1, sizeof *nccl);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;
    sago_status status;
    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    pthread_mutex_init(&nccl->lock, NULL);
    nccl->gpu = sago_gpu_of(device);
    nccl->rank = rank;
    nccl->size = size;
    nccl->timeout_seconds = timeout_seconds;
    SAGO_TRY_TO(failed, open_stream(nccl));
    SAGO_TRY_TO(failed,
                cuda_check(cudaEventCreateWithFlags(&nccl->ready, cudaEventDisableTiming), "an event"));
    for (int i = 0; i < SUMS; i++) {
        SAGO_TRY_TO(failed,
                    cuda_check(cudaEventCreateWithFlags(&nccl->done[i], cudaEventDisableTiming), "an event"));
        for (int j = 0; j < 2; j++)
            SAGO_TRY_TO(failed, cuda_check(cudaEventCreate(&nccl->waited[i][j]), "an event"));
    }
    pthread_mutex_lock(&nccl->lock);
    status = settle(nccl, lib.init(&nccl->communicator, size, unique, rank, &config), "connecting the GPUs",
                    timeout_seconds);
    pthread_mutex_unlock(&nccl->lock);
    if (status != SAGO_OK) goto failed;
    *out = nccl;
    return SAGO_OK;
failed:
    sago_cuda_nccl_abort(nccl);
    sago_cuda_nccl_close(nccl);
    return status;
}

void sago_cuda_nccl_abort(sago_nccl *nccl) {
    pthread_mutex_lock(&nccl->lock);
    if (!nccl->aborted && nccl->communicator) (void)lib.abort(nccl->communicator);
    nccl->aborted = true;
    pthread_mutex_unlock(&nccl->lock);
}

static bool comes_to_rest(const sago_nccl *nccl) {
    int64_t until = sago_now_ns() + LEAVE_SECONDS * INT64_C(1000000000);
    cudaError_t state;
    while ((state = cudaStreamQuery((cudaStream_t)nccl->stream)) == cudaErrorNotReady && sago_now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    (void)cudaGetLastError();
    return state == cudaSuccess;
}

void sago_cuda_nccl_close(sago_nccl *nccl) {
    if (!nccl) return;
    sago_error kept;
    sago_error_take(SAGO_OK, &kept);
    if (nccl->communicator && !nccl->aborted) {
        pthread_mutex_lock(&nccl->lock);
        /* After a failure a collective may be under way that will never end; a rank that leaves alone would wait
         * for the others. */
        if (comes_to_rest(nccl) &&
            settle(nccl, lib.finalize(nccl->communicator), "ending", LEAVE_SECONDS) == SAGO_OK)
            (void)lib.destroy(nccl->communicator);
        else if (!nccl->aborted)
            (void)lib.abort(nccl->communicator);
        pthread_mutex_unlock(&nccl->lock);
    }
    for (int i = 0; i < SUMS; i++) {
        if (nccl->done[i]) (void)cudaEventDestroy(nccl->done[i]);
        for (int j = 0; j < 2; j++)
            if (nccl->waited[i][j]) (void)cudaEventDestroy(nccl->waited[i][j]);
    }
    if (nccl->ready) (void)cudaEventDestroy(nccl->ready);
    if (nccl->stream) SAGO_GPU(rt_stream_close)(nccl->stream);
    sago_error_give(&kept);
    pthread_mutex_destroy(&nccl->lock);
    free(nccl);
}

/* The stream of collectives waits for the work handed to the device so far. */
static sago_status follow_compute(sago_nccl *nccl) {
    cudaStream_t compute = (cudaStream_t)nccl->gpu->compute, stream = (cudaStream_t)nccl->stream;
    SAGO_TRY(cuda_check(cudaEventRecord(nccl->ready, compute), "recording an event"));
    return cuda_check(cudaStreamWaitEvent(stream, nccl->ready, 0), "making a stream wait");
}

static sago_status take_ticket(sago_nccl *nccl, uint64_t *ticket) {
    *ticket = ++nccl->newest;
    return cuda_check(cudaEventRecord(nccl->done[*ticket % SUMS], (cudaStream_t)nccl->stream),
                      "recording an event");
}

sago_status sago_cuda_nccl_sum(sago_nccl *nccl, void *buffer, int64_t count, bool doubles, uint64_t *ticket) {
    SAGO_TRY(follow_compute(nccl));
    pthread_mutex_lock(&nccl->lock);
    sago_status status = check_open(nccl);
    if (status == SAGO_OK)
        status = settle(nccl,
                        lib.all_reduce(buffer, buffer, (size_t)count, doubles ? ncclDouble : ncclFloat, ncclSum,
                                       nccl->communicator, (cudaStream_t)nccl->stream),
                        "all-reduce", LATE_LIMIT * nccl->timeout_seconds);
    pthread_mutex_unlock(&nccl->lock);
    SAGO_TRY(status);
    return take_ticket(nccl, ticket);
}

static bool are_even(const sago_nccl *nccl, const int64_t sizes[]) {
    for (int m = 1; m < nccl->size; m++)
        if (sizes[m] != sizes[0]) return false;
    return true;
}

/* NCCL has no collective of uneven pieces: one with a root each stands for it, all in one group, which starts
 * them together. A call inside a group of a non-blocking communicator says nothing final; the group's end
 * does. Under the lock. */
static ncclResult_t reduce_pieces(sago_nccl *nccl, const float *in, float *out, const int64_t counts[]) {
    ncclResult_t result = lib.group_start(), ended;
    for (int m = 0; m < nccl->size && (result == ncclSuccess || result == ncclInProgress); m++) {
        if (counts[m])
            result = lib.reduce(in, out, (size_t)counts[m], ncclFloat, ncclSum, m, nccl->communicator,
                                (cudaStream_t)nccl->stream);
        in += counts[m];
    }
    ended = lib.group_end();
    return result == ncclSuccess || result == ncclInProgress ? ended : result;
}

static ncclResult_t broadcast_pieces(sago_nccl *nccl, const char *in, char *out, const int64_t bytes[]) {
    ncclResult_t result = lib.group_start(), ended;
    for (int m = 0; m < nccl->size && (result == ncclSuccess || result == ncclInProgress); m++) {
        if (bytes[m])
            result = lib.broadcast(m == nccl->rank ? in : out, out, (size_t)bytes[m], ncclUint8, m,
                                   nccl->communicator, (cudaStream_t)nccl->stream);
        out += bytes[m];
    }
    ended = lib.group_end();
    return result == ncclSuccess || result == ncclInProgress ? ended : result;
}

sago_status sago_cuda_nccl_reduce_scatter(sago_nccl *nccl, const float *in, float *out,
                                          const int64_t counts[], uint64_t *ticket) {
    SAGO_TRY(follow_compute(nccl));
    pthread_mutex_lock(&nccl->lock);
    sago_status status = check_open(nccl);
    if (status == SAGO_OK)
        status =
            settle(nccl,
                   are_even(nccl, counts) ? lib.reduce_scatter(in, out, (size_t)counts[0], ncclFloat, ncclSum,
                                                               nccl->communicator, (cudaStream_t)nccl->stream)
                                          : reduce_pieces(nccl, in, out, counts),
                   "reduce-scatter", LATE_LIMIT * nccl->timeout_seconds);
    pthread_mutex_unlock(&nccl->lock);
    SAGO_TRY(status);
    return take_ticket(nccl, ticket);
}

sago_status sago_cuda_nccl_all_gather(sago_nccl *nccl, const void *in, void *out, const int64_t bytes[],
                                      uint64_t *ticket) {
    SAGO_TRY(follow_compute(nccl));
    pthread_mutex_lock(&nccl->lock);
    sago_status status = check_open(nccl);
    if (status == SAGO_OK)
        status = settle(nccl,
                        are_even(nccl, bytes) ? lib.all_gather(in, out, (size_t)bytes[0], ncclUint8,
                                                               nccl->communicator, (cudaStream_t)nccl->stream)
                                              : broadcast_pieces(nccl, in, out, bytes),
                        "all-gather", LATE_LIMIT * nccl->timeout_seconds);
    pthread_mutex_unlock(&nccl->lock);
    SAGO_TRY(status);
    return take_ticket(nccl, ticket);
}

sago_status sago_cuda_nccl_join(sago_nccl *nccl, uint64_t ticket) {
    cudaStream_t compute = (cudaStream_t)nccl->gpu->compute;
    cudaEvent_t *waited = nccl->waited[nccl->joins % SUMS];
    SAGO_TRY(check_open(nccl));
    SAGO_TRY(cuda_check(cudaEventRecord(waited[0], compute), "recording an event"));
    SAGO_TRY(cuda_check(cudaStreamWaitEvent(compute, nccl->done[ticket % SUMS], 0), "making a stream wait"));
    SAGO_TRY(cuda_check(cudaEventRecord(waited[1], compute), "recording an event"));
    nccl->joins++;
    return SAGO_OK;
}

sago_status sago_cuda_nccl_poll(sago_nccl *nccl) {
    ncclResult_t found = ncclSuccess;
    /* The computing thread holds the lock while it settles a call, and then sees the error itself. */
    if (pthread_mutex_trylock(&nccl->lock) != 0) return SAGO_OK;
    sago_status status = SAGO_OK;
    if (!nccl->aborted)
        status = check(lib.async_error(nccl->communicator, &found), NULL, "asking for errors");
    if (status == SAGO_OK && found != ncclSuccess && found != ncclInProgress)
        status = check(found, nccl->communicator, "a collective");
    pthread_mutex_unlock(&nccl->lock);
    return status;
}

double sago_cuda_nccl_exposed_seconds(sago_nccl *nccl) {
    double seconds = 0;
    if (nccl->joins - nccl->counted > SUMS) nccl->counted = nccl->joins - SUMS; /* overwritten: not told */
    for (; nccl->counted < nccl->joins; nccl->counted++) {
        cudaEvent_t *waited = nccl->waited[nccl->counted % SUMS];
        float milliseconds = 0;
        if (cudaEventQuery(waited[1]) != cudaSuccess) break;
        if (cudaEventElapsedTime(&milliseconds, waited[0], waited[1]) == cudaSuccess)
            seconds += milliseconds * 1e-3;
    }
    (void)cudaGetLastError(); /* "not ready" is no error of a later launch */
    return seconds;
}
