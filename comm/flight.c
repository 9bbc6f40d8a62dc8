// SPDX-License-Identifier: Apache-2.0
/*
 * The flight recorder: a ring with the last collectives of this rank, written to a file when the run fails or
 * when somebody asks. What is recorded while all goes well is one row of a table, under a lock that its
 * caller holds anyway. `sago inspect --flight` reads the files of all ranks (host/cli/flight.c).
 */
#include "comm_internal.h"
#include "file.h"
#include "json.h"
#include "log.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEPT = 1000 };

typedef struct row {
    comm_kind kind;
    sago_mesh_axis axis;
    comm_group group;
    int channel;
    uint64_t sequence;
    int64_t bytes, started_ns, done_ns; /* done 0: not */
    bool awaited;                       /* by a GPU's work */
} row;

static struct {
    row rows[KEPT];
    uint64_t n;  /* ever begun; row i % KEPT. Guarded by comm.lock, as all above */
    char *dir;   /* NULL: nothing is written */
    int64_t run; /* a number that the files of one start share */
    int data, model;
    bool written; /* because of a failure */
} flight;

static atomic_bool wanted;

const char *comm_axis_name(sago_mesh_axis axis) {
    static const char *const names[SAGO_N_AXES] = {"data", "model", "world"};
    return names[axis];
}

uint64_t comm_flight_begin(const comm_job *job, int64_t now_ns) {
    flight.rows[flight.n % KEPT] = (row){.kind = comm_called_kind(job->kind),
                                         .axis = job->axis,
                                         .group = job->group,
                                         .channel = job->channel,
                                         .sequence = job->sequence,
                                         .bytes = comm_job_bytes(job),
                                         .started_ns = now_ns};
    return ++flight.n;
}

void comm_flight_end(uint64_t ticket, int64_t now_ns) {
    if (ticket && flight.n - ticket < KEPT) flight.rows[(ticket - 1) % KEPT].done_ns = now_ns;
}

void comm_flight_awaited(uint64_t ticket) {
    pthread_mutex_lock(&comm.lock);
    if (ticket && flight.n - ticket < KEPT) flight.rows[(ticket - 1) % KEPT].awaited = true;
    pthread_mutex_unlock(&comm.lock);
}

static double unix_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The first line of a file: whose it is. */
static void add_head(sago_str *text, const char *reason, bool failed, double now) {
    const char *host = comm.identities ? comm.identities[comm.rank].host : "";
    sago_str_printf(
        text, "{\"rank\":%d,\"ranks\":%d,\"data\":%d,\"model\":%d,\"pid\":%d,\"run\":%lld,\"at\":%.6f,",
        comm.rank, comm.size, flight.data, flight.model, (int)getpid(), (long long)flight.run, now);
    sago_str_printf(text, "\"failed\":%s,\"host\":", failed ? "true" : "false");
    sago_json_quote(text, host, strlen(host));
    sago_str_puts(text, ",\"reason\":");
    sago_json_quote(text, reason, strlen(reason));
    sago_str_puts(text, "}\n");
}

static void add_row(sago_str *text, const row *r, double at) {
    sago_str_printf(text,
                    "{\"name\":\"%s\",\"axis\":\"%s\",\"first\":%d,\"stride\":%d,\"ranks\":%d,\"channel\":%d,"
                    "\"sequence\":%llu,\"bytes\":%lld,\"at\":%.6f,",
                    comm_kind_name(r->kind), comm_axis_name(r->axis), r->group.first, r->group.stride,
                    r->group.size, r->channel, (unsigned long long)r->sequence, (long long)r->bytes, at);
    if (r->done_ns)
        sago_str_printf(text, "\"state\":\"done\",\"seconds\":%.6f}\n",
                        (double)(r->done_ns - r->started_ns) * 1e-9);
    else
        sago_str_printf(text, "\"state\":\"%s\"}\n", r->awaited ? "awaited" : "started");
}

static sago_status write_file(const char *dir, const sago_str *text) {
    char *path = sago_format("%s/rank-%d.jsonl", dir, comm.rank);
    sago_status status = sago_dir_make(dir);
    if (status == SAGO_OK) status = sago_file_replace(path, text->data, text->length);
    free(path);
    return status;
}

void comm_flight_dump(const char *reason, bool failed) {
    pthread_mutex_lock(&comm.lock);
    bool has_dir = flight.dir != NULL;
    if (failed) flight.written = true;
    uint64_t n = flight.n < KEPT ? flight.n : KEPT, first = flight.n - n;
    row *rows = has_dir ? sago_alloc((size_t)KEPT * sizeof *rows) : NULL;
    for (uint64_t i = 0; has_dir && i < n; i++) rows[i] = flight.rows[(first + i) % KEPT];
    pthread_mutex_unlock(&comm.lock);
    if (!has_dir) return;
    sago_str text = {0};
    double now = unix_seconds();
    int64_t now_ns = sago_now_ns();
    add_head(&text, reason, failed, now);
    for (uint64_t i = 0; i < n; i++)
        add_row(&text, &rows[i], now - (double)(now_ns - rows[i].started_ns) * 1e-9);
    if (write_file(flight.dir, &text) != SAGO_OK) sago_warn("flight record: %s", sago_message());
    sago_str_free(&text);
    free(rows);
}

void comm_flight_dump_once(const char *reason) {
    pthread_mutex_lock(&comm.lock);
    bool written = flight.written;
    pthread_mutex_unlock(&comm.lock);
    if (!written) comm_flight_dump(reason, true);
}

void sago_mesh_record_now(void) {
    atomic_store(&wanted, true);
}

void comm_flight_poll(void) {
    if (atomic_load_explicit(&wanted, memory_order_relaxed) && atomic_exchange(&wanted, false))
        comm_flight_dump("asked for by a signal", false);
}

sago_status sago_mesh_record(sago_mesh *mesh, const char *dir) {
    if (mesh->size == 1) return SAGO_OK;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t run = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    SAGO_TRY(sago_broadcast(mesh, SAGO_WORLD_AXIS, &run, sizeof run, 0));
    pthread_mutex_lock(&comm.lock);
    free(flight.dir);
    flight.dir = sago_strdup(dir);
    flight.run = run;
    flight.data = mesh->axis_size[SAGO_DATA_AXIS];
    flight.model = mesh->axis_size[SAGO_MODEL_AXIS];
    pthread_mutex_unlock(&comm.lock);
    return SAGO_OK;
}
