// SPDX-License-Identifier: Apache-2.0
#include "comm_internal.h"

#include <string.h>

static int world_rank(const comm_group *group, int member) {
    return group->first + member * group->stride;
}

static void post_receive(comm_unit *unit, int member, void *bytes, size_t size) {
    int i = unit->n_requests++;
    unit->expected_bytes[i] = (int)size;
    unit->peers[i] = world_rank(&unit->job->group, member);
    comm_check(
        MPI_Irecv(bytes, (int)size, MPI_BYTE, unit->peers[i], unit->tag, MPI_COMM_WORLD, &unit->requests[i]),
        "MPI_Irecv");
}

static void post_send(comm_unit *unit, int member, const void *bytes, size_t size) {
    int i = unit->n_requests++;
    unit->expected_bytes[i] = -1;
    unit->peers[i] = world_rank(&unit->job->group, member);
    comm_check(
        MPI_Isend(bytes, (int)size, MPI_BYTE, unit->peers[i], unit->tag, MPI_COMM_WORLD, &unit->requests[i]),
        "MPI_Isend");
}

static bool is_sum(const comm_job *job) {
    return job->kind == COMM_ALL_REDUCE || job->kind == COMM_SMALL_SUM;
}

static bool has_pieces(const comm_job *job) {
    return job->kind == COMM_REDUCE_SCATTER || job->kind == COMM_ALL_GATHER_PIECES;
}

static size_t piece_element(const comm_job *job) {
    return job->kind == COMM_REDUCE_SCATTER ? comm_dtype_bytes(job->dtype) : 1;
}

int64_t comm_job_bytes(const comm_job *job) {
    int64_t bytes = 0;
    switch (job->kind) {
    case COMM_ALL_REDUCE:
    case COMM_SMALL_SUM:
        return job->count * (int64_t)comm_dtype_bytes(job->dtype);
    case COMM_REDUCE_SCATTER:
    case COMM_ALL_GATHER_PIECES:
        return job->first[job->group.size] * (int64_t)piece_element(job);
    case COMM_BROADCAST:
        return job->count;
    case COMM_GATHER:
        for (int m = 0; m < job->group.size; m++) bytes += job->sizes[m];
        return bytes;
    default:
        return job->count * job->group.size;
    }
}

/* Elements (of a sum) or bytes (of all else) of one unit. */
static int64_t unit_capacity(const comm_job *job) {
    int64_t bytes = (int64_t)comm.chunk_bytes, half;
    switch (job->kind) {
    case COMM_ALL_REDUCE:
        /* Two at least, cut at pages: one is summed while the other is on its way. */
        half = (comm_job_bytes(job) / 2 + 4095) / 4096 * 4096;
        if (bytes > half) bytes = half;
        return bytes / (int64_t)comm_dtype_bytes(job->dtype);
    case COMM_SMALL_SUM:
        return bytes / job->group.size / (int64_t)comm_dtype_bytes(job->dtype);
    case COMM_BROADCAST:
    case COMM_GATHER:
        return bytes;
    default:
        return bytes / job->group.size;
    }
}

/* Every unit takes the same share of every piece, so that all ranks are at work in all units. */
static int64_t count_piece_units(const comm_job *job) {
    int64_t largest = 0;
    for (int m = 0; m < job->group.size; m++)
        if (job->first[m + 1] - job->first[m] > largest) largest = job->first[m + 1] - job->first[m];
    int64_t bytes = (int64_t)comm.chunk_bytes;
    if (job->kind == COMM_ALL_GATHER_PIECES)
        bytes *= 4; /* these need no scratch, and cost is by the message */
    int64_t share = bytes / (int64_t)piece_element(job) / job->group.size;
    return (largest + share - 1) / share;
}

int64_t comm_unit_count(const comm_job *job) {
    int64_t capacity = unit_capacity(job);
    if (job->group.size == 1) return 0;
    if (has_pieces(job)) return count_piece_units(job);
    if (job->kind != COMM_GATHER) return (job->count + capacity - 1) / capacity;
    int64_t n = 0;
    for (int m = 0; m < job->group.size; m++)
        if (m != job->root) n += (job->sizes[m] + capacity - 1) / capacity;
    return n;
}

