// SPDX-License-Identifier: Apache-2.0
/**
 * Tensor: dtype + shape + pointer, contiguous in row-major order, passed by value. It owns nothing.
 */
#ifndef SAGO_TENSOR_H
#define SAGO_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum sago_dtype { SAGO_F32, SAGO_BF16, SAGO_I32, SAGO_U8, SAGO_I16, SAGO_DTYPE_COUNT } sago_dtype;

enum { SAGO_MAX_DIMS = 4 };

typedef struct sago_tensor {
    void *data;
    sago_dtype dtype;
    int n_dims;
    int64_t shape[SAGO_MAX_DIMS]; /* entries past n_dims are 1 */
} sago_tensor;

size_t sago_dtype_bytes(sago_dtype dtype);
const char *sago_dtype_name(sago_dtype dtype); /* "f32", "bf16", "i32", "u8", "i16" */

sago_tensor sago_tensor_1d(void *data, sago_dtype dtype, int64_t a);
sago_tensor sago_tensor_2d(void *data, sago_dtype dtype, int64_t a, int64_t b);
sago_tensor sago_tensor_3d(void *data, sago_dtype dtype, int64_t a, int64_t b, int64_t c);
sago_tensor sago_tensor_4d(void *data, sago_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d);

/** The same memory under another shape of equal count. */
sago_tensor sago_tensor_view(sago_tensor t, int n_dims, const int64_t shape[]);

/** Rows [first, first + count) of dimension 0. */
sago_tensor sago_tensor_rows(sago_tensor t, int64_t first, int64_t count);

int64_t sago_tensor_count(sago_tensor t);
size_t sago_tensor_bytes(sago_tensor t);
bool sago_tensor_same_shape(sago_tensor a, sago_tensor b);

/** "f32[4, 512, 768]" into text; returns text. */
const char *sago_tensor_text(sago_tensor t, char *text, size_t bytes);

#endif
