// SPDX-License-Identifier: Apache-2.0
/**
 * Conformance suite: what every operation of kernels/ops.h must do, on a device given by name.
 *
 * A test describes one call as a body: it takes tensors from the run (suite_f32, suite_i32), calls the
 * operation, and marks what it wrote (suite_output). suite_run_op calls the body several times and demands
 * the same bits each time: on the cpu device repeated, with 1, 2 and 3 threads, and with tensors that begin
 * at an odd multiple of 4 bytes; on GPUs repeated and shifted by 16 bytes; on sim over all its schedules
 * (docs/kernels/sim.md), every other one shifted. Around it, guard bytes must stand, inputs must keep their
 * bytes, and tensors that were taken without values begin as NaN, so that what is not overwritten is noticed;
 * guards are NaN too, so that what is read behind a tensor shows. The outputs of the first run are then
 * compared with float64 formulas (suite_close).
 *
 *     static void body(suite_run *run, const void *context) {
 *         sago_tensor y = suite_f32(run, NULL, DIMS(n, d)), x = suite_f32(run, c->x, DIMS(n, d));
 *         suite_ok(run->device->ops->scale(run->device, ...));
 *         suite_output(run, "y", y);
 *     }
 *
 * Each program takes the device's name as its argument ("cpu" without one; "sim" is all schedules,
 * "sim:warp-up,early" one) and leaves with 77 (skipped) where the processor lacks it. After it,
 * "short" leaves two schedules of sim and "only=PATTERN" the tests of that name.
 */
#ifndef SAGO_TESTS_SUITE_H
#define SAGO_TESTS_SUITE_H

#include "ops.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIMS(...)                                                                                            \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (int64_t[]) {                               \
        __VA_ARGS__                                                                                          \
    }
#define LENGTH(array) ((int)(sizeof(array) / sizeof(array)[0]))

enum { SUITE_MAX_BUFFERS = 32, SUITE_MAX_OUTPUTS = 12 };

typedef struct suite_buffer {
    sago_tensor tensor;
    char *base;         /* device memory: guard, tensor, guard */
    char *sent;         /* host copy of what was uploaded, guards and all */
    size_t bytes;       /* of all of it */
    const char *output; /* its name if the operation may write it */
} suite_buffer;

typedef struct suite_run {
    sago_device *device;
    size_t shift_bytes; /* 0, or 4 (cpu) or 16: where tensors begin after their guard */
    int n_buffers;
    suite_buffer buffers[SUITE_MAX_BUFFERS];
} suite_run;

typedef struct suite_result {
    int n;
    struct {
        const char *name;
        sago_dtype dtype;
        size_t bytes;
        void *data;
        float *floats; /* bf16 outputs, widened */
    } out[SUITE_MAX_OUTPUTS];
} suite_result;

typedef void suite_body(suite_run *run, const void *context);

enum {
    SUITE_SAME_BITS = 0,
    SUITE_THREADS_MAY_DIFFER = 1, /* matrix products: bits are fixed for a given number of threads only */
};

/** Tensors of one run. values NULL: f32 begins as NaN, i32 as a large negative number. */
sago_tensor suite_f32(suite_run *run, const float *values, int n_dims, const int64_t shape[]);
sago_tensor suite_i32(suite_run *run, const int32_t *values, int n_dims, const int64_t shape[]);
sago_tensor suite_bf16(suite_run *run, const uint16_t *values, int n_dims, const int64_t shape[]);

/** bf16 from values that are rounded to nearest even; NULL: NaN. */
sago_tensor suite_bf16_of(suite_run *run, const float *values, int n_dims, const int64_t shape[]);
/** suite_f32 or suite_bf16_of, for bodies that serve both dtypes. */
sago_tensor suite_typed(suite_run *run, sago_dtype dtype, const float *values, int n_dims,
                        const int64_t shape[]);

/** The devices of this run, for tests that call operations themselves: cpu with 1, 2 and 3 threads, each schedule of sim. */
int suite_n_devices(void);
sago_device *suite_device(int i);

/** Shared memory of a block: of compute capability 8.6, 8.9 and 12.0; of 8.0. */
enum { SUITE_99_KIB = 101376, SUITE_163_KIB = 166912 };

/**
 * Opens sim's devices anew, with so many bytes of shared memory a block (0: as many as ever). For the last
 * tests of a program: one that fails leaves it so.
 */
void suite_shared_memory(size_t bytes);

/** What test cases may ask of the device: sim wants small shapes, and not every device has bf16 tensors. */
bool suite_is_sim(void);
void suite_skip_unless_bf16(void);

/** bf16 and back, to nearest even. suite_round rounds n values in place where dtype is bf16. */
uint16_t suite_to_bf16(float x);
float suite_from_bf16(uint16_t x);
void suite_round(sago_dtype dtype, float *x, int64_t n);

/** Marks a tensor as written by the operation; its place in the result is the order of these calls. */
void suite_output(suite_run *run, const char *name, sago_tensor tensor);

/** Runs the body in every configuration; fills result, which suite_free releases. */
void suite_run_op(suite_body *body, const void *context, int flags, suite_result *result);
void suite_free(suite_result *result);
/** An output's values; those of a bf16 tensor widened. */
const float *suite_floats(const suite_result *result, const char *name);
/** An output's bytes as they are. */
const void *suite_bits(const suite_result *result, const char *name);
const int32_t *suite_ints(const suite_result *result, const char *name);

/** Runs the body once and expects it to make its own claims (errors, for instance). */
void suite_run_once(suite_body *body, const void *context);

/** Fails the test with sago_message() unless status is SAGO_OK. */
void suite_ok(sago_status status);

/** The call must have failed with SAGO_E_SHAPE, and the message must begin with the operation's name. */
void suite_expect_shape_error(sago_status status, const char *operation);

/**
 * The rule of this project: the largest and the RMS error of got against exact are at most twice those of
 * plain, a straightforward computation in the same precision, plus 2 ulp of the largest magnitude in exact.
 */
void suite_close(const char *name, const float *got, const double *exact, const float *plain, int64_t n);

/** Standard normal values of a key; new memory. */
float *suite_normal(int64_t n, uint64_t key);
double *suite_to_double(const float *x, int64_t n);

/** |numeric - formula| <= tolerance * (1 + |formula|) for each of n: for gradients against central
 * differences. */
void suite_gradient_close(const char *name, const double *numeric, const double *formula, int64_t n,
                          double tolerance);

/** Opens the device named on the command line and runs the tests. */
int suite_main(int argc, char **argv, const struct CMUnitTest tests[], size_t n);
#define SUITE_MAIN(tests)                                                                                    \
    int main(int argc, char **argv) {                                                                        \
        return suite_main(argc, argv, tests, sizeof(tests) / sizeof(tests)[0]);                              \
    }

#endif
