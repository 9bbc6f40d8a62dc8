// SPDX-License-Identifier: Apache-2.0
/*
 * A libsago_cuda.so for machines without CUDA: its GPU is the device sim under another name, and its NCCL
 * multiplies by the number of ranks, which is the sum where all ranks have the same numbers, and gathers a
 * rank's own piece from everywhere. FAKE_CUDA says how it behaves: "shared" GPU, "refuses" to connect on rank
 * 1, "errs" from the first sum on.
 */
#include "cuda_library.h"
#include "ops.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sago_nccl {
    sago_device *device;
    int rank, size;
    uint64_t sums;
    bool aborted;
};

static bool behaves(const char *how) {
    const char *said = getenv("FAKE_CUDA");
    return said && strcmp(said, how) == 0;
}

static int my_rank(void) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    return rank ? atoi(rank) : 0;
}

static sago_status open_device(const char *variant, int n_threads, int local_rank, sago_device **out) {
    (void)variant;
    SAGO_TRY(sago_device_open("sim", n_threads, out));
    (*out)->name = "cuda";
    snprintf((*out)->description, sizeof(*out)->description, "cuda: a fake (%d of 2)", local_rank + 1);
    return SAGO_OK;
}

static void close_device(sago_device *device) {
    device->name = "sim";
    sago_device_close(device);
}

static void versions(char runtime[32], char driver[32], char cublaslt[32], char nccl[32]) {
    snprintf(runtime, 32, "13.0");
    snprintf(driver, 32, "13.1");
    snprintf(cublaslt, 32, "13.0.2");
    snprintf(nccl, 32, "2.28.9");
}

static sago_status address(sago_device *device, char text[SAGO_GPU_ADDRESS_BYTES]) {
    (void)device;
    snprintf(text, SAGO_GPU_ADDRESS_BYTES, "0000:%02x:00.0", behaves("shared") ? 1 : my_rank());
    return SAGO_OK;
}

static sago_status make_id(char id[SAGO_NCCL_ID_BYTES]) {
    for (int i = 0; i < SAGO_NCCL_ID_BYTES; i++) id[i] = (char)(3 * i + 1);
    return SAGO_OK;
}

static sago_status connect(sago_device *device, const char id[SAGO_NCCL_ID_BYTES], int rank, int size,
                           double timeout_seconds, sago_nccl **out) {
    char expected[SAGO_NCCL_ID_BYTES];
    SAGO_TRY(make_id(expected));
    if (memcmp(id, expected, sizeof expected) != 0 || rank != my_rank() || timeout_seconds <= 0)
        return sago_fail(SAGO_E_INTERNAL, "the id, the rank or the timeout is wrong");
    if (behaves("refuses") && rank == 1) return sago_fail(SAGO_E_COMM, "nccl: connecting the GPUs: no route");
    *out = sago_alloc_zero(1, sizeof **out);
    **out = (sago_nccl){.device = device, .rank = rank, .size = size};
    return SAGO_OK;
}

static void disconnect(sago_nccl *nccl) {
    free(nccl);
}

static sago_status sum(sago_nccl *nccl, void *buffer, int64_t count, bool doubles, uint64_t *ticket) {
    if (nccl->aborted) return sago_fail(SAGO_E_COMM, "nccl: aborted");
    if (behaves("errs")) return sago_fail(SAGO_E_COMM, "nccl: all-reduce: a remote process has exited");
    *ticket = ++nccl->sums;
    if (doubles) {
        SAGO_TRY(nccl->device->ops->synchronize(nccl->device));
        for (int64_t i = 0; i < count; i++) ((double *)buffer)[i] *= nccl->size;
        return SAGO_OK;
    }
    return nccl->device->ops->scale(nccl->device, sago_tensor_1d(buffer, SAGO_F32, count), (float)nccl->size);
}

static sago_status reduce_scatter(sago_nccl *nccl, const float *in, float *out, const int64_t counts[],
                                  uint64_t *ticket) {
    int64_t n = counts[nccl->rank];
    for (int m = 0; m < nccl->rank; m++) in += counts[m];
    if (nccl->aborted) return sago_fail(SAGO_E_COMM, "nccl: aborted");
    *ticket = ++nccl->sums;
    SAGO_TRY(nccl->device->ops->copy(nccl->device, sago_tensor_1d(out, SAGO_F32, n),
                                     sago_tensor_1d((void *)in, SAGO_F32, n)));
    return nccl->device->ops->scale(nccl->device, sago_tensor_1d(out, SAGO_F32, n), (float)nccl->size);
}

/* Every piece is taken to be as this rank's, of which there is enough for the longest. */
static sago_status all_gather(sago_nccl *nccl, const void *in, void *out, const int64_t bytes[],
                              uint64_t *ticket) {
    float *to = out;
    if (nccl->aborted) return sago_fail(SAGO_E_COMM, "nccl: aborted");
    *ticket = ++nccl->sums;
    for (int m = 0; m < nccl->size; m++) {
        int64_t n = bytes[m] / (int64_t)sizeof(float);
        SAGO_TRY(nccl->device->ops->copy(nccl->device, sago_tensor_1d(to, SAGO_F32, n),
                                         sago_tensor_1d((void *)in, SAGO_F32, n)));
        to += n;
    }
    return SAGO_OK;
}

static sago_status join(sago_nccl *nccl, uint64_t ticket) {
    return ticket > 0 && ticket <= nccl->sums ? SAGO_OK : sago_fail(SAGO_E_INTERNAL, "no such sum");
}

static sago_status poll(sago_nccl *nccl) {
    (void)nccl;
    return behaves("errs") ? sago_fail(SAGO_E_COMM, "nccl: a remote process has exited") : SAGO_OK;
}

static void end_sums(sago_nccl *nccl) {
    fprintf(stderr, "rank %d: a communicator was aborted\n", nccl->rank);
    nccl->aborted = true;
}

static double exposed_seconds(sago_nccl *nccl) {
    return 0.25 * (double)nccl->sums;
}

__attribute__((visibility("default"))) const sago_cuda_entry sago_cuda_library_entry = {
    .version = SAGO_VERSION,
    .ops_bytes = sizeof(sago_ops),
    .open = open_device,
    .close = close_device,
    .versions = versions,
    .gpu_address = address,
    .nccl_id = make_id,
    .nccl_open = connect,
    .nccl_close = disconnect,
    .nccl_sum = sum,
    .nccl_reduce_scatter = reduce_scatter,
    .nccl_all_gather = all_gather,
    .nccl_join = join,
    .nccl_poll = poll,
    .nccl_abort = end_sums,
    .nccl_exposed_seconds = exposed_seconds,
};
