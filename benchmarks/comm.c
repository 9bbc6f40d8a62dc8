// SPDX-License-Identifier: Apache-2.0
/*
 * Sums over ranks: mpirun -n N build/benchmarks/bench_comm [rounds]
 *
 * Prints one JSON object: for each size, the time of a blocking sum by the mesh and by MPI_Allreduce,
 * interleaved in the same run, and for a step of computation with sums alongside: how long the computation
 * takes alone, with the mesh's sums, and with MPI_Iallreduce. kept = alone / with sums: 1 when the sums cost
 * the computation nothing.
 */
#include "json.h"
#include "log.h"
#include "mesh.h"
#include "str.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 101, N_BUCKETS = 8 };

static sago_mesh *mesh;
static MPI_Comm peers;
static volatile double sink;

static void check(sago_status status) {
    if (status == SAGO_OK) return;
    sago_error_line(sago_message());
    sago_mesh_abort(mesh, 1);
}

/* Arithmetic that stays in the first-level cache, as a matrix product's inner loop does. */
static void compute(int64_t loops) {
    static float a[2048], b[2048];
    for (int64_t l = 0; l < loops; l++)
        for (int i = 0; i < 2048; i++) a[i] = a[i] * 0.999f + b[i] + 1e-3f;
    sink = (double)a[7];
}

static double seconds_since(int64_t ns) {
    return (double)(sago_now_ns() - ns) * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* {"median": ..., "low": ..., "high": ...} of the slowest rank's seconds in each round; low and high are
 * quartiles. */
static json_t *summary(const double seconds[], int n, double *median) {
    double slowest[MAX_ROUNDS];
    MPI_Allreduce(seconds, slowest, n, MPI_DOUBLE, MPI_MAX, peers);
    qsort(slowest, (size_t)n, sizeof *slowest, by_value);
    *median = slowest[n / 2];
    return json_pack("{s:f, s:f, s:f}", "median", slowest[n / 2], "low", slowest[n / 4], "high",
                     slowest[n * 3 / 4]);
}

static void mesh_sum(float *x, int64_t count) {
    sago_collective *reduction;
    check(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, x, count, &reduction));
    check(sago_collective_wait(mesh, reduction));
}

static json_t *measure_sums(int64_t count, int rounds, float *x) {
    double ours[MAX_ROUNDS], theirs[MAX_ROUNDS], median, peer;
    for (int r = -2; r < rounds; r++) { /* two to warm up */
        MPI_Barrier(peers);
        int64_t at = sago_now_ns();
        mesh_sum(x, count);
        if (r >= 0) ours[r] = seconds_since(at);
        MPI_Barrier(peers);
        at = sago_now_ns();
        MPI_Allreduce(MPI_IN_PLACE, x, (int)count, MPI_FLOAT, MPI_SUM, peers);
        if (r >= 0) theirs[r] = seconds_since(at);
        memset(x, 0, (size_t)count * sizeof *x);
    }
    json_t *all = json_object();
    double bytes = (double)count * sizeof *x;
    json_object_set_new(all, "bytes", json_integer((json_int_t)bytes));
    json_object_set_new(all, "mesh_seconds", summary(ours, rounds, &median));
    json_object_set_new(all, "mpi_allreduce_seconds", summary(theirs, rounds, &peer));
    json_object_set_new(all, "mesh_bytes_per_second", json_real(bytes / median));
    json_object_set_new(all, "mpi_allreduce_bytes_per_second", json_real(bytes / peer));
    json_object_set_new(all, "mesh_over_mpi", json_real(peer / median));
    return all;
}

/* A backward pass: a piece of computation, then a bucket that is ready to be summed, and so on. */
static void step_with_mesh(int64_t loops, float *x, int64_t bucket) {
    sago_collective *reductions[N_BUCKETS];
    for (int b = 0; b < N_BUCKETS; b++) {
        compute(loops);
        check(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, x + b * bucket, bucket, &reductions[b]));
    }
    for (int b = 0; b < N_BUCKETS; b++) check(sago_collective_wait(mesh, reductions[b]));
}

