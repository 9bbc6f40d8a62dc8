// SPDX-License-Identifier: Apache-2.0
/*
 * Streams of sim work late and in an order of their own: what an event orders is right in all schedules, and
 * what nothing orders is wrong in some.
 */
#include "sim_test.h"

enum { N = 256 };

__global__ void add_kernel(float *y, float value) {
    y[blockIdx.x * blockDim.x + threadIdx.x] += value;
}

static float *zeros(const bench &b) {
    return device_array(b, std::vector<float>(N));
}

/* compute adds; copies then carries the result to the host. Right with the event, in some schedules wrong
 * without. */
static int right_copies(bool with_event) {
    int right = 0;
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *y = zeros(b), *host;
        sago_event *event;
        must(sago_sim_rt_malloc_host((void **)&host, N * sizeof(float)));
        must(sago_sim_rt_event_open(&event));
        must(SAGO_LAUNCH(&b, add_kernel, N / 64, 64, 0, y, 2.0f));
        must(sago_sim_rt_event_record(event, b.compute));
        if (with_event) must(sago_sim_rt_stream_wait_event(b.copies, event));
        must(sago_sim_rt_copy(host, y, N * sizeof(float), SAGO_DEVICE_TO_HOST, b.copies));
        must(sago_sim_rt_stream_wait(b.copies));
        right += host[N - 1] == 2.0f;
        sago_sim_rt_event_close(event);
        sago_sim_rt_free_host(host);
        sago_sim_rt_free(y);
        bench_close(b);
    }
    return right;
}

static void test_missing_event_before_a_copy(void **) {
    assert_int_equal(right_copies(true), N_VARIANTS);
    assert_true(right_copies(false) < N_VARIANTS);
}

/* The other stream comes between two kernels: compute, copies, compute. Each of the two events is needed. */
static int right_exchanges(bool first_event, bool second_event) {
    int right = 0;
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *y = zeros(b), *z = zeros(b);
        sago_event *before, *after;
        must(sago_sim_rt_stream_wait(b.compute));
        must(sago_sim_rt_event_open(&before));
        must(sago_sim_rt_event_open(&after));
        must(SAGO_LAUNCH(&b, add_kernel, N / 64, 64, 0, y, 2.0f));
        must(sago_sim_rt_event_record(before, b.compute));
        if (first_event) must(sago_sim_rt_stream_wait_event(b.copies, before));
        must(sago_sim_rt_copy(z, y, N * sizeof(float), SAGO_DEVICE_TO_DEVICE, b.copies));
        must(sago_sim_rt_event_record(after, b.copies));
        if (second_event) must(sago_sim_rt_stream_wait_event(b.compute, after));
        must(SAGO_LAUNCH(&b, add_kernel, N / 64, 64, 0, y, 40.0f));
        must(SAGO_LAUNCH(&b, add_kernel, N / 64, 64, 0, z, 0.5f));
        must(sago_sim_rt_stream_wait(b.compute));
        must(sago_sim_rt_stream_wait(b.copies));
        right += host_array(b, z, N)[N - 1] == 2.5f && host_array(b, y, N)[0] == 42.0f;
        sago_sim_rt_event_close(before);
        sago_sim_rt_event_close(after);
        sago_sim_rt_free(y);
        sago_sim_rt_free(z);
        bench_close(b);
    }
    return right;
}

static void test_missing_events_round_an_exchange(void **) {
    assert_int_equal(right_exchanges(true, true), N_VARIANTS);
    assert_true(right_exchanges(false, true) < N_VARIANTS);
    assert_true(right_exchanges(true, false) < N_VARIANTS);
}

static void test_host_memory(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *y = zeros(b), *pinned, plain[N];
        must(sago_sim_rt_malloc_host((void **)&pinned, sizeof plain));
        for (int i = 0; i < N; i++) pinned[i] = 1.0f, plain[i] = 1.0f;
        /* Other memory is read before the call returns ... */
        must(sago_sim_rt_copy(y, plain, sizeof plain, SAGO_HOST_TO_DEVICE, b.compute));
        plain[0] = 7.0f;
        assert_true(host_array(b, y, N)[0] == 1.0f);
        /* ... pinned memory when the copy runs: changing it too early shows. */
        must(sago_sim_rt_copy(y, pinned, sizeof plain, SAGO_HOST_TO_DEVICE, b.compute));
        pinned[0] = 7.0f;
        assert_true(host_array(b, y, N)[0] == 7.0f);
        /* And what comes back lies there after the wait, not before. */
        must(SAGO_LAUNCH(&b, add_kernel, N / 64, 64, 0, y, 1.0f));
        must(sago_sim_rt_copy(pinned, y, sizeof plain, SAGO_DEVICE_TO_HOST, b.compute));
        assert_true(pinned[1] == 1.0f);
        must(sago_sim_rt_stream_wait(b.compute));
        assert_true(pinned[1] == 2.0f);
        sago_sim_rt_free_host(pinned);
        sago_sim_rt_free(y);
        bench_close(b);
    }
}

