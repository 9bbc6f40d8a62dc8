// SPDX-License-Identifier: Apache-2.0
/*
 * kernels/cuda/runtime.h without a GPU. Nothing runs when it is handed over: streams keep what they are given
 * and work when somebody waits, in the order that suits least. What depends on another stream without an
 * event, on host memory that was reused too early, or on a copy that nobody waited for, shows.
 */
#include "engine.h"
#include "guard.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

using namespace sago_sim;

namespace {

enum { GUARD_BYTES = 256, ALIGNMENT = 256, ALWAYS_CHECKED = 256 };

/* One open device. */
struct context {
    schedule how;
    std::string variant;
    sago_error failure; /* what ended its work, SAGO_OK while nothing did */
    uint32_t random;
    size_t shared_bytes; /* most of a block */
};

struct point { /* of a stream's work: what an event stands for */
    sago_stream *stream;
    std::shared_ptr<context> owner; /* the stream may be closed before the event is */
    uint64_t recorded, passed;      /* numbers of the last record handed over and executed */
};

struct task {
    enum { RUN, RECORD, WAIT } kind;
    const char *name;
    std::function<sago_status()> run;
    std::shared_ptr<point> event;
    uint64_t number;
};

struct allocation {
    size_t bytes;
    bool pinned;
};

std::mutex lock; /* of everything here and of the engine */
std::map<uintptr_t, allocation> *allocations;
std::vector<sago_stream *> *streams;
size_t allocated_bytes;
uint64_t last_record;
thread_local std::shared_ptr<context> current;

} // namespace

struct sago_recording {
    std::vector<task> tasks;
};

struct sago_stream {
    std::shared_ptr<context> owner;
    std::deque<task> tasks;
    uint64_t handed_over, done;
    sago_recording *recording; /* where tasks go instead; nullptr: nowhere */
    const char *spoiled;       /* what made the recording fail; nullptr: nothing */
};

struct sago_event {
    std::shared_ptr<point> at;
};