void comm_unit_begin(comm_unit *unit) {
    comm_job *job = unit->job;
    int64_t capacity = unit_capacity(job);
    unit->index = job->next_unit;
    unit->round = 0;
    unit->n_requests = unit->n_open = 0;
    /* MPI promises tags up to 32767. */
    _Static_assert(TAG_JOBS + SAGO_MESH_CHANNELS * 64 * 64 <= 32767, "tags of channels");
    unit->tag = TAG_JOBS + (job->channel * 64 + (int)(job->sequence % 64)) * 64 + (int)(unit->index % 64);
    if (job->kind == COMM_GATHER) {
        while (job->source == job->root || job->source_offset == job->sizes[job->source]) {
            job->output_offset += job->sizes[job->source++];
            job->source_offset = 0;
        }
        int64_t left = job->sizes[job->source] - job->source_offset;
        unit->peer = job->source;
        unit->offset = job->source_offset;
        unit->output_offset = job->output_offset + job->source_offset;
        unit->count = left < capacity ? left : capacity;
        job->source_offset += unit->count;
        return;
    }
    if (has_pieces(job)) return;
    unit->offset = unit->index * capacity;
    unit->count = job->count - unit->offset < capacity ? job->count - unit->offset : capacity;
}

/* Slice m of a unit's elements: the part that member m sums. */
static int64_t slice_begin(const comm_unit *unit, int m) {
    return unit->count * m / unit->job->group.size;
}

static size_t slice_bytes(const comm_unit *unit, int m, size_t element) {
    return (size_t)(slice_begin(unit, m + 1) - slice_begin(unit, m)) * element;
}

/*
 * Round 0: slice m of my numbers goes to member m, my slice comes from everybody. Round 1: my slice, summed
 * in the order of ranks, goes to everybody, theirs come to me. Each number travels twice, which is the least
 * possible, and is added by one rank alone, so that all ranks end with the same bits. Member me + i is served
 * i-th, so that not all ranks send to the same one at once.
 */
static bool advance_all_reduce(comm_unit *unit) {
    comm_job *job = unit->job;
    comm_group *group = &job->group;
    size_t element = comm_dtype_bytes(job->dtype), mine = slice_bytes(unit, group->me, element);
    char *base = job->buffer + (size_t)unit->offset * element;
    char *my_slice = base + (size_t)slice_begin(unit, group->me) * element;
    if (unit->round == 0) {
        for (int i = 1; i < group->size && mine; i++) {
            int m = (group->me + group->size - i) % group->size;
            post_receive(unit, m, unit->scratch + (size_t)m * mine, mine);
        }
        for (int i = 1; i < group->size; i++) {
            int m = (group->me + i) % group->size;
            size_t bytes = slice_bytes(unit, m, element);
            if (bytes) post_send(unit, m, base + (size_t)slice_begin(unit, m) * element, bytes);
        }
        return true;
    }
    if (unit->round == 1) {
        for (int m = 0; m < group->size; m++)
            unit->parts[m] = m == group->me ? my_slice : unit->scratch + (size_t)m * mine;
        comm_sum(job->dtype, my_slice, unit->parts, group->size, (int64_t)(mine / element));
        for (int i = 1; i < group->size; i++) {
            int m = (group->me + group->size - i) % group->size;
            size_t bytes = slice_bytes(unit, m, element);
            if (bytes) post_receive(unit, m, base + (size_t)slice_begin(unit, m) * element, bytes);
        }
        for (int i = 1; i < group->size && mine; i++)
            post_send(unit, (group->me + i) % group->size, my_slice, mine);
        return true;
    }
    return false;
}

/* The share of piece m that a unit moves begins here, in elements from the first of all pieces. */
static int64_t share_begin(const comm_unit *unit, int m) {
    const comm_job *job = unit->job;
    int64_t length = job->first[m + 1] - job->first[m], n = job->n_units;
    return job->first[m] + length / n * unit->index + length % n * unit->index / n;
}

static size_t share_bytes(const comm_unit *unit, int m) {
    comm_unit next = *unit;
    next.index++;
    return (size_t)(share_begin(&next, m) - share_begin(unit, m)) * piece_element(unit->job);
}

/* The first half of an all-reduce, with pieces of any size for slices; what comes in is summed into the
 * output. */
static bool advance_reduce_scatter(comm_unit *unit) {
    comm_job *job = unit->job;
    comm_group *group = &job->group;
    size_t element = piece_element(job), mine = share_bytes(unit, group->me);
    if (unit->round == 0) {
        for (int i = 1; i < group->size && mine; i++) {
            int m = (group->me + group->size - i) % group->size;
            post_receive(unit, m, unit->scratch + (size_t)m * mine, mine);
        }
        for (int i = 1; i < group->size; i++) {
            int m = (group->me + i) % group->size;
            size_t bytes = share_bytes(unit, m);
            if (bytes) post_send(unit, m, job->input + (size_t)share_begin(unit, m) * element, bytes);
        }
        return true;
    }
    int64_t at = share_begin(unit, group->me);
    for (int m = 0; m < group->size; m++)
        unit->parts[m] =
            m == group->me ? job->input + (size_t)at * element : unit->scratch + (size_t)m * mine;
    comm_sum(job->dtype, job->output + (size_t)(at - job->first[group->me]) * element, unit->parts,
             group->size, (int64_t)(mine / element));
    return false;
}

