// SPDX-License-Identifier: Apache-2.0
/* What the ranks' records say side by side (rank_checks.h). */
#include "machine_checks.h"
#include "rank_checks.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAMED = 8 };
/* A rank is slow below this part of the median, late when others wait for it for this much more of their sums
 * than for the median rank, and its clock is wrong from this many seconds on. */
static const double slow_part = 0.8, late_share = 0.2, clock_seconds = 2;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the values that are there; of an even number the lower one, which two ranks are better judged by. */
static double median_of(const double values[], size_t n) {
    double *sorted = sago_alloc((n + 1) * sizeof *sorted);
    size_t n_there = 0;
    for (size_t r = 0; r < n; r++)
        if (isfinite(values[r])) sorted[n_there++] = values[r];
    qsort(sorted, n_there, sizeof *sorted, by_value);
    double median = n_there ? sorted[(n_there - 1) / 2] : NAN;
    free(sorted);
    return median;
}

static const char *host_of(const json_t *records, size_t rank) {
    return json_string_value(json_object_get(json_array_get(records, rank), "host"));
}

/* "rank 3 (host n7)" or "ranks 0-2, 5 (hosts n1, n2)": those that are marked. */
static void add_ranks(sago_str *text, const json_t *records, const bool marked[]) {
    size_t n = json_array_size(records), n_marked = 0, n_ranges = 0, n_hosts = 0;
    for (size_t r = 0; r < n; r++) n_marked += marked[r];
    sago_str_printf(text, n_marked == 1 ? "rank " : "ranks ");
    for (size_t r = 0; r < n; r++) {
        if (!marked[r] || (r > 0 && marked[r - 1])) continue;
        size_t last = r;
        while (last + 1 < n && marked[last + 1]) last++;
        if (n_ranges++ == MOST_NAMED) {
            sago_str_puts(text, ", ...");
            break;
        }
        sago_str_printf(text, n_ranges > 1 ? ", %zu" : "%zu", r);
        if (last > r) sago_str_printf(text, "-%zu", last);
    }
    sago_str_puts(text, " (host ");
    for (size_t r = 0; r < n && n_hosts <= MOST_NAMED; r++) {
        bool known = !marked[r];
        for (size_t q = 0; q < r && !known; q++)
            known = marked[q] && strcmp(host_of(records, q), host_of(records, r)) == 0;
        if (known) continue;
        if (n_hosts++ == MOST_NAMED)
            sago_str_puts(text, ", ...");
        else
            sago_str_printf(text, n_hosts > 1 ? ", %s" : "%s", host_of(records, r));
    }
    sago_str_putc(text, ')');
}

/* Every name that any rank's object `part` has, in the order in which they come: an object of nulls. */
static json_t *names_of(const json_t *records, const char *part) {
    json_t *names = json_object();
    size_t r;
    json_t *record, *value;
    const char *name;
    json_array_foreach((json_t *)records, r, record) {
        json_object_foreach(json_object_get(record, part), name, value) {
            if (!json_object_get(names, name)) json_object_set_new(names, name, json_null());
        }
    }
    return names;
}

static const char *same_of(const json_t *records, size_t rank, const char *name) {
    const char *value =
        json_string_value(json_object_get(json_object_get(json_array_get(records, rank), "same"), name));
    return value ? value : "none";
}

/* "1.10.8 on ranks 0-2 (host n1); none on rank 3 (host n7)" */
static void tell_difference(json_t *findings, const json_t *records, const char *name) {
    size_t n = json_array_size(records), n_values = 0;
    bool *told = sago_alloc_zero(n, sizeof *told), *marked = sago_alloc_zero(n, sizeof *marked);
    sago_str text = {0};
    for (size_t r = 0; r < n; r++) {
        if (told[r]) continue;
        for (size_t q = 0; q < n; q++) {
            marked[q] = strcmp(same_of(records, q, name), same_of(records, r, name)) == 0;
            told[q] |= marked[q];
        }
        if (n_values++) sago_str_puts(&text, "; ");
        sago_str_printf(&text, "%s on ", same_of(records, r, name));
        add_ranks(&text, records, marked);
    }
    sago_finding_add(findings, name, "fail",
                     "ranks that differ give other numbers or fail midway: make them alike", "%s",
                     sago_str_text(&text));
    sago_str_free(&text);
    free(told);
    free(marked);
}

