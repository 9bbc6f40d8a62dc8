// SPDX-License-Identifier: Apache-2.0
/*
 * What threads of a warp do together, against the formulas of the PTX ISA (sections shfl.sync, vote.sync,
 * ldmatrix, "Matrix Fragments for mma.m16n8k16"), written here a second time; and bf16 against arithmetic in
 * double.
 */
#include "sim_test.h"

#include <cmath>

/* --- shuffles: the pseudocode of shfl.sync, c being the packed clamp and segment mask ------------------- */

enum shuffle_mode { UP, DOWN, BUTTERFLY, INDEX };

static int source_lane(shuffle_mode mode, int lane, int b, int width) {
    int segment = (32 - width) & 31, clamp = mode == UP ? 0 : 31;
    int max_lane = (lane & segment) | (clamp & ~segment), min_lane = lane & segment, j = 0;
    bool valid = false;
    switch (mode) {
    case UP:
        j = lane - b, valid = j >= max_lane;
        break;
    case DOWN:
        j = lane + b, valid = j <= max_lane;
        break;
    case BUTTERFLY:
        j = lane ^ b, valid = j <= max_lane;
        break;
    case INDEX:
        j = min_lane | (b & ~segment), valid = j <= max_lane;
        break;
    }
    return valid ? j : lane;
}

template <typename T> __global__ void shuffle_kernel(T *out, int mode, int b, int width) {
    T mine = (T)(100 + threadIdx.x), got;
    if (mode == UP)
        got = __shfl_up_sync(0xffffffffu, mine, b, width);
    else if (mode == DOWN)
        got = __shfl_down_sync(0xffffffffu, mine, b, width);
    else if (mode == BUTTERFLY)
        got = __shfl_xor_sync(0xffffffffu, mine, b, width);
    else
        got = __shfl_sync(0xffffffffu, mine, b, width);
    out[threadIdx.x] = got;
}

template <typename T> static void check_shuffles(const char *variant) {
    bench b = bench_open(variant);
    T *out = device_array(b, std::vector<T>(32));
    for (int mode = 0; mode < 4; mode++)
        for (int width = 2; width <= 32; width *= 2)
            for (int step = 0; step < 32; step += 5) {
                must(SAGO_LAUNCH(&b, shuffle_kernel<T>, 1, 32, 0, out, mode, step, width));
                std::vector<T> got = host_array(b, out, 32);
                for (int lane = 0; lane < 32; lane++)
                    assert_true(got[lane] == (T)(100 + source_lane((shuffle_mode)mode, lane, step, width)));
            }
    sago_sim_rt_free(out);
    bench_close(b);
}

static void test_shuffles(void **) {
    check_shuffles<int>("forward");
    check_shuffles<uint32_t>("warp-down");
    check_shuffles<float>("warp-up");
    check_shuffles<double>("seed1");
    check_shuffles<unsigned long long>("seed2");
}

/* Two halves of a warp, each with its own mask, at the same line and in loops of different length. */
__global__ void halves_kernel(int *out) {
    bool low = threadIdx.x < 16;
    uint32_t mask = low ? 0x0000ffffu : 0xffff0000u;
    int sum = 0;
    for (int turn = 0; turn < (low ? 3 : 5); turn++) sum += __shfl_sync(mask, (int)threadIdx.x, turn, 16);
    out[threadIdx.x] = sum;
}

__global__ void votes_kernel(uint32_t *ballots, int *any, int *all, uint32_t mask, int below) {
    if (!(mask >> threadIdx.x & 1)) return;
    int vote = (int)threadIdx.x < below;
    ballots[threadIdx.x] = __ballot_sync(mask, vote);
    any[threadIdx.x] = __any_sync(mask, vote);
    all[threadIdx.x] = __all_sync(mask, vote);
}

static void test_masks_and_votes(void **) {
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        int *out = device_array(b, std::vector<int>(32));
        must(SAGO_LAUNCH(&b, halves_kernel, 1, 32, 0, out));
        std::vector<int> sums = host_array(b, out, 32);
        for (int lane = 0; lane < 32; lane++)
            assert_int_equal(sums[lane], lane < 16 ? 0 + 1 + 2 : 16 + 17 + 18 + 19 + 20);
        uint32_t *ballots = device_array(b, std::vector<uint32_t>(32));
        int *any = device_array(b, std::vector<int>(32)), *all = device_array(b, std::vector<int>(32));
        for (uint32_t mask : {0xffffffffu, 0x00f0f00fu})
            for (int below : {0, 5, 32}) {
                must(SAGO_LAUNCH(&b, votes_kernel, 1, 32, 0, ballots, any, all, mask, below));
                std::vector<uint32_t> w = host_array(b, ballots, 32);
                std::vector<int> v = host_array(b, any, 32), l = host_array(b, all, 32);
                uint32_t expected = mask & (below == 32 ? 0xffffffffu : (1u << below) - 1);
                for (int lane = 0; lane < 32; lane++)
                    if (mask >> lane & 1) {
                        assert_int_equal(w[lane], expected);
                        assert_int_equal(v[lane], expected != 0);
                        assert_int_equal(l[lane], expected == mask);
                    }
            }
        for (void *memory : {(void *)out, (void *)ballots, (void *)any, (void *)all})
            sago_sim_rt_free(memory);
        bench_close(b);
    }
}

/* --- ldmatrix and mma ----------------------------------------------------------------------------------- */

struct matrices {
    uint16_t rows[4][8][8];
};

