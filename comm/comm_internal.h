// SPDX-License-Identifier: Apache-2.0
/**
 * Inside of comm: the communication thread and what it works on. Only files of comm/ include this.
 *
 * A collective is a job. Callers put jobs into their channel's queue; the communication thread cuts each job
 * into units (pieces of at most chunk_bytes) and keeps UNITS_IN_FLIGHT of them moving by non-blocking
 * messages between ranks, so that sends, receives and sums of neighbouring units overlap. Everything, also
 * gathers and broadcasts, is made of such messages: no call of the thread can block, so heartbeats go on
 * whatever a collective waits for.
 */
#ifndef SAGO_COMM_INTERNAL_H
#define SAGO_COMM_INTERNAL_H

#include "mesh.h"

#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    UNITS_IN_FLIGHT = 4, /* a channel */
    CHUNK_BYTES_LOW = 2 << 20,
    CHUNK_BYTES_HIGH = 16 << 20,
    SMALL_SUM_BYTES =
        32 << 10, /* of all members together: below, one round less counts for more than the bytes */
    TAG_HEARTBEAT = 1,
    TAG_JOBS = 16
};

typedef enum comm_kind {
    COMM_NONE,
    COMM_ALL_REDUCE, /* rank-order sum of many numbers: slices are exchanged, summed by one rank each, and
                        sent back */
    COMM_SMALL_SUM,  /* rank-order sum of few numbers: everybody gets everything and sums */
    COMM_REDUCE_SCATTER,
    COMM_ALL_GATHER,        /* of equal and small blocks, which double every round */
    COMM_ALL_GATHER_PIECES, /* of any sizes: everybody sends its own to everybody */
    COMM_BROADCAST,
    COMM_GATHER,
    COMM_BARRIER,
    COMM_AGREE,
    COMM_CHECK /* of comm.check: all ranks' records to all */
} comm_kind;

typedef enum comm_dtype { COMM_F32, COMM_F64, COMM_I64 } comm_dtype;

/** The ranks of a collective: world rank of member i is first + i * stride. */
typedef struct comm_group {
    int first, stride, size, me;
} comm_group;

/** What a rank says of a collective in comm.check. */
typedef struct comm_record {
    int32_t kind, axis, dtype, root;
    int64_t bytes;
    uint64_t sequence, hash; /* hash: of all sizes, before; of the result, after */
} comm_record;

/** A collective; sago_collective is the name that callers know it by. */
typedef struct sago_collective comm_job;
struct sago_collective {
    comm_kind kind;
    sago_mesh_axis axis;
    comm_group group;
    comm_dtype dtype;
    int root;             /* member, for broadcast and gather */
    char *buffer;         /* sums and broadcast: in and out; gather: out at root */
    const char *input;    /* own bytes, for gathers; all numbers, for a reduce-scatter */
    char *output;         /* of an all-gather, a reduce-scatter */
    int64_t count;        /* elements of a sum; bytes of a block or a broadcast */
    const int64_t *sizes; /* of a gather: bytes of each member */
    int64_t *first; /* piece m is [first[m], first[m + 1]), in elements of a sum, else bytes; the job's own
                       memory, kept with it */

    /* comm.check (check.c) */
    comm_job *gate, *seal; /* NULL: the collective is not checked */
    bool within_axis;      /* of a check: among the ranks of its axis alone */
    bool exclusive;        /* runs when all before it are complete */
    bool is_seal;
    const comm_job *subject; /* of a seal */
    int model;               /* of a gate or seal: ranks of a model axis */
    comm_record record, *table;

    int channel;
    uint64_t sequence; /* of the channel, from 1; that of their collective, for gate and seal */
    uint64_t recorded; /* by the flight recorder */
    int64_t n_units, next_unit, finished_units;
    int source;            /* gather: the member that the next unit takes from */
    int64_t source_offset; /* and where */
    int64_t output_offset;
    int64_t submitted_ns;
    void *device_work;  /* the transport's, which then does all the work; kind is COMM_NONE */
    bool complete;      /* guarded by comm.lock from here */
    bool awaited;       /* a caller is blocked in the wait */
    int64_t awaited_ns; /* since when */
    sago_status status;
    comm_job *next;
};

/** A piece of a job on its way. */
typedef struct comm_unit {
    comm_job *job;                /* NULL: free */
    int64_t index, offset, count; /* which piece: offset and count in elements (sums) or bytes */
    int peer;                     /* gather: the member it comes from */
    int64_t output_offset;        /* gather: where in root's buffer it goes */
    int round, tag;
    int held;      /* all-gather: blocks here so far */
    char *scratch; /* chunk_bytes and a little */
    const void **parts;
    MPI_Request *requests;
    int *expected_bytes; /* of each receive, -1 of a send */
    int *peers;
    int n_requests, n_open;
    int64_t moved_ns; /* when messages of it were posted or last came through */
} comm_unit;

