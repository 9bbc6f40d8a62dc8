// SPDX-License-Identifier: Apache-2.0
/*
 * Each way to write a wrong kernel is noticed: by an error that names the place, or by results that are wrong
 * in some schedule while the right kernel, beside it, has the same results in all.
 */
#include "sim_test.h"

#include <cmath>
#include <initializer_list>

/* How many schedules give `expected`; a kernel that fails counts as one that does not. */
template <typename Launch>
static int right_in(Launch launch, const std::vector<float> &in, const std::vector<float> &expected) {
    int right = 0;
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *x = device_array(b, in), *y = device_array(b, std::vector<float>(expected.size(), NAN));
        must(launch(&b, y, x));
        std::vector<float> got = host_array(b, y, expected.size());
        right += memcmp(got.data(), expected.data(), expected.size() * sizeof(float)) == 0;
        sago_sim_rt_free(x);
        sago_sim_rt_free(y);
        bench_close(b);
    }
    return right;
}

/* --- barriers ------------------------------------------------------------------------------------------- */

enum { THREADS = 128, ROUNDS = 3 };

/* Each round turns the values round by one through shared memory. */
template <bool first_barrier, bool second_barrier> __global__ void turn_kernel(float *y, const float *x) {
    SAGO_SHARED(float, s);
    float value = x[threadIdx.x];
    for (int round = 0; round < ROUNDS; round++) {
        s[threadIdx.x] = value;
        if (first_barrier) __syncthreads();
        value = s[(threadIdx.x + 1) % THREADS];
        if (second_barrier) __syncthreads();
    }
    y[threadIdx.x] = value;
}

static void test_missing_barrier(void **) {
    std::vector<float> in(THREADS), expected(THREADS);
    for (int i = 0; i < THREADS; i++) in[i] = (float)i, expected[i] = (float)((i + ROUNDS) % THREADS);
    const size_t bytes = THREADS * sizeof(float);
    assert_int_equal(
        right_in([&](bench *b, float *y,
                     float *x) { return SAGO_LAUNCH(b, (turn_kernel<true, true>), 1, THREADS, bytes, y, x); },
                 in, expected),
        N_VARIANTS);
    assert_true(right_in(
                    [&](bench *b, float *y, float *x) {
                        return SAGO_LAUNCH(b, (turn_kernel<false, true>), 1, THREADS, bytes, y, x);
                    },
                    in, expected) < N_VARIANTS);
    assert_true(right_in(
                    [&](bench *b, float *y, float *x) {
                        return SAGO_LAUNCH(b, (turn_kernel<true, false>), 1, THREADS, bytes, y, x);
                    },
                    in, expected) < N_VARIANTS);
}

/* A barrier that one warp's threads need not reach the others: warps meet at __syncwarp alone. */
__global__ void wrong_scope_kernel(float *y, const float *x) {
    SAGO_SHARED(float, s);
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = s[(threadIdx.x + 32) % THREADS];
}

static void test_barrier_of_the_wrong_scope(void **) {
    std::vector<float> in(THREADS), expected(THREADS);
    for (int i = 0; i < THREADS; i++) in[i] = (float)i, expected[i] = (float)((i + 32) % THREADS);
    assert_true(right_in(
                    [&](bench *b, float *y, float *x) {
                        return SAGO_LAUNCH(b, wrong_scope_kernel, 1, THREADS, THREADS * sizeof(float), y, x);
                    },
                    in, expected) < N_VARIANTS);
}

__global__ void divergent_barrier_kernel() {
    if (threadIdx.x != 33) __syncthreads();
}

__global__ void two_barriers_kernel() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void early_exit_kernel() {
    if (threadIdx.x == 5) return;
    __syncwarp();
}

__global__ void outside_mask_kernel(int *out) {
    if (threadIdx.x >= 16) return;
    out[threadIdx.x] = __shfl_sync(0x0000ffffu, (int)threadIdx.x, 20);
}

