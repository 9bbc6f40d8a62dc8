// SPDX-License-Identifier: Apache-2.0
#include "rank_checks.h"

#include "build.h"
#include "ceiling.h"
#include "ckpt.h"
#include "cuda_library.h"
#include "file.h"
#include "gpu_checks.h"
#include "log.h"
#include "ops.h"
#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUM_ROUNDS = 5, DISK_BYTES = 16 << 20, PIECE_BYTES = 1 << 20 };

static void add_same(json_t *record, const char *name, const char *value) {
    json_object_set_new(json_object_get(record, "same"), name, json_string(value));
}

static void add_speed(json_t *record, const char *name, double value, const char *unit) {
    json_object_set_new(json_object_get(record, "speeds"), name,
                        json_pack("{s:f, s:s}", "value", value, "unit", unit));
}

static void add_failure(json_t *record, const char *name, const char *status, const char *text) {
    json_array_append_new(json_object_get(record, "failures"),
                          json_pack("{s:s, s:s, s:s}", "name", name, "status", status, "text", text));
}

/* The present message becomes a failure of this rank; true when there is none. */
static bool well(json_t *record, const char *name, sago_status status) {
    if (status != SAGO_OK) add_failure(record, name, "fail", sago_message());
    return status == SAGO_OK;
}

static void note_versions(json_t *record, const sago_mesh *mesh) {
    char text[256], hdf5[32];
    snprintf(text, sizeof text, "%s (%s)", sago_build_version(),
             sago_build_commit()[0] ? sago_build_commit() : "commit unknown");
    add_same(record, "sago", text);
    sago_mesh_describe(mesh, text);
    text[strcspn(text, ",")] = '\0';
    add_same(record, "mpi", text);
    sago_ckpt_hdf5_version(hdf5);
    add_same(record, "hdf5", hdf5);
}

/* The driver, and the GPU of this rank: where it may run on one. */
static void note_gpu(json_t *record, const sago_mesh *mesh, const sago_config *config, sago_device *device) {
    const sago_cuda_entry *cuda;
    char address[SAGO_GPU_ADDRESS_BYTES] = "", runtime[32], driver[32], cublaslt[32], nccl[32];
    sago_gpu_facts facts;
    if (strcmp(config->device, "cpu") == 0 || strcmp(config->device, "sim") == 0) return;
    if (device && strcmp(device->name, "cuda") == 0 && sago_cuda_library(&cuda) == SAGO_OK) {
        cuda->versions(runtime, driver, cublaslt, nccl);
        add_same(record, "cuda", runtime);
        add_same(record, "cublaslt", cublaslt);
        add_same(record, "nccl", nccl[0] ? nccl : "none");
        if (!cuda->gpu_address || cuda->gpu_address(device, address) != SAGO_OK) address[0] = '\0';
    }
    if (!sago_gpu_facts_read(address, mesh->local_rank, &facts)) return;
    add_same(record, "gpu driver", facts.driver);
    if (!facts.name[0]) return;
    add_same(record, "gpu", facts.name);
    add_same(record, "gpu links", facts.links);
    if (device && strcmp(device->name, "cuda") == 0) add_speed(record, "gpu clock", facts.clock_mhz, "MHz");
    if (facts.slowed)
        add_failure(record, "gpu clock", "warn", "the GPU is slowed down by heat or lack of power");
}

