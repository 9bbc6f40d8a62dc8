// SPDX-License-Identifier: Apache-2.0
/**
 * Guards around memory of sim, global and shared: bytes that no kernel may change, and that are NaN where one
 * reads them.
 */
#ifndef SAGO_SIM_GUARD_H
#define SAGO_SIM_GUARD_H

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sago_sim {

/** Two bytes that are NaN as bf16, and NaN when repeated as float and double. */
static const uint16_t GUARD = 0xfff5;

static inline void fill_guard(unsigned char *at, size_t bytes) {
    for (size_t i = 0; i + 1 < bytes; i += 2) std::memcpy(at + i, &GUARD, 2);
}

/** bytes: a multiple of 8. */
static inline bool guard_stands(const unsigned char *at, size_t bytes) {
    uint64_t sum = 0, expected = 0x0001000100010001ull * GUARD;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word;
        std::memcpy(&word, at + i, sizeof word);
        sum |= word ^ expected;
    }
    return sum == 0;
}

} // namespace sago_sim

#endif
