// SPDX-License-Identifier: Apache-2.0
/*
 * comm.check: every collective is preceded by a gate, in which all ranks of the world tell what they are
 * about to enter, and followed by a seal, in which they tell the hash of a result that must be the same. Both
 * are small gathers in the same queue. All ranks see the same table and come to the same verdict, so all of
 * them fail with the same line. In a view for one axis (sago_mesh_second_order) the ranks of the axis stand
 * for all: other groups may be elsewhere. While a mesh checks, collectives run one after another.
 */
#include "comm_internal.h"
#include "rng.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_call(const comm_record *a, const comm_record *b) {
    return a->kind == b->kind && a->axis == b->axis && a->dtype == b->dtype && a->root == b->root &&
           a->sequence == b->sequence;
}

static bool same_size(const comm_record *a, const comm_record *b) {
    return a->bytes == b->bytes && a->hash == b->hash;
}

static bool same_result(const comm_record *a, const comm_record *b) {
    return a->hash == b->hash;
}

typedef bool same_fn(const comm_record *, const comm_record *);

/* Of these ranks, the first whose record is not that of the most (of the lowest ranks, where no record has
 * most), and one that has it. */
static bool find_odd(const comm_record *table, const comm_group *group, same_fn *same, int *odd, int *usual) {
    int most = 0, n = group->size;
    bool all_same = true;
    for (int i = 1; i < n && all_same; i++)
        all_same = same(&table[group->first], &table[group->first + i * group->stride]);
    if (all_same) return false;
    for (int i = 0; i < n && most <= n / 2; i++) {
        int alike = 0, r = group->first + i * group->stride;
        for (int j = 0; j < n; j++) alike += same(&table[r], &table[group->first + j * group->stride]);
        if (alike > most) most = alike, *usual = r;
    }
    for (int i = 0; i < n; i++) {
        *odd = group->first + i * group->stride;
        if (!same(&table[*usual], &table[*odd])) return true;
    }
    return false;
}

static const char *call_text(const comm_record *record, char text[160]) {
    int n = snprintf(text, 160, "%s over %s of %lld bytes", comm_kind_name((comm_kind)record->kind),
                     comm_axis_name((sago_mesh_axis)record->axis), (long long)record->bytes);
    if (record->kind == COMM_BROADCAST || record->kind == COMM_GATHER)
        snprintf(text + n, (size_t)(160 - n), ", root %d", record->root);
    return text;
}

/* The rank of a row of the table. */
static int rank_of(const comm_job *job, int row) {
    return job->within_axis ? job->group.first + row * job->group.stride : row;
}

static void tell_gate(const comm_job *job, int odd, int usual, char message[SAGO_ERROR_BYTES]) {
    char rank[128], its[160], theirs[160];
    const comm_record *a = &job->table[odd], *b = &job->table[usual];
    snprintf(message, SAGO_ERROR_BYTES,
             "comm.check: collective #%llu: %s entered %s, where rank %d entered %s%s: the ranks have taken "
             "different "
             "paths or sizes",
             (unsigned long long)b->sequence, comm_rank_text(rank_of(job, odd), rank), call_text(a, its),
             rank_of(job, usual), call_text(b, theirs),
             same_call(a, b) && a->bytes == b->bytes ? " (with pieces or numbers of another kind)" : "");
}

static void tell_seal(const comm_job *job, int odd, int usual, char message[SAGO_ERROR_BYTES]) {
    char rank[128], call[160];
    snprintf(message, SAGO_ERROR_BYTES,
             "comm.check: collective #%llu, %s: %s has another result than rank %d: its buffer was written "
             "during the "
             "collective or overlaps itself, or its memory or network is faulty",
             (unsigned long long)job->table[usual].sequence, call_text(&job->table[usual], call),
             comm_rank_text(rank_of(job, odd), rank), rank_of(job, usual));
}

/* Sizes and results are those of the ranks of an axis; group after group is looked at. */
static bool find_odd_on_axis(const comm_job *job, const comm_group *all, same_fn *same, int *odd,
                             int *usual) {
    const comm_record *table = job->table;
    if (job->within_axis) return find_odd(table, all, same, odd, usual);
    for (int r = 0; r < comm.size; r++) {
        comm_group group = comm_group_of(r, job->axis, comm.size, job->model);
        if (group.me == 0 && find_odd(table, &group, same, odd, usual)) return true;
    }
    return false;
}

bool comm_check_passes(const comm_job *job) {
    const comm_group all = {.size = job->group.size, .stride = 1};
    sago_error failure = {.status = SAGO_E_COMM};
    int odd = 0, usual = 0;
    if (job->is_seal) {
        if (!find_odd_on_axis(job, &all, same_result, &odd, &usual)) return true;
        tell_seal(job, odd, usual, failure.message);
    } else {
        if (!find_odd(job->table, &all, same_call, &odd, &usual) &&
            !find_odd_on_axis(job, &all, same_size, &odd, &usual))
            return true;
        tell_gate(job, odd, usual, failure.message);
    }
    /* One rank tells it: the first of all, or of the group that alone knows. */
    if (!job->within_axis || job->group.me > 0 || comm.rank == 0) comm_share_message(failure.message);
    comm_fail_jobs(&failure);
    return false;
}

bool comm_has_equal_result(comm_kind kind) {
    return kind == COMM_ALL_REDUCE || kind == COMM_SMALL_SUM || kind == COMM_ALL_GATHER ||
           kind == COMM_ALL_GATHER_PIECES || kind == COMM_BROADCAST || kind == COMM_AGREE;
}

/* What must be equal beside the call itself: the sizes of all pieces. */
static uint64_t hash_of_sizes(const comm_job *job) {
    size_t n = (size_t)job->group.size;
    if (job->kind == COMM_GATHER) return sago_hash_bytes(job->sizes, n * sizeof *job->sizes);
    if (job->kind == COMM_REDUCE_SCATTER || job->kind == COMM_ALL_GATHER_PIECES)
        return sago_hash_bytes(job->first, (n + 1) * sizeof *job->first);
    return 0;
}

void comm_check_describe(comm_job *check, const comm_job *job) {
    check->axis = job->axis;
    check->record = (comm_record){.kind = (int32_t)comm_called_kind(job->kind),
                                  .axis = (int32_t)job->axis,
                                  .dtype = (int32_t)job->dtype,
                                  .root = job->root,
                                  .bytes = comm_job_bytes(job),
                                  .hash = hash_of_sizes(job)};
}

void comm_check_seal(comm_job *seal) {
    const comm_job *job = seal->subject;
    bool in_buffer =
        job->kind == COMM_ALL_REDUCE || job->kind == COMM_SMALL_SUM || job->kind == COMM_BROADCAST;
    size_t bytes = (size_t)comm_job_bytes(job);
    seal->record.hash = bytes ? sago_hash_bytes(in_buffer ? job->buffer : job->output, bytes) : 0;
}