/* Large products of the kind that training does, on all ranks at once, since they share power and cores. */
static sago_status measure_products(json_t *record, sago_device *device) {
    double gflops;
    sago_rate rate;
    if (strcmp(device->name, "cuda") == 0) {
        SAGO_TRY(sago_device_measure_product(device, 4096, 4096, 4096, true, 0.3, &rate));
        gflops = rate.median;
    } else {
        SAGO_TRY(sago_device_measure_gemm(device, &gflops));
    }
    add_speed(record, "products", gflops, "GFLOP/s");
    return SAGO_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One round that does not count, then the median. seconds: of all rounds together. */
static sago_status measure_axis(json_t *record, sago_mesh *mesh, sago_device *device, sago_mesh_axis axis,
                                float *buffer, int64_t count, double *seconds) {
    double times[1 + SUM_ROUNDS];
    for (int i = 0; i <= SUM_ROUNDS; i++) {
        sago_collective *sum;
        SAGO_TRY(sago_barrier(mesh, axis));
        int64_t since = sago_now_ns();
        SAGO_TRY(sago_all_reduce_start(mesh, axis, buffer, count, &sum));
        SAGO_TRY(sago_collective_wait(mesh, sum));
        SAGO_TRY(device->ops->synchronize(device));
        times[i] = (double)(sago_now_ns() - since) * 1e-9;
        *seconds += times[i];
    }
    qsort(times + 1, SUM_ROUNDS, sizeof *times, by_value);
    add_speed(record, axis == SAGO_DATA_AXIS ? "axis data" : "axis model",
              (double)count * sizeof(float) / times[1 + SUM_ROUNDS / 2] * 1e-9, "GB/s");
    return SAGO_OK;
}

/* seconds: what this rank's sums took. The shares of them that others waited for a rank become that rank's
 * own. */
static sago_status note_lateness(json_t *record, sago_mesh *mesh, double seconds) {
    int n = mesh->size;
    double *v = sago_alloc_zero(2 * (size_t)n, sizeof *v);
    sago_mesh_late_seconds(mesh, v);
    for (int r = 0; r < n; r++) {
        v[n + r] = v[r] > 0;
        v[r] /= fmax(seconds, 1e-9);
    }
    sago_status status = sago_all_reduce_f64(mesh, SAGO_WORLD_AXIS, v, 2 * (int64_t)n);
    json_object_set_new(record, "late", json_real(v[mesh->rank] / fmax(1, v[n + mesh->rank])));
    free(v);
    return status;
}

static sago_status measure_axes(json_t *record, sago_mesh *mesh, const sago_config *config,
                                sago_device *device) {
    int64_t count = config->mesh.bucket_bytes / (int64_t)sizeof(float);
    double *unheard = sago_alloc_zero((size_t)mesh->size, sizeof *unheard), seconds = 0;
    float *buffer = NULL;
    sago_mesh_late_seconds(mesh, unheard); /* what was before */
    free(unheard);
    sago_status status =
        sago_agree(mesh, device->ops->allocate(device, (void **)&buffer, (size_t)count * sizeof *buffer));
    if (status == SAGO_OK) status = sago_mesh_use_device(mesh, device);
    for (int axis = SAGO_DATA_AXIS; axis <= SAGO_MODEL_AXIS && status == SAGO_OK; axis++)
        if (mesh->axis_size[axis] > 1)
            status = measure_axis(record, mesh, device, (sago_mesh_axis)axis, buffer, count, &seconds);
    if (status == SAGO_OK) status = note_lateness(record, mesh, seconds);
    sago_status undone = sago_mesh_use_device(mesh, NULL);
    if (buffer) device->ops->release(device, buffer);
    return status == SAGO_OK ? undone : status;
}

static sago_status measure_device(json_t *record, sago_mesh *mesh, const sago_config *config) {
    sago_device *device = NULL;
    int threads = config->threads > 0 ? (int)config->threads : sago_mesh_cores(mesh);
    int64_t n_open =
        well(record, "device", sago_device_open_local(config->device, threads, mesh->local_rank, &device));
    if (device) add_same(record, "device", device->name);
    sago_status status = sago_all_reduce_i64(mesh, SAGO_WORLD_AXIS, &n_open, 1);
    if (status == SAGO_OK) status = sago_barrier(mesh, SAGO_WORLD_AXIS);
    /* What sim takes says nothing. */
    if (status == SAGO_OK && device && strcmp(device->name, "sim") != 0)
        (void)well(record, "products", measure_products(record, device));
    note_gpu(record, mesh, config, device);
    if (status == SAGO_OK && n_open == mesh->size && mesh->size > 1)
        status = measure_axes(record, mesh, config, device);
    sago_device_close(device);
    return status;
}

static sago_status write_and_sync(const char *path, double *seconds) {
    char *piece = sago_alloc(PIECE_BYTES);
    FILE *file = NULL;
    memset(piece, 0x5a, PIECE_BYTES);
    int64_t since = sago_now_ns();
    sago_status status = sago_file_open(path, "wb", &file);
    for (int at = 0; status == SAGO_OK && at < DISK_BYTES; at += PIECE_BYTES)
        if (fwrite(piece, 1, PIECE_BYTES, file) != PIECE_BYTES)
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    if (status == SAGO_OK)
        status = sago_file_close_synced(file, path);
    else if (file)
        fclose(file);
    *seconds = (double)(sago_now_ns() - since) * 1e-9;
    free(piece);
    return status;
}

/* All ranks write at once, as they save; then each looks for the file of rank 0. */
static sago_status measure_disk(json_t *record, sago_mesh *mesh, const char *dir) {
    int64_t mark = sago_now_ns() ^ (int64_t)getpid() << 40;
    double seconds;
    SAGO_TRY(sago_broadcast(mesh, SAGO_WORLD_AXIS, &mark, sizeof mark, 0));
    char *mine = sago_format("%s/.sago-doctor-%016llx-%d", dir, (unsigned long long)mark, mesh->rank);
    char *first = sago_format("%s/.sago-doctor-%016llx-0", dir, (unsigned long long)mark);
    sago_status status = sago_barrier(mesh, SAGO_WORLD_AXIS);
    int64_t wrote = status == SAGO_OK && well(record, "disk speed", write_and_sync(mine, &seconds));
    if (wrote) add_speed(record, "disk speed", DISK_BYTES / seconds * 1e-6, "MB/s");
    int64_t first_wrote = wrote;
    if (status == SAGO_OK)
        status = sago_broadcast(mesh, SAGO_WORLD_AXIS, &first_wrote, sizeof first_wrote, 0);
    if (status == SAGO_OK) status = sago_barrier(mesh, SAGO_WORLD_AXIS);
    if (status == SAGO_OK && first_wrote && !sago_is_file(first))
        add_failure(record, "shared folder", "fail",
                    "the folder of the run is not that of rank 0 here: what rank 0 wrote "
                    "can't be seen");
    if (status == SAGO_OK) status = sago_barrier(mesh, SAGO_WORLD_AXIS);
    unlink(mine);
    free(mine);
    free(first);
    return status;
}

sago_status sago_rank_measure(sago_mesh *mesh, const sago_config *config, const char *dir, json_t **record) {
    struct timespec now;
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    *record = json_pack("{s:i, s:s, s:f, s:{}, s:{}, s:[]}", "rank", mesh->rank, "host", host, "late", 0.0,
                        "same", "speeds", "failures");
    note_versions(*record, mesh);
    SAGO_TRY(measure_device(*record, mesh, config));
    SAGO_TRY(measure_disk(*record, mesh, dir));
    SAGO_TRY(sago_barrier(mesh, SAGO_WORLD_AXIS));
    clock_gettime(CLOCK_REALTIME, &now);
    json_object_set_new(*record, "clock", json_real((double)now.tv_sec + (double)now.tv_nsec * 1e-9));
    return SAGO_OK;
}