typedef struct comm_channel {
    bool used;
    uint64_t submitted;    /* sequence number of the newest job */
    comm_kind newest;      /* and its kind */
    comm_record *table;    /* of the check that is under way, one a rank */
    comm_job *head, *tail; /* in order, until complete; guarded by comm.lock */
    comm_job *starting;    /* the first whose units have not all been started; guarded by comm.lock */
    int64_t moved_ns;      /* when a unit last ended; the thread's own */
    comm_unit units[UNITS_IN_FLIGHT];
} comm_channel;

/** What ranks tell each other: a rank's own state, passed on by everyone (heartbeat.c). */
typedef struct comm_beat {
    uint64_t number; /* grows with every beat of that rank */
    uint64_t entered[SAGO_MESH_CHANNELS];
    int32_t kind[SAGO_MESH_CHANNELS]; /* of the collective entered last */
    int32_t left;                     /* 0 no, 1 in sago_mesh_finish, 2 in it after a failure */
    int32_t waits;                    /* a thread of it is blocked in a collective */
    int64_t idle_ms;                  /* since it last used a processor or a disk, or finished a collective */
} comm_beat;

/** Who a rank is, exchanged at start. */
typedef struct comm_identity {
    char host[64];
    int64_t pid;
    uint64_t node, pid_space; /* ranks see each other's processes where both are equal */
    int32_t n_cores;          /* that it is bound to */
    uint8_t cores[1024 / 8];
} comm_identity;

/** The first rank of a model axis that lies on several nodes; -1: there is none. */
int comm_split_model_axis(const comm_identity identities[], int ranks, int model);

struct sago_mesh_state {
    bool check;                 /* comm.check */
    bool check_within_axis;     /* ranks of other groups are elsewhere in this view's order */
    struct sago_device *device; /* asynchronous, and the buffers' own; NULL: they are in host memory */
    int channel;                /* -1: a mesh of one, which needs none */
    bool background;            /* its waits hold up no computation */
    const struct comm_transport *transport; /* of sums of device memory; NULL: none are made */
    void *transport_state;
};

/** The one state of the process; start and finish set it up and down (comm_mpi.c). */
typedef struct comm_state {
    bool started, owns_mpi; /* MPI is initialised; by sago_mesh_start */
    int rank, size, local_rank, local_size, n_nodes, thread_level;
    char library[128]; /* "Open MPI v4.1.4" */
    comm_identity *identities;
    size_t chunk_bytes;

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mpi; /* held by whoever calls MPI and moves jobs; taken before `lock`, never after */
    pthread_mutex_t lock;
    pthread_cond_t work, done; /* for the thread; for callers */
    comm_channel channels[SAGO_MESH_CHANNELS];
    comm_job *free_jobs;
    sago_error failure;                    /* status SAGO_OK: none. Guarded by lock */
    char shared_message[SAGO_ERROR_BYTES]; /* a failure that rank 0 knows too; guarded by lock */
    double timeout_seconds;                /* guarded by lock */
    int leaving;                           /* as comm_beat.left; guarded by lock */
    int abort_code;                        /* asked for by a caller; -1: none. Guarded by lock */
    int n_waiting;                         /* threads blocked in a wait; guarded by lock */
    int n_driving;                         /* of them, those that move jobs themselves; guarded by lock */
    int64_t driven_ns;                     /* when one of them last ended; guarded by lock */
    atomic_int n_device_waits;             /* threads that wait for a device's work */
    int64_t exposed_ns;                    /* guarded by lock */
    int64_t *late_ns;                      /* [size] that callers waited for each rank; guarded by lock */
} comm_state;

extern comm_state comm;

/** What its caller calls it: a small sum is an all-reduce. */
comm_kind comm_called_kind(comm_kind kind);
const char *comm_kind_name(comm_kind kind);
/** Of all members' pieces together; what the buffer of a sum has. */
int64_t comm_job_bytes(const comm_job *job);
/** The ranks of an axis that this rank of a world of `ranks` belongs to. */
comm_group comm_group_of(int rank, sago_mesh_axis axis, int ranks, int model);