static void step_with_mpi(int64_t loops, float *x, int64_t bucket) {
    MPI_Request requests[N_BUCKETS];
    for (int b = 0; b < N_BUCKETS; b++) {
        compute(loops);
        MPI_Iallreduce(MPI_IN_PLACE, x + b * bucket, (int)bucket, MPI_FLOAT, MPI_SUM, peers, &requests[b]);
    }
    MPI_Waitall(N_BUCKETS, requests, MPI_STATUSES_IGNORE);
}

static json_t *measure_overlap(double step_seconds, int64_t bytes, int rounds, float *x) {
    double alone[MAX_ROUNDS], ours[MAX_ROUNDS], theirs[MAX_ROUNDS], a, m, p;
    int64_t bucket = bytes / N_BUCKETS / (int64_t)sizeof *x, at = sago_now_ns();
    compute(20000);
    compute(20000);
    int64_t loops = (int64_t)(40000 * step_seconds / seconds_since(at) / N_BUCKETS);
    MPI_Bcast(&loops, 1, MPI_INT64_T, 0, peers);
    (void)sago_mesh_exposed_seconds(mesh);
    for (int r = -1; r < rounds; r++) {
        int slot = r < 0 ? 0 : r;
        MPI_Barrier(peers);
        at = sago_now_ns();
        compute(loops * N_BUCKETS);
        alone[slot] = seconds_since(at);
        MPI_Barrier(peers);
        at = sago_now_ns();
        step_with_mesh(loops, x, bucket);
        ours[slot] = seconds_since(at);
        MPI_Barrier(peers);
        at = sago_now_ns();
        step_with_mpi(loops, x, bucket);
        theirs[slot] = seconds_since(at);
    }
    double exposed = sago_mesh_exposed_seconds(mesh) / (rounds + 1);
    json_t *all = json_object();
    json_object_set_new(all, "bytes", json_integer(bytes));
    json_object_set_new(all, "buckets", json_integer(N_BUCKETS));
    json_object_set_new(all, "compute_alone_seconds", summary(alone, rounds, &a));
    json_object_set_new(all, "with_mesh_seconds", summary(ours, rounds, &m));
    json_object_set_new(all, "with_mpi_iallreduce_seconds", summary(theirs, rounds, &p));
    json_object_set_new(all, "mesh_exposed_seconds", json_real(exposed));
    json_object_set_new(all, "mesh_kept", json_real(a / m));
    json_object_set_new(all, "mpi_iallreduce_kept", json_real(a / p));
    return all;
}

int main(int n_arguments, char **arguments) {
    int level, rounds = n_arguments > 1 ? atoi(arguments[1]) : 15;
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 15;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_dup(MPI_COMM_WORLD, &peers);
    if (level < MPI_THREAD_MULTIPLE || sago_mesh_start() != SAGO_OK ||
        sago_mesh_open(0, 1, 120, &mesh) != SAGO_OK) {
        fprintf(stderr, "bench_comm: run it with mpirun, and an MPI with MPI_THREAD_MULTIPLE. %s\n",
                sago_message());
        return 1;
    }
    int64_t most = 64 << 20;
    float *x = sago_alloc_zero(1, (size_t)most);
    char text[256];
    sago_mesh_describe(mesh, text);
    json_t *all = json_object(), *sums = json_array(), *overlaps = json_array();
    json_object_set_new(all, "benchmark", json_string("comm"));
    json_object_set_new(all, "command", json_sprintf("mpirun -n %d bench_comm %d", mesh->size, rounds));
    json_object_set_new(all, "device", json_string(text));
    json_object_set_new(all, "rounds", json_integer(rounds));
    for (int64_t bytes = 64; bytes <= most; bytes *= 16)
        json_array_append_new(sums, measure_sums(bytes / (int64_t)sizeof *x, rounds, x));
    json_array_append_new(sums, measure_sums(most / (int64_t)sizeof *x, rounds, x));
    json_array_append_new(overlaps, measure_overlap(.5, 16 << 20, rounds, x));
    json_array_append_new(overlaps, measure_overlap(.5, most, rounds, x));
    json_object_set_new(all, "sums", sums);
    json_object_set_new(all, "overlap", overlaps);
    if (mesh->rank == 0) {
        char *line = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
        printf("%s\n", line);
        free(line);
    }
    json_decref(all);
    free(x);
    sago_mesh_close(mesh);
    sago_mesh_finish(0);
    MPI_Comm_free(&peers);
    MPI_Finalize();
    return 0;
}
