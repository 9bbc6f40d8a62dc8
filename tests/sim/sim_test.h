// SPDX-License-Identifier: Apache-2.0
/**
 * For tests of sim itself: small kernels, launched on each of its schedules.
 */
#ifndef SAGO_TESTS_SIM_H
#define SAGO_TESTS_SIM_H

#include "dialect.cuh"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

extern "C" {
#include <cmocka.h>
}

static const char *const VARIANTS[] = {"forward,late",   "forward,early",   "warp-up,late", "warp-up,early",
                                       "warp-down,late", "warp-down,early", "seed1,late",   "seed1,early",
                                       "seed2,late",     "seed2,early"};
enum { N_VARIANTS = 10 };

/** What SAGO_LAUNCH needs of a device, and a second stream. */
struct bench {
    sago_stream *compute, *copies;
};

static inline void must(sago_status status) {
    if (status != SAGO_OK) fail_msg("%s", sago_message());
}

static inline bench bench_open(const char *variant) {
    bench b;
    sago_gpu_properties properties;
    must(sago_sim_rt_open(0, variant, &properties));
    must(sago_sim_rt_stream_open(&b.compute));
    must(sago_sim_rt_stream_open(&b.copies));
    return b;
}

static inline void bench_close(bench &b) {
    sago_sim_rt_stream_close(b.compute);
    sago_sim_rt_stream_close(b.copies);
}

template <typename T> static inline T *device_array(const bench &b, const std::vector<T> &values) {
    void *memory;
    must(sago_sim_rt_malloc(&memory, values.size() * sizeof(T)));
    must(sago_sim_rt_copy(memory, values.data(), values.size() * sizeof(T), SAGO_HOST_TO_DEVICE, b.compute));
    return static_cast<T *>(memory);
}

template <typename T> static inline std::vector<T> host_array(const bench &b, const T *memory, size_t n) {
    std::vector<T> values(n);
    must(sago_sim_rt_copy(values.data(), memory, n * sizeof(T), SAGO_DEVICE_TO_HOST, b.compute));
    return values;
}

/** The wait must fail, with a line that has all the words; the device is then closed. */
static inline void expect_failure(bench &b, sago_status launched, std::initializer_list<const char *> words) {
    sago_status status = launched == SAGO_OK ? sago_sim_rt_stream_wait(b.compute) : launched;
    if (status != SAGO_E_DEVICE) fail_msg("a wrong kernel passed; wanted: %s", *words.begin());
    for (const char *word : words)
        if (!strstr(sago_message(), word)) fail_msg("no '%s' in: %s", word, sago_message());
}

#endif
