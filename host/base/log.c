// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include "str.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    int rank, n_ranks;
    bool quiet, line_open, completed;
    int64_t progress_at_ns, stage_since_ns;
    double stage_from; /* fraction at which the stage began */
    char stage[64];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .n_ranks = 1};

void sago_log_identity(int rank, int n_ranks) {
    state.rank = rank, state.n_ranks = n_ranks;
}

void sago_log_quiet(bool quiet) {
    state.quiet = quiet;
}

static bool is_terminal(void) {
    return isatty(STDERR_FILENO);
}

static void clear_line(void) {
    if (state.line_open) fputs("\r\033[K", stderr);
    state.line_open = false;
}

static void say(const char *kind, const char *text) {
    pthread_mutex_lock(&state.lock);
    clear_line();
    if (state.n_ranks > 1 && kind[0])
        fprintf(stderr, "sago: rank %d: %s%s\n", state.rank, kind, text);
    else
        fprintf(stderr, "%s%s%s\n", kind[0] ? "sago: " : "", kind, text);
    pthread_mutex_unlock(&state.lock);
}

void sago_info(const char *format, ...) {
    if (state.rank != 0 || state.quiet) return;
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    say("", text);
}

void sago_warn(const char *format, ...) {
    char text[SAGO_ERROR_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    say("warning: ", text);
}

void sago_error_line(const char *message) {
    say("error: ", message);
}

int64_t sago_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

const char *sago_duration_text(double seconds, char text[32]) {
    int64_t s = seconds < 0 ? 0 : (int64_t)(seconds + .5);
    if (s >= 3600)
        snprintf(text, 32, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
    else if (s >= 60)
        snprintf(text, 32, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
    else
        snprintf(text, 32, "%llds", (long long)s);
    return text;
}

static int terminal_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

/* One line for both: redrawn in place on a terminal, and cut there to its width, since a wrapped line can't
 * be redrawn. */
static void draw_progress(const char *line) {
    if (!is_terminal()) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    size_t cut = 0, length = strlen(line);
    for (int columns = terminal_columns() - 1; cut < length && columns > 0; columns--) {
        size_t step = sago_utf8_step(line + cut, length - cut);
        cut += step ? step : 1;
    }
    fprintf(stderr, "\r\033[K%.*s", (int)cut, line);
    fflush(stderr);
    state.line_open = true;
}

/* Time left at the pace since the stage began here: a continued run did not begin at 0. */
static void add_eta(char *text, size_t bytes, double fraction, int64_t now) {
    char duration[32];
    double elapsed = (double)(now - state.stage_since_ns) * 1e-9, done = fraction - state.stage_from;
    if (fraction >= 1 || done <= 0 || elapsed < 1) return;
    snprintf(text, bytes, "  ETA %s", sago_duration_text(elapsed / done * (1 - fraction), duration));
}

void sago_progress(const char *stage, double fraction, const char *format, ...) {
    if (state.rank != 0 || state.quiet) return;
    if (!(fraction >= 0)) fraction = 0;
    if (fraction > 1) fraction = 1;
    int64_t now = sago_now_ns();
    pthread_mutex_lock(&state.lock);
    if (strncmp(stage, state.stage, sizeof state.stage - 1) != 0) {
        if (state.line_open) fputc('\n', stderr);
        state.line_open = false;
        snprintf(state.stage, sizeof state.stage, "%s", stage);
        state.stage_since_ns = now;
        state.stage_from = fraction;
        state.progress_at_ns = 0;
        state.completed = false;
    }
    int64_t every = is_terminal() ? 100000000 : 5000000000;
    bool completes = fraction >= 1 && !state.completed;
    if (!state.progress_at_ns || now - state.progress_at_ns >= every || completes) {
        char text[512], line[640], eta[48] = "";
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        add_eta(eta, sizeof eta, fraction, now);
        snprintf(line, sizeof line, "%s %3.0f%%  %s%s", state.stage, 100 * fraction, text, eta);
        state.progress_at_ns = now;
        state.completed = fraction >= 1;
        draw_progress(line);
    }
    pthread_mutex_unlock(&state.lock);
}

void sago_progress_end(void) {
    pthread_mutex_lock(&state.lock);
    if (state.line_open) fputc('\n', stderr);
    state.line_open = false;
    state.stage[0] = '\0';
    pthread_mutex_unlock(&state.lock);
}
