// SPDX-License-Identifier: Apache-2.0
/*
 * Heartbeats by gossip: every rank keeps a table with one row a rank, and sends the whole table to the ranks
 * 1, 2, 4, 8
 * ... after it. Newer rows replace older ones. News reach all within log2(ranks) beats, a rank that stands
 * still holds up nobody else's, and each rank can judge every other by itself.
 */
#include "comm_internal.h"
#include "log.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LINKS = 64 };
static const int64_t poll_every_ns = 5000000, watch_every_ns = 100000000, end_within_ns = 15000000000;

comm_beat *comm_beats;
int64_t *comm_heard_ns;

static struct {
    int n_links, peers[MAX_LINKS];
    comm_beat *sending[MAX_LINKS], *receiving[MAX_LINKS];
    MPI_Request sends[MAX_LINKS], receives[MAX_LINKS];
    bool news; /* something that others should know before the next beat */
    int left;  /* what this rank last told */
    int64_t polled_ns, beat_ns, watched_ns;
    enum { RUNNING, SAYING_ALL_LEFT, ENDING, ENDED } phase;
    int64_t ending_since_ns;
    MPI_Request end;
} gossip;

static int table_bytes(void) {
    return (int)((size_t)comm.size * sizeof(comm_beat));
}

static void receive(int link) {
    comm_check(MPI_Irecv(gossip.receiving[link], table_bytes(), MPI_BYTE, gossip.peers[link], TAG_HEARTBEAT,
                         MPI_COMM_WORLD, &gossip.receives[link]),
               "MPI_Irecv of a heartbeat");
}

static void add_link(int peer) {
    for (int i = 0; i < gossip.n_links; i++)
        if (gossip.peers[i] == peer) return;
    gossip.peers[gossip.n_links++] = peer;
}

sago_status comm_heartbeat_open(void) {
    int64_t now = sago_now_ns();
    memset(&gossip, 0, sizeof gossip);
    gossip.polled_ns = now;
    comm_beats = sago_alloc_zero((size_t)comm.size, sizeof *comm_beats);
    comm_heard_ns = sago_alloc_zero((size_t)comm.size, sizeof *comm_heard_ns);
    for (int r = 0; r < comm.size; r++) comm_heard_ns[r] = now;
    for (int d = 1; d < comm.size; d *= 2) {
        add_link((comm.rank + d) % comm.size);
        add_link((comm.rank + comm.size - d) % comm.size);
    }
    for (int link = 0; link < gossip.n_links; link++) {
        gossip.sending[link] = sago_alloc((size_t)table_bytes());
        gossip.receiving[link] = sago_alloc((size_t)table_bytes());
        gossip.sends[link] = MPI_REQUEST_NULL;
        receive(link);
    }
    comm_watch_open(now);
    return SAGO_OK;
}

void comm_heartbeat_close(void) {
    for (int i = 0; i < gossip.n_links; i++) {
        MPI_Cancel(&gossip.receives[i]);
        MPI_Wait(&gossip.receives[i], MPI_STATUS_IGNORE);
        free(gossip.sending[i]);
        free(gossip.receiving[i]);
    }
    gossip.n_links = 0;
    free(comm_beats);
    free(comm_heard_ns);
    comm_beats = NULL;
    comm_heard_ns = NULL;
}

static void merge(const comm_beat *table, int64_t now_ns) {
    for (int r = 0; r < comm.size; r++) {
        if (r == comm.rank || table[r].number <= comm_beats[r].number) continue;
        if (table[r].left != comm_beats[r].left) gossip.news = true;
        comm_beats[r] = table[r];
        comm_heard_ns[r] = now_ns;
    }
}

static void take_in(int64_t now_ns) {
    for (int i = 0; i < gossip.n_links; i++) {
        int through = 0;
        comm_check(MPI_Test(&gossip.receives[i], &through, MPI_STATUS_IGNORE), "MPI_Test of a heartbeat");
        if (!through) continue;
        merge(gossip.receiving[i], now_ns);
        receive(i);
    }
}

