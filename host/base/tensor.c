// SPDX-License-Identifier: Apache-2.0
#include "tensor.h"

#include <stdio.h>

size_t sago_dtype_bytes(sago_dtype dtype) {
    static const size_t bytes[SAGO_DTYPE_COUNT] = {4, 2, 4, 1, 2};
    return bytes[dtype];
}

const char *sago_dtype_name(sago_dtype dtype) {
    static const char *const names[SAGO_DTYPE_COUNT] = {"f32", "bf16", "i32", "u8", "i16"};
    return names[dtype];
}

sago_tensor sago_tensor_1d(void *data, sago_dtype dtype, int64_t a) {
    return (sago_tensor){data, dtype, 1, {a, 1, 1, 1}};
}

sago_tensor sago_tensor_2d(void *data, sago_dtype dtype, int64_t a, int64_t b) {
    return (sago_tensor){data, dtype, 2, {a, b, 1, 1}};
}

sago_tensor sago_tensor_3d(void *data, sago_dtype dtype, int64_t a, int64_t b, int64_t c) {
    return (sago_tensor){data, dtype, 3, {a, b, c, 1}};
}

sago_tensor sago_tensor_4d(void *data, sago_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
    return (sago_tensor){data, dtype, 4, {a, b, c, d}};
}

sago_tensor sago_tensor_view(sago_tensor t, int n_dims, const int64_t shape[]) {
    sago_tensor view = {t.data, t.dtype, n_dims, {1, 1, 1, 1}};
    for (int i = 0; i < n_dims; i++) view.shape[i] = shape[i];
    return view;
}

sago_tensor sago_tensor_rows(sago_tensor t, int64_t first, int64_t count) {
    int64_t row = t.shape[1] * t.shape[2] * t.shape[3];
    /* Planning walks over tensors that have no memory yet; their views have none either. */
    if (t.data) t.data = (char *)t.data + (size_t)(first * row) * sago_dtype_bytes(t.dtype);
    t.shape[0] = count;
    return t;
}

int64_t sago_tensor_count(sago_tensor t) {
    return t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3];
}

size_t sago_tensor_bytes(sago_tensor t) {
    return (size_t)sago_tensor_count(t) * sago_dtype_bytes(t.dtype);
}

bool sago_tensor_same_shape(sago_tensor a, sago_tensor b) {
    if (a.n_dims != b.n_dims) return false;
    for (int i = 0; i < a.n_dims; i++)
        if (a.shape[i] != b.shape[i]) return false;
    return true;
}

const char *sago_tensor_text(sago_tensor t, char *text, size_t bytes) {
    int at = snprintf(text, bytes, "%s[", sago_dtype_name(t.dtype));
    for (int i = 0; i < t.n_dims && at >= 0 && (size_t)at < bytes; i++)
        at += snprintf(text + at, bytes - (size_t)at, "%s%lld", i ? ", " : "", (long long)t.shape[i]);
    if (at >= 0 && (size_t)at < bytes) snprintf(text + at, bytes - (size_t)at, "]");
    return text;
}
