// SPDX-License-Identifier: Apache-2.0
#include "adafactor.h"
#include "check.h"

#include <math.h>
#include <stdio.h>

void sago_adafactor_extent(const sago_adafactor_slot *slot, int64_t *rows, int64_t *columns) {
    bool matrix = slot->value.n_dims >= 2;
    *columns = slot->value.n_dims >= 1 ? slot->value.shape[slot->value.n_dims - 1] : 1;
    *rows = matrix ? sago_rows(slot->value) : 1;
}

double sago_adafactor_mean(const sago_adafactor_slot *slot, double beta2) {
    if (!slot->factored) return 1;
    if (slot->mean_parts)
        return (beta2 * slot->mean_parts[1] / slot->row_copies +
                (1 - beta2) * slot->mean_parts[0] / (double)slot->global_columns) /
               (double)slot->global_rows;
    int64_t rows, columns;
    sago_adafactor_extent(slot, &rows, &columns);
    bool by_columns = columns == slot->global_columns;
    const float *moments = by_columns ? slot->column : slot->row;
    int64_t count = by_columns ? columns : rows;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += moments[i];
    return sum / (double)count;
}

double sago_adafactor_factor(const sago_adafactor_slot *slot, const sago_adafactor_args *args) {
    double count = (double)slot->global_rows * (double)slot->global_columns;
    double rms = sqrt(*slot->update_square / count) / args->clip_threshold;
    double factor = slot->learning_rate;
    if (args->parameter_scale) {
        double size = sqrt(*slot->value_square / count);
        factor *= size > args->minimum_scale ? size : args->minimum_scale;
    }
    return rms > 1 ? factor / rms : factor;
}

sago_status sago_adafactor_check(const char *operation, const sago_adafactor_slot slots[], int n,
                                 const sago_adafactor_args *args) {
    for (int i = 0; i < n; i++) {
        const sago_adafactor_slot *s = &slots[i];
        char name[64];
        snprintf(name, sizeof name, "%s, parameter %d", operation, i);
        int64_t rows, columns;
        sago_adafactor_extent(s, &rows, &columns);
        bool fits = sago_tensor_same_shape(s->value, s->gradient) &&
                    sago_all_dtype(s->remainder ? SAGO_BF16 : SAGO_F32, SAGO_TENSORS(s->value)) &&
                    sago_all_dtype(SAGO_F32, SAGO_TENSORS(s->gradient)) &&
                    (!s->factored || s->value.n_dims >= 2);
        SAGO_TRY(sago_check_shapes(fits, name, "value[rows, columns] or value[n], gradient likewise",
                                   SAGO_TENSORS(s->value, s->gradient)));
        if (s->global_rows * s->global_columns < rows * columns)
            return sago_fail(SAGO_E_SHAPE, "%s: a piece of %lld x %lld is larger than the whole, %lld x %lld",
                             name, (long long)rows, (long long)columns, (long long)s->global_rows,
                             (long long)s->global_columns);
        bool both_ways = s->factored && rows != s->global_rows && columns != s->global_columns;
        if (both_ways && !(s->mean_parts && s->row_copies >= 1))
            return sago_fail(SAGO_E_INTERNAL,
                             "%s: a piece of %lld x %lld of %lld x %lld is cut both ways and lacks mean_parts",
                             name, (long long)rows, (long long)columns, (long long)s->global_rows,
                             (long long)s->global_columns);
        bool whole = s->value_square != NULL && s->update_square != NULL &&
                     (s->factored ? s->row && s->column && s->row_sum && s->column_sum : s->moment != NULL) &&
                     (args->momentum == 0 || s->momentum != NULL);
        if (!whole) return sago_fail(SAGO_E_INTERNAL, "%s: lacks moments or partial sums", name);
    }
    return SAGO_OK;
}