__global__ void not_in_mask_kernel(int *out) {
    out[threadIdx.x] = __shfl_sync(0x0000ffffu, (int)threadIdx.x, 0);
}

__global__ void no_such_lane_kernel(int *out) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);
}

__global__ void different_masks_kernel(int *out) {
    uint32_t mask = threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u;
    out[threadIdx.x] = __shfl_sync(mask, (int)threadIdx.x, 20);
}

__global__ void half_a_warp_kernel() {
    if (threadIdx.x % 32 < 16) named_barrier(1, 32);
}

__global__ void two_sizes_kernel() {
    named_barrier(1, threadIdx.x < 32 ? 64 : 128);
}

static void test_threads_that_do_not_meet(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        expect_failure(
            b, SAGO_LAUNCH(&b, divergent_barrier_kernel, 2, 64, 0),
            {"kernel divergent_barrier_kernel", "63 of 64", "thread 33 has left", "test_wrong_kernels.cpp:"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, two_barriers_kernel, 1, 64, 0),
                       {"this __syncthreads() and at that of"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, early_exit_kernel, 1, 32, 0),
                       {"mask ffffffff", "thread 5 has left"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, half_a_warp_kernel, 1, 64, 0), {"lanes 0000ffff", "whole warps"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, two_sizes_kernel, 1, 128, 0), {"barrier 1 of", "threads at"});
        bench_close(b);
    }
}

static void test_wrong_masks(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        int *out = device_array(b, std::vector<int>(64));
        expect_failure(b, SAGO_LAUNCH(&b, outside_mask_kernel, 1, 32, 0, out), {"reads lane 20", "0000ffff"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, not_in_mask_kernel, 1, 32, 0, out),
                       {"not in its own mask 0000ffff"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, no_such_lane_kernel, 1, 40, 0, out),
                       {"lanes that the block does not have"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, different_masks_kernel, 1, 32, 0, out),
                       {"mask ffffffff do not meet"});
        bench_close(b);
        sago_sim_rt_free(out);
    }
}

/* Two warps hand work to two others through named barriers: the use that needs them. */
__global__ void hand_over_kernel(float *y, const float *x) {
    SAGO_SHARED(float, s);
    int half = threadIdx.x / 64, t = threadIdx.x % 64;
    for (int round = 0; round < 4; round++) {
        if (half == 0) {
            s[t] = x[t] + (float)round;
            named_barrier(1, 128);
            named_barrier(2, 128);
        } else {
            named_barrier(1, 128);
            y[round * 64 + t] = s[63 - t];
            named_barrier(2, 128);
        }
    }
}

static void test_named_barriers(void **) {
    std::vector<float> in(64), expected(256);
    for (int i = 0; i < 64; i++) in[i] = (float)(i * i);
    for (int i = 0; i < 256; i++) expected[i] = in[63 - i % 64] + (float)(i / 64);
    assert_int_equal(
        right_in([&](bench *b, float *y,
                     float *x) { return SAGO_LAUNCH(b, hand_over_kernel, 1, 128, 64 * sizeof(float), y, x); },
                 in, expected),
        N_VARIANTS);
}

/* --- asynchronous copies -------------------------------------------------------------------------------- */

enum { STAGES = 2, TILES = 5 };

struct stages {
    float4 tile[STAGES][32];
};

/* Adds up tiles that arrive in two stages. ahead: tiles under way when one is used; free: a barrier before
 * reuse. */
template <int left, bool free_barrier> __global__ void pipeline_kernel(float *y, const float *x) {
    SAGO_SHARED(stages, s);
    const float4 *from = reinterpret_cast<const float4 *>(x);
    int t = threadIdx.x;
    float sum = 0;
    cp_async16(&s->tile[0][t], from + t);
    cp_async_commit();
    for (int tile = 0; tile < TILES; tile++) {
        if (tile + 1 < TILES) cp_async16(&s->tile[(tile + 1) % STAGES][t], from + (tile + 1) * 32 + t);
        cp_async_commit();
        cp_async_wait<left>();
        __syncthreads();
        float4 got = s->tile[tile % STAGES][31 - t];
        sum += got.x + got.y + got.z + got.w;
        if (free_barrier) __syncthreads();
    }
    y[t] = sum;
}

