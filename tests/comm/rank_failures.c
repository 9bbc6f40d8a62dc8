// SPDX-License-Identifier: Apache-2.0
/*
 * A program in which one rank goes wrong, for test_failures.py and test_flight.py: rank_failures WHAT RANK
 * TIMEOUT_SECONDS [DIR]. Every rank reduces in a loop; after some rounds, RANK does WHAT. The other ranks'
 * lines and exit codes are what is tested, and what all leave in DIR. Where WHAT begins with "check-",
 * collectives are checked.
 */
#include "log.h"
#include "mesh.h"
#include "status.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { N = 200000, WHEN = 30 };
static float numbers[N];

static const char *folder;

static sago_status sum(sago_mesh *mesh, sago_mesh_axis axis, float *buffer, int64_t count) {
    sago_collective *started;
    SAGO_TRY(sago_all_reduce_start(mesh, axis, buffer, count, &started));
    return sago_collective_wait(mesh, started);
}

static void sleep_seconds(double seconds) {
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

static void compute_seconds(double seconds) {
    volatile double x = 1;
    for (int64_t end = sago_now_ns() + (int64_t)(seconds * 1e9); sago_now_ns() < end;) x = x * 1.0000001;
}

/* What the chosen rank does; the others go on. */
static sago_status misbehave(sago_mesh *mesh, const char *what, double timeout) {
    if (!strcmp(what, "stop")) raise(SIGSTOP);
    if (!strcmp(what, "kill")) raise(SIGKILL);
    if (!strcmp(what, "crash")) raise(SIGSEGV);
    if (!strcmp(what, "exit")) _exit(3);
    if (!strcmp(what, "exit-zero")) exit(0);
    if (!strcmp(what, "error")) return sago_fail(SAGO_E_IO, "disk of this test is full");
    if (!strcmp(what, "abort")) sago_mesh_abort(mesh, 7);
    if (!strcmp(what, "absent"))
        for (;;) pause();
    if (!strcmp(what, "check-size")) return sum(mesh, SAGO_WORLD_AXIS, numbers, N - 1);
    if (!strcmp(what, "check-axis")) return sum(mesh, SAGO_DATA_AXIS, numbers, N);
    if (!strcmp(what, "check-operation")) return sago_barrier(mesh, SAGO_WORLD_AXIS);
    if (!strcmp(what, "other-path")) return sago_barrier(mesh, SAGO_WORLD_AXIS);
    if (!strcmp(what, "other-size")) {
        float few[3] = {1, 2, 3};
        return sum(mesh, SAGO_WORLD_AXIS, few, 3);
    }
    if (!strcmp(what, "busy")) compute_seconds(timeout * 2.5);
    return SAGO_OK;
}

/* Two pages in a row that are one in memory: no sum of differing numbers can be right in it. */
static float *overlapping_pages(size_t page) {
    int file = memfd_create("pages", 0);
    char *twice = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (file < 0 || twice == MAP_FAILED || ftruncate(file, (off_t)page) != 0) abort();
    for (int i = 0; i < 2; i++)
        if (mmap(twice + (size_t)i * page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) ==
            MAP_FAILED)
            abort();
    return (float *)twice;
}

static sago_status sum_in_pages(sago_mesh *mesh, bool overlap) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 2 * page / sizeof(float);
    float *buffer = overlap ? overlapping_pages(page) : numbers;
    for (size_t i = 0; i < n; i++) buffer[i] = (float)i;
    return sum(mesh, SAGO_WORLD_AXIS, buffer, (int64_t)n);
}

/* What a signal's handler would do; then waits until the record is there. */
static void record(const sago_mesh *mesh) {
    char path[4096];
    snprintf(path, sizeof path, "%s/rank-%d.jsonl", folder, mesh->rank);
    sago_mesh_record_now();
    while (access(path, R_OK) != 0) sleep_seconds(.01);
}

/* Two groups of ranks sum other numbers of times in an order of their own; then one rank of the second group, or none,
 * strays. */
static sago_status sum_in_groups(sago_mesh *mesh, bool stray) {
    sago_mesh *view;
    SAGO_TRY(sago_mesh_second_order(mesh, &view));
    sago_status status = SAGO_OK;
    for (int i = 0; i < (mesh->axis_rank[SAGO_DATA_AXIS] ? 3 : 8) && status == SAGO_OK; i++)
        status = sum(view, SAGO_MODEL_AXIS, numbers, i == 2 && stray ? N - 1 : N);
    sago_mesh_close(view);
    return status;
}

static sago_status run(sago_mesh *mesh, const char *what, int rank, double timeout) {
    if (!strncmp(what, "check-group", 11)) return sum_in_groups(mesh, !what[11] && rank == mesh->rank);
    for (int round = 0; round < 2 * WHEN; round++) {
        for (int i = 0; i < N; i++) numbers[i] = 1;
        sago_status status = SAGO_OK;
        if (round == WHEN && !strcmp(what, "record")) record(mesh);
        if (round == WHEN && !strcmp(what, "check-buffer")) SAGO_TRY(sum_in_pages(mesh, rank == mesh->rank));
        if (round == WHEN && rank == mesh->rank) status = misbehave(mesh, what, timeout);
        if (!strcmp(what, "agree")) {
            if (round == WHEN && rank == mesh->rank)
                status = sago_fail(SAGO_E_IO, "disk of this test is full");
            status = sago_agree(mesh, status);
        }
        SAGO_TRY(status);
        if (round == WHEN && !strcmp(what, "leave") && rank == mesh->rank) return SAGO_OK;
        if (round == WHEN && !strcmp(what, "error-while-busy") && rank == mesh->rank)
            return sago_fail(SAGO_E_IO, "disk of this test is full");
        if (round == WHEN && !strcmp(what, "error-while-busy")) sleep_seconds(600);
        SAGO_TRY(sum(mesh, SAGO_WORLD_AXIS, numbers, N));
        if (numbers[N - 1] != (float)mesh->size) return sago_fail(SAGO_E_INTERNAL, "a wrong sum");
    }
    return SAGO_OK;
}

int main(int n_arguments, char **arguments) {
    if (n_arguments != 4 && n_arguments != 5) return 2;
    folder = arguments[4];
    double timeout = atof(arguments[3]);
    sago_mesh *mesh = NULL;
    sago_status status = sago_mesh_start();
    int64_t data = !strcmp(arguments[1], "wrong-size") ? 7 : 0, model = strncmp(arguments[1], "check-group", 11) ? 1 : 2;
    if (!strcmp(arguments[1], "early") && sago_mesh_world_rank() == atoi(arguments[2]))
        status = sago_fail(SAGO_E_CONFIG, "no such file on this node");
    if (status == SAGO_OK) status = sago_mesh_open(data, model, timeout, &mesh);
    if (status == SAGO_OK) sago_mesh_check(mesh, !strncmp(arguments[1], "check-", 6));
    if (status == SAGO_OK && folder) status = sago_mesh_record(mesh, folder);
    if (status == SAGO_OK) status = run(mesh, arguments[1], atoi(arguments[2]), timeout);
    if (status != SAGO_OK && (sago_mesh_world_rank() == 0 || !sago_mesh_failure_is_shared()))
        sago_error_line(sago_message());
    sago_mesh_close(mesh);
    sago_mesh_finish(sago_status_exit_code(status));
    return sago_status_exit_code(status);
}
