// SPDX-License-Identifier: Apache-2.0
/**
 * Mesh: named axes over the ranks of a run, and the collectives on them.
 *
 * Rank r of D x M ranks stands at data r / M, model r % M. A program that was not started by an MPI launcher
 * is a mesh of one and never touches MPI. After start MPI is called by one thread of the mesh's own, which
 * also sends and watches heartbeats, and, one at a time, by callers that wait for a collective that moves. A
 * rank that fails, dies or stops is noticed by all within mesh.timeout_seconds, named, and ends the run on
 * every rank.
 *
 *     main:     SAGO_TRY(sago_mesh_start());                 first thing, once
 *     command:  SAGO_TRY(sago_mesh_open(data, model, timeout, &mesh)); ... sago_mesh_close(mesh);
 *     main:     print the error, if any; sago_mesh_finish(exit_code); return exit_code;
 *
 * Rules. Every rank calls the same collectives in the same order, from one thread a mesh (a second thread
 * takes a sago_mesh_channel). Every collective that was started is waited for, on error paths too, before its
 * buffer is freed; a wait always returns. A rank that fails alone just returns its error up to main: the
 * others' collectives end with SAGO_E_COMM naming it as soon as it is in sago_mesh_finish, and a rank that
 * keeps computing is ended 20 s later.
 */
#ifndef SAGO_MESH_H
#define SAGO_MESH_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sago_mesh_axis { SAGO_DATA_AXIS, SAGO_MODEL_AXIS, SAGO_WORLD_AXIS, SAGO_N_AXES } sago_mesh_axis;

typedef struct sago_mesh {
    int rank, size;                                     /* of the world */
    int axis_rank[SAGO_N_AXES], axis_size[SAGO_N_AXES]; /* place on each axis */
    int local_rank, local_size;                         /* among the ranks of this node */
    struct sago_mesh_state *state;
} sago_mesh;

/** True when this process was started by an MPI launcher (mpirun, srun); only then MPI is initialised. */
bool sago_mesh_launched(void);

/**
 * Starts MPI (MPI_THREAD_SERIALIZED), the communication thread and the heartbeats when launched by MPI;
 * nothing otherwise. Tells the log this process's rank. From here to sago_mesh_finish nobody else may call
 * MPI.
 */
sago_status sago_mesh_start(void) SAGO_MUST_CHECK;

/**
 * Leaves the run: tells the others the exit code, waits until all have left (the heartbeats go on meanwhile),
 * then finalises MPI. To be called by every rank just before it returns from main, after its error was
 * printed: others that still wait for this rank in a collective then fail at once. exit_code other than 0 and
 * 75 (interrupted, saved) means that this rank failed.
 */
void sago_mesh_finish(int exit_code);

/** Rank and number of ranks of this process; 0 and 1 before sago_mesh_start or without a launcher. */
int sago_mesh_world_rank(void);
int sago_mesh_world_size(void);

/**
 * True when another rank prints the calling thread's present message, or one that says more: after
 * sago_agree, a wrong number of ranks, or a collective that ended because of another rank. main then prints
 * it on rank 0 alone.
 */
bool sago_mesh_failure_is_shared(void);

/**
 * Opens the mesh over all ranks. data or model 0: from the number of ranks (data = ranks / model, model = 1).
 * Errors: SAGO_E_COMM, the same on every rank, when data x model is not the number of ranks, naming all
 * three.
 */
sago_status sago_mesh_open(int64_t data, int64_t model, double timeout_seconds,
                           sago_mesh **out) SAGO_MUST_CHECK;
void sago_mesh_close(sago_mesh *mesh); /* NULL is fine; waits for nobody */

/**
 * A second view of the same ranks whose collectives have an order of their own, for another thread (the
 * background checkpoint writer). At most SAGO_MESH_CHANNELS views are open at a time. Local, but every rank
 * opens the same ones in the same order. Its waits are no exposed communication. Closed by sago_mesh_close.
 */
enum { SAGO_MESH_CHANNELS = 6 }; /* the run, its model, its checkpoints, and a thread of each device that stages sums */
sago_status sago_mesh_channel(const sago_mesh *mesh, sago_mesh **out) SAGO_MUST_CHECK;
/**
 * The same for the thread that calls the mesh too: an order of its own for collectives on one axis, of which different
 * groups of ranks may call different numbers (micro-batches of a model that several ranks share). Its waits count; where
 * collectives are checked, the ranks of a group are compared with one another.
 */
sago_status sago_mesh_second_order(const sago_mesh *mesh, sago_mesh **out) SAGO_MUST_CHECK;

/**
 * Checks every collective from now on: before it, that all ranks enter the same one with the same sizes as
 * the same number in the order; after it, that results which must be equal are. Where ranks differ, all of
 * them end with SAGO_E_COMM and the same message, which names the collective and the first rank that differs.
 * Collectives then run one after another. Local, but every rank says the same, before its first collective; a
 * channel opened later does as its mesh. Sums by NCCL: what is entered, not what comes of it.
 */
void sago_mesh_check(sago_mesh *mesh, bool on);

/**
 * From now on this rank's last 1000 collectives are written to DIR/rank-N.jsonl when the run fails (an error
 * of any rank, a rank that died or stopped, an abort) or when sago_mesh_record_now asks for it. They are
 * recorded in any case, which costs nothing to speak of. Collective. A file's first line says of which rank
 * and run it is and why it was written; each further one is a collective, oldest first (docs/distributed.md).
 */
sago_status sago_mesh_record(sago_mesh *mesh, const char *dir) SAGO_MUST_CHECK;
void sago_mesh_record_now(void); /* may be called by a signal handler; written within moments */