static void test_asynchronous_copies(void **) {
    std::vector<float> in(TILES * 128), expected(32);
    for (int i = 0; i < TILES * 128; i++) in[i] = (float)(i % 97);
    for (int t = 0; t < 32; t++)
        for (int tile = 0; tile < TILES; tile++)
            for (int k = 0; k < 4; k++) expected[t] += in[tile * 128 + (31 - t) * 4 + k];
    assert_int_equal(right_in(
                         [&](bench *b, float *y, float *x) {
                             return SAGO_LAUNCH(b, (pipeline_kernel<1, true>), 1, 32, sizeof(stages), y, x);
                         },
                         in, expected),
                     N_VARIANTS);
    /* A wait that leaves one group too many: the data is not there. */
    assert_true(right_in(
                    [&](bench *b, float *y, float *x) {
                        return SAGO_LAUNCH(b, (pipeline_kernel<2, true>), 1, 32, sizeof(stages), y, x);
                    },
                    in, expected) < N_VARIANTS);
    /* No barrier before a stage is filled again: overwritten while it is read. */
    assert_true(right_in(
                    [&](bench *b, float *y, float *x) {
                        return SAGO_LAUNCH(b, (pipeline_kernel<1, false>), 1, 32, sizeof(stages), y, x);
                    },
                    in, expected) < N_VARIANTS);
}

__global__ void fill_by_copies_kernel(float *y, const float *x, int shift, bool valid) {
    SAGO_SHARED(stages, s);
    cp_async16(reinterpret_cast<char *>(&s->tile[0][threadIdx.x]) + shift, x + 4 * threadIdx.x, valid);
    cp_async_commit();
    cp_async_wait<0>();
    y[threadIdx.x] = s->tile[0][threadIdx.x].y;
}

/* --- vectors stored to wrong places ----------------------------------------------------------------------
 */

__global__ void store_vector_kernel(float *y, bool shared) {
    SAGO_SHARED(stages, s);
    void *to = shared ? (void *)&s->tile[0][threadIdx.x] : (void *)(y + 4 * threadIdx.x);
    store16(to, make_uint4(1, 2, 3, 4));
}

__global__ void store_pair_kernel(float *y) {
    store8(y + 2 * threadIdx.x, make_uint2(1, 2));
}

static void test_vectors_to_wrong_places(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *y = device_array(b, std::vector<float>(132, 3.0f));
        must(SAGO_LAUNCH(&b, store_vector_kernel, 1, 32, sizeof(stages), y, false));
        must(SAGO_LAUNCH(&b, store_pair_kernel, 1, 8, 0, y));
        std::vector<float> got = host_array(b, y, 132);
        assert_int_equal(float_bits(got[15]), 2);
        assert_int_equal(float_bits(got[127]), 4);
        assert_true(got[128] == 3.0f);
        expect_failure(b, SAGO_LAUNCH(&b, store_vector_kernel, 1, 32, sizeof(stages), y + 2, false),
                       {"a store of 16 bytes to an address that ends in 8"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, store_pair_kernel, 1, 8, 0, y + 1),
                       {"a store of 8 bytes to an address that ends in"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, store_vector_kernel, 1, 32, sizeof(stages), y, true),
                       {"a vector", "shared memory"});
        sago_sim_rt_free(y);
        bench_close(b);
    }
}

