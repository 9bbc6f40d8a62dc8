// SPDX-License-Identifier: Apache-2.0
#include "arena.h"
#include "test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* The layout that both passes of an arena walk: two buffers that stay, and scratch that comes and goes. */
static void lay_out(sago_arena *arena, sago_tensor out[4]) {
    out[0] = sago_arena_tensor(arena, SAGO_F32, 2, (int64_t[]){3, 5});
    size_t mark = sago_arena_mark(arena);
    out[1] = sago_arena_tensor(arena, SAGO_U8, 1, (int64_t[]){1000});
    sago_arena_release(arena, mark);
    out[2] = sago_arena_tensor(arena, SAGO_BF16, 3, (int64_t[]){2, 3, 4});
    out[3] = sago_arena_tensor(arena, SAGO_I32, 1, (int64_t[]){0});
}

static void measuring_tells_what_laying_out_takes(void **state) {
    (void)state;
    sago_tensor t[4];
    sago_arena arena = sago_arena_measure();
    lay_out(&arena, t);
    assert_null(t[0].data);
    assert_int_equal(arena.peak_bytes, 64 + 1024);
    size_t peak = arena.peak_bytes;
    assert_ok(sago_arena_open(&arena, peak));
    lay_out(&arena, t);
    assert_int_equal(arena.peak_bytes, peak);
    for (int i = 0; i < 4; i++) {
        assert_int_equal((uintptr_t)t[i].data % SAGO_ARENA_ALIGN, 0);
        memset(t[i].data, 0xAB, sago_tensor_bytes(t[i]));
    }
    assert_ptr_equal(t[1].data, t[2].data); /* scratch was given back */
    sago_arena_close(&arena);
    assert_null(arena.base);
}

static void memory_is_zeroed_and_may_be_anothers(void **state) {
    (void)state;
    sago_arena arena;
    assert_ok(sago_arena_open(&arena, 100));
    const char *bytes = sago_arena_take(&arena, 100);
    for (int i = 0; i < 100; i++) assert_int_equal(bytes[i], 0);
    sago_arena_close(&arena);
    _Alignas(SAGO_ARENA_ALIGN) static char own[256];
    sago_arena_over(&arena, own, sizeof own);
    assert_ptr_equal(sago_arena_take(&arena, 1), own);
    assert_ptr_equal(sago_arena_take(&arena, 1), own + 64);
#ifndef __SANITIZE_ADDRESS__ /* which ends the program instead of saying no */
    assert_fails(sago_arena_open(&arena, (size_t)1 << 60), SAGO_E_MEMORY, "MiB");
#endif
}

/* Taking past the end is a defect of the caller and must not go on. */
static void overrun_aborts(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(3);
        sago_arena arena;
        signal(SIGABRT, SIG_DFL);
        if (sago_arena_open(&arena, 64) == SAGO_OK) sago_arena_take(&arena, 65);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void tensors(void **state) {
    (void)state;
    float data[24];
    char text[64];
    sago_tensor t = sago_tensor_3d(data, SAGO_F32, 2, 3, 4);
    assert_int_equal(sago_tensor_count(t), 24);
    assert_int_equal(sago_tensor_bytes(t), 96);
    sago_tensor row = sago_tensor_rows(t, 1, 1);
    assert_ptr_equal(row.data, data + 12);
    assert_int_equal(sago_tensor_count(row), 12);
    sago_tensor flat = sago_tensor_view(t, 1, (int64_t[]){24});
    assert_int_equal(flat.shape[3], 1);
    assert_false(sago_tensor_same_shape(t, flat));
    assert_true(sago_tensor_same_shape(t, sago_tensor_3d(NULL, SAGO_BF16, 2, 3, 4)));
    assert_string_equal(sago_tensor_text(t, text, sizeof text), "f32[2, 3, 4]");
    char tiny[6];
    assert_string_equal(sago_tensor_text(t, tiny, sizeof tiny), "f32[2");
    sago_tensor unplaced = sago_tensor_rows(sago_tensor_2d(NULL, SAGO_F32, 4, 4), 2, 1);
    assert_null(unplaced.data);
    assert_int_equal(sago_dtype_bytes(SAGO_BF16), 2);
    assert_string_equal(sago_dtype_name(SAGO_U8), "u8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measuring_tells_what_laying_out_takes),
        cmocka_unit_test(memory_is_zeroed_and_may_be_anothers),
        cmocka_unit_test(overrun_aborts),
        cmocka_unit_test(tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