/**
 * Cores that this rank may count as its own: what the launcher bound it to, or its even share of the node's
 * where the ranks of the node share cores. What threads: 0 means. At least 1.
 */
int sago_mesh_cores(const sago_mesh *mesh);

/**
 * Turns one rank's failure into everyone's: every rank passes its own status; if any failed, all return the
 * status of the lowest failed rank, its message preceded by "rank N: ". To be called by all ranks where a
 * failure is possible before the next collective.
 */
sago_status sago_agree(sago_mesh *mesh, sago_status mine) SAGO_MUST_CHECK;

/**
 * A collective under way while the caller computes. Sums are in rank order: bitwise the same on every rank
 * and in every run. No buffer may be written before the wait, nor may what a collective writes be read;
 * arrays of counts are copied by the start.
 */
typedef struct sago_collective sago_collective;

/**
 * Where the buffers of sago_*_start lie from now on: in memory of this device, or of the host again (NULL). A
 * device that is not asynchronous has the host's memory, and nothing changes. Collectives then take what the
 * work handed to the device before their start leaves, and work handed over after their wait finds their
 * results. Collective; to be undone before the device is closed. Channels of the mesh stay as they were.
 */
struct sago_device;
sago_status sago_mesh_use_device(sago_mesh *mesh, struct sago_device *device) SAGO_MUST_CHECK;
/** How sago_*_start travels: "mpi", "nccl". */
const char *sago_mesh_transport(const sago_mesh *mesh);

/** Starts buffer[i] = sum over ranks. */
sago_status sago_all_reduce_start(sago_mesh *mesh, sago_mesh_axis axis, float *buffer, int64_t count,
                                  sago_collective **out) SAGO_MUST_CHECK;
sago_status sago_all_reduce_f64_start(sago_mesh *mesh, sago_mesh_axis axis, double *buffer, int64_t count,
                                      sago_collective **out) SAGO_MUST_CHECK;

/**
 * Starts out = this rank's piece of the sum of `in` over the ranks of the axis. `in` holds the pieces of all
 * members one after another, counts[m] elements for member m (any, also 0; the same on every rank); out holds
 * counts[own place]. out may be this rank's own piece of `in`; else `in` stays as it is.
 */
sago_status sago_reduce_scatter_start(sago_mesh *mesh, sago_mesh_axis axis, const float *in, float *out,
                                      const int64_t counts[], sago_collective **collective) SAGO_MUST_CHECK;

/**
 * Starts out = the pieces of all ranks of the axis, one after another: bytes[m] of member m (any, also 0; the
 * same on every rank; even in a device's memory). `in` is this rank's piece; it may be its own place in out.
 */
sago_status sago_all_gather_start(sago_mesh *mesh, sago_mesh_axis axis, const void *in, void *out,
                                  const size_t bytes[], sago_collective **collective) SAGO_MUST_CHECK;

/** Waits for what one of the starts gave; NULL is fine. The handle is gone after it. */
sago_status sago_collective_wait(sago_mesh *mesh, sago_collective *collective) SAGO_MUST_CHECK;

/** Blocking sums of a few numbers in host memory, in rank order. */
sago_status sago_all_reduce_f64(sago_mesh *mesh, sago_mesh_axis axis, double *values,
                                int64_t count) SAGO_MUST_CHECK;
sago_status sago_all_reduce_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t *values,
                                int64_t count) SAGO_MUST_CHECK;

/** Bytes of root to all; size may be 0. */
sago_status sago_broadcast(sago_mesh *mesh, sago_mesh_axis axis, void *bytes, size_t size,
                           int root) SAGO_MUST_CHECK;

/**
 * Blocking, of host memory: out = the blocks of all ranks of the axis, one after another, each of this size.
 * For a few statistics of every rank, such as (max, sum of exponentials, target) of a chunk of logits.
 */
sago_status sago_all_gather(sago_mesh *mesh, sago_mesh_axis axis, const void *block, size_t bytes,
                            void *out) SAGO_MUST_CHECK;
/** out[r] = value of rank r, on every rank. */
sago_status sago_all_gather_i64(sago_mesh *mesh, sago_mesh_axis axis, int64_t value,
                                int64_t out[]) SAGO_MUST_CHECK;

/**
 * Bytes of every rank, one after another in rank order, at root. sizes[axis size] and *out (new memory, freed
 * with free()) are set on root only; other ranks get NULL.
 */
sago_status sago_gather_bytes(sago_mesh *mesh, sago_mesh_axis axis, const void *bytes, size_t size, int root,
                              char **out, size_t sizes[]) SAGO_MUST_CHECK;

sago_status sago_barrier(sago_mesh *mesh, sago_mesh_axis axis) SAGO_MUST_CHECK;

/** Ends every rank at once with this exit code; what one rank does when it can't reach sago_agree. */
void sago_mesh_abort(sago_mesh *mesh, int exit_code) __attribute__((noreturn));

/** Measured seconds that waits have blocked callers since the last call: exposed communication. */
double sago_mesh_exposed_seconds(sago_mesh *mesh);

/**
 * seconds[r], for every rank of the world: how long, since the last call, callers on this rank stood in
 * collectives of many numbers and it was rank r's message that came last. Of those that MPI carries; 0 for
 * those of NCCL.
 */
void sago_mesh_late_seconds(sago_mesh *mesh, double seconds[]);

/** The name of the node that a rank runs on; valid until sago_mesh_finish. */
const char *sago_mesh_host(int rank);

/** A line on the MPI in use: "Open MPI 4.1.4, 4 ranks on 1 node, thread multiple". */
void sago_mesh_describe(const sago_mesh *mesh, char text[256]);

#endif