static void test_copies_to_wrong_places(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *x = device_array(b, std::vector<float>(132, 3.0f)),
              *y = device_array(b, std::vector<float>(32));
        must(SAGO_LAUNCH(&b, fill_by_copies_kernel, 1, 32, sizeof(stages), y, x, 0, true));
        assert_true(host_array(b, y, 32)[31] == 3.0f);
        must(SAGO_LAUNCH(&b, fill_by_copies_kernel, 1, 32, sizeof(stages), y, x, 0, false));
        assert_true(host_array(b, y, 32)[31] == 0.0f);
        expect_failure(b, SAGO_LAUNCH(&b, fill_by_copies_kernel, 1, 32, sizeof(stages), y, x, 8, true),
                       {"cp_async16 to an address that is not 16-byte aligned", "thread"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, fill_by_copies_kernel, 1, 32, sizeof(stages), y, x + 1, 0, true),
                       {"cp_async16 from an address that is not 16-byte aligned"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, fill_by_copies_kernel, 1, 32, sizeof(stages), y, x, 1024, true),
                       {"not the launch's shared memory"});
        bench_close(b);
        sago_sim_rt_free(x);
        sago_sim_rt_free(y);
    }
}

/* --- memory --------------------------------------------------------------------------------------------- */

__global__ void overrun_shared_kernel(float *y, int at) {
    SAGO_SHARED(float, s);
    if (threadIdx.x == 7) s[at] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[0];
}

__global__ void greedy_kernel(float *y) {
    SAGO_SHARED(stages, s);
    y[0] = s->tile[0][0].x;
}

__global__ void read_unset_kernel(float *y) {
    SAGO_SHARED(float, s);
    if (threadIdx.x != 9) s[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

struct matrices {
    uint16_t rows[4][8][8];
};

struct small_arrays {
    float a[8], b[8];
};

__global__ void index_kernel(float *y, int at) {
    SAGO_SHARED(small_arrays, s);
    s->a[at] = 1.0f;
    y[0] = s->a[0];
}

__global__ void odd_vector_kernel(float *y, const float *x) {
    float4 v = *reinterpret_cast<const float4 *>(x + 1);
    y[0] = v.x;
}

__global__ void odd_ldmatrix_kernel(uint32_t *y) {
    SAGO_SHARED(matrices, s);
    uint32_t r[4];
    ldmatrix_x4(r, &s->rows[0][0][1]);
    y[threadIdx.x] = r[0];
}

static void test_shared_memory(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *y = device_array(b, std::vector<float>(64));
        expect_failure(b, SAGO_LAUNCH(&b, overrun_shared_kernel, 2, 64, 256, y, 64),
                       {"thread 7,", "outside the 256 bytes of shared memory", "overrun_shared_kernel"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, overrun_shared_kernel, 2, 64, 256, y, -1),
                       {"thread 7,", "outside the 256"});
        bench_close(b);
        b = bench_open(variant);
        expect_failure(b, SAGO_LAUNCH(&b, greedy_kernel, 1, 32, 64, y),
                       {"are used, the launch asked for 64"});
        bench_close(b);
        b = bench_open(variant);
        must(SAGO_LAUNCH(&b, read_unset_kernel, 2, 64, 256, y));
        std::vector<float> got = host_array(b, y, 64);
        for (int i = 0; i < 64; i++) assert_true(i == 9 ? std::isnan(got[i]) : got[i] == 1.0f);
        sago_sim_rt_free(y);
        bench_close(b);
    }
}

#ifdef SAGO_SIM_CHECKS
static void test_what_the_compiler_checks(void **) {
    bench b = bench_open("");
    float *x = device_array(b, std::vector<float>(64)), *y = device_array(b, std::vector<float>(64));
    expect_failure(b, SAGO_LAUNCH(&b, index_kernel, 1, 32, sizeof(small_arrays), y, 8),
                   {"index 8 is outside", ".cpp:"});
    bench_close(b);
    b = bench_open("");
    expect_failure(b, SAGO_LAUNCH(&b, odd_vector_kernel, 1, 32, 0, y, x),
                   {"not aligned for its type", ".cpp:"});
    bench_close(b);
    sago_sim_rt_free(x);
    sago_sim_rt_free(y);
}
#endif

static void test_ldmatrix_alignment(void **) {
    bench b = bench_open("");
    uint32_t *y = device_array(b, std::vector<uint32_t>(32));
    expect_failure(b, SAGO_LAUNCH(&b, odd_ldmatrix_kernel, 1, 32, sizeof(matrices), y),
                   {"ldmatrix", "aligned"});
    sago_sim_rt_free(y);
    bench_close(b);
}

__global__ void write_at_kernel(float *y, int64_t at) {
    if (threadIdx.x == 0) y[at] = 1.0f;
}

static void test_global_guards(void **) {
    for (int64_t at : {64, -1, 100}) {
        bench b = bench_open("");
        float *y = device_array(b, std::vector<float>(64));
        expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 1, 32, 0, y, at),
                       {at < 0 ? "in front of" : "behind", "256 bytes", "write_at_kernel"});
        sago_sim_rt_free(y);
        bench_close(b);
    }
}

