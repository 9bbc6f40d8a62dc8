// SPDX-License-Identifier: Apache-2.0
/* What reaches standard error, seen by a reader of it: a file, and a terminal of 40 columns. */
#include "log.h"
#include "test.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Runs with standard error going to fd; returns what fd's reader gets. */
static char *captured(void (*speak)(void), bool terminal) {
    static char text[8192];
    int saved = dup(STDERR_FILENO), reader, writer;
    if (terminal) {
        reader = posix_openpt(O_RDWR | O_NOCTTY);
        assert_true(reader >= 0 && grantpt(reader) == 0 && unlockpt(reader) == 0);
        writer = open(ptsname(reader), O_RDWR | O_NOCTTY);
        struct winsize size = {.ws_row = 24, .ws_col = 40};
        assert_int_equal(ioctl(writer, TIOCSWINSZ, &size), 0);
    } else {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        reader = ends[0], writer = ends[1];
    }
    dup2(writer, STDERR_FILENO);
    speak();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    /* A terminal hands over its bytes in pieces and in its own time: read up to a mark written behind them.
     */
    static const char mark[] = "<end>";
    assert_int_equal(write(writer, mark, sizeof mark - 1), sizeof mark - 1);
    size_t n = 0;
    char *end = NULL;
    while (!end) {
        ssize_t got = read(reader, text + n, sizeof text - 1 - n);
        assert_true(got > 0);
        n += (size_t)got;
        text[n] = '\0';
        end = strstr(text, mark);
    }
    *end = '\0';
    close(writer);
    close(reader);
    sago_log_identity(0, 1);
    sago_log_quiet(false);
    return text;
}

static void speak_alone(void) {
    sago_info("hello %d", 1);
    sago_warn("careful");
    sago_error_line("broken");
}

static void speak_as_rank_2(void) {
    sago_log_identity(2, 4);
    sago_info("hello");
    sago_progress("train", 0.5, "x");
    sago_warn("careful");
    sago_error_line("broken");
}

static void speak_quietly(void) {
    sago_log_quiet(true);
    sago_info("hello");
    sago_progress("train", 0.5, "x");
    sago_warn("careful");
}

static void who_says_what(void **state) {
    (void)state;
    assert_string_equal(captured(speak_alone, false),
                        "hello 1\nsago: warning: careful\nsago: error: broken\n");
    assert_string_equal(captured(speak_as_rank_2, false),
                        "sago: rank 2: warning: careful\nsago: rank 2: error: broken\n");
    assert_string_equal(captured(speak_quietly, false), "sago: warning: careful\n");
}

static void much_progress(void) {
    for (int i = 0; i <= 1000; i++) sago_progress("index", i / 1000.0, "%d files", i);
    for (int i = 0; i < 100; i++) sago_progress("index", 1, "again %d", i);
    sago_progress("sort", 0.0 / 0.0, "no fraction");
    sago_progress_end();
    sago_progress("sort", 2, "a stage begun again");
    sago_progress_end();
}

/* Elsewhere than on a terminal a stage begins and ends with a line, and speaks now and then between. */
static void plain_progress(void **state) {
    (void)state;
    assert_string_equal(captured(much_progress, false),
                        "index   0%  0 files\nindex 100%  1000 files\n"
                        "sort   0%  no fraction\nsort 100%  a stage begun again\n");
}

static void progress_on_terminal(void) {
    sago_progress("train", 0.25, "%s", "0123456789012345678901234567890123456789");
    sago_warn("careful");
    sago_progress_end();
    sago_progress("train", 0.5, "step");
    sago_progress_end();
}

/* The line is cut to the terminal's width, goes for a warning, and stands when the stage ends. */
static void redrawn_progress(void **state) {
    (void)state;
    assert_string_equal(captured(progress_on_terminal, true),
                        "\r\033[Ktrain  25%  012345678901234567890123456\r\033[Ksago: warning: careful\r\n"
                        "\r\033[Ktrain  50%  step\r\n");
}

static void durations(void **state) {
    (void)state;
    char text[32];
    assert_string_equal(sago_duration_text(12.4, text), "12s");
    assert_string_equal(sago_duration_text(59.6, text), "1m00s");
    assert_string_equal(sago_duration_text(185, text), "3m05s");
    assert_string_equal(sago_duration_text(3725, text), "1h02m");
    assert_string_equal(sago_duration_text(-1, text), "0s");
    int64_t a = sago_now_ns(), b = sago_now_ns();
    assert_true(b >= a && a > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_says_what),
        cmocka_unit_test(plain_progress),
        cmocka_unit_test(redrawn_progress),
        cmocka_unit_test(durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
