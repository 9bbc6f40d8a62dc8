// SPDX-License-Identifier: Apache-2.0
/**
 * A parameter of Adafactor on any device, as f32 or as bf16 and remainder, its steps, and how far a
 * trajectory may be off.
 */
#ifndef SAGO_TESTS_ADAFACTOR_PARAMETER_H
#define SAGO_TESTS_ADAFACTOR_PARAMETER_H

#include "adafactor_reference.h"
#include "suite.h"

#include <math.h>

enum { STEPS = 6 };

/** A parameter on the device. A piece of one has fewer rows than the whole. */
typedef struct parameter {
    sago_adafactor_slot slot;
    int64_t rows, columns;
} parameter;

enum { AS_F32, AS_HALVES }; /* how values are kept; halves: bf16 and remainder */

static inline void *on_device(sago_device *d, const void *values, size_t bytes) {
    void *memory;
    suite_ok(d->ops->allocate(d, &memory, bytes ? bytes : 1));
    if (values) suite_ok(d->ops->upload(d, memory, values, bytes));
    return memory;
}

/* As ops.h has it: the upper half is the fp32 rounded half up, the remainder what is missing; of a NaN, 0x7fc00000. */
static inline uint32_t bits_to_split(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? 0x7fc00000u : bits;
}

static inline uint16_t upper_half(float value) {
    return (uint16_t)((bits_to_split(value) + 0x8000u) >> 16);
}

static inline int16_t lower_half(float value) {
    return (int16_t)(bits_to_split(value) - ((uint32_t)upper_half(value) << 16));
}

static inline float whole_value(uint16_t upper, int16_t lower) {
    uint32_t bits = ((uint32_t)upper << 16) + (uint32_t)(int32_t)lower;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/** rows == 0: a vector of `columns` values. */
static inline parameter open_parameter(sago_device *d, const float *value, int64_t rows, int64_t columns,
                                       int64_t global_rows, bool factored, bool momentum) {
    parameter p = {.rows = rows ? rows : 1, .columns = columns};
    size_t n = (size_t)(p.rows * columns);
    sago_adafactor_slot *s = &p.slot;
    s->value = rows ? sago_tensor_2d(NULL, SAGO_F32, rows, columns) : sago_tensor_1d(NULL, SAGO_F32, columns);
    s->gradient = s->value;
    s->value.data = on_device(d, value, n * sizeof(float));
    s->gradient.data = on_device(d, NULL, n * sizeof(float));
    s->factored = factored;
    s->global_rows = global_rows ? global_rows : 1, s->global_columns = columns;
    if (factored) {
        s->row = on_device(d, NULL, (size_t)p.rows * sizeof(float));
        s->column = on_device(d, NULL, (size_t)columns * sizeof(float));
        s->row_sum = on_device(d, NULL, (size_t)p.rows * sizeof(double));
        s->column_sum = on_device(d, NULL, (size_t)columns * sizeof(double));
    } else {
        s->moment = on_device(d, NULL, n * sizeof(float));
    }
    if (momentum) s->momentum = on_device(d, NULL, n * sizeof(float));
    s->value_square = on_device(d, NULL, sizeof(double));
    s->update_square = on_device(d, NULL, sizeof(double));
    return p;
}

/** Keeps the values as bf16 and remainder instead. */
static inline void split_parameter(sago_device *d, parameter *p, const float *value) {
    size_t n = (size_t)(p->rows * p->columns);
    uint16_t *upper = malloc(n * sizeof *upper);
    int16_t *lower = malloc(n * sizeof *lower);
    assert_true(upper && lower);
    for (size_t i = 0; i < n; i++) upper[i] = upper_half(value[i]), lower[i] = lower_half(value[i]);
    d->ops->release(d, p->slot.value.data);
    p->slot.value.data = on_device(d, upper, n * sizeof *upper);
    p->slot.value.dtype = SAGO_BF16;
    p->slot.remainder = on_device(d, lower, n * sizeof *lower);
    free(upper), free(lower);
}

/** From here on apply leaves the sum of squares for the next step. */
static inline void keep_square(sago_device *d, parameter *p) {
    p->slot.kept_square = on_device(d, NULL, sizeof(double)); /* 0: not known */
}

static inline void close_parameter(sago_device *d, parameter *p) {
    void *all[] = {p->slot.value.data,   p->slot.gradient.data, p->slot.row,      p->slot.column,
                   p->slot.moment,       p->slot.momentum,      p->slot.row_sum,  p->slot.column_sum,
                   p->slot.value_square, p->slot.update_square, p->slot.remainder, p->slot.mean_parts,
                   p->slot.kept_square};
    for (int i = 0; i < LENGTH(all); i++)
        if (all[i]) d->ops->release(d, all[i]);
}

/** One step; scale: what the step's control multiplies the gradient by, 1 stands for no control at all. */
static inline void step(sago_device *d, sago_adafactor_slot slots[], int n, sago_adafactor_args *args,
                        double scale) {
    const sago_step_control control = {.gradient_scale = scale, .apply = 1};
    void *memory = on_device(d, &control, sizeof control);
    args->control = scale == 1 ? NULL : memory;
    suite_ok(d->ops->adafactor_statistics(d, slots, n, args));
    suite_ok(d->ops->adafactor_moments(d, slots, n, args));
    suite_ok(d->ops->adafactor_apply(d, slots, n, args));
    suite_ok(d->ops->synchronize(d));
    d->ops->release(d, memory);
}

static inline float *values_of(sago_device *d, const parameter *p) {
    size_t n = (size_t)(p->rows * p->columns);
    float *values = plain_floats((int64_t)n);
    if (!p->slot.remainder) {
        suite_ok(d->ops->download(d, values, p->slot.value.data, n * sizeof *values));
        return values;
    }
    uint16_t *upper = malloc(n * sizeof *upper);
    int16_t *lower = malloc(n * sizeof *lower);
    assert_true(upper && lower);
    suite_ok(d->ops->download(d, upper, p->slot.value.data, n * sizeof *upper));
    suite_ok(d->ops->download(d, lower, p->slot.remainder, n * sizeof *lower));
    for (size_t i = 0; i < n; i++) values[i] = whole_value(upper[i], lower[i]);
    free(upper), free(lower);
    return values;
}

/** |got - exact| <= share |exact - before| + rounding |exact| + 1e-9, in L2. */
static inline void expect_trajectory(const char *what, const float *got, const double *exact,
                                     const float *before, int64_t n, double share, double rounding) {
    double error = 0, way = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)got[i] - exact[i]) * ((double)got[i] - exact[i]);
        way += (exact[i] - (double)before[i]) * (exact[i] - (double)before[i]);
        size += exact[i] * exact[i];
    }
    if (!(sqrt(error) <= share * sqrt(way) + rounding * sqrt(size) + 1e-9))
        fail_msg("%s: off by %g after a way of %g", what, sqrt(error), sqrt(way));
}

#endif
