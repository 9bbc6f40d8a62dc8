// SPDX-License-Identifier: Apache-2.0
/**
 * The host twin of the CUDA in kernels/cuda/dialect.cuh: the same kernel text, compiled by the host's C++
 * compiler, runs with every thread of a block as a fiber. docs/kernels/sim.md says how and what that can
 * show.
 *
 * Everything in which threads take part together is one thing here, a meeting: a thread says what it waits
 * for and another one runs. When all have come, the last one does the operation for all (shuffle, ldmatrix,
 * mma), or there is nothing to do (barriers). Each function carries the line that it was called from: lines
 * that differ are different meetings, and a meeting that never gets complete is an error that names them.
 */
#ifndef SAGO_SIM_H
#define SAGO_SIM_H

#ifndef __cplusplus
#error "sim.h is for the kernels of kernels/cuda, compiled as C++"
#endif

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.h"
#include "sim_types.h"

namespace sago_sim {

struct site {
    const char *file;
    int line;
};

/** A thread of the running block, as kernels see it. */
struct thread_view {
    uint3 index;
    int lane;
};

extern const thread_view *self; /* the running thread */
extern uint3 block_index;
extern dim3 block_size, grid_size;

/** Ends the kernel with an error that names kernel, block, thread and line. */
[[noreturn]] void fail(site where, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** What all lanes of a mask do together: slots[lane] is what each brought. */
typedef void meeting(void *slots[32], uint32_t mask);

void warp_wait(meeting *operation, uint32_t mask, void *slot, site where);
/** threads < 0: all of the block. */
void block_wait(int barrier, int threads, site where);

/** A vector's store must go to global memory, and to a multiple of its size. */
void check_vector_store(const void *to, size_t bytes, site where);
void *shared_memory(size_t bytes, size_t alignment, site where);
void copy_async(void *to, const void *from, bool valid, site where);
void copy_commit();
void copy_wait(int left);

/* --- shuffles and votes --------------------------------------------------------------------------------- */

struct shuffle_slot {
    uint64_t value, out;
    int from;
    site where;
};
void shuffle(void *slots[32], uint32_t mask);

/** As in the PTX ISA, shfl.sync: a lane outside the segment of `width` lanes is the own one. */
template <typename T>
static inline T shuffle_value(uint32_t mask, T value, int from, bool inside, site where) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4 && sizeof(T) <= 8,
                  "shuffles move int, unsigned, float, double and 64-bit integers");
    shuffle_slot slot = {0, 0, inside ? from : self->lane, where};
    std::memcpy(&slot.value, &value, sizeof value);
    warp_wait(shuffle, mask, &slot, where);
    T out;
    std::memcpy(&out, &slot.out, sizeof out);
    return out;
}

struct ballot_slot {
    uint32_t out;
    bool vote;
};
void ballot(void *slots[32], uint32_t mask);

static inline uint32_t ballot_value(uint32_t mask, bool vote, site where) {
    ballot_slot slot = {0, vote};
    warp_wait(ballot, mask, &slot, where);
    return slot.out;
}

/* --- tensor cores --------------------------------------------------------------------------------------- */

struct ldmatrix_slot {
    const void *row;
    uint32_t *out;
    site where;
    bool transposed;
};
void ldmatrix(void *slots[32], uint32_t mask);

struct mma_slot {
    const uint32_t *a, *b;
    float *d;
};
void mma(void *slots[32], uint32_t mask);

/* --- launches ------------------------------------------------------------------------------------------- */

struct launch_shape {
    dim3 grid, block;
    size_t shared_bytes;
};

/** Checks the launch, and that each pointer among the arguments is device memory, and puts it into the
 * stream. */
sago_status enqueue_kernel(sago_stream *stream, const char *name, site where, const launch_shape &shape,
                           const void *const pointers[], int n_pointers, std::function<void()> body);

template <typename T> static inline void note_pointer(const void **, int *, const T &) {}
template <typename T> static inline void note_pointer(const void **list, int *n, T *const &pointer) {
    list[(*n)++] = (const void *)pointer;
}

template <typename... P, typename... A>
static inline sago_status launch(sago_stream *stream, const char *name, site where, dim3 grid, dim3 block,
                                 size_t shared_bytes, void (*kernel)(P...), A &&...arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "a launch gives each parameter of the kernel");
    static_assert(((!std::is_reference<P>::value && std::is_trivially_copyable<P>::value) && ...),
                  "kernels take plain values");
    static_assert((sizeof(P) + ... + 0) <= 4096, "a kernel's arguments have at most 4 KiB");
    std::tuple<P...> values(static_cast<P>(arguments)...);
    const void *pointers[sizeof...(P) + 1];
    int n = 0;
    std::apply([&](const auto &...value) { (note_pointer(pointers, &n, value), ...); }, values);
    return enqueue_kernel(stream, name, where, launch_shape{grid, block, shared_bytes}, pointers, n,
                          [kernel, values]() { std::apply(kernel, values); });
}

} // namespace sago_sim

