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

sago_status sago_check_dropout(const sago_dropout *dropout, const char *operation, sago_tensor t) {
    if (!dropout || dropout->rate == 0.0f) return SAGO_OK;
    if (!(dropout->rate > 0.0f && dropout->rate < 1.0f))
        return sago_fail(SAGO_E_INTERNAL, "%s: a dropout rate of %g is not in [0, 1)", operation,
                         (double)dropout->rate);
    if (t.n_dims != 3 || t.shape[1] > dropout->row_tokens || dropout->first_row < 0) {
        char text[64];
        return sago_fail(SAGO_E_SHAPE, "%s: dropout needs [B, S, D] with S at most row_tokens %lld, not %s",
                         operation, (long long)dropout->row_tokens, sago_tensor_text(t, text, sizeof text));
    }
    return SAGO_OK;
}

sago_status sago_check_ids(const char *operation, const int32_t *ids, int64_t n, int64_t rows) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= rows)
            return sago_fail(SAGO_E_INPUT, "%s: id %d of token %lld is outside a table of %lld rows",
                             operation, (int)ids[i], (long long)i, (long long)rows);
    return SAGO_OK;
}
