// SPDX-License-Identifier: Apache-2.0
/*
 * Two ranks over fake_cuda.c, one case a start: nccl_ranks sums|shared|refuses|leaves|errs. Each rank prints
 * what it found in one line; leaves with 0 where that is as it should be.
 */
#include "log.h"
#include "mesh.h"
#include "ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 5000, ROUNDS = 300 };

static sago_mesh *mesh;
static sago_device *device;

static sago_status sum_once(float *memory, float *host) {
    sago_collective *reduction;
    for (int i = 0; i < N; i++) host[i] = (float)(i % 77);
    SAGO_TRY(device->ops->upload(device, memory, host, N * sizeof *host));
    SAGO_TRY(sago_all_reduce_start(mesh, SAGO_DATA_AXIS, memory, N, &reduction));
    SAGO_TRY(sago_collective_wait(mesh, reduction));
    SAGO_TRY(device->ops->scale(device, sago_tensor_1d(memory, SAGO_F32, N), 0.5f));
    SAGO_TRY(device->ops->download(device, host, memory, N * sizeof *host));
    for (int i = 0; i < N; i++)
        if (host[i] != (float)(i % 77) * (float)mesh->size / 2)
            return sago_fail(SAGO_E_INTERNAL, "element %d is %g", i, (double)host[i]);
    return SAGO_OK;
}

/* Pieces of a third and two thirds, of numbers that are the same on both ranks; a gather of what came of
 * them. */
static sago_status piece_once(float *memory, float *host) {
    const int64_t counts[2] = {N / 5, 2 * N / 5};
    const size_t bytes[2] = {counts[0] * sizeof(float), counts[1] * sizeof(float)};
    int64_t first = mesh->rank ? counts[0] : 0;
    sago_collective *started;
    float *piece = memory + 3 * N / 5;
    for (int i = 0; i < N; i++) host[i] = (float)(i % 77);
    SAGO_TRY(device->ops->upload(device, memory, host, N * sizeof *host));
    SAGO_TRY(sago_reduce_scatter_start(mesh, SAGO_DATA_AXIS, memory, piece, counts, &started));
    SAGO_TRY(sago_collective_wait(mesh, started));
    SAGO_TRY(device->ops->download(device, host, piece, (size_t)counts[mesh->rank] * sizeof *host));
    for (int64_t i = 0; i < counts[mesh->rank]; i++)
        if (host[i] != (float)((first + i) % 77 * mesh->size))
            return sago_fail(SAGO_E_INTERNAL, "element %d of the piece is %g", (int)i, (double)host[i]);
    for (int i = 0; i < N; i++) host[i] = (float)(i % 100);
    SAGO_TRY(device->ops->upload(device, piece, host, 2 * N / 5 * sizeof *host));
    SAGO_TRY(sago_all_gather_start(mesh, SAGO_DATA_AXIS, piece, memory, bytes, &started));
    SAGO_TRY(sago_collective_wait(mesh, started));
    SAGO_TRY(device->ops->download(device, host, memory, 3 * N / 5 * sizeof *host));
    for (int64_t i = 0; i < 3 * N / 5; i++)
        if (host[i] != (float)((i < counts[0] ? i : i - counts[0]) % 100))
            return sago_fail(SAGO_E_INTERNAL, "element %d of the whole is %g", (int)i, (double)host[i]);
    return SAGO_OK;
}

/* Doubles over all ranks: what Adafactor and the norm add up. */
static sago_status doubles_once(void) {
    double *memory, host[100];
    sago_collective *sum;
    SAGO_TRY(device->ops->allocate(device, (void **)&memory, sizeof host));
    for (int i = 0; i < 100; i++) host[i] = 1.0 / (i + 1);
    SAGO_TRY(device->ops->upload(device, memory, host, sizeof host));
    SAGO_TRY(sago_all_reduce_f64_start(mesh, SAGO_WORLD_AXIS, memory, 100, &sum));
    SAGO_TRY(sago_collective_wait(mesh, sum));
    SAGO_TRY(device->ops->download(device, host, memory, sizeof host));
    for (int i = 0; i < 100; i++)
        if (host[i] != 1.0 / (i + 1) * mesh->size)
            return sago_fail(SAGO_E_INTERNAL, "double %d is %.17g", i, host[i]);
    device->ops->release(device, memory);
    return SAGO_OK;
}