static void test_failures_stay(void **) {
    bench b = bench_open(""), other = bench_open("warp-up");
    float *y = device_array(b, std::vector<float>(64, 5.0f)),
          *z = device_array(other, std::vector<float>(64, 5.0f));
    must(SAGO_LAUNCH(&b, divergent_barrier_kernel, 1, 64, 0));
    must(SAGO_LAUNCH(&b, write_at_kernel, 1, 32, 0, y, (int64_t)0));
    must(SAGO_LAUNCH(&other, write_at_kernel, 1, 32, 0, z, (int64_t)0));
    expect_failure(b, SAGO_OK, {"divergent_barrier_kernel"});
    expect_failure(b, SAGO_OK, {"divergent_barrier_kernel"}); /* and again: the device is lost */
    must(sago_sim_rt_stream_wait(other.compute));             /* another one is not */
    assert_true(host_array(other, z, 64)[0] == 1.0f);
    sago_sim_rt_free(y);
    sago_sim_rt_free(z);
    bench_close(b);
    bench_close(other);
}

static void test_launches_that_cannot_be(void **) {
    bench b = bench_open("");
    float host[4] = {0}, *y = device_array(b, std::vector<float>(64));
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 1, 1025, 0, y, (int64_t)0), {"1025 x 1 x 1 threads"});
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 1, 0, 0, y, (int64_t)0), {"blocks of 0"});
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 0, 32, 0, y, (int64_t)0), {"a grid of 0"});
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, dim3(1, 65536), 32, 0, y, (int64_t)0), {"65536"});
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 1, 32, 232449, y, (int64_t)0),
                   {"232449 bytes of shared"});
    expect_failure(b, SAGO_LAUNCH(&b, write_at_kernel, 1, 32, 0, host, (int64_t)0), {"not device memory"});
    must(sago_sim_rt_stream_wait(b.compute));
    sago_sim_rt_free(y);
    bench_close(b);
}

int main() {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_missing_barrier),
                                       cmocka_unit_test(test_barrier_of_the_wrong_scope),
                                       cmocka_unit_test(test_threads_that_do_not_meet),
                                       cmocka_unit_test(test_wrong_masks),
                                       cmocka_unit_test(test_named_barriers),
                                       cmocka_unit_test(test_asynchronous_copies),
                                       cmocka_unit_test(test_vectors_to_wrong_places),
                                       cmocka_unit_test(test_copies_to_wrong_places),
                                       cmocka_unit_test(test_shared_memory),
#ifdef SAGO_SIM_CHECKS
                                       cmocka_unit_test(test_what_the_compiler_checks),
#endif
                                       cmocka_unit_test(test_ldmatrix_alignment),
                                       cmocka_unit_test(test_global_guards),
                                       cmocka_unit_test(test_failures_stay),
                                       cmocka_unit_test(test_launches_that_cannot_be)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