/* engine.c: jobs */
sago_status comm_engine_open(void);
void comm_engine_close(void);
/* Both under comm.mpi: */
void comm_engine_begin(int channel); /* posts the first messages of jobs that can start */
bool comm_engine_poll(void);         /* moves what can move; true when something did */
bool comm_engine_busy(void);
void comm_submit(comm_job *job); /* whoever submits sees to it that somebody moves the job */
void comm_enter(comm_job *job);  /* numbers and records what a transport does without the engine */
/** Fails all jobs, present and future. */
void comm_fail_jobs(const sago_error *failure);

/* schedule.c: what a unit of each kind sends and receives */
int64_t comm_unit_count(const comm_job *job);
void comm_unit_begin(comm_unit *unit);
/** Posts the next round; false when the unit has none left. Called when no request of the round before is
 * open. */
bool comm_unit_advance(comm_unit *unit);

/* sum.c */
size_t comm_dtype_bytes(comm_dtype dtype);
/** out[i] = parts[0][i] + parts[1][i] + ... in this order. out may be one of the parts. */
void comm_sum(comm_dtype dtype, void *out, const void *const parts[], int n_parts, int64_t count);

/* heartbeat.c: what ranks know of each other; on the communication thread */
extern comm_beat *comm_beats;  /* one a rank */
extern int64_t *comm_heard_ns; /* when a newer beat of that rank came in */
sago_status comm_heartbeat_open(void);
void comm_heartbeat_poll(int64_t now_ns);
/** True when every rank has left and knows it of every other. */
bool comm_heartbeat_all_left(void);
void comm_heartbeat_close(void);

/* watch.c: what follows from it */
void comm_watch_open(int64_t now_ns);
void comm_watch(int64_t now_ns);
void comm_watch_stood_still(int64_t now_ns);
/** Milliseconds since this process computed, waited for a disk, or finished part of a collective. */
int64_t comm_idle_ms(int64_t now_ns);
/** A thread begins or ends to wait for a device: its rank is at work meanwhile, however still its processors
 * are. */
void comm_device_wait(bool begins);

/* job.c: what mesh.c and collectives.c make their calls of */
comm_job *comm_job_new(const sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind);
void comm_job_give_back(comm_job *job); /* one that was never begun */
/** A gate or a seal for a collective: what this rank says of it, to all ranks that call the same ones. */
comm_job *comm_check_new(const sago_mesh *mesh, const comm_job *job, bool is_seal);
void comm_job_begin(sago_mesh *mesh, comm_job *job);
/** Waits for a job, gives it back, and makes its failure the caller's. */
sago_status comm_job_end(sago_mesh *mesh, comm_job *job) SAGO_MUST_CHECK;
sago_status comm_job_run(sago_mesh *mesh, comm_job *job) SAGO_MUST_CHECK;
/** Blocks of the same size of all ranks of the axis to all. */
sago_status comm_exchange(sago_mesh *mesh, sago_mesh_axis axis, comm_kind kind, const void *block, size_t bytes,
                          void *out) SAGO_MUST_CHECK;
void comm_wake(void); /* the communication thread */

/* check.c: comm.check, on the communication thread but for the first two */
bool comm_has_equal_result(comm_kind kind);
void comm_check_describe(comm_job *check, const comm_job *job);
void comm_check_seal(comm_job *seal); /* the result is there: its hash */
/** Judges a complete gate or seal; fails all jobs and returns false when ranks differ. */
bool comm_check_passes(const comm_job *job);

/* flight.c: the last collectives of this rank */
const char *comm_axis_name(sago_mesh_axis axis);
/** Under comm.lock: a collective begins; the ticket is for its end. */
uint64_t comm_flight_begin(const comm_job *job, int64_t now_ns);
void comm_flight_end(uint64_t ticket, int64_t now_ns);
/** Takes comm.lock itself; 0 is fine. What a GPU does is awaited by its further work: the host does not see
 * it end. */
void comm_flight_awaited(uint64_t ticket);
/** Writes this rank's file, where sago_mesh_record has named a folder. Not under comm.lock. */
void comm_flight_dump(const char *reason, bool failed);
void comm_flight_dump_once(const char *reason); /* unless a failure has written it before */
void comm_flight_poll(void);                    /* writes it where somebody has asked */

/* failure.c */
/** Prints one line and ends every rank. */
void comm_die(int exit_code, const char *format, ...) SAGO_PRINTF(2, 3) __attribute__((noreturn));
/** Remembers a message that rank 0 prints. */
void comm_share_message(const char *message);
/** "rank 2 (host node1, pid 123)" */
const char *comm_rank_text(int rank, char text[128]);
/** Ends all if an MPI call failed. */
void comm_check(int code, const char *what);

#endif