template <bool trans> __global__ void ldmatrix_kernel(uint32_t *out, const uint16_t *in) {
    SAGO_SHARED(matrices, s);
    for (int i = threadIdx.x; i < 256; i += 32) (&s->rows[0][0][0])[i] = in[i];
    __syncthreads();
    uint32_t r[4];
    if (trans)
        ldmatrix_x4_trans(r, s->rows[threadIdx.x / 8][threadIdx.x % 8]);
    else
        ldmatrix_x4(r, s->rows[threadIdx.x / 8][threadIdx.x % 8]);
    for (int m = 0; m < 4; m++) out[4 * threadIdx.x + m] = r[m];
}

static void test_ldmatrix(void **) {
    std::vector<uint16_t> in(256);
    for (int i = 0; i < 256; i++) in[i] = (uint16_t)(1000 + i);
    for (const char *variant : VARIANTS)
        for (int trans = 0; trans < 2; trans++) {
            bench b = bench_open(variant);
            uint16_t *from = device_array(b, in);
            uint32_t *out = device_array(b, std::vector<uint32_t>(128));
            must(trans ? SAGO_LAUNCH(&b, ldmatrix_kernel<true>, 1, 32, sizeof(matrices), out, from)
                       : SAGO_LAUNCH(&b, ldmatrix_kernel<false>, 1, 32, sizeof(matrices), out, from));
            std::vector<uint32_t> got = host_array(b, out, 128);
            for (int lane = 0; lane < 32; lane++)
                for (int m = 0; m < 4; m++)
                    for (int half = 0; half < 2; half++) {
                        int row = lane / 4, column = lane % 4 * 2 + half;
                        int at = trans ? column * 8 + row : row * 8 + column;
                        assert_int_equal(got[4 * lane + m] >> (16 * half) & 0xffff, 1000 + 64 * m + at);
                    }
            sago_sim_rt_free(from);
            sago_sim_rt_free(out);
            bench_close(b);
        }
}

/* Fragments element by element: a_i, b_i, c_i and their rows and columns as the ISA's formulas give them. */
__global__ void mma_kernel(float *out, const float *a, const float *b, const float *c) {
    int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
    uint32_t fa[4], fb[2];
    float d[4];
    float ai[8], bi[4];
    for (int i = 0; i < 8; i++) {
        int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
        int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
        ai[i] = a[row * 16 + column];
    }
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
        bi[i] = b[row * 8 + group];
    }
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? group : group + 8;
        d[i] = c[row * 8 + in_group * 2 + (i & 1)];
    }
    for (int r = 0; r < 4; r++) fa[r] = pack_bf16(ai[2 * r], ai[2 * r + 1]);
    for (int r = 0; r < 2; r++) fb[r] = pack_bf16(bi[2 * r], bi[2 * r + 1]);
    mma_16x8x16(d, fa, fb);
    for (int i = 0; i < 4; i++) {
        int row = i < 2 ? group : group + 8;
        out[row * 8 + in_group * 2 + (i & 1)] = d[i];
    }
}

static void test_mma(void **) {
    std::vector<float> a(256), x(128), c(128);
    for (int i = 0; i < 256; i++) a[i] = (float)((i * 37 + 11) % 61 - 30);
    for (int i = 0; i < 128; i++) x[i] = (float)((i * 29 + 5) % 53 - 26), c[i] = (float)(i % 17);
    for (const char *variant : VARIANTS) {
        bench b = bench_open(variant);
        float *da = device_array(b, a), *dx = device_array(b, x), *dc = device_array(b, c);
        float *out = device_array(b, std::vector<float>(128));
        must(SAGO_LAUNCH(&b, mma_kernel, 1, 32, 0, out, da, dx, dc));
        std::vector<float> got = host_array(b, out, 128);
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++) {
                float expected = c[row * 8 + column]; /* whole numbers below 2^24: exact in any order */
                for (int k = 0; k < 16; k++) expected += a[row * 16 + k] * x[k * 8 + column];
                assert_true(got[row * 8 + column] == expected);
            }
        for (float *memory : {da, dx, dc, out}) sago_sim_rt_free(memory);
        bench_close(b);
    }
}

/* --- numbers -------------------------------------------------------------------------------------------- */

static void test_bf16(void **) {
    for (uint32_t top = 0; top < 65536; top++)
        for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
            float x = bits_float(top << 16 | low), y = to_float(from_float<bf16>(x));
            if (std::isnan(x)) {
                assert_true(std::isnan(y));
                continue;
            }
            /* The two neighbours; the nearer one, at equal distance the even one. */
            double down = bits_float(top << 16), up = bits_float((top + 1) << 16), at = x;
            if (std::isinf(up)) up = std::ldexp(top >> 15 ? -1.0 : 1.0, 128);
            bool takes_up = std::fabs(at - up) < std::fabs(at - down) ||
                            (std::fabs(at - up) == std::fabs(at - down) && (top & 1));
            if (std::isinf(x)) takes_up = false;
            assert_int_equal(float_bits(y), (takes_up ? top + 1 : top) << 16);
        }
    assert_int_equal(pack_bf16(1.0f, -2.0f), 0xc0003f80u);
    assert_true(fast_exp2(3.0f) == 8.0f && fast_exp2(-200.0f) == 0.0f && fast_exp2(-127.0f) == 0.0f);
    assert_true(std::isinf(fast_exp2(128.0f)) && std::isnan(fast_exp2(NAN)) && fast_exp2(-INFINITY) == 0.0f);
}

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffles), cmocka_unit_test(test_masks_and_votes),
        cmocka_unit_test(test_ldmatrix), cmocka_unit_test(test_mma), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
