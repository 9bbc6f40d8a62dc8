// SPDX-License-Identifier: Apache-2.0
#include "curve.h"

#include "file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_POINTS = 1500, SMOOTH = 15 };
static const char *const colours[] = {"#1b6ca8", "#c8553d", "#2e8b57", "#8a5a9e", "#a67c00", "#555555"};

static double value_of(sago_curve_kind kind, const sago_curve_point *p) {
    return kind == SAGO_CURVE_LOSS ? p->loss : p->tokens_per_second;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of the SMOOTH points around i: unmoved by a single slow step. */
static double smooth_at(sago_curve_kind kind, const sago_run_record *run, int64_t i) {
    double window[SMOOTH];
    size_t n = 0;
    for (int64_t j = i - SMOOTH / 2; j <= i + SMOOTH / 2; j++)
        if (j >= 0 && j < run->n_points && isfinite(value_of(kind, &run->points[j])))
            window[n++] = value_of(kind, &run->points[j]);
    qsort(window, n, sizeof *window, by_value);
    return n ? window[n / 2] : NAN;
}

static void write_points(sago_curve_kind kind, const sago_run_record *run, FILE *script) {
    int64_t stride = run->n_points / MOST_POINTS + 1;
    for (int64_t i = 0; i < run->n_points; i += stride) {
        double raw = value_of(kind, &run->points[i]), smooth = smooth_at(kind, run, i);
        if (isfinite(raw) && isfinite(smooth))
            fprintf(script, "%lld %.6g %.6g\n", (long long)run->points[i].step, raw, smooth);
    }
    fputs("e\n", script);
}

static void write_script(sago_curve_kind kind, const sago_run_record runs[], int n, const char *svg, FILE *script) {
    bool loss = kind == SAGO_CURVE_LOSS;
    fprintf(script,
            "set terminal svg size 720,300 dynamic font 'sans-serif,13' background rgb 'white' name '%s'\n"
            "set output '%s'\n"
            "set border 3 lc rgb '#888888'\nset tics nomirror out\nset grid ytics lc rgb '#dddddd' lt 1\n"
            "set xlabel 'step'\nset ylabel '%s'\nset key %s\n%s",
            loss ? "loss" : "throughput", svg, loss ? "loss (nats a target token)" : "tokens a second",
            n > 1 ? "top right" : "off", loss ? "" : "set yrange [0:*]\n");
    fputs("plot ", script);
    for (int i = 0; i < n; i++) {
        const char *colour = colours[(size_t)i % (sizeof colours / sizeof *colours)];
        fprintf(script, "%s'-' using 1:2 with dots lc rgb '%s' notitle, '-' using 1:3 with lines lw 2 lc rgb '%s' title ",
                i ? ", " : "", colour, colour);
        fputc('\'', script);
        /* Single quotes end a gnuplot string, and _ ^ { } are markup in it. */
        for (const char *p = runs[i].name; *p; p++) fputc(strchr("'_^{}@&~\\\"", *p) ? ' ' : *p, script);
        fputc('\'', script);
    }
    fputc('\n', script);
    for (int i = 0; i < n; i++) {
        write_points(kind, &runs[i], script);
        write_points(kind, &runs[i], script);
    }
}

static bool has_points(sago_curve_kind kind, const sago_run_record *run) {
    for (int64_t i = 0; i < run->n_points; i++)
        if (isfinite(value_of(kind, &run->points[i]))) return true;
    return false;
}

sago_status sago_curve_draw(sago_curve_kind kind, const sago_run_record runs[], int n_runs, sago_str *out) {
    int first = 0;
    while (first < n_runs && !has_points(kind, &runs[first])) first++;
    if (first == n_runs) {
        sago_str_puts(out, "<p>No step recorded one.</p>\n");
        return SAGO_OK;
    }
    char folder[] = "/tmp/sago-curve-XXXXXX";
    if (!mkdtemp(folder)) return sago_fail_errno(SAGO_E_IO, "/tmp: cannot make a folder for the curves");
    char *svg = sago_path_join(folder, "curve.svg");
    sago_str text = {0};
    sago_status status = SAGO_OK;
    FILE *script = popen("gnuplot 2>/dev/null", "w");
    bool drawn = false;
    if (script) {
        write_script(kind, runs, n_runs, svg, script);
        drawn = pclose(script) == 0 && sago_is_file(svg);
    }
    if (drawn) {
        status = sago_file_read(svg, 1u << 24, &text);
        const char *element = status == SAGO_OK ? strstr(sago_str_text(&text), "<svg") : NULL;
        if (element)
            sago_str_puts(out, element);
        else if (status == SAGO_OK)
            status = sago_fail(SAGO_E_IO, "gnuplot wrote no SVG");
    } else {
        status = sago_fail(SAGO_E_IO, "gnuplot did not run; install gnuplot-nox to have curves");
    }
    unlink(svg);
    rmdir(folder);
    free(svg);
    sago_str_free(&text);
    return status;
}
