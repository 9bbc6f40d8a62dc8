// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    int rank, n_ranks;
    bool quiet, line_open;
    int64_t progress_at_ns, stage_since_ns;
    char stage[64];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .n_ranks = 1};

void sago_log_identity(int rank, int n_ranks) { state.rank = rank, state.n_ranks = n_ranks; }

void sago_log_quiet(bool quiet) { state.quiet = quiet; }

static bool is_terminal(void) { return isatty(STDERR_FILENO); }

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

void sago_error_line(const char *message) { say("error: ", message); }

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

void sago_progress(const char *stage, double fraction, const char *format, ...) {
    if (state.rank != 0 || state.quiet) return;
    int64_t now = sago_now_ns();
    pthread_mutex_lock(&state.lock);
    if (strncmp(stage, state.stage, sizeof state.stage - 1) != 0) {
        snprintf(state.stage, sizeof state.stage, "%s", stage);
        state.stage_since_ns = now;
        state.progress_at_ns = 0;
    }
    int64_t every = is_terminal() ? 100000000 : 5000000000;
    if (state.progress_at_ns && now - state.progress_at_ns < every && fraction < 1) {
        pthread_mutex_unlock(&state.lock);
        return;
    }
    state.progress_at_ns = now;
    char text[512], eta[32] = "", tail[48] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    double elapsed = (double)(now - state.stage_since_ns) * 1e-9;
    if (fraction > 0 && fraction < 1 && elapsed > 1)
        snprintf(tail, sizeof tail, "  ETA %s", sago_duration_text(elapsed / fraction * (1 - fraction), eta));
    if (is_terminal()) {
        fprintf(stderr, "\r\033[K%s %3.0f%%  %s%s", stage, 100 * fraction, text, tail);
        fflush(stderr);
        state.line_open = true;
    } else {
        fprintf(stderr, "%s %3.0f%%  %s%s\n", stage, 100 * fraction, text, tail);
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
