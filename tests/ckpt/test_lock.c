// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include "lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void one_at_a_time(void **unused) {
    (void)unused;
    sago_run_lock *lock, *second;
    char part[64];
    assert_ok(sago_run_lock_take(test_folder, &lock));
    snprintf(part, sizeof part, "in use by process %ld on host ", (long)getpid());
    assert_fails(sago_run_lock_take(test_folder, &second), SAGO_E_BUSY, part);
    sago_run_lock_release(lock);
    assert_ok(sago_run_lock_take(test_folder, &lock));
    sago_run_lock_release(lock);
    sago_run_lock_release(NULL);
    assert_fails(sago_run_lock_take(test_path("none"), &lock), SAGO_E_IO, "none/.lock: cannot write");
}

/* Another process holds it, and SIGKILL takes it away. */
static void killed_holder(void **unused) {
    (void)unused;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        sago_run_lock *lock;
        char ok = sago_run_lock_take(test_folder, &lock) == SAGO_OK;
        if (write(ready[1], &ok, 1) != 1) _exit(1);
        for (;;) pause();
    }
    char ok = 0;
    assert_int_equal(read(ready[0], &ok, 1), 1);
    assert_int_equal(ok, 1);
    char part[64];
    snprintf(part, sizeof part, "process %ld on host", (long)child);
    sago_run_lock *lock;
    assert_fails(sago_run_lock_take(test_folder, &lock), SAGO_E_BUSY, part);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_ok(sago_run_lock_take(test_folder, &lock));
    sago_run_lock_release(lock);
    close(ready[0]);
    close(ready[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_at_a_time), cmocka_unit_test(killed_holder)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
