// SPDX-License-Identifier: Apache-2.0
/*
 * Collectives over ranks: mpirun -n N build/benchmarks/bench_comm [rounds]
 *
 * Prints one JSON object: for each of the collectives that training uses and each size, the time of a
 * blocking one by the mesh (sums in rank order) and by MPI's own (in whatever order), interleaved in the same
 * run, and their ratio round by round; and for a step of computation with sums alongside: how long the
 * computation takes alone, with the mesh's sums, and with MPI_Iallreduce. kept = alone / with sums: 1 when
 * the sums cost the computation nothing.
 */
#include "json.h"
#include "log.h"
#include "mesh.h"
#include "str.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 101, MAX_RANKS = 64, N_BUCKETS = 8 };

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

/* The collectives that training uses, in place of a vector of so many elements, whose pieces are even. */
typedef enum operation { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, N_OPERATIONS } operation;

static const char *const operation_names[] = {"all_reduce", "reduce_scatter", "all_gather"};
static const char *const peer_names[] = {"MPI_Allreduce", "MPI_Reduce_scatter_block", "MPI_Allgather"};

static void by_mesh(operation what, float *x, float *piece, int64_t count) {
    int64_t counts[MAX_RANKS], n = count / mesh->size;
    size_t bytes[MAX_RANKS];
    sago_collective *started;
    for (int r = 0; r < mesh->size; r++) counts[r] = n, bytes[r] = (size_t)n * sizeof *x;
    if (what == ALL_REDUCE)
        check(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, x, count, &started));
    else if (what == REDUCE_SCATTER)
        check(sago_reduce_scatter_start(mesh, SAGO_WORLD_AXIS, x, piece, counts, &started));
    else
        check(sago_all_gather_start(mesh, SAGO_WORLD_AXIS, piece, x, bytes, &started));
    check(sago_collective_wait(mesh, started));
}

static void by_mpi(operation what, float *x, float *piece, int64_t count) {
    int n = (int)(count / mesh->size);
    if (what == ALL_REDUCE)
        MPI_Allreduce(MPI_IN_PLACE, x, (int)count, MPI_FLOAT, MPI_SUM, peers);
    else if (what == REDUCE_SCATTER)
        MPI_Reduce_scatter_block(x, piece, n, MPI_FLOAT, MPI_SUM, peers);
    else
        MPI_Allgather(piece, n, MPI_FLOAT, x, n, MPI_FLOAT, peers);
}

static double timed(void (*run)(operation, float *, float *, int64_t), operation what, float *x, float *piece,
                    int64_t count) {
    memset(x, 0, (size_t)count * sizeof *x); /* sums of sums would grow without end */
    MPI_Barrier(peers);
    int64_t at = sago_now_ns();
    run(what, x, piece, count);
    return seconds_since(at);
}

/* The ratio is taken round by round, of neighbours in time, with the order of the two changing. */
static json_t *measure(operation what, int64_t count, int rounds, float *x, float *piece) {
    double ours[MAX_ROUNDS], theirs[MAX_ROUNDS], ratios[MAX_ROUNDS], slowest[2][MAX_ROUNDS], median, peer;
    for (int r = -2; r < rounds; r++) { /* two to warm up */
        double mine = 0;
        if (r % 2) mine = timed(by_mesh, what, x, piece, count);
        double its = timed(by_mpi, what, x, piece, count);
        if (r % 2 == 0) mine = timed(by_mesh, what, x, piece, count);
        if (r >= 0) ours[r] = mine, theirs[r] = its;
    }
    MPI_Allreduce(ours, slowest[0], rounds, MPI_DOUBLE, MPI_MAX, peers);
    MPI_Allreduce(theirs, slowest[1], rounds, MPI_DOUBLE, MPI_MAX, peers);
    for (int r = 0; r < rounds; r++) ratios[r] = slowest[1][r] / slowest[0][r];
    qsort(ratios, (size_t)rounds, sizeof *ratios, by_value);
    double bytes = (double)count * sizeof *x;
    json_t *all = json_pack("{s:s, s:s, s:I}", "operation", operation_names[what], "peer", peer_names[what],
                            "bytes", (json_int_t)bytes);
    json_object_set_new(all, "mesh_seconds", summary(ours, rounds, &median));
    json_object_set_new(all, "peer_seconds", summary(theirs, rounds, &peer));
    json_object_set_new(all, "mesh_bytes_per_second", json_real(bytes / median));
    json_object_set_new(all, "peer_bytes_per_second", json_real(bytes / peer));
    json_object_set_new(all, "mesh_over_peer",
                        json_pack("{s:f, s:f, s:f}", "median", ratios[rounds / 2], "low", ratios[rounds / 4],
                                  "high", ratios[rounds * 3 / 4]));
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
    float *x = sago_alloc_zero(1, (size_t)most), *piece = sago_alloc_zero(1, (size_t)most);
    if (mesh->size > MAX_RANKS) sago_mesh_abort(mesh, 2);
    char text[256];
    sago_mesh_describe(mesh, text);
    json_t *all = json_object(), *collectives = json_array(), *overlaps = json_array();
    json_object_set_new(all, "benchmark", json_string("comm"));
    json_object_set_new(all, "command", json_sprintf("mpirun -n %d bench_comm %d", mesh->size, rounds));
    json_object_set_new(all, "device", json_string(text));
    json_object_set_new(all, "rounds", json_integer(rounds));
    for (int what = 0; what < N_OPERATIONS; what++)
        for (int64_t bytes = 1 << 10; bytes <= most; bytes *= 4)
            json_array_append_new(collectives,
                                  measure((operation)what, bytes / (int64_t)sizeof *x, rounds, x, piece));
    json_array_append_new(overlaps, measure_overlap(.5, 16 << 20, rounds, x));
    json_array_append_new(overlaps, measure_overlap(.5, most, rounds, x));
    json_object_set_new(all, "collectives", collectives);
    json_object_set_new(all, "overlap", overlaps);
    if (mesh->rank == 0) {
        char *line = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
        printf("%s\n", line);
        free(line);
    }
    json_decref(all);
    free(x);
    free(piece);
    sago_mesh_close(mesh);
    sago_mesh_finish(0);
    MPI_Comm_free(&peers);
    MPI_Finalize();
    return 0;
}
