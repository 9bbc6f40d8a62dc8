// SPDX-License-Identifier: Apache-2.0
#include "flight.h"

#include "file.h"
#include "json.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 16, MAX_RANKS = 1 << 20, MAX_ROWS = 100000, LINE_BYTES = 64 << 10 };

typedef struct row {
    char name[24], axis[8];
    int rank, first, stride, ranks, channel;
    int64_t sequence, bytes;
    double age; /* seconds from its start to the writing of the record */
    bool started_only;
} row;

typedef struct rank_record {
    bool present, failed;
    char *host, *reason;
    int64_t pid, newest[CHANNELS]; /* newest sequence number; 0: none */
    bool told[CHANNELS];           /* that it missed a collective */
    int n_rows;
    const row *last; /* of `rows` once they are complete */
} rank_record;

typedef struct records {
    int n_ranks, n_rows, room;
    int64_t run;
    rank_record *ranks;
    row *rows;
    json_t *findings; /* texts, in the order of channel and sequence */
} records;

/* --- reading --- */

static bool get_int(const json_t *line, const char *key, int64_t low, int64_t high, int64_t *out) {
    const json_t *value = json_object_get(line, key);
    *out = json_integer_value(value);
    return json_is_integer(value) && *out >= low && *out <= high;
}

static bool get_text(const json_t *line, const char *key, char *out, size_t room) {
    const char *text = json_string_value(json_object_get(line, key));
    if (!text || strlen(text) >= room) return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static sago_status read_row(records *all, const json_t *line, int rank, double at, const char *where,
                            int64_t number) {
    char state[16];
    int64_t first, stride, ranks, channel;
    row r = {.rank = rank};
    const json_t *began = json_object_get(line, "at");
    bool good =
        get_text(line, "name", r.name, sizeof r.name) && get_text(line, "axis", r.axis, sizeof r.axis) &&
        get_text(line, "state", state, sizeof state) && get_int(line, "ranks", 1, all->n_ranks, &ranks) &&
        get_int(line, "first", 0, all->n_ranks, &first) &&
        get_int(line, "stride", 1, all->n_ranks, &stride) &&
        get_int(line, "channel", 0, CHANNELS - 1, &channel) &&
        get_int(line, "sequence", 1, INT64_MAX, &r.sequence) &&
        get_int(line, "bytes", 0, INT64_MAX, &r.bytes) && json_is_number(began) &&
        first + (ranks - 1) * stride < all->n_ranks && all->ranks[rank].n_rows < MAX_ROWS;
    if (!good)
        return sago_fail(SAGO_E_INPUT, "%s:%lld: not a line of a flight record", where, (long long)number);
    r.first = (int)first, r.stride = (int)stride, r.ranks = (int)ranks, r.channel = (int)channel;
    r.age = at - json_number_value(began);
    r.started_only = strcmp(state, "started") == 0;
    if (all->n_rows == all->room) {
        all->room = all->room ? 2 * all->room : 1024;
        row *more = sago_alloc((size_t)all->room * sizeof *more);
        if (all->n_rows) memcpy(more, all->rows, (size_t)all->n_rows * sizeof *more);
        free(all->rows);
        all->rows = more;
    }
    all->rows[all->n_rows++] = r;
    all->ranks[rank].n_rows++;
    if (r.sequence > all->ranks[rank].newest[channel]) all->ranks[rank].newest[channel] = r.sequence;
    return SAGO_OK;
}

static void forget(records *all) {
    for (int r = 0; r < all->n_ranks; r++) {
        free(all->ranks[r].host);
        free(all->ranks[r].reason);
    }
    free(all->ranks);
    free(all->rows);
    json_decref(all->findings);
    *all = (records){.findings = json_array()};
}

/* Files of an older run stay where the newest one has fewer ranks, or a rank that could not write. */
static sago_status read_head(records *all, const json_t *line, const char *where, int *rank, double *at) {
    int64_t its_rank, n_ranks, run, pid;
    const json_t *written = json_object_get(line, "at");
    const char *host = json_string_value(json_object_get(line, "host"));
    const char *reason = json_string_value(json_object_get(line, "reason"));
    *rank = -1;
    if (!get_int(line, "ranks", 1, MAX_RANKS, &n_ranks) ||
        !get_int(line, "rank", 0, n_ranks - 1, &its_rank) || !get_int(line, "run", 0, INT64_MAX, &run) ||
        !get_int(line, "pid", 0, INT64_MAX, &pid) || !host || !reason || !json_is_number(written))
        return sago_fail(SAGO_E_INPUT, "%s:1: not the head of a flight record", where);
    if (all->ranks && run < all->run) return SAGO_OK;
    if (!all->ranks || run > all->run) {
        forget(all);
        all->run = run;
        all->n_ranks = (int)n_ranks;
        all->ranks = sago_alloc_zero((size_t)n_ranks, sizeof *all->ranks);
    }
    if (n_ranks != all->n_ranks || all->ranks[its_rank].present)
        return sago_fail(SAGO_E_INPUT, "%s:1: another file says otherwise of rank %lld of %lld", where,
                         (long long)its_rank, (long long)n_ranks);
    *rank = (int)its_rank;
    *at = json_number_value(written);
    all->ranks[its_rank] = (rank_record){.present = true,
                                         .failed = json_is_true(json_object_get(line, "failed")),
                                         .host = sago_strdup(host),
                                         .reason = sago_strdup(reason),
                                         .pid = pid};
    return SAGO_OK;
}

static sago_status read_file(records *all, const char *path) {
    sago_line_reader reader = {0};
    sago_status status;
    int rank = -1;
    double at = 0;
    SAGO_TRY_TO(done, sago_lines_open(&reader, path, LINE_BYTES));
    for (bool more;;) {
        json_t *line;
        SAGO_TRY_TO(done, sago_lines_next(&reader, &more));
        if (!more) break;
        SAGO_TRY_TO(done, sago_json_parse(sago_str_text(&reader.line), reader.line.length, path,
                                          reader.number, &line));
        status = reader.number == 1 ? read_head(all, line, path, &rank, &at)
                                    : read_row(all, line, rank, at, path, reader.number);
        json_decref(line);
        if (status != SAGO_OK || rank < 0) break;
    }
done:
    sago_lines_close(&reader);
    return status;
}

static sago_status read_all(records *all, const char *dir) {
    sago_names names = {0};
    int n_files = 0;
    sago_status status = sago_dir_list(dir, &names);
    for (size_t i = 0; i < names.count && status == SAGO_OK; i++) {
        if (!sago_starts_with(names.names[i], "rank-") || !sago_ends_with(names.names[i], ".jsonl")) continue;
        char *path = sago_path_join(dir, names.names[i]);
        status = read_file(all, path);
        free(path);
        n_files++;
    }
    sago_names_free(&names);
    if (status == SAGO_OK && n_files == 0)
        return sago_fail(
            SAGO_E_INPUT,
            "%s: holds no rank-N.jsonl: ranks write them into RUN/flight when a run fails, or on "
            "SIGUSR2",
            dir);
    return status;
}

/* --- what it means --- */

static int by_place(const void *a, const void *b) {
    const row *x = a, *y = b;
    if (x->channel != y->channel) return x->channel < y->channel ? -1 : 1;
    if (x->sequence != y->sequence) return x->sequence < y->sequence ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static void finding(records *all, sago_str *text) {
    json_array_append_new(all->findings, json_string(sago_str_text(text)));
    sago_str_free(text);
}

static void add_call(sago_str *text, const row *r) {
    sago_str_printf(text, "%s #%lld over %s (%lld bytes%s)", r->name, (long long)r->sequence, r->axis,
                    (long long)r->bytes, r->channel ? ", on a channel of its own" : "");
}

static bool same_group(const row *a, const row *b) {
    return a->first == b->first && a->stride == b->stride && a->ranks == b->ranks;
}

static bool counts(const row *r, const row *like, bool started_only) {
    return same_group(r, like) && (!started_only || r->started_only);
}

/* "ranks 0, 2 and 5 more" of the rows that are of the group of `like`, and only of those not done where
 * asked. */
static void add_entered(sago_str *text, const row *rows, int n, const row *like, bool started_only) {
    int told = 0, all = 0;
    for (int i = 0; i < n; i++) all += counts(&rows[i], like, started_only);
    sago_str_puts(text, all == 1 ? "rank" : "ranks");
    for (int i = 0; i < n && told < 8; i++)
        if (counts(&rows[i], like, started_only))
            sago_str_printf(text, told++ ? ", %d" : " %d", rows[i].rank);
    if (all > told) sago_str_printf(text, " and %d more", all - told);
}

/* Rows of one number, of which the first two that differ are told, once a channel. */
static bool tell_difference(records *all, const row *rows, int n) {
    for (int i = 1; i < n; i++) {
        bool same = strcmp(rows[i].name, rows[0].name) == 0 && strcmp(rows[i].axis, rows[0].axis) == 0;
        const row *other = &rows[0];
        for (int j = 0; j < i && same; j++)
            if (same_group(&rows[j], &rows[i])) {
                other = &rows[j];
                same = other->bytes == rows[i].bytes;
                break;
            }
        if (same) continue;
        sago_str text = {0};
        sago_str_printf(&text, "rank %d entered ", rows[i].rank);
        add_call(&text, &rows[i]);
        sago_str_printf(&text, ", where rank %d entered ", other->rank);
        add_call(&text, other);
        finding(all, &text);
        return true;
    }
    return false;
}

/* Members of one group that others waited for: each is told once a channel, with the first that it missed. */
static void tell_missing(records *all, const row *rows, int n, const row *like) {
    for (int m = 0; m < like->ranks; m++) {
        int r = like->first + m * like->stride;
        rank_record *its = &all->ranks[r];
        if (its->told[like->channel] || its->newest[like->channel] >= like->sequence) continue;
        const row *waits = NULL;
        for (int i = 0; i < n; i++)
            if (same_group(&rows[i], like) && rows[i].started_only && (!waits || rows[i].age > waits->age))
                waits = &rows[i];
        if (!its->present && !waits) continue;
        sago_str text = {0};
        if (its->present) {
            sago_str_printf(&text, "rank %d has not entered ", r);
            add_call(&text, like);
            sago_str_puts(&text, ", which was entered by ");
            add_entered(&text, rows, n, like, false);
            if (waits)
                sago_str_printf(&text, ", %.1f s before the record of rank %d", waits->age, waits->rank);
        } else {
            add_entered(&text, rows, n, like, true);
            sago_str_puts(&text, " waited in ");
            add_call(&text, like);
            sago_str_printf(&text, " for rank %d, which left no record, since %.1f s", r, waits->age);
        }
        its->told[like->channel] = true;
        finding(all, &text);
    }
}

static void judge(records *all) {
    bool differs[CHANNELS] = {false};
    qsort(all->rows, (size_t)all->n_rows, sizeof *all->rows, by_place);
    for (int at = 0, n; at < all->n_rows; at += n) {
        const row *rows = &all->rows[at];
        for (n = 1;
             at + n < all->n_rows && rows[n].channel == rows->channel && rows[n].sequence == rows->sequence;)
            n++;
        for (int i = 0; i < n; i++) all->ranks[rows[i].rank].last = &rows[i];
        if (!differs[rows->channel]) differs[rows->channel] = tell_difference(all, rows, n);
        for (int i = 0; i < n; i++) {
            bool first = true;
            for (int j = 0; j < i && first; j++) first = !same_group(&rows[j], &rows[i]);
            if (first) tell_missing(all, rows, n, &rows[i]);
        }
    }
    for (int r = 0; r < all->n_ranks; r++) {
        if (all->ranks[r].present) continue;
        sago_str text = {0};
        sago_str_printf(&text, "rank %d left no record: it was killed or stopped, or its node is gone", r);
        finding(all, &text);
    }
}

/* --- printing --- */

static void print_json(const records *all) {
    json_t *ranks = json_array();
    for (int r = 0; r < all->n_ranks; r++) {
        const rank_record *its = &all->ranks[r];
        json_t *entry = json_pack("{s:i, s:b}", "rank", r, "present", (int)its->present);
        if (its->present) {
            json_object_set_new(entry, "host", json_string(its->host));
            json_object_set_new(entry, "pid", json_integer((json_int_t)its->pid));
            json_object_set_new(entry, "failed", json_boolean(its->failed));
            json_object_set_new(entry, "reason", json_string(its->reason));
            json_object_set_new(entry, "collectives", json_integer(its->n_rows));
            json_object_set_new(entry, "newest", json_integer((json_int_t)its->newest[0]));
        }
        json_array_append_new(ranks, entry);
    }
    json_t *root = json_pack("{s:O, s:o}", "findings", all->findings, "ranks", ranks);
    sago_str text = {0};
    sago_json_add(&text, root, 9);
    printf("%s\n", sago_str_text(&text));
    sago_str_free(&text);
    json_decref(root);
}

static void print_text(const records *all) {
    size_t i;
    json_t *text;
    json_array_foreach(all->findings, i, text) printf("%s\n", json_string_value(text));
    if (json_array_size(all->findings) == 0)
        printf("no rank has missed a collective or entered another one\n");
    for (int r = 0; r < all->n_ranks; r++) {
        const rank_record *its = &all->ranks[r];
        if (!its->present) continue;
        sago_str last = {0};
        if (its->last) add_call(&last, its->last);
        printf("rank %d (host %s, pid %lld): last %s, %s; written: %s\n", r, its->host, (long long)its->pid,
               its->last ? sago_str_text(&last) : "nothing",
               its->last && its->last->started_only ? "not done" : "done", its->reason);
        sago_str_free(&last);
    }
}

sago_status sago_flight_print(const char *dir, bool as_json) {
    records all = {.findings = json_array()};
    char *inner = sago_path_join(dir, "flight");
    sago_status status = read_all(&all, sago_is_dir(inner) ? inner : dir);
    if (status == SAGO_OK) {
        judge(&all);
        if (as_json)
            print_json(&all);
        else
            print_text(&all);
    }
    forget(&all);
    json_decref(all.findings);
    free(inner);
    return status;
}