/* A link whose last message has not gone yet is passed over: its rank may stand still. */
static bool send_out(void) {
    bool all_free = true;
    for (int i = 0; i < gossip.n_links; i++) {
        int through = 0;
        comm_check(MPI_Test(&gossip.sends[i], &through, MPI_STATUS_IGNORE), "MPI_Test of a heartbeat");
        all_free &= through;
        if (!through) continue;
        memcpy(gossip.sending[i], comm_beats, (size_t)table_bytes());
        comm_check(MPI_Isend(gossip.sending[i], table_bytes(), MPI_BYTE, gossip.peers[i], TAG_HEARTBEAT,
                             MPI_COMM_WORLD, &gossip.sends[i]),
                   "MPI_Isend of a heartbeat");
    }
    return all_free;
}

static void beat(int64_t now_ns) {
    comm_beat *mine = &comm_beats[comm.rank];
    pthread_mutex_lock(&comm.lock);
    for (int c = 0; c < SAGO_MESH_CHANNELS; c++) {
        mine->entered[c] = comm.channels[c].submitted;
        mine->kind[c] = (int32_t)comm.channels[c].newest;
    }
    mine->left = comm.leaving;
    mine->waits = comm.n_waiting > 0;
    pthread_mutex_unlock(&comm.lock);
    mine->idle_ms = comm_idle_ms(now_ns);
    mine->number++;
    comm_heard_ns[comm.rank] = now_ns;
    gossip.left = mine->left;
    gossip.news = false;
    gossip.beat_ns = now_ns;
    send_out();
}

static bool all_have_left(void) {
    for (int r = 0; r < comm.size; r++)
        if (!comm_beats[r].left) return false;
    return true;
}

static bool sends_are_through(void) {
    for (int i = 0; i < gossip.n_links; i++) {
        int through = 0;
        comm_check(MPI_Test(&gossip.sends[i], &through, MPI_STATUS_IGNORE), "MPI_Test of a heartbeat");
        if (!through) return false;
    }
    return true;
}

/* Who knows that all have left says so once more to its links, so that they know it too, and meets the others
 * in a last barrier: after it no heartbeat is on its way. */
static void end(int64_t now_ns) {
    if (gossip.phase == RUNNING) {
        if (!all_have_left()) return;
        gossip.ending_since_ns = now_ns;
        gossip.phase = SAYING_ALL_LEFT;
        gossip.news = true;
    }
    if (gossip.phase == SAYING_ALL_LEFT && gossip.news && send_out()) gossip.news = false;
    if (gossip.phase == SAYING_ALL_LEFT && !gossip.news && sends_are_through()) {
        comm_check(MPI_Ibarrier(MPI_COMM_WORLD, &gossip.end), "MPI_Ibarrier");
        gossip.phase = ENDING;
    }
    if (gossip.phase == ENDING) {
        int through = 0;
        comm_check(MPI_Test(&gossip.end, &through, MPI_STATUS_IGNORE), "MPI_Test of the last barrier");
        if (through) gossip.phase = ENDED;
    }
    if (gossip.phase != ENDED && now_ns - gossip.ending_since_ns > end_within_ns)
        comm_die(1, "the run had ended, but a rank stopped before MPI could be closed");
}

bool comm_heartbeat_all_left(void) {
    return gossip.phase == ENDED;
}

void comm_heartbeat_poll(int64_t now_ns) {
    if (now_ns - gossip.polled_ns < poll_every_ns) return;
    /* This process itself stood still (SIGSTOP and SIGCONT, a suspended machine): the time does not count
     * against the others, who may have beaten all along. */
    int64_t gap = now_ns - gossip.polled_ns;
    if (gap > 1000000000) {
        for (int r = 0; r < comm.size; r++) comm_heard_ns[r] += gap;
        comm_watch_stood_still(now_ns);
    }
    gossip.polled_ns = now_ns;
    take_in(now_ns);

    pthread_mutex_lock(&comm.lock);
    double timeout = comm.timeout_seconds;
    int leaving = comm.leaving;
    pthread_mutex_unlock(&comm.lock);
    if (gossip.phase == RUNNING) {
        int64_t interval = timeout < 5 ? (int64_t)(timeout * 1e8) : 500000000;
        if (now_ns - gossip.beat_ns >= interval || leaving != gossip.left || gossip.news) beat(now_ns);
        if (now_ns - gossip.watched_ns >= watch_every_ns) {
            gossip.watched_ns = now_ns;
            comm_watch(now_ns);
        }
    }
    if (leaving) end(now_ns);
}