static sago_status expect(bool holds, const char *what) {
    return holds ? SAGO_OK : sago_fail(SAGO_E_INTERNAL, "not so: %s; message: %s", what, sago_message());
}

static sago_status run(const char *how, float *memory, float *host) {
    int64_t since = sago_now_ns();
    sago_mesh *view = NULL; /* as a model has one, whose sums end with the run's */
    if (strcmp(how, "leaves") == 0) {
        SAGO_TRY(sago_mesh_second_order(mesh, &view));
        SAGO_TRY(sago_mesh_use_device(view, device));
    }
    sago_status status = sago_mesh_use_device(mesh, device);
    if (strcmp(how, "refuses") == 0) {
        SAGO_TRY(expect(status == SAGO_E_COMM &&
                            strstr(sago_message(), "rank 1: nccl: connecting the GPUs: no route"),
                        "both ranks say that rank 1 could not connect"));
        return expect(strcmp(sago_mesh_transport(mesh), "mpi") == 0, "nothing is left of it");
    }
    SAGO_TRY(status);
    const char *expected = strcmp(how, "shared") == 0 ? "mpi" : "nccl";
    SAGO_TRY(expect(strcmp(sago_mesh_transport(mesh), expected) == 0, expected));
    if (strcmp(how, "errs") == 0) {
        status = sum_once(memory, host);
        return expect(status == SAGO_E_COMM && strstr(sago_message(), "a remote process has exited") &&
                          sago_now_ns() - since > INT64_C(1000000000),
                      "NCCL's own words, after the time in which the heartbeats could have named a rank");
    }
    if (strcmp(how, "leaves") == 0 && mesh->rank == 1) {
        SAGO_TRY(sum_once(memory, host));
        return sago_fail(SAGO_E_INPUT, "rank 1 has a reason of its own");
    }
    for (int i = 0; i < ROUNDS; i++) {
        status = sum_once(memory, host);
        if (strcmp(how, "leaves") != 0) SAGO_TRY(status);
        if (status != SAGO_OK) break;
        usleep(strcmp(how, "leaves") == 0 ? 20000 : 0);
    }
    /* Meanwhile the communication thread ends what NCCL has under way. */
    if (strcmp(how, "leaves") == 0) usleep(1000000);
    if (strcmp(how, "leaves") == 0)
        return expect(status == SAGO_E_COMM && strstr(sago_message(), "rank 1 (host ") &&
                          strstr(sago_message(), "has failed and left the run"),
                      "rank 0 says that rank 1 has failed");
    SAGO_TRY(piece_once(memory, host));
    SAGO_TRY(doubles_once());
    if (strcmp(how, "sums") == 0)
        SAGO_TRY(expect(sago_mesh_exposed_seconds(mesh) >= 0.25 * ROUNDS, "exposed seconds are NCCL's"));
    return sago_mesh_use_device(mesh, NULL);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "sums";
    float *memory = NULL, *host = malloc(N * sizeof *host);
    sago_status status = sago_mesh_start();
    if (status == SAGO_OK) status = sago_mesh_open(0, 1, strcmp(how, "errs") == 0 ? 2 : 20, &mesh);
    if (status == SAGO_OK) status = sago_device_open_local("cuda", 1, mesh->local_rank, &device);
    if (status == SAGO_OK) status = device->ops->allocate(device, (void **)&memory, N * sizeof *memory);
    if (status == SAGO_OK) status = run(how, memory, host);
    printf("rank %d: %s: %s\n", sago_mesh_world_rank(), how,
           status == SAGO_OK ? "as it should be" : sago_message());
    fflush(stdout);
    sago_mesh_close(mesh);
    if (device) device->ops->release(device, memory);
    sago_device_close(device);
    free(host);
    sago_mesh_finish(sago_status_exit_code(status));
    return sago_status_exit_code(status);
}