/* The second half of one: everybody's piece goes straight to its place. */
static bool advance_all_gather_pieces(comm_unit *unit) {
    comm_job *job = unit->job;
    comm_group *group = &job->group;
    if (unit->round) return false;
    int64_t at = share_begin(unit, group->me);
    const char *from = job->input + (at - job->first[group->me]);
    size_t mine = share_bytes(unit, group->me);
    for (int i = 1; i < group->size; i++) {
        int m = (group->me + group->size - i) % group->size;
        size_t bytes = share_bytes(unit, m);
        if (bytes) post_receive(unit, m, job->output + share_begin(unit, m), bytes);
    }
    for (int i = 1; i < group->size && mine; i++) post_send(unit, (group->me + i) % group->size, from, mine);
    if (mine && from != job->output + at) memcpy(job->output + at, from, mine);
    return true;
}

/* Bruck's all-gather: the i-th block of scratch is that of member me + i; what is held doubles every round.
 */
static bool advance_all_gather(comm_unit *unit) {
    comm_job *job = unit->job;
    comm_group *group = &job->group;
    size_t element = is_sum(job) ? comm_dtype_bytes(job->dtype) : 1, block = (size_t)unit->count * element;
    if (unit->round == 0) {
        memcpy(unit->scratch, (is_sum(job) ? job->buffer : job->input) + (size_t)unit->offset * element,
               block);
        unit->held = 1;
    }
    if (unit->held < group->size) {
        int d = unit->held, n = group->size - d < d ? group->size - d : d;
        post_receive(unit, (group->me + d) % group->size, unit->scratch + (size_t)d * block,
                     (size_t)n * block);
        post_send(unit, (group->me + group->size - d) % group->size, unit->scratch, (size_t)n * block);
        unit->held += n;
        return true;
    }
    for (int i = 0; i < group->size; i++) {
        int m = (group->me + i) % group->size;
        const char *from = unit->scratch + (size_t)i * block;
        if (is_sum(job))
            unit->parts[m] = from;
        else if (job->output)
            memcpy(job->output + (size_t)m * (size_t)job->count + (size_t)unit->offset, from, block);
    }
    if (is_sum(job))
        comm_sum(job->dtype, job->buffer + (size_t)unit->offset * element, unit->parts, group->size,
                 unit->count);
    return false;
}

/* A binomial tree over the distance from root: v hears from v without its lowest bit, then tells v + 1, 2, 4
 * ... below that bit. Units follow one another down the tree. */
static bool advance_broadcast(comm_unit *unit) {
    comm_job *job = unit->job;
    comm_group *group = &job->group;
    int n = group->size, v = (group->me - job->root + n) % n, low = v & -v;
    char *bytes = job->buffer + unit->offset;
    if (unit->round == 0) {
        if (v) post_receive(unit, ((v - low) + job->root) % n, bytes, (size_t)unit->count);
        return true;
    }
    if (unit->round == 1) {
        int below = v ? low : 1;
        while (!v && below < n) below *= 2;
        for (int d = below / 2; d > 0; d /= 2)
            if (v + d < n) post_send(unit, (v + d + job->root) % n, bytes, (size_t)unit->count);
        return true;
    }
    return false;
}

static bool advance_gather(comm_unit *unit) {
    comm_job *job = unit->job;
    if (unit->round) return false;
    if (job->group.me == job->root)
        post_receive(unit, unit->peer, job->buffer + unit->output_offset, (size_t)unit->count);
    else if (job->group.me == unit->peer)
        post_send(unit, job->root, job->input + unit->offset, (size_t)unit->count);
    return true;
}

bool comm_unit_advance(comm_unit *unit) {
    unit->n_requests = 0;
    bool more = false;
    switch (unit->job->kind) {
    case COMM_ALL_REDUCE:
        more = advance_all_reduce(unit);
        break;
    case COMM_REDUCE_SCATTER:
        more = advance_reduce_scatter(unit);
        break;
    case COMM_ALL_GATHER_PIECES:
        more = advance_all_gather_pieces(unit);
        break;
    case COMM_BROADCAST:
        more = advance_broadcast(unit);
        break;
    case COMM_GATHER:
        more = advance_gather(unit);
        break;
    default:
        more = advance_all_gather(unit);
        break;
    }
    unit->round++;
    unit->n_open = unit->n_requests;
    return more;
}
