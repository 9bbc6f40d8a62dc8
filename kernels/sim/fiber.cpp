// SPDX-License-Identifier: Apache-2.0
#include "fiber.h"

#include <cstdlib>
#include <sys/mman.h>

#if !defined(__x86_64__) || defined(SAGO_SIM_UCONTEXT)
#define USE_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define USE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USE_ASAN 1
#endif
#endif

#ifdef USE_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);
}
#endif

namespace sago_sim {

namespace {
enum {
    PAGE = 4096,
#ifdef USE_ASAN
    STACK_BYTES = 1 << 20, /* instrumented frames are larger */
#else
    STACK_BYTES = 1 << 18,
#endif
    /* Stacks that begin at the same offset of a page fight for the same lines of the first-level cache. */
    COLOURS = 31,
    COLOUR_BYTES = 128,
};
} // namespace

struct fiber {
    fiber *next_unused;
    char *bottom;
    char *top;
    void (*entry)();
#ifdef USE_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer;
#endif
#ifdef USE_ASAN
    void *fake_stack;
    const void *asan_bottom;
    size_t asan_size;
#endif
};

namespace {
fiber host;    /* who called for kernels to run */
fiber *unused; /* a list */
int n_made;
#ifdef USE_ASAN
fiber *came_from;
#endif

fiber *make() {
    void *memory = mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    /* What runs over the stack's end stops there. */
    if (mprotect(memory, PAGE, PROT_NONE) != 0) {
        munmap(memory, STACK_BYTES + PAGE);
        return nullptr;
    }
    fiber *one = new fiber();
    one->bottom = static_cast<char *>(memory) + PAGE;
    one->top = one->bottom + STACK_BYTES - n_made++ % COLOURS * COLOUR_BYTES;
    return one;
}
} // namespace

#ifndef USE_UCONTEXT
/* Callee-saved registers on the old stack, the same from the new one. */
extern "C" void sago_sim_switch(void **from, void *to);
asm(".text\n"
    ".p2align 4\n"
    ".globl sago_sim_switch\n"
    ".hidden sago_sim_switch\n"
    ".type sago_sim_switch, @function\n"
    "sago_sim_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size sago_sim_switch, .-sago_sim_switch\n");
#endif

fiber *fiber_take(void (*entry)()) {
    fiber *one = unused ? unused : make();
    if (!one) return nullptr;
    if (one == unused) unused = one->next_unused;
    one->entry = entry;
#ifdef USE_ASAN
    one->fake_stack = nullptr;
#endif
#ifdef USE_UCONTEXT
    getcontext(&one->context);
    one->context.uc_stack.ss_sp = one->bottom;
    one->context.uc_stack.ss_size = (size_t)(one->top - one->bottom);
    one->context.uc_link = nullptr;
    makecontext(&one->context, entry, 0);
#else
    /* As if `entry` had been called: a return address that is none, and six registers for the switch to pop.
     */
    void **at = reinterpret_cast<void **>(one->top);
    *--at = nullptr;
    *--at = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--at = nullptr;
    one->stack_pointer = at;
#endif
    return one;
}

void fiber_give(fiber *one) {
    one->next_unused = unused;
    unused = one;
}

void fiber_drop(fiber *one) {
#ifdef USE_ASAN
    __asan_unpoison_memory_region(one->bottom, STACK_BYTES);
#endif
    fiber_give(one);
}

static void go(fiber *from, fiber *to, bool last) {
    if (!from) from = &host;
    if (!to) to = &host;
#ifdef USE_ASAN
    const void *bottom = to == &host ? host.asan_bottom : to->bottom;
    size_t size = to == &host ? host.asan_size : (size_t)STACK_BYTES;
    came_from = from;
    __sanitizer_start_switch_fiber(last ? nullptr : &from->fake_stack, bottom, size);
#else
    (void)last;
#endif
#ifdef USE_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    sago_sim_switch(&from->stack_pointer, to->stack_pointer);
#endif
#ifdef USE_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void fiber_switch(fiber *from, fiber *to) {
    go(from, to, false);
}

void fiber_leave(fiber *from, fiber *to) {
    go(from, to, true);
    abort(); /* nobody switches to a stack that was given back */
}

void fiber_begin() {
#ifdef USE_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (came_from == &host) host.asan_bottom = bottom, host.asan_size = size;
#endif
}

} // namespace sago_sim