static void judge_versions(const json_t *records, json_t *findings) {
    json_t *names = names_of(records, "same"), *unused;
    sago_str alike = {0};
    const char *name;
    json_object_foreach(names, name, unused) {
        bool same = true;
        for (size_t r = 1; r < json_array_size(records); r++)
            same &= strcmp(same_of(records, r, name), same_of(records, 0, name)) == 0;
        if (same)
            sago_str_printf(&alike, "%s%s %s", alike.length ? ", " : "", name, same_of(records, 0, name));
        else
            tell_difference(findings, records, name);
    }
    if (alike.length)
        sago_finding_add(findings, "versions", "ok", "", "alike on %zu rank%s: %s", json_array_size(records),
                         json_array_size(records) == 1 ? "" : "s", sago_str_text(&alike));
    sago_str_free(&alike);
    json_decref(names);
}

/* One line of a figure of every rank: its median and extremes, and who is out of line, worst first, with its
 * own. */
static void tell_figures(json_t *findings, const json_t *records, const char *name, const char *unit,
                         const double values[], const bool wrong[], const char *remedy) {
    size_t n = json_array_size(records), n_wrong = 0, n_there = 0, least = 0;
    double median = median_of(values, n);
    sago_str text = {0};
    for (size_t r = 0; r < n; r++) {
        if (!isfinite(values[r])) continue;
        if (n_there++ == 0 || values[r] < values[least]) least = r;
        n_wrong += wrong[r];
    }
    sago_str_printf(&text, "median %.4g %s", median, unit);
    if (n_there > 1)
        sago_str_printf(&text, " of %zu ranks, least %.4g on rank %zu", n_there, values[least], least);
    size_t n_named = 0;
    for (size_t r = 0; r < n; r++) {
        if (!wrong[r] || n_named++ >= MOST_NAMED) continue;
        sago_str_printf(&text, "%srank %zu (host %s) %.4g", n_named == 1 ? "; out of line: " : ", ", r,
                        host_of(records, r), values[r]);
    }
    if (n_wrong > MOST_NAMED) sago_str_printf(&text, " and %zu more", n_wrong - MOST_NAMED);
    sago_finding_add(findings, name, n_wrong ? "warn" : "ok", remedy, "%s", sago_str_text(&text));
    sago_str_free(&text);
}

static const char *speed_remedy(const char *name) {
    if (sago_starts_with(name, "axis"))
        return "the whole axis waits for its slowest group: look at the links and the network of these "
               "ranks' nodes";
    if (strcmp(name, "disk speed") == 0)
        return "a checkpoint is as slow as its slowest rank: look at that node's mount";
    return "every step waits for the slowest rank: look at its node's clocks, cooling, binding and other "
           "processes, or "
           "leave the node out";
}

static void judge_speeds(const json_t *records, json_t *findings) {
    json_t *names = names_of(records, "speeds"), *unused;
    size_t n = json_array_size(records);
    double *values = sago_alloc_zero(n, sizeof *values);
    bool *wrong = sago_alloc_zero(n, sizeof *wrong);
    const char *name;
    json_object_foreach(names, name, unused) {
        const char *unit = "";
        for (size_t r = 0; r < n; r++) {
            const json_t *speed =
                json_object_get(json_object_get(json_array_get(records, r), "speeds"), name);
            values[r] = speed ? json_number_value(json_object_get(speed, "value")) : NAN;
            if (speed) unit = json_string_value(json_object_get(speed, "unit"));
        }
        double median = median_of(values, n);
        for (size_t r = 0; r < n; r++) wrong[r] = values[r] < slow_part * median;
        tell_figures(findings, records, name, unit, values, wrong, speed_remedy(name));
    }
    free(values);
    free(wrong);
    json_decref(names);
}

