// SPDX-License-Identifier: Apache-2.0
/**
 * The engine of sim: runs one launch, block after block, on fibers. Used by runtime_sim.cpp under its lock,
 * so that one launch runs at a time in the process.
 */
#ifndef SAGO_SIM_ENGINE_H
#define SAGO_SIM_ENGINE_H

#include "sim.h"

namespace sago_sim {

/** In which order threads that could run do. */
enum thread_order {
    ORDER_FORWARD,   /* one after the other, round and round */
    ORDER_WARP_UP,   /* the lowest warp goes on as long as it can */
    ORDER_WARP_DOWN, /* the highest warp does, and its highest lane first; blocks from last to first */
    ORDER_SEED       /* drawn by a seed, blocks too */
};

struct schedule {
    thread_order order;
    uint32_t seed;
    bool late; /* asynchronous copies land when they are waited for, else at once */
};

enum { SHARED_LIMIT_BYTES = 227 * 1024 /* of a block, or less: runtime_sim.cpp */, MAX_THREADS = 1024, N_BARRIERS = 16 };

/** Runs a launch to its end. SAGO_E_DEVICE, with kernel, block, thread and line, when it does what no kernel
 * may. */
sago_status run_kernel(const char *name, const launch_shape &shape, const schedule &how,
                       const std::function<void()> &body);

/** Is [at, at + bytes) within the shared memory of the running launch? */
bool in_shared(const void *at, size_t bytes);

} // namespace sago_sim

#endif