/* --- the names of the dialect --------------------------------------------------------------------------- */

#define threadIdx (sago_sim::self->index)
#define blockIdx  (static_cast<const uint3 &>(sago_sim::block_index))
#define blockDim  (static_cast<const dim3 &>(sago_sim::block_size))
#define gridDim   (static_cast<const dim3 &>(sago_sim::grid_size))

#define SAGO_LAUNCH(gpu, kernel, grid, block, shared_bytes, ...)                                             \
    sago_sim::launch((gpu)->compute, #kernel, sago_sim::site{__FILE__, __LINE__}, (grid), (block),           \
                     (size_t)(shared_bytes), (kernel), ##__VA_ARGS__)

#define SAGO_SHARED(T, name)                                                                                 \
    T *name =                                                                                                \
        static_cast<T *>(sago_sim::shared_memory(sizeof(T), alignof(T), sago_sim::site{__FILE__, __LINE__}))

/* The last two parameters of each are filled in by the compiler with the place of the call. */
#define SAGO_SIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SAGO_SIM_SITE                                                                                        \
    sago_sim::site {                                                                                         \
        file, line                                                                                           \
    }

static inline void __syncthreads(SAGO_SIM_HERE) {
    sago_sim::block_wait(0, -1, SAGO_SIM_SITE);
}
static inline void named_barrier(int id, int threads, SAGO_SIM_HERE) {
    sago_sim::block_wait(id, threads, SAGO_SIM_SITE);
}
static inline void __syncwarp(uint32_t mask = 0xffffffffu, SAGO_SIM_HERE) {
    sago_sim::warp_wait(nullptr, mask, nullptr, SAGO_SIM_SITE);
}

template <typename T>
static inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SAGO_SIM_HERE) {
    int first = sago_sim::self->lane & ~(width - 1);
    return sago_sim::shuffle_value(mask, value, first + (source & (width - 1)), true, SAGO_SIM_SITE);
}
template <typename T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, SAGO_SIM_HERE) {
    int lane = sago_sim::self->lane, from = lane ^ lanes;
    return sago_sim::shuffle_value(mask, value, from, from <= (lane | (width - 1)), SAGO_SIM_SITE);
}
template <typename T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, SAGO_SIM_HERE) {
    int lane = sago_sim::self->lane, from = lane + (int)delta;
    return sago_sim::shuffle_value(mask, value, from, from <= (lane | (width - 1)), SAGO_SIM_SITE);
}
template <typename T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, SAGO_SIM_HERE) {
    int lane = sago_sim::self->lane, from = lane - (int)delta;
    return sago_sim::shuffle_value(mask, value, from, from >= (lane & ~(width - 1)), SAGO_SIM_SITE);
}
static inline uint32_t __ballot_sync(uint32_t mask, int vote, SAGO_SIM_HERE) {
    return sago_sim::ballot_value(mask, vote != 0, SAGO_SIM_SITE);
}
static inline int __any_sync(uint32_t mask, int vote, SAGO_SIM_HERE) {
    return sago_sim::ballot_value(mask, vote != 0, SAGO_SIM_SITE) != 0;
}
static inline int __all_sync(uint32_t mask, int vote, SAGO_SIM_HERE) {
    return sago_sim::ballot_value(mask, vote != 0, SAGO_SIM_SITE) == mask;
}

static inline void store16(void *to, uint4 x, SAGO_SIM_HERE) {
    sago_sim::check_vector_store(to, sizeof x, SAGO_SIM_SITE);
    std::memcpy(to, &x, sizeof x);
}
static inline void store8(void *to, uint2 x, SAGO_SIM_HERE) {
    sago_sim::check_vector_store(to, sizeof x, SAGO_SIM_SITE);
    std::memcpy(to, &x, sizeof x);
}

static inline void cp_async16(void *shared, const void *from, bool valid = true, SAGO_SIM_HERE) {
    sago_sim::copy_async(shared, from, valid, SAGO_SIM_SITE);
}
static inline void cp_async_commit() {
    sago_sim::copy_commit();
}
template <int left> static inline void cp_async_wait() {
    sago_sim::copy_wait(left);
}

static inline void ldmatrix_x4(uint32_t r[4], const void *row, SAGO_SIM_HERE) {
    sago_sim::ldmatrix_slot slot = {row, r, SAGO_SIM_SITE, false};
    sago_sim::warp_wait(sago_sim::ldmatrix, 0xffffffffu, &slot, SAGO_SIM_SITE);
}
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row, SAGO_SIM_HERE) {
    sago_sim::ldmatrix_slot slot = {row, r, SAGO_SIM_SITE, true};
    sago_sim::warp_wait(sago_sim::ldmatrix, 0xffffffffu, &slot, SAGO_SIM_SITE);
}
static inline void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], SAGO_SIM_HERE) {
    sago_sim::mma_slot slot = {a, b, d};
    sago_sim::warp_wait(sago_sim::mma, 0xffffffffu, &slot, SAGO_SIM_SITE);
}

#endif
