// SPDX-License-Identifier: Apache-2.0
#include "check.h"

#include <stdio.h>

sago_status sago_check_shapes(bool fits, const char *operation, const char *names, int n,
                              const sago_tensor tensors[]) {
    if (fits) return SAGO_OK;
    char list[640] = "";
    int at = 0;
    for (int i = 0; i < n && at < (int)sizeof list; i++) {
        char text[64];
        at += snprintf(list + at, sizeof list - (size_t)at, "%s%s", i ? ", " : "",
                       sago_tensor_text(tensors[i], text, sizeof text));
    }
    return sago_fail(SAGO_E_SHAPE, "%s: %s do not fit %s", operation, list, names);
}

bool sago_all_dtype(sago_dtype dtype, int n, const sago_tensor tensors[]) {
    for (int i = 0; i < n; i++) {
        if (tensors[i].dtype != dtype) return false;
        if (!tensors[i].data && sago_tensor_count(tensors[i]) > 0) return false;
    }
    return true;
}

int64_t sago_rows(sago_tensor t) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < t.n_dims; i++) rows *= t.shape[i];
    return rows;
}

int64_t sago_width(sago_tensor t) {
    return t.n_dims > 0 ? t.shape[t.n_dims - 1] : 1;
}

sago_status sago_check_dropout_slice(const sago_dropout *dropout, const char *operation, int64_t tokens,
                                     int64_t width) {
    int64_t pitch = dropout->pitch ? dropout->pitch : width, first = dropout->first;
    bool fits = dropout->first_row >= 0 && first >= 0 && pitch >= width && tokens <= dropout->row_tokens;
    if (fits && pitch > 0)
        fits = first / pitch <= dropout->row_tokens - tokens && first % pitch <= pitch - width;
    if (fits) return SAGO_OK;
    return sago_fail(
        SAGO_E_SHAPE,
        "%s: dropout of [S, D] = [%lld, %lld] from element %lld on of row %lld is not a slice of "
        "[row_tokens, pitch] = [%lld, %lld]",
        operation, (long long)tokens, (long long)width, (long long)first, (long long)dropout->first_row,
        (long long)dropout->row_tokens, (long long)pitch);
}

sago_status sago_check_dropout(const sago_dropout *dropout, const char *operation, sago_tensor t) {
    if (!dropout || dropout->rate == 0.0f) return SAGO_OK;
    if (!(dropout->rate > 0.0f && dropout->rate < 1.0f))
        return sago_fail(SAGO_E_INTERNAL, "%s: a dropout rate of %g is not in [0, 1)", operation,
                         (double)dropout->rate);
    if (t.n_dims != 3) {
        char text[64];
        return sago_fail(SAGO_E_SHAPE, "%s: dropout needs [B, S, D], not %s", operation,
                         sago_tensor_text(t, text, sizeof text));
    }
    return sago_check_dropout_slice(dropout, operation, t.shape[1], t.shape[2]);
}

sago_status sago_check_ids(const char *operation, const int32_t *ids, int64_t n, int64_t rows) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= rows)
            return sago_fail(SAGO_E_INPUT, "%s: id %d of token %lld is outside a table of %lld rows",
                             operation, (int)ids[i], (long long)i, (long long)rows);
    return SAGO_OK;
}
