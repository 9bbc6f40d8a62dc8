// SPDX-License-Identifier: Apache-2.0
#include "weights.h"

#include "ops.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_ELEMENTS = 1 << 20 }; /* of a copy that is converted on its way: 2 MiB a half */

static bool is_half(const sago_weights *w) {
    return w->dtype == SAGO_BF16;
}

static size_t squares_bytes(const sago_weights *w) {
    return (size_t)w->registry->n_params * sizeof *w->squares;
}

sago_status sago_weights_open(const sago_registry *registry, sago_device *device, sago_dtype dtype,
                              bool exact, sago_weights *out) {
    *out = (sago_weights){.device = device, .registry = registry, .dtype = dtype};
    size_t n = (size_t)registry->n_elements;
    device->purpose = "parameters";
    sago_status status = device->ops->allocate(device, &out->values, n * sago_dtype_bytes(dtype));
    if (status == SAGO_OK && is_half(out) && exact)
        status = device->ops->allocate(device, (void **)&out->remainder, n * sizeof *out->remainder);
    if (status == SAGO_OK && exact)
        status = device->ops->allocate(device, (void **)&out->squares, squares_bytes(out));
    if (status != SAGO_OK) sago_weights_close(out);
    return sago_wrap(status, "parameters");
}

void sago_weights_close(sago_weights *w) {
    if (w->values) w->device->ops->release(w->device, w->values);
    if (w->remainder) w->device->ops->release(w->device, w->remainder);
    if (w->squares) w->device->ops->release(w->device, w->squares);
    *w = (sago_weights){0};
}

size_t sago_weights_bytes(const sago_weights *w) {
    size_t each = sago_dtype_bytes(w->dtype) + (w->remainder ? sizeof *w->remainder : 0);
    return (size_t)w->registry->n_elements * each + (w->squares ? squares_bytes(w) : 0);
}

static sago_status read_halves(const sago_weights *w, uint16_t *values, int16_t *remainder, int64_t first,
                               int64_t count) {
    const sago_ops *ops = w->device->ops;
    size_t bytes = (size_t)count * sizeof *values;
    SAGO_TRY(ops->download(w->device, values, (const uint16_t *)w->values + first, bytes));
    if (w->remainder) return ops->download(w->device, remainder, w->remainder + first, bytes);
    memset(remainder, 0, bytes);
    return SAGO_OK;
}

static sago_status write_halves(sago_weights *w, const uint16_t *values, const int16_t *remainder,
                                int64_t first, int64_t count) {
    const sago_ops *ops = w->device->ops;
    size_t bytes = (size_t)count * sizeof *values;
    SAGO_TRY(ops->upload(w->device, (uint16_t *)w->values + first, values, bytes));
    return w->remainder ? ops->upload(w->device, w->remainder + first, remainder, bytes) : SAGO_OK;
}

sago_status sago_weights_read(const sago_weights *w, float *to, int64_t first, int64_t count) {
    if (!is_half(w))
        return w->device->ops->download(w->device, to, (const float *)w->values + first,
                                        (size_t)count * sizeof *to);
    uint16_t *values = sago_alloc(PIECE_ELEMENTS * sizeof *values);
    int16_t *remainder = sago_alloc(PIECE_ELEMENTS * sizeof *remainder);
    sago_status status = SAGO_OK;
    for (int64_t at = 0; at < count && status == SAGO_OK; at += PIECE_ELEMENTS) {
        int64_t n = count - at < PIECE_ELEMENTS ? count - at : PIECE_ELEMENTS;
        status = read_halves(w, values, remainder, first + at, n);
        for (int64_t i = 0; i < n && status == SAGO_OK; i++) {
            uint32_t bits = sago_weight_join(values[i], remainder[i]);
            memcpy(to + at + i, &bits, sizeof bits);
        }
    }
    free(values);
    free(remainder);
    return status;
}

/* Those of all parameters: whoever writes one writes others, and to know them again costs one reading. */
static sago_status forget_squares(sago_weights *w) {
    if (!w->squares) return SAGO_OK;
    /* All bits 0 are 0 in double, too. */
    int64_t floats = (int64_t)(squares_bytes(w) / sizeof(float));
    return w->device->ops->fill(w->device, sago_tensor_1d(w->squares, SAGO_F32, floats), 0);
}

float *sago_weights_reach(sago_weights *w, const sago_param *param) {
    if (w->squares) w->squares[param - w->registry->params] = 0;
    return (float *)w->values + param->offset;
}

sago_status sago_weights_write(sago_weights *w, int64_t first, const float *from, int64_t count) {
    SAGO_TRY(forget_squares(w));
    if (!is_half(w))
        return w->device->ops->upload(w->device, (float *)w->values + first, from,
                                      (size_t)count * sizeof *from);
    uint16_t *values = sago_alloc(PIECE_ELEMENTS * sizeof *values);
    int16_t *remainder = sago_alloc(PIECE_ELEMENTS * sizeof *remainder);
    sago_status status = SAGO_OK;
    for (int64_t at = 0; at < count && status == SAGO_OK; at += PIECE_ELEMENTS) {
        int64_t n = count - at < PIECE_ELEMENTS ? count - at : PIECE_ELEMENTS;
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, from + at + i, sizeof bits);
            sago_weight_split(bits, &values[i], &remainder[i]);
        }
        status = write_halves(w, values, remainder, first + at, n);
    }
    free(values);
    free(remainder);
    return status;
}

sago_status sago_weights_initialise(sago_weights *w, uint64_t seed) {
    float *host = NULL;
    int64_t room = 0;
    sago_status status = SAGO_OK;
    for (int p = 0; p < w->registry->n_params && status == SAGO_OK; p++) {
        const sago_param *param = &w->registry->params[p];
        int64_t columns = param->local_shape[1], rows = param->local_shape[0];
        int64_t at_once = columns < 16 * PIECE_ELEMENTS ? 16 * PIECE_ELEMENTS / columns : 1;
        if (at_once > rows) at_once = rows;
        if (at_once * columns > room) {
            free(host);
            room = at_once * columns;
            host = sago_alloc((size_t)room * sizeof *host);
        }
        for (int64_t row = 0; row < rows && status == SAGO_OK; row += at_once) {
            int64_t n = rows - row < at_once ? rows - row : at_once;
            sago_param_initialise(param, seed, row, n, host);
            status = sago_weights_write(w, param->offset + row * columns, host, n * columns);
        }
    }
    free(host);
    return status;
}