namespace {

/* --- memory --------------------------------------------------------------------------------------------- */

void make_registries() {
    if (allocations) return;
    allocations = new std::map<uintptr_t, allocation>();
    streams = new std::vector<sago_stream *>();
}

/* The allocation that holds [at, at + bytes), or nullptr. */
const allocation *find(const void *at, size_t bytes) {
    make_registries();
    uintptr_t place = reinterpret_cast<uintptr_t>(at);
    auto next = allocations->upper_bound(place);
    if (next == allocations->begin()) return nullptr;
    auto found = std::prev(next);
    return place + bytes <= found->first + found->second.bytes ? &found->second : nullptr;
}

bool is_device(const void *at, size_t bytes) {
    const allocation *found = find(at, bytes);
    return found && !found->pinned;
}

bool is_pinned(const void *at, size_t bytes) {
    const allocation *found = find(at, bytes);
    return found && found->pinned;
}

sago_status check_guards(const std::pair<const uintptr_t, allocation> &one, const char *when) {
    unsigned char *memory = reinterpret_cast<unsigned char *>(one.first);
    bool front = guard_stands(memory - GUARD_BYTES, GUARD_BYTES),
         back = guard_stands(memory + one.second.bytes, GUARD_BYTES);
    if (front && back) return SAGO_OK;
    /* Said once. */
    fill_guard(memory - GUARD_BYTES, GUARD_BYTES);
    fill_guard(memory + one.second.bytes, GUARD_BYTES);
    return sago_fail(SAGO_E_DEVICE, "sim: memory was written %s an allocation of %zu bytes; noticed %s",
                     front ? "behind" : "in front of", one.second.bytes, when);
}

sago_status check_all_guards(const char *when) {
    sago_status status = SAGO_OK;
    for (const auto &one : *allocations)
        if (check_guards(one, when) != SAGO_OK) status = SAGO_E_DEVICE;
    return status;
}

/* $SAGO_SIM_MEMORY_BYTES makes it as small as a GPU's, so that tests see what happens when it ends. */
size_t total_bytes() {
    const char *given = getenv("SAGO_SIM_MEMORY_BYTES");
    if (given) return strtoull(given, nullptr, 10);
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

/* $SAGO_SIM_SHARED_BYTES makes a block's shared memory as small as that of other GPUs than the H100. */
size_t most_shared_bytes() {
    const char *given = getenv("SAGO_SIM_SHARED_BYTES");
    size_t bytes = given ? strtoull(given, nullptr, 10) : (size_t)SHARED_LIMIT_BYTES;
    return std::min(bytes, (size_t)SHARED_LIMIT_BYTES);
}

sago_status allocate(void **out, size_t bytes, bool pinned) {
    std::lock_guard<std::mutex> held(lock);
    make_registries();
    *out = nullptr;
    size_t room = (bytes + 2 * GUARD_BYTES + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    unsigned char *base = nullptr;
    if (bytes < total_bytes() - std::min(allocated_bytes, total_bytes()))
        base = static_cast<unsigned char *>(aligned_alloc(ALIGNMENT, room));
    if (!base) return sago_fail(SAGO_E_MEMORY, "sim: no memory for %zu bytes", bytes);
    unsigned char *memory = base + GUARD_BYTES;
    fill_guard(base, GUARD_BYTES);
    std::memset(memory, 0xff, bytes);
    fill_guard(memory + bytes, GUARD_BYTES);
    (*allocations)[reinterpret_cast<uintptr_t>(memory)] = allocation{bytes, pinned};
    allocated_bytes += bytes;
    *out = memory;
    return SAGO_OK;
}

/* --- work ----------------------------------------------------------------------------------------------- */

void keep_failure(context *c, sago_status status) {
    if (status != SAGO_OK && c->failure.status == SAGO_OK) sago_error_take(status, &c->failure);
}

bool blocked(const sago_stream *stream) {
    if (stream->tasks.empty()) return true;
    const task &next = stream->tasks.front();
    return next.kind == task::WAIT && next.event->passed < next.number;
}

/* The next task of a stream that is not blocked. After a failure nothing runs any more, but points still
 * pass. */
void step(sago_stream *stream) {
    task next = std::move(stream->tasks.front());
    stream->tasks.pop_front();
    stream->done++;
    if (next.kind == task::RECORD) next.event->passed = std::max(next.event->passed, next.number);
    context *c = stream->owner.get();
    if (next.kind != task::RUN || c->failure.status != SAGO_OK) return;
    keep_failure(c, next.run());
    if (allocations->size() <= ALWAYS_CHECKED) {
        std::string when = std::string("after ") + next.name;
        keep_failure(c, check_all_guards(when.c_str()));
    }
}

uint32_t draw(context *c) {
    c->random = c->random * 1664525u + 1013904223u;
    return c->random >> 16;
}

/* A stream of the context that can do something, chosen by chance; target if no other. */
sago_stream *any_stream(sago_stream *target) {
    sago_stream *chosen = nullptr;
    uint32_t seen = 0;
    for (sago_stream *other : *streams)
        if (other->owner == target->owner && !blocked(other) && draw(target->owner.get()) % ++seen == 0)
            chosen = other;
    return chosen;
}

/*
 * Works until `target` has done `until` tasks. Streams other than the one waited for come last (only as far
 * as events demand) when copies are late, first when they are early, and mixed when a seed says so.
 */
void work(sago_stream *target, uint64_t until) {
    context *c = target->owner.get();
    while (target->done < until) {
        sago_stream *next = target;
        if (c->how.order == ORDER_SEED) {
            next = any_stream(target);
        } else if (!c->how.late) {
            for (sago_stream *other : *streams)
                if (other != target && other->owner == target->owner && !blocked(other)) {
                    next = other;
                    break;
                }
        }
        /* An event's record was handed over before the wait for it, so this ends. */
        while (blocked(next)) next = next->tasks.front().event->stream;
        step(next);
    }
}

sago_status outcome(context *c) {
    keep_failure(c, check_all_guards("at a wait"));
    return c->failure.status == SAGO_OK ? SAGO_OK : sago_error_give(&c->failure);
}

/* What waits, or is waited for, has no place in a recording. */
sago_status refuse(sago_stream *stream, const char *what) {
    if (!stream->spoiled) stream->spoiled = what;
    return sago_fail(SAGO_E_DEVICE, "sim: %s while a graph is recorded", what);
}

sago_status wait_for(sago_stream *stream) {
    if (stream->recording) return refuse(stream, "a wait");
    work(stream, stream->handed_over);
    return outcome(stream->owner.get());
}

void hand_over(sago_stream *stream, task &&next) {
    if (stream->recording) {
        stream->recording->tasks.push_back(std::move(next));
        return;
    }
    stream->tasks.push_back(std::move(next));
    stream->handed_over++;
}

void hand_over(sago_stream *stream, const char *name, std::function<sago_status()> run) {
    hand_over(stream, task{task::RUN, name, std::move(run), nullptr, 0});
}

/* --- variants ------------------------------------------------------------------------------------------- */

const struct {
    const char *name;
    thread_order order;
    uint32_t seed;
} orders[] = {{"forward", ORDER_FORWARD, 0},
              {"warp-up", ORDER_WARP_UP, 0},
              {"warp-down", ORDER_WARP_DOWN, 0},
              {"seed1", ORDER_SEED, 1},
              {"seed2", ORDER_SEED, 2}};

/* "warp-up,early", either part or none. */
sago_status parse(const char *variant, schedule *out) {
    *out = schedule{ORDER_FORWARD, 0, true};
    const char *rest = variant ? variant : "";
    while (*rest) {
        size_t length = strcspn(rest, ",");
        std::string part(rest, length);
        rest += length + (rest[length] == ',');
        bool known = part == "late" || part == "early";
        if (known) out->late = part == "late";
        for (const auto &one : orders)
            if (part == one.name) {
                out->order = one.order;
                out->seed = one.seed;
                known = true;
            }
        if (!known)
            return sago_fail(
                SAGO_E_DEVICE,
                "sim: '%s' is no schedule; there are forward, warp-up, warp-down, seed1 and seed2, each "
                "with ,late or ,early",
                part.c_str());
    }
    return SAGO_OK;
}

} // namespace

/* --- launches ------------------------------------------------------------------------------------------- */

sago_status sago_sim::enqueue_kernel(sago_stream *stream, const char *name, site where,
                                     const launch_shape &shape, const void *const pointers[], int n_pointers,
                                     std::function<void()> body) {
    std::lock_guard<std::mutex> held(lock);
    const dim3 &grid = shape.grid, &block = shape.block;
    const char *file = strrchr(where.file, '/');
    file = file ? file + 1 : where.file;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64)
        return sago_fail(SAGO_E_DEVICE, "sim: kernel %s, launched at %s:%d: blocks of %u x %u x %u threads",
                         name, file, where.line, block.x, block.y, block.z);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return sago_fail(SAGO_E_DEVICE, "sim: kernel %s, launched at %s:%d: a grid of %u x %u x %u blocks",
                         name, file, where.line, grid.x, grid.y, grid.z);
    size_t most_shared = stream->owner->shared_bytes;
    if (shape.shared_bytes > most_shared)
        return sago_fail(SAGO_E_DEVICE, "sim: kernel %s, launched at %s:%d: %zu bytes of shared memory of %zu",
                         name, file, where.line, shape.shared_bytes, most_shared);
    for (int i = 0; i < n_pointers; i++)
        if (pointers[i] && !is_device(pointers[i], 0))
            return sago_fail(SAGO_E_DEVICE,
                             "sim: kernel %s, launched at %s:%d: pointer %d of %d is not device memory", name,
                             file, where.line, i + 1, n_pointers);
    const schedule *how = &stream->owner->how;
    hand_over(stream, name, [=]() { return run_kernel(name, shape, *how, body); });
    return SAGO_OK;
}

/* --- runtime.h ------------------------------------------------------------------------------------------ */

sago_status SAGO_GPU(rt_open)(int index, const char *variant, sago_gpu_properties *out) {
    schedule how;
    SAGO_TRY(parse(variant, &how));
    current = std::make_shared<context>();
    current->how = how;
    current->random = how.seed;
    current->shared_bytes = most_shared_bytes();
    for (const auto &one : orders)
        if (one.order == how.order && one.seed == how.seed)
            current->variant = std::string(one.name) + (how.late ? ", late copies" : ", early copies");
    *out = sago_gpu_properties();
    snprintf(out->name, sizeof out->name, "threads as fibers (%s)", current->variant.c_str());
    out->index = index;
    out->count = index + 1;
    out->major = 8;
    out->multiprocessors = 4;
    out->memory_bytes = total_bytes();
    out->shared_bytes = current->shared_bytes;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_attach)(int index) {
    (void)index; /* streams know their device */
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_malloc)(void **out, size_t bytes) {
    return allocate(out, bytes, false);
}

sago_status SAGO_GPU(rt_malloc_host)(void **out, size_t bytes) {
    return allocate(out, bytes, true);
}

/* Freeing waits for all work, as it does on a GPU. Damage is told by the next wait of every device. */
static void release(void *memory) {
    if (!memory) return;
    std::lock_guard<std::mutex> held(lock);
    make_registries();
    sago_error before;
    sago_error_take(SAGO_OK, &before);
    for (sago_stream *stream : *streams) work(stream, stream->handed_over);
    auto found = allocations->find(reinterpret_cast<uintptr_t>(memory));
    if (found == allocations->end()) {
        sago_status status =
            sago_fail(SAGO_E_DEVICE, "sim: memory was freed that was not allocated, or twice");
        for (sago_stream *stream : *streams) keep_failure(stream->owner.get(), status);
    } else {
        sago_status status = check_guards(*found, "when it was freed");
        for (sago_stream *stream : *streams) keep_failure(stream->owner.get(), status);
        /* What is read after this is no number. */
        std::memset(memory, 0xff, found->second.bytes);
        allocated_bytes -= found->second.bytes;
        allocations->erase(found);
        free(static_cast<unsigned char *>(memory) - GUARD_BYTES);
    }
    sago_error_give(&before);
}

void SAGO_GPU(rt_free)(void *memory) {
    release(memory);
}

void SAGO_GPU(rt_free_host)(void *memory) {
    release(memory);
}

sago_status SAGO_GPU(rt_memory_info)(size_t *free_bytes, size_t *total) {
    std::lock_guard<std::mutex> held(lock);
    *total = total_bytes();
    *free_bytes = *total - std::min(allocated_bytes, *total);
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_stream_open)(sago_stream **out) {
    *out = nullptr;
    if (!current) return sago_fail(SAGO_E_INTERNAL, "sim: a stream before a device");
    std::lock_guard<std::mutex> held(lock);
    make_registries();
    *out = new sago_stream{current, {}, 0, 0, nullptr, nullptr};
    streams->push_back(*out);
    return SAGO_OK;
}

void SAGO_GPU(rt_stream_close)(sago_stream *stream) {
    if (!stream) return;
    std::lock_guard<std::mutex> held(lock);
    work(stream, stream->handed_over);
    streams->erase(std::find(streams->begin(), streams->end(), stream));
    delete stream;
}

sago_status SAGO_GPU(rt_stream_wait)(sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    return wait_for(stream);
}

sago_status SAGO_GPU(rt_event_open)(sago_event **out) {
    *out = new sago_event{std::make_shared<point>()};
    return SAGO_OK;
}

void SAGO_GPU(rt_event_close)(sago_event *event) {
    delete event;
}

sago_status SAGO_GPU(rt_event_record)(sago_event *event, sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    if (stream->recording) return refuse(stream, "an event's record");
    event->at->stream = stream;
    event->at->owner = stream->owner;
    event->at->recorded = ++last_record;
    hand_over(stream, task{task::RECORD, "an event", nullptr, event->at, last_record});
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_event_wait)(sago_event *event) {
    std::lock_guard<std::mutex> held(lock);
    if (event->at->recorded == 0) return SAGO_OK;
    point *at = event->at.get();
    while (at->passed < at->recorded) work(at->stream, at->stream->done + 1);
    return outcome(at->owner.get());
}

sago_status SAGO_GPU(rt_stream_wait_event)(sago_stream *stream, sago_event *event) {
    std::lock_guard<std::mutex> held(lock);
    if (stream->recording) return refuse(stream, "a wait for an event");
    if (event->at->recorded)
        hand_over(stream, task{task::WAIT, "an event", nullptr, event->at, event->at->recorded});
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_event_milliseconds)(float *out, sago_event *from, sago_event *to) {
    (void)from, (void)to;
    *out = 0.0f;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_copy)(void *to, const void *from, size_t bytes, sago_copy_kind kind,
                              sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    if (kind != SAGO_DEVICE_TO_HOST && !is_device(to, bytes))
        return sago_fail(SAGO_E_DEVICE, "sim: a copy of %zu bytes to what is not device memory", bytes);
    if (kind != SAGO_HOST_TO_DEVICE && !is_device(from, bytes))
        return sago_fail(SAGO_E_DEVICE, "sim: a copy of %zu bytes from what is not device memory", bytes);
    uintptr_t source = reinterpret_cast<uintptr_t>(from), target = reinterpret_cast<uintptr_t>(to);
    if (source < target + bytes && target < source + bytes) /* what CUDA then does is not defined */
        return sago_fail(SAGO_E_DEVICE, "sim: a copy of %zu bytes onto memory that it reads", bytes);
    if (kind == SAGO_HOST_TO_DEVICE && !is_pinned(from, bytes)) {
        if (stream->recording) return refuse(stream, "a copy of memory that is not pinned");
        const char *first = static_cast<const char *>(from);
        std::vector<char> now(first, first + bytes);
        hand_over(stream, "a copy to the device", [to, now]() {
            std::memcpy(to, now.data(), now.size());
            return SAGO_OK;
        });
        return SAGO_OK;
    }
    hand_over(stream, "a copy", [to, from, bytes]() {
        std::memcpy(to, from, bytes);
        return SAGO_OK;
    });
    return kind == SAGO_DEVICE_TO_HOST && !is_pinned(to, bytes) ? wait_for(stream) : SAGO_OK;
}

sago_status SAGO_GPU(rt_set)(void *to, int byte, size_t bytes, sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    if (!is_device(to, bytes))
        return sago_fail(SAGO_E_DEVICE, "sim: %zu bytes to set are not device memory", bytes);
    hand_over(stream, "a fill", [to, byte, bytes]() {
        std::memset(to, byte, bytes);
        return SAGO_OK;
    });
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_record_begin)(sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    if (stream->recording) return sago_fail(SAGO_E_DEVICE, "sim: the stream is being recorded already");
    stream->recording = new sago_recording();
    stream->spoiled = nullptr;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_record_end)(sago_stream *stream, sago_recording **out) {
    std::lock_guard<std::mutex> held(lock);
    *out = nullptr;
    if (!stream->recording) return sago_fail(SAGO_E_DEVICE, "sim: the stream is not being recorded");
    if (stream->spoiled)
        delete stream->recording;
    else
        *out = stream->recording;
    stream->recording = nullptr;
    return *out ? SAGO_OK : sago_fail(SAGO_E_DEVICE, "sim: %s while a graph was recorded", stream->spoiled);
}

sago_status SAGO_GPU(rt_recording_launch)(const sago_recording *recording, sago_stream *stream) {
    std::lock_guard<std::mutex> held(lock);
    for (const task &one : recording->tasks) hand_over(stream, task(one));
    return SAGO_OK;
}

void SAGO_GPU(rt_recording_close)(sago_recording *recording) {
    std::lock_guard<std::mutex> held(lock);
    delete recording;
}

sago_status SAGO_GPU(rt_host_function)(sago_stream *stream, sago_status (*function)(void *argument),
                                       const void *argument, size_t bytes) {
    std::lock_guard<std::mutex> held(lock);
    const char *first = static_cast<const char *>(argument);
    std::vector<char> now(first, first + bytes);
    hand_over(stream, "a host function", [function, now]() mutable { return function(now.data()); });
    return SAGO_OK;
}

/* enqueue_kernel checks both of these for each launch. */
sago_status SAGO_GPU(rt_launched)(const char *kernel) {
    (void)kernel;
    return SAGO_OK;
}

sago_status SAGO_GPU(rt_allow_shared)(const void *kernel, size_t bytes) {
    (void)kernel, (void)bytes;
    return SAGO_OK;
}
