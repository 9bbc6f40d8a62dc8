// SPDX-License-Identifier: Apache-2.0
/*
 * A program in which one rank goes wrong, for test_failures.py: rank_failures WHAT RANK TIMEOUT_SECONDS.
 * Every rank reduces in a loop; after some rounds, RANK does WHAT. The other ranks' lines and exit codes are
 * what is tested.
 */
#include "log.h"
#include "mesh.h"
#include "status.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N = 200000, WHEN = 30 };
static float numbers[N];

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
    if (!strcmp(what, "other-path")) return sago_barrier(mesh, SAGO_WORLD_AXIS);
    if (!strcmp(what, "other-size")) {
        float few[3] = {1, 2, 3};
        sago_collective *reduction;
        SAGO_TRY(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, few, 3, &reduction));
        return sago_collective_wait(mesh, reduction);
    }
    if (!strcmp(what, "busy")) compute_seconds(timeout * 2.5);
    return SAGO_OK;
}

static sago_status run(sago_mesh *mesh, const char *what, int rank, double timeout) {
    for (int round = 0; round < 2 * WHEN; round++) {
        sago_collective *reduction;
        for (int i = 0; i < N; i++) numbers[i] = 1;
        sago_status status = SAGO_OK;
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
        SAGO_TRY(sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, numbers, N, &reduction));
        SAGO_TRY(sago_collective_wait(mesh, reduction));
        if (numbers[N - 1] != (float)mesh->size) return sago_fail(SAGO_E_INTERNAL, "a wrong sum");
    }
    return SAGO_OK;
}

int main(int n_arguments, char **arguments) {
    if (n_arguments != 4) return 2;
    double timeout = atof(arguments[3]);
    sago_mesh *mesh = NULL;
    sago_status status = sago_mesh_start();
    int64_t data = !strcmp(arguments[1], "wrong-size") ? 7 : 0;
    if (!strcmp(arguments[1], "early") && sago_mesh_world_rank() == atoi(arguments[2]))
        status = sago_fail(SAGO_E_CONFIG, "no such file on this node");
    if (status == SAGO_OK) status = sago_mesh_open(data, 1, timeout, &mesh);
    if (status == SAGO_OK) status = run(mesh, arguments[1], atoi(arguments[2]), timeout);
    if (status != SAGO_OK && (sago_mesh_world_rank() == 0 || !sago_mesh_failure_is_shared()))
        sago_error_line(sago_message());
    sago_mesh_close(mesh);
    sago_mesh_finish(sago_status_exit_code(status));
    return sago_status_exit_code(status);
}
