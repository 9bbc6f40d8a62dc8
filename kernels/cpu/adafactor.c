// SPDX-License-Identifier: Apache-2.0
#include "adafactor.h"
#include "cpu_ops.h"

#include <math.h>

/** g^2 + 1e-30, with which all second moments are made. */
static double square(const sago_adafactor_slot *slot, const sago_adafactor_args *args, int64_t i) {
    double g = ((const float *)slot->gradient.data)[i] * args->gradient_scale;
    return g * g + SAGO_ADAFACTOR_EPSILON;
}

sago_status SAGO_CPU(adafactor_statistics)(sago_device *device, sago_adafactor_slot slots[], int n,
                                           const sago_adafactor_args *args) {
    (void)device;
    SAGO_TRY(sago_adafactor_check("adafactor_statistics", slots, n, args));
    for (int s = 0; s < n; s++) {
        sago_adafactor_slot *slot = &slots[s];
        int64_t rows, columns;
        sago_adafactor_extent(slot, &rows, &columns);
        const float *value = slot->value.data;
        double sum = 0;
        for (int64_t i = 0; i < rows * columns; i++) sum += (double)value[i] * value[i];
        *slot->value_square = sum;
        if (!slot->factored) continue;
        for (int64_t j = 0; j < columns; j++) slot->column_sum[j] = 0;
        for (int64_t i = 0; i < rows; i++) {
            double row = 0;
            for (int64_t j = 0; j < columns; j++) {
                double x = square(slot, args, i * columns + j);
                row += x, slot->column_sum[j] += x;
            }
            slot->row_sum[i] = row;
        }
    }
    return SAGO_OK;
}

static double whitened(const sago_adafactor_slot *slot, const sago_adafactor_args *args, double mean,
                       int64_t i, int64_t j, int64_t columns) {
    double g = ((const float *)slot->gradient.data)[i * columns + j] * args->gradient_scale;
    if (!slot->factored) return g / sqrt(slot->moment[i * columns + j]);
    return g / sqrt(slot->row[i] / mean) / sqrt(slot->column[j]);
}

sago_status SAGO_CPU(adafactor_moments)(sago_device *device, sago_adafactor_slot slots[], int n,
                                        const sago_adafactor_args *args) {
    (void)device;
    SAGO_TRY(sago_adafactor_check("adafactor_moments", slots, n, args));
    double keep = args->beta2, take = 1 - args->beta2;
    for (int s = 0; s < n; s++) {
        sago_adafactor_slot *slot = &slots[s];
        int64_t rows, columns;
        sago_adafactor_extent(slot, &rows, &columns);
        if (slot->factored) {
            for (int64_t i = 0; i < rows; i++)
                slot->row[i] = (float)(keep * slot->row[i] + take * slot->row_sum[i] / slot->global_columns);
            for (int64_t j = 0; j < columns; j++)
                slot->column[j] =
                    (float)(keep * slot->column[j] + take * slot->column_sum[j] / slot->global_rows);
        } else {
            for (int64_t i = 0; i < rows * columns; i++)
                slot->moment[i] = (float)(keep * slot->moment[i] + take * square(slot, args, i));
        }
        double sum = 0, mean = sago_adafactor_mean(slot);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) {
                double y = whitened(slot, args, mean, i, j, columns);
                sum += y * y;
            }
        *slot->update_square = sum;
    }
    return SAGO_OK;
}

sago_status SAGO_CPU(adafactor_apply)(sago_device *device, sago_adafactor_slot slots[], int n,
                                      const sago_adafactor_args *args) {
    (void)device;
    SAGO_TRY(sago_adafactor_check("adafactor_apply", slots, n, args));
    for (int s = 0; s < n; s++) {
        sago_adafactor_slot *slot = &slots[s];
        int64_t rows, columns;
        sago_adafactor_extent(slot, &rows, &columns);
        double factor = sago_adafactor_factor(slot, args), mean = sago_adafactor_mean(slot),
               beta = args->momentum;
        bool frozen = slot->learning_rate == 0;
        float *value = slot->value.data;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) {
                int64_t at = i * columns + j;
                double update = frozen ? 0 : factor * whitened(slot, args, mean, i, j, columns);
                if (slot->momentum)
                    update = slot->momentum[at] = (float)(beta * slot->momentum[at] + (1 - beta) * update);
                if (!frozen) value[at] = (float)((1 - args->weight_decay) * value[at] - update);
            }
    }
    return SAGO_OK;
}
