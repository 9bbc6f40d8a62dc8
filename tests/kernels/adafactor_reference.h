// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor in float64, written from its published formula, one parameter at a time.
 */
#ifndef SAGO_TESTS_ADAFACTOR_REFERENCE_H
#define SAGO_TESTS_ADAFACTOR_REFERENCE_H

#include "ops.h"

#include <math.h>
#include <stdlib.h>

typedef struct reference_parameter {
    int64_t rows, columns;
    bool factored;
    double *value, *row, *column, *moment, *momentum;
} reference_parameter;

static inline float *plain_floats(int64_t n) {
    float *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
    if (!x) abort();
    return x;
}

static inline double *reference_array(int64_t n) {
    double *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
    if (!x) abort();
    return x;
}

static inline reference_parameter reference_open(const float *value, int64_t rows, int64_t columns,
                                                 bool factored) {
    int64_t n = rows * columns;
    reference_parameter p = {rows,
                             columns,
                             factored,
                             reference_array(n),
                             reference_array(rows),
                             reference_array(columns),
                             reference_array(n),
                             reference_array(n)};
    for (int64_t i = 0; i < n; i++) p.value[i] = value[i];
    return p;
}

static inline void reference_close(reference_parameter *p) {
    free(p->value), free(p->row), free(p->column), free(p->moment), free(p->momentum);
}

static inline void reference_step(reference_parameter *p, const float *gradient,
                                  const sago_adafactor_args *args, double scale, double learning_rate) {
    int64_t n = p->rows * p->columns;
    double *y = reference_array(n), mean = 0, value_square = 0, update_square = 0;
    for (int64_t i = 0; i < p->rows; i++) p->row[i] *= args->beta2;
    for (int64_t j = 0; j < p->columns; j++) p->column[j] *= args->beta2;
    for (int64_t i = 0; i < n; i++) {
        double g = gradient[i] * scale, s = g * g + 1e-30;
        p->row[i / p->columns] += (1 - args->beta2) * s / (double)p->columns;
        p->column[i % p->columns] += (1 - args->beta2) * s / (double)p->rows;
        p->moment[i] = args->beta2 * p->moment[i] + (1 - args->beta2) * s;
        value_square += p->value[i] * p->value[i];
    }
    for (int64_t i = 0; i < p->rows; i++) mean += p->row[i] / (double)p->rows;
    for (int64_t i = 0; i < n; i++) {
        double g = gradient[i] * scale;
        y[i] = p->factored ? g / sqrt(p->row[i / p->columns] / mean) / sqrt(p->column[i % p->columns])
                           : g / sqrt(p->moment[i]);
        update_square += y[i] * y[i];
    }
    double clip = sqrt(update_square / (double)n) / args->clip_threshold,
           size = sqrt(value_square / (double)n);
    double rate = learning_rate / (clip > 1 ? clip : 1);
    if (args->parameter_scale) rate *= size > args->minimum_scale ? size : args->minimum_scale;
    for (int64_t i = 0; i < n; i++) {
        p->momentum[i] = args->momentum * p->momentum[i] + (1 - args->momentum) * rate * y[i];
        p->value[i] = (1 - args->weight_decay) * p->value[i] - p->momentum[i];
    }
    free(y);
}

#endif