static void test_copies_are_checked(void **) {
    bench b = bench_open("");
    float host[N] = {0}, *y = zeros(b);
    assert_int_equal(sago_sim_rt_copy(y + 1, host, sizeof host, SAGO_HOST_TO_DEVICE, b.compute),
                     SAGO_E_DEVICE);
    assert_int_equal(sago_sim_rt_copy(host, y + 1, sizeof host, SAGO_DEVICE_TO_HOST, b.compute),
                     SAGO_E_DEVICE);
    assert_int_equal(sago_sim_rt_copy(host, y, sizeof host, SAGO_HOST_TO_DEVICE, b.compute), SAGO_E_DEVICE);
    assert_int_equal(sago_sim_rt_set(y, 0, sizeof host + 1, b.compute), SAGO_E_DEVICE);
    sago_sim_rt_free(y);
    assert_int_equal(sago_sim_rt_copy(host, y, sizeof host, SAGO_DEVICE_TO_HOST, b.compute), SAGO_E_DEVICE);
    bench_close(b);
}

/* cudaMemcpyAsync leaves open what becomes of memory that is read and written at once. */
static void test_copies_onto_themselves(void **) {
    bench b = bench_open("");
    float *y = zeros(b);
    size_t half = N / 2 * sizeof(float);
    must(sago_sim_rt_copy(y, y + N / 2, half, SAGO_DEVICE_TO_DEVICE, b.compute));
    must(sago_sim_rt_copy(y + N / 2, y, half, SAGO_DEVICE_TO_DEVICE, b.compute));
    must(sago_sim_rt_copy(y, y, 0, SAGO_DEVICE_TO_DEVICE, b.compute));
    for (int at : {0, 1, N / 2 - 1}) {
        assert_int_equal(sago_sim_rt_copy(y + at, y, half, SAGO_DEVICE_TO_DEVICE, b.compute), SAGO_E_DEVICE);
        assert_int_equal(sago_sim_rt_copy(y, y + at, half, SAGO_DEVICE_TO_DEVICE, b.compute), SAGO_E_DEVICE);
    }
    assert_non_null(strstr(sago_message(), "onto memory that it reads"));
    sago_sim_rt_free(y);
    bench_close(b);
}

static void test_fresh_memory_is_no_number(void **) {
    bench b = bench_open("");
    void *memory;
    must(sago_sim_rt_malloc(&memory, N * sizeof(float)));
    std::vector<float> got = host_array(b, static_cast<const float *>(memory), N);
    for (float x : got) assert_true(x != x);
    sago_sim_rt_free(memory);
    size_t free_bytes, total;
    must(sago_sim_rt_memory_info(&free_bytes, &total));
    assert_int_equal(sago_sim_rt_malloc(&memory, total + 1), SAGO_E_MEMORY);
    assert_null(memory);
    bench_close(b);
}

static sago_status append(void *argument) {
    int **at = static_cast<int **>(argument);
    **at = **at * 10 + 1;
    return SAGO_OK;
}

static sago_status refuse(void *) {
    return sago_fail(SAGO_E_INTERNAL, "this one refuses");
}

static void test_host_functions_and_events(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        int number = 0, *at = &number;
        sago_event *event;
        must(sago_sim_rt_event_open(&event));
        must(sago_sim_rt_event_wait(event)); /* never recorded: nothing to wait for */
        must(sago_sim_rt_host_function(b.compute, append, &at, sizeof at));
        must(sago_sim_rt_event_record(event, b.compute));
        must(sago_sim_rt_host_function(b.compute, append, &at, sizeof at));
        assert_int_equal(number, 0);
        must(sago_sim_rt_event_wait(event));
        assert_int_equal(number, 1); /* what was handed over after the event has not run */
        must(sago_sim_rt_stream_wait(b.compute));
        assert_int_equal(number, 11);
        must(sago_sim_rt_host_function(b.compute, refuse, nullptr, 0));
        must(sago_sim_rt_host_function(b.compute, append, &at, sizeof at));
        assert_int_equal(sago_sim_rt_stream_wait(b.compute), SAGO_E_INTERNAL);
        assert_string_equal(sago_message(), "this one refuses");
        assert_int_equal(number, 11); /* and nothing after it does */
        sago_sim_rt_event_close(event);
        bench_close(b);
    }
}

static void test_variants(void **) {
    sago_gpu_properties properties;
    assert_int_equal(sago_sim_rt_open(0, "sideways", &properties), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "'sideways' is no schedule; there are forward, warp-up"));
    must(sago_sim_rt_open(0, "early", &properties));
    assert_non_null(strstr(properties.name, "forward, early"));
    must(sago_sim_rt_open(0, "", &properties));
    assert_non_null(strstr(properties.name, "forward, late"));
}

int main() {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_missing_event_before_a_copy),
                                       cmocka_unit_test(test_missing_events_round_an_exchange),
                                       cmocka_unit_test(test_host_memory),
                                       cmocka_unit_test(test_copies_are_checked),
                                       cmocka_unit_test(test_copies_onto_themselves),
                                       cmocka_unit_test(test_fresh_memory_is_no_number),
                                       cmocka_unit_test(test_host_functions_and_events),
                                       cmocka_unit_test(test_variants)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
