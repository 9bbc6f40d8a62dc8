// SPDX-License-Identifier: Apache-2.0
/**
 * Transport: how sums and pieces in device memory travel between ranks. One is chosen by
 * sago_mesh_use_device; collectives on host memory go by MPI as ever.
 *
 * A transport's calls come from the one thread that uses the mesh and its device, starts and waits in the
 * same order on all ranks, each start with one wait. A collective takes what the work handed to the device
 * before `start` leaves in the buffers; work handed over after `wait` finds the result. Neither call needs to
 * wait for the device itself. Only files of comm/ include this.
 */
#ifndef SAGO_COMM_TRANSPORT_H
#define SAGO_COMM_TRANSPORT_H

#include "comm_internal.h"
#include "device.h"

/** A collective on device memory, over an axis of more than one rank, with something in it. */
typedef struct comm_request {
    comm_kind kind; /* COMM_ALL_REDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER */
    comm_dtype dtype; /* of a sum: COMM_F32; an all-reduce also COMM_F64 */
    sago_mesh_axis axis;
    const void *in;
    void *out;    /* all-reduce: the same as in */
    int n_pieces; /* one a member; all-reduce: 1 */
    const int64_t
        *sizes; /* of each: elements of a sum, bytes of an all-gather; read during the start alone */
} comm_request;

typedef struct comm_transport {
    const char *name; /* "mpi", "nccl" */
    /** Collective over the mesh; it and the device outlive the state. */
    sago_status (*open)(sago_mesh *mesh, sago_device *device, void **state);
    void (*close)(void *state);
    sago_status (*start)(void *state, const comm_request *request, void **work);
    /** Ends what was started, also after a failure; the memory of *work is the transport's again. */
    sago_status (*wait)(void *state, void *work);
    /** Seconds since the last call in which computation had to wait for collectives, as far as the transport
     * can tell. */
    double (*exposed_seconds)(void *state);
} comm_transport;

/**
 * Through host memory: pieces are copied there as the device reaches their marks, summed in rank order by
 * MPI, and copied back, all beside the device's work. The same bits as sums of host memory.
 */
extern const comm_transport comm_staged;

/**
 * From GPU to GPU by NCCL, on a stream of the device's own; the host waits nowhere. The order of a sum is
 * NCCL's: the same in every run on the same GPUs, but not rank order.
 */
extern const comm_transport comm_nccl;

/** The one for this device: NCCL where every rank has it and a GPU of its own, else staged. Collective. */
sago_status comm_transport_choose(sago_mesh *mesh, sago_device *device, const comm_transport **out);

/* For the communication thread (watch.c). */
bool comm_nccl_is_open(void);
sago_status comm_nccl_poll(void); /* what NCCL has found wrong */
void comm_nccl_abort(void);       /* ends sums that will never end */

#endif
