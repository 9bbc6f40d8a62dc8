// SPDX-License-Identifier: Apache-2.0
/**
 * Fibers: stacks that one host thread runs in turn. A switch is some twenty instructions on x86-64 and a
 * swapcontext elsewhere. AddressSanitizer is told of every switch.
 */
#ifndef SAGO_SIM_FIBER_H
#define SAGO_SIM_FIBER_H

#include <cstddef>

namespace sago_sim {

struct fiber;

/** A stack that is nobody's; entry runs on it when it is first switched to, and never returns. nullptr: no
 * memory. */
fiber *fiber_take(void (*entry)());
/** Gives a stack back. It may be the running one, if fiber_leave is what comes next. */
void fiber_give(fiber *one);
/** Gives back a stack whose functions will not return. */
void fiber_drop(fiber *one);

/** Goes from the running fiber to another; returns when someone switches back. nullptr is the caller of
 * kernels. */
void fiber_switch(fiber *from, fiber *to);
/** The same, never to return: the running fiber was given back. */
[[noreturn]] void fiber_leave(fiber *from, fiber *to);
/** First thing on a new stack. */
void fiber_begin();

} // namespace sago_sim

#endif