/* Within a group of one axis all end a sum together; whom the others waited for tells them apart. */
static void judge_lateness(const json_t *records, json_t *findings) {
    size_t n = json_array_size(records);
    double *values = sago_alloc_zero(n, sizeof *values);
    bool *wrong = sago_alloc_zero(n, sizeof *wrong), any = false;
    for (size_t r = 0; r < n; r++) {
        values[r] = 100 * json_number_value(json_object_get(json_array_get(records, r), "late"));
        any |= values[r] > 0;
    }
    double median = median_of(values, n);
    for (size_t r = 0; r < n; r++) wrong[r] = values[r] > median + 100 * late_share;
    if (any)
        tell_figures(findings, records, "waited for", "% of a sum", values, wrong,
                     "the others' sums wait for the messages of these ranks: look at the network of their "
                     "nodes, and at what "
                     "else runs there");
    free(values);
    free(wrong);
}

static void judge_clocks(const json_t *records, json_t *findings) {
    size_t n = json_array_size(records);
    double *values = sago_alloc_zero(n, sizeof *values), widest = 0;
    bool *wrong = sago_alloc_zero(n, sizeof *wrong), any = false;
    for (size_t r = 0; r < n; r++)
        values[r] = json_number_value(json_object_get(json_array_get(records, r), "clock"));
    double median = median_of(values, n);
    for (size_t r = 0; r < n; r++) {
        values[r] -= median;
        wrong[r] = fabs(values[r]) > clock_seconds;
        any |= wrong[r];
        widest = fmax(widest, fabs(values[r]));
    }
    if (any)
        tell_figures(findings, records, "clocks", "s", values, wrong,
                     "set these nodes' clocks (chrony, ntpd)");
    else
        sago_finding_add(findings, "clocks", "ok", "", "within %.2g s of one another", widest);
    free(values);
    free(wrong);
}

static void tell_failure(json_t *findings, const json_t *records, const json_t *failure,
                         const bool marked[]) {
    sago_str ranks = {0};
    add_ranks(&ranks, records, marked);
    sago_finding_add(findings, json_string_value(json_object_get(failure, "name")),
                     json_string_value(json_object_get(failure, "status")),
                     "see to it on the nodes of these ranks, or leave those nodes out", "%s: %s",
                     sago_str_text(&ranks), json_string_value(json_object_get(failure, "text")));
    sago_str_free(&ranks);
}

/* What ranks could not do: one line a message, however many ranks have it. */
static void judge_failures(const json_t *records, json_t *findings) {
    size_t n = json_array_size(records), r, i;
    bool *marked = sago_alloc_zero(n, sizeof *marked);
    json_t *told = json_array(), *record, *failure;
    json_array_foreach((json_t *)records, r, record) {
        json_array_foreach(json_object_get(record, "failures"), i, failure) {
            bool known = false;
            for (size_t k = 0; k < json_array_size(told); k++)
                known |= json_equal(json_array_get(told, k), failure);
            if (known) continue;
            json_array_append(told, failure);
            for (size_t q = 0; q < n; q++) {
                size_t k;
                json_t *theirs;
                marked[q] = false;
                json_array_foreach(json_object_get(json_array_get(records, q), "failures"), k, theirs) {
                    marked[q] |= json_equal(theirs, failure);
                }
            }
            tell_failure(findings, records, failure, marked);
        }
    }
    json_decref(told);
    free(marked);
}

void sago_ranks_judge(const json_t *records, json_t *findings) {
    judge_failures(records, findings);
    judge_versions(records, findings);
    judge_speeds(records, findings);
    judge_lateness(records, findings);
    judge_clocks(records, findings);
}
