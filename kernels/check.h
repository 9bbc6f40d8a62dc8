// SPDX-License-Identifier: Apache-2.0
/**
 * Checks that every device makes before it works: a wrong shape is one line that names operation and shapes.
 */
#ifndef SAGO_CHECK_H
#define SAGO_CHECK_H

#include "ops.h"

/** A list of tensors as the two arguments "count, array". */
#define SAGO_TENSORS(...)                                                                                    \
    ((int)(sizeof((sago_tensor[]){__VA_ARGS__}) / sizeof(sago_tensor))), (sago_tensor[]) {                   \
        __VA_ARGS__                                                                                          \
    }

/**
 * SAGO_OK when fits; else SAGO_E_SHAPE "rmsnorm_forward: f32[2, 3], f32[4] do not fit y[N, D], scale[D]".
 * names: the shapes in words, in the order of the n tensors.
 */
sago_status sago_check_shapes(bool fits, const char *operation, const char *names, int n,
                              const sago_tensor tensors[]) SAGO_MUST_CHECK;

/** All of one dtype, and none without memory unless it has no elements. */
bool sago_all_dtype(sago_dtype dtype, int n, const sago_tensor tensors[]);

/** The tensor as a matrix: the last dimension is its width, all before it are its rows. */
int64_t sago_rows(sago_tensor t);
int64_t sago_width(sago_tensor t);

/** Whether [tokens, width] from dropout->first on is a slice of [row_tokens, pitch]; pitch 0: width. */
sago_status sago_check_dropout_slice(const sago_dropout *dropout, const char *operation, int64_t tokens,
                                     int64_t width) SAGO_MUST_CHECK;

/** rate in [0, 1), and t is [B, S, D], such a slice, where rate > 0. dropout may be NULL: none. */
sago_status sago_check_dropout(const sago_dropout *dropout, const char *operation,
                               sago_tensor t) SAGO_MUST_CHECK;

/** Every id is below rows; negative ids stand for "none". SAGO_E_INPUT names id and token. */
sago_status sago_check_ids(const char *operation, const int32_t *ids, int64_t n,
                           int64_t rows) SAGO_MUST_CHECK;

/** SAGO_OK if every operation of the table is there; else SAGO_E_DEVICE names all that lack. */
sago_status sago_device_check_table(const char *name, const sago_ops *ops) SAGO_MUST_CHECK;

/** sago_device_open without that check, for the tests of what a device has already. */
sago_status sago_device_open_partial(const char *name, int n_threads, sago_device **out) SAGO_MUST_CHECK;

#endif
