// SPDX-License-Identifier: Apache-2.0
/*
 * Weights on a device: a bf16 value and its remainder are the fp32 parameter, for every pattern of bits, and
 * what is written in pieces is read back.
 */
#include "ops.h"
#include "rng.h"
#include "weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *device_name = "cpu";

static float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* All high halves, with low halves at the borders of rounding and some at random. */
static void halves_join_to_the_same_bits(void **state) {
    (void)state;
    static const uint32_t low[] = {0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    for (uint32_t high = 0; high < 0x10000; high++)
        for (int k = 0; k < 12; k++) {
            uint32_t bits = high << 16 | (k < 8 ? low[k] : (uint32_t)sago_mix(high, (uint64_t)k) & 0xffff);
            uint16_t value;
            int16_t remainder;
            sago_weight_split(bits, &value, &remainder);
            if (isnan(as_float(bits))) { /* also for those who read the value alone */
                assert_int_equal(value, 0x7fc0);
                assert_int_equal(sago_weight_join(value, remainder), 0x7fc00000);
                continue;
            }
            assert_int_equal(sago_weight_join(value, remainder), bits);
            if (isinf(as_float(bits))) assert_int_equal((uint32_t)value << 16, bits);
            /* The value alone is the parameter rounded to bf16's 8 bits of mantissa. */
            float exact = as_float(bits), rounded = as_float((uint32_t)value << 16);
            if (isfinite(exact) && isfinite(rounded) && fabsf(exact) > 1e-37f)
                assert_true(fabsf(rounded - exact) <= fabsf(exact) / 256);
        }
}

static sago_registry make_registry(void) {
    sago_registry r = {0};
    const sago_axis axes[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED};
    assert_true(sago_registry_declare(&r, 0, "wide", 2, (const int64_t[]){3, 700001}, axes, SAGO_INIT_NORMAL,
                                      1) >= 0);
    assert_true(sago_registry_declare(&r, 1, "norm", 1, (const int64_t[]){5}, axes, SAGO_INIT_ONE, 0) >= 0);
    assert_true(sago_registry_declare(&r, 1, "tall", 2, (const int64_t[]){90001, 7}, axes, SAGO_INIT_NORMAL,
                                      .1f) >= 0);
    assert_int_equal(sago_registry_shard(&r, NULL, 0, 0, 1), SAGO_OK);
    return r;
}

static void check(sago_device *device, sago_dtype dtype, bool exact) {
    sago_registry registry = make_registry();
    size_t n = (size_t)registry.n_elements;
    float *wanted = malloc(n * sizeof *wanted), *got = malloc(n * sizeof *got);
    sago_weights w;
    assert_int_equal(sago_weights_open(&registry, device, dtype, exact, &w), SAGO_OK);
    size_t squares = exact ? (size_t)registry.n_params * sizeof *w.squares : 0;
    assert_int_equal(sago_weights_bytes(&w), n * (exact || dtype == SAGO_F32 ? 4 : 2) + squares);
    /* As the registry fills a buffer of the host. */
    sago_registry_initialise(&registry, 7, wanted);
    assert_int_equal(sago_weights_initialise(&w, 7), SAGO_OK);
    assert_int_equal(sago_weights_read(&w, got, 0, (int64_t)n), SAGO_OK);
    for (size_t i = 0; i < n; i++) {
        float error = fabsf(got[i] - wanted[i]);
        if (error > (exact ? 0 : fabsf(wanted[i]) / 256))
            fail_msg("element %zu: %.9g, not %.9g", i, (double)got[i], (double)wanted[i]);
    }
    /* A piece in the middle, and nothing beside it. */
    int64_t first = 1234567, count = 1100003;
    for (int64_t i = 0; i < count; i++) wanted[first + i] = (float)i + 0.25f;
    assert_int_equal(sago_weights_write(&w, first, wanted + first, count), SAGO_OK);
    assert_int_equal(sago_weights_read(&w, got + first - 1, first - 1, count + 2), SAGO_OK);
    for (int64_t i = first - 1; i <= first + count; i++)
        assert_true(fabsf(got[i] - wanted[i]) <= (exact ? 0 : fabsf(wanted[i]) / 256));
    sago_weights_close(&w);
    sago_registry_free(&registry);
    free(wanted);
    free(got);
}

static void know_squares(sago_weights *w, const double known[], int n) {
    assert_int_equal(w->device->ops->upload(w->device, w->squares, known, (size_t)n * sizeof *known),
                     SAGO_OK);
}

static void expect_squares(const sago_weights *w, const double wanted[], int n) {
    double got[8];
    assert_int_equal(w->device->ops->download(w->device, got, w->squares, (size_t)n * sizeof *got), SAGO_OK);
    for (int i = 0; i < n; i++) assert_true(got[i] == wanted[i]);
}

/* What the optimizer knows of values is forgotten with whoever may write them, through a copy of the struct
 * too; to read them leaves it. */
static void writing_forgets_squares(void **state) {
    (void)state;
    sago_device *device;
    sago_registry registry = make_registry();
    int n = registry.n_params;
    const double known[] = {1, 2, 3}, unknown[] = {0, 0, 0};
    float x[2] = {1, 2};
    assert_int_equal(n, 3);
    assert_int_equal(sago_device_open(device_name, 2, &device), SAGO_OK);
    for (int half = 0; half <= 1; half++) {
        sago_weights w;
        assert_int_equal(sago_weights_open(&registry, device, half ? SAGO_BF16 : SAGO_F32, true, &w),
                         SAGO_OK);
        expect_squares(&w, unknown, n);
        know_squares(&w, known, n);
        assert_int_equal(sago_weights_read(&w, x, 1, 2), SAGO_OK);
        expect_squares(&w, known, n);
        sago_weights copy = w;
        assert_int_equal(sago_weights_write(&copy, 1, x, 2), SAGO_OK);
        expect_squares(&w, unknown, n);
        know_squares(&w, known, n);
        assert_int_equal(sago_weights_initialise(&w, 7), SAGO_OK);
        expect_squares(&w, unknown, n);
        if (!device->asynchronous && !half) {
            know_squares(&w, known, n);
            assert_ptr_equal(sago_weights_reach(&w, &registry.params[1]),
                             (float *)w.values + registry.params[1].offset);
            expect_squares(&w, (const double[]){1, 0, 3}, n);
        }
        sago_weights_close(&w);
    }
    sago_device_close(device);
    sago_registry_free(&registry);
}

static void weights_keep_what_is_written(void **state) {
    (void)state;
    sago_device *device;
    assert_int_equal(sago_device_open(device_name, 2, &device), SAGO_OK);
    check(device, SAGO_F32, true);
    /* No operation runs on them here, so that any device may hold halves. */
    check(device, SAGO_BF16, true);
    check(device, SAGO_BF16, false);
    sago_device_close(device);
}

int main(int argc, char **argv) {
    if (argc > 1) device_name = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_join_to_the_same_bits),
        cmocka_unit_test(weights_keep_what_is_written),
        cmocka_unit_test(writing_forgets_squares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
