// SPDX-License-Identifier: Apache-2.0
/* Which signals ask for a stop. A process started as a rank is watched by one that stands for the launcher. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* A rank that watches, says so, and leaves with what it received once SIGUSR1 or another request came. */
static pid_t start_rank(bool under_launcher) {
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t rank = fork();
    assert_true(rank >= 0);
    if (rank == 0) {
        if (under_launcher)
            setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
        else
            unsetenv("OMPI_COMM_WORLD_SIZE");
        sago_signals_watch();
        if (write(ready[1], &byte, 1) != 1) _exit(0);
        while (!sago_signal_received()) usleep(1000);
        _exit(sago_signal_received());
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]), close(ready[1]);
    return rank;
}

static int end_of(pid_t rank) {
    int status;
    assert_int_equal(waitpid(rank, &status, 0), rank);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_requests(void **state) {
    (void)state;
    const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        pid_t rank = start_rank(false);
        kill(rank, numbers[i]);
        assert_int_equal(end_of(rank), numbers[i]);
    }
}

static void test_continue_from_the_launcher(void **state) {
    (void)state;
    pid_t rank = start_rank(true);
    kill(rank, SIGCONT);
    assert_int_equal(end_of(rank), SIGTERM);
}

/* It is no request: the rank goes on until SIGUSR1. A pause lets it act on the SIGCONT if it would; without the pause
 * a wrong rank could pass, never a right one fail. */
static void test_continue_from_others(void **state) {
    (void)state;
    pid_t rank = start_rank(true), sibling = fork();
    if (sibling == 0) {
        kill(rank, SIGCONT);
        _exit(0);
    }
    assert_int_equal(end_of(sibling), 0);
    usleep(50000);
    kill(rank, SIGUSR1);
    assert_int_equal(end_of(rank), SIGUSR1);
    rank = start_rank(false);
    kill(rank, SIGCONT);
    usleep(50000);
    kill(rank, SIGUSR1);
    assert_int_equal(end_of(rank), SIGUSR1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_requests),
                                       cmocka_unit_test(test_continue_from_the_launcher),
                                       cmocka_unit_test(test_continue_from_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
