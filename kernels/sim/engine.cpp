// SPDX-License-Identifier: Apache-2.0
#include "engine.h"
#include "guard.h"

#include "fiber.h"

#include <cstdarg>
#include <cstdio>
#include <vector>

namespace sago_sim {

const thread_view *self;
uint3 block_index;
dim3 block_size, grid_size;

namespace {

enum { WARPS = MAX_THREADS / 32, GUARD_BYTES = 64, FRONT_BYTES = 128, MEETINGS = 4 };

struct pending_copy {
    void *to;
    const void *from;
    uint32_t group;
    bool valid;
};

struct thread : thread_view {
    fiber *stack; /* nullptr until it first runs */
    int warp;
    bool waits;
    int barrier; /* it waits at, or -1: a meeting of its warp */
    uint32_t mask;
    site where; /* the last place where it waited */
    std::vector<pending_copy> copies;
    size_t first_copy;
    uint32_t groups;
};

struct open_meeting {
    meeting *operation;
    uint32_t mask, arrived;
    site where;
};

struct warp_state {
    uint32_t lanes, ready, gone;
    int n_open;
    open_meeting open[MEETINGS];
    void *slots[32];
};

struct barrier_state {
    int arrived, expected;
    site where;
    uint32_t lanes[WARPS];
};

/* The launch that runs. */
struct {
    const char *name;
    launch_shape shape;
    schedule how;
    const std::function<void()> *body;
    int n_threads, n_warps, n_left;
    uint64_t n_blocks, block, stride, offset;
    thread *threads; /* [MAX_THREADS], made once */
    warp_state warps[WARPS];
    uint32_t ready_warps;
    barrier_state barriers[N_BARRIERS];
    uint32_t barriers_used; /* by this block */
    uint32_t random;
    unsigned char *shared; /* after FRONT_BYTES of guard */
    bool shared_used;
    char failure[1200];
    bool failed;
} now;

thread *running() {
    return const_cast<thread *>(static_cast<const thread *>(self));
}

bool same_site(site a, site b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

/* Plain memory: who fails leaves a stack behind on which no destructor runs. */
struct line {
    char text[480];
};

__attribute__((format(printf, 1, 0))) line text(const char *format, va_list arguments) {
    line out;
    vsnprintf(out.text, sizeof out.text, format, arguments);
    return out;
}

__attribute__((format(printf, 1, 2))) line text(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    line out = text(format, arguments);
    va_end(arguments);
    return out;
}

line text(site where) {
    if (!where.line) return text("%s", where.file);
    const char *name = std::strrchr(where.file, '/');
    return text("%s:%d", name ? name + 1 : where.file, where.line);
}

line text(const uint3 &at, const dim3 &size) {
    if (size.z > 1) return text("(%u, %u, %u)", at.x, at.y, at.z);
    if (size.y > 1) return text("(%u, %u)", at.x, at.y);
    return text("%u", at.x);
}

/* --- which thread is next ------------------------------------------------------------------------------- */

uint32_t draw() {
    now.random ^= now.random << 13;
    now.random ^= now.random >> 17;
    now.random ^= now.random << 5;
    return now.random;
}

int lowest(uint32_t bits) {
    return __builtin_ctz(bits);
}

int highest(uint32_t bits) {
    return 31 - __builtin_clz(bits);
}

/* Some bit of bits, by chance: the next one set from a random place on. */
int any_bit(uint32_t bits) {
    uint32_t from = draw() >> 27, above = bits >> from << from;
    return lowest(above ? above : bits);
}

uint32_t above(uint32_t bits, int place) {
    return bits & ~(uint32_t)(((uint64_t)2 << place) - 1);
}

uint32_t below(uint32_t bits, int place) {
    return bits & ((1u << place) - 1);
}

thread *thread_of(int warp, int lane) {
    return &now.threads[warp * 32 + lane];
}

/* The thread to run after the running one, or nullptr when none is ready. */
thread *pick() {
    if (!now.ready_warps) return nullptr;
    const thread *me = running();
    uint32_t mine = now.warps[me->warp].ready, after;
    int warp;
    switch (now.how.order) {
    case ORDER_FORWARD:
        after = above(mine, me->lane);
        if (after) return thread_of(me->warp, lowest(after));
        after = above(now.ready_warps, me->warp);
        warp = lowest(after ? after : now.ready_warps);
        return thread_of(warp, lowest(now.warps[warp].ready));
    case ORDER_WARP_UP:
        if (mine) {
            after = above(mine, me->lane);
            return thread_of(me->warp, lowest(after ? after : mine));
        }
        warp = lowest(now.ready_warps);
        return thread_of(warp, lowest(now.warps[warp].ready));
    case ORDER_WARP_DOWN:
        if (mine) {
            after = below(mine, me->lane);
            return thread_of(me->warp, highest(after ? after : mine));
        }
        warp = highest(now.ready_warps);
        return thread_of(warp, highest(now.warps[warp].ready));
    case ORDER_SEED:
        break;
    }
    warp = any_bit(now.ready_warps);
    return thread_of(warp, any_bit(now.warps[warp].ready));
}

void make_ready(int warp, uint32_t lanes) {
    now.warps[warp].ready |= lanes;
    now.ready_warps |= 1u << warp;
}

void make_unready(int warp, uint32_t lanes) {
    now.warps[warp].ready &= ~lanes;
    if (!now.warps[warp].ready) now.ready_warps &= ~(1u << warp);
}

/* --- failing -------------------------------------------------------------------------------------------- */

/* Back to the caller of run_kernel; every stack of this launch is given up where it stands. */
[[noreturn]] void fail_at(const thread *t, site where, const line &what) {
    snprintf(now.failure, sizeof now.failure, "sim: kernel %s, block %s, thread %s, at %s: %s", now.name,
             text(block_index, grid_size).text, text(t->index, block_size).text, text(where).text, what.text);
    now.failed = true;
    fiber_leave(running()->stack, nullptr);
}

line whereabouts(const thread *t) {
    line who = text(t->index, block_size);
    if (now.warps[t->warp].gone >> t->lane & 1) return text("thread %s has left the kernel", who.text);
    if (!t->waits) return text("thread %s does not come", who.text);
    if (t->barrier >= 0)
        return text("thread %s waits at barrier %d of %s", who.text, t->barrier, text(t->where).text);
    return text("thread %s waits at %s with mask %08x", who.text, text(t->where).text, t->mask);
}

/* Nobody can run: names one that waits and one that it waits for. */
[[noreturn]] void fail_stuck() {
    const thread *waiting = nullptr;
    for (int i = 0; i < now.n_threads && !waiting; i++)
        if (now.threads[i].waits) waiting = &now.threads[i];
    if (!waiting) fail_at(running(), running()->where, text("no thread can run"));
    if (waiting->barrier < 0) {
        const warp_state *w = &now.warps[waiting->warp];
        for (int lane = 0; lane < 32; lane++) {
            if (!(waiting->mask >> lane & 1)) continue;
            const thread *other = thread_of(waiting->warp, lane);
            bool gone = w->gone >> lane & 1;
            if (gone || !other->waits || other->barrier >= 0 || other->mask != waiting->mask ||
                !same_site(other->where, waiting->where))
                fail_at(
                    waiting, waiting->where,
                    text("the lanes of mask %08x do not meet: %s", waiting->mask, whereabouts(other).text));
        }
        fail_at(waiting, waiting->where,
                text("the lanes of mask %08x meet in different operations", waiting->mask));
    }
    const barrier_state *b = &now.barriers[waiting->barrier];
    for (int i = 0; i < now.n_threads; i++) {
        const thread *other = &now.threads[i];
        if (!(b->lanes[other->warp] >> other->lane & 1))
            fail_at(waiting, waiting->where,
                    text("a barrier that %d of %d threads reach: %s", b->arrived, b->expected,
                         whereabouts(other).text));
    }
    fail_at(waiting, waiting->where, text("%d threads wait at a barrier of %d", b->arrived, b->expected));
}

/* --- guards of shared memory ---------------------------------------------------------------------------- */

/* Called whenever a thread stops running, so that the writer is known. */
void check_guards(site where, const char *before_what) {
    if (!now.shared_used) return;
    if (guard_stands(now.shared - GUARD_BYTES, GUARD_BYTES) &&
        guard_stands(now.shared + now.shape.shared_bytes, GUARD_BYTES))
        return;
    fail_at(running(), where,
            text("before this %s it wrote outside the %zu bytes of shared memory of the launch", before_what,
                 now.shape.shared_bytes));
}

/* --- a block's life ------------------------------------------------------------------------------------- */

void reset_block() {
    for (int w = 0; w < now.n_warps; w++) {
        int n = std::min(32, now.n_threads - 32 * w);
        now.warps[w].lanes = now.warps[w].ready = n == 32 ? 0xffffffffu : (1u << n) - 1;
        now.warps[w].gone = 0;
        now.warps[w].n_open = 0;
    }
    now.ready_warps = now.n_warps == 32 ? 0xffffffffu : (1u << now.n_warps) - 1;
    now.n_left = now.n_threads;
    for (int b = 0; now.barriers_used; b++, now.barriers_used >>= 1)
        if (now.barriers_used & 1) now.barriers[b] = barrier_state();
    if (now.shared_used) {
        std::memset(now.shared, 0xff, now.shape.shared_bytes);
        now.shared_used = false;
    }
}

/* Block number -> index, in the order of the schedule. */
void place_block() {
    uint64_t i = now.block;
    if (now.how.order == ORDER_WARP_DOWN) i = now.n_blocks - 1 - i;
    if (now.how.order == ORDER_SEED)
        i = (now.offset + (unsigned __int128)i * now.stride % now.n_blocks) % now.n_blocks;
    block_index.x = (unsigned)(i % grid_size.x);
    block_index.y = (unsigned)(i / grid_size.x % grid_size.y);
    block_index.z = (unsigned)(i / ((uint64_t)grid_size.x * grid_size.y));
    if (now.how.order == ORDER_SEED) {
        now.random = (uint32_t)(i * 0x9E3779B9u) ^ (now.how.seed * 0x85EBCA6Bu);
        if (!now.random) now.random = 1;
    }
}

thread *begin_block() {
    reset_block();
    place_block();
    if (now.how.order == ORDER_SEED) return pick();
    return &now.threads[now.how.order == ORDER_WARP_DOWN ? now.n_threads - 1 : 0];
}

/* The first thread of the next block, or nullptr after the last. */
thread *next_block() {
    if (++now.block == now.n_blocks) return nullptr;
    return begin_block();
}

void begin_thread(thread *t) {
    t->waits = false;
    t->where = site{"the kernel's start", 0};
    if (!t->copies.empty()) t->copies.clear();
    t->first_copy = 0;
    t->groups = 0;
}

/*
 * A stack runs one thread after the other for as long as they come to their end. A thread that waits keeps
 * the stack it is on; so a kernel without meetings costs a call a thread and no switch at all.
 */
void run_threads() {
    fiber_begin();
    for (;;) {
        thread *me = running();
        begin_thread(me);
        (*now.body)();
        me = running();
        check_guards(me->where.line ? me->where : site{"the kernel's end", 0}, "end");
        fiber *stack = me->stack;
        me->stack = nullptr;
        now.warps[me->warp].gone |= 1u << me->lane;
        make_unready(me->warp, 1u << me->lane);
        thread *next;
        if (--now.n_left == 0) {
            next = next_block();
            if (!next) {
                fiber_give(stack);
                fiber_leave(stack, nullptr);
            }
        } else {
            next = pick();
            if (!next) {
                me->stack = stack;
                fail_stuck();
            }
        }
        self = next;
        if (!next->stack) {
            next->stack = stack;
            continue;
        }
        fiber_give(stack);
        fiber_leave(stack, next->stack);
    }
}

/* The running thread stops here until it is ready again. */
void let_others_run() {
    thread *me = running(), *next = pick();
    if (!next) fail_stuck();
    if (next == me) return;
    if (!next->stack) {
        next->stack = fiber_take(run_threads);
        if (!next->stack) fail_at(me, me->where, text("no memory for a thread's stack"));
    }
    self = next;
    fiber_switch(me->stack, next->stack);
}

} // namespace

/* --- what kernels call ---------------------------------------------------------------------------------- */

void fail(site where, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    line what = text(format, arguments);
    va_end(arguments);
    fail_at(running(), where, what);
}

void warp_wait(meeting *operation, uint32_t mask, void *slot, site where) {
    thread *me = running();
    warp_state *w = &now.warps[me->warp];
    check_guards(where, "line");
    /* A plain __syncwarp() in a last warp of fewer lanes means those that exist. */
    if (!operation && mask == 0xffffffffu) mask = w->lanes;
    if (!(mask >> me->lane & 1)) fail(where, "lane %d is not in its own mask %08x", me->lane, mask);
    if (mask & ~w->lanes) fail(where, "mask %08x names lanes that the block does not have", mask);
    int i = 0;
    while (i < w->n_open && !(w->open[i].mask == mask && w->open[i].operation == operation &&
                              same_site(w->open[i].where, where)))
        i++;
    if (i == w->n_open) {
        if (i == MEETINGS) fail(where, "lanes of one warp wait at more than %d places", (int)MEETINGS);
        w->open[w->n_open++] = open_meeting{operation, mask, 0, where};
    }
    w->slots[me->lane] = slot;
    w->open[i].arrived |= 1u << me->lane;
    me->where = where;
    if (w->open[i].arrived == mask) {
        w->open[i] = w->open[--w->n_open];
        if (operation) operation(w->slots, mask);
        for (uint32_t rest = mask; rest; rest &= rest - 1) thread_of(me->warp, lowest(rest))->waits = false;
        make_ready(me->warp, mask);
    } else {
        me->waits = true;
        me->barrier = -1;
        me->mask = mask;
        make_unready(me->warp, 1u << me->lane);
    }
    let_others_run();
}

void block_wait(int barrier, int threads, site where) {
    thread *me = running();
    check_guards(where, "line");
    if (barrier < 0 || barrier >= N_BARRIERS || (barrier == 0) != (threads < 0))
        fail(where, "barrier %d is not one of 1 to 15", barrier);
    int expected = threads < 0 ? now.n_threads : threads;
    if (threads >= 0 && (threads <= 0 || threads % 32 || threads > now.n_threads))
        fail(where, "a barrier of %d threads in a block of %d", threads, now.n_threads);
    barrier_state *b = &now.barriers[barrier];
    now.barriers_used |= 1u << barrier;
    if (b->arrived == 0)
        b->expected = expected, b->where = where;
    else if (b->expected != expected)
        fail(where, "barrier %d of %d threads is one of %d threads at %s", barrier, expected, b->expected,
             text(b->where).text);
    else if (barrier == 0 && !same_site(b->where, where))
        fail(where, "threads of one block wait at this __syncthreads() and at that of %s",
             text(b->where).text);
    b->lanes[me->warp] |= 1u << me->lane;
    me->where = where;
    me->waits = true;
    me->barrier = barrier;
    make_unready(me->warp, 1u << me->lane);
    if (++b->arrived == b->expected) {
        for (int w = 0; w < now.n_warps; w++) {
            uint32_t lanes = b->lanes[w];
            if (!lanes) continue;
            if (threads >= 0 && lanes != now.warps[w].lanes)
                fail(where, "barrier %d is reached by lanes %08x of warp %d, not by whole warps", barrier,
                     lanes, w);
            for (uint32_t rest = lanes; rest; rest &= rest - 1) thread_of(w, lowest(rest))->waits = false;
            make_ready(w, lanes);
        }
        *b = barrier_state();
    }
    let_others_run();
}

void *shared_memory(size_t bytes, size_t alignment, site where) {
    if (bytes > now.shape.shared_bytes)
        fail(where, "%zu bytes of shared memory are used, the launch asked for %zu", bytes,
             now.shape.shared_bytes);
    if (alignment > 128) fail(where, "shared memory is 128-byte aligned, not %zu", alignment);
    now.shared_used = true;
    return now.shared;
}

bool in_shared(const void *at, size_t bytes) {
    uintptr_t first = reinterpret_cast<uintptr_t>(now.shared), place = reinterpret_cast<uintptr_t>(at);
    return place >= first && place + bytes <= first + now.shape.shared_bytes;
}

void check_vector_store(const void *to, size_t bytes, site where) {
    if (reinterpret_cast<uintptr_t>(to) % bytes)
        fail(where, "a store of %zu bytes to an address that ends in %x", bytes,
             (unsigned)(reinterpret_cast<uintptr_t>(to) & 15));
    if (in_shared(to, bytes))
        fail(where, "a store of a vector to global memory, at an address of shared memory");
}

void copy_async(void *to, const void *from, bool valid, site where) {
    thread *me = running();
    if (reinterpret_cast<uintptr_t>(to) % 16)
        fail(where, "cp_async16 to an address that is not 16-byte aligned");
    if (!in_shared(to, 16)) fail(where, "cp_async16 to what is not the launch's shared memory");
    if (reinterpret_cast<uintptr_t>(from) % 16)
        fail(where, "cp_async16 from an address that is not 16-byte aligned");
    if (now.how.late) {
        me->copies.push_back(pending_copy{to, from, me->groups, valid});
    } else if (valid) {
        std::memcpy(to, from, 16);
    } else {
        std::memset(to, 0, 16);
    }
}

void copy_commit() {
    running()->groups++;
}

void copy_wait(int left) {
    thread *me = running();
    while (me->first_copy < me->copies.size()) {
        const pending_copy &copy = me->copies[me->first_copy];
        if (copy.group + (uint32_t)left >= me->groups) return;
        if (copy.valid)
            std::memcpy(copy.to, copy.from, 16);
        else
            std::memset(copy.to, 0, 16);
        me->first_copy++;
    }
    me->copies.clear();
    me->first_copy = 0;
}

/* --- a launch ------------------------------------------------------------------------------------------- */

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    return b ? common_divisor(b, a % b) : a;
}

sago_status run_kernel(const char *name, const launch_shape &shape, const schedule &how,
                       const std::function<void()> &body) {
    if (!now.threads) now.threads = new thread[MAX_THREADS]();
    if (!now.shared)
        now.shared =
            static_cast<unsigned char *>(aligned_alloc(128, SHARED_LIMIT_BYTES + 1024)) + FRONT_BYTES;
    now.name = name;
    now.shape = shape;
    now.how = how;
    now.body = &body;
    now.failed = false;
    grid_size = shape.grid;
    block_size = shape.block;
    now.n_threads = (int)(shape.block.x * shape.block.y * shape.block.z);
    now.n_warps = (now.n_threads + 31) / 32;
    for (int i = 0; i < now.n_threads; i++) {
        thread *t = &now.threads[i];
        unsigned u = (unsigned)i;
        t->index =
            uint3{u % shape.block.x, u / shape.block.x % shape.block.y, u / (shape.block.x * shape.block.y)};
        t->lane = i % 32;
        t->warp = i / 32;
        t->stack = nullptr;
    }
    std::memset(now.shared, 0xff, shape.shared_bytes);
    fill_guard(now.shared - GUARD_BYTES, GUARD_BYTES);
    fill_guard(now.shared + shape.shared_bytes, GUARD_BYTES);
    now.shared_used = false;
    now.n_blocks = (uint64_t)shape.grid.x * shape.grid.y * shape.grid.z;
    now.block = 0;
    now.offset = how.seed * 2654435761u % now.n_blocks;
    now.stride = now.n_blocks / 2 + how.seed % 7 + 1;
    while (common_divisor(now.stride, now.n_blocks) != 1) now.stride++;
    self = &now.threads[0];
    thread *first = begin_block();
    first->stack = fiber_take(run_threads);
    if (!first->stack) return sago_fail(SAGO_E_MEMORY, "sim: no memory for a thread's stack");
    self = first;
    fiber_switch(nullptr, first->stack);
    self = nullptr;
    if (!now.failed) return SAGO_OK;
    /* Threads stopped where they stood. */
    for (int i = 0; i < now.n_threads; i++)
        if (now.threads[i].stack) fiber_drop(now.threads[i].stack);
    for (barrier_state &b : now.barriers) b = barrier_state();
    now.barriers_used = 0;
    return sago_fail(SAGO_E_DEVICE, "%s", now.failure);
}

} // namespace sago_sim
