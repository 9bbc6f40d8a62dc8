// SPDX-License-Identifier: Apache-2.0
/**
 * Checks that every device makes before it works: a wrong shape is one line that names operation and shapes.
 */
#ifndef SAGO_CHECK_H
#define SAGO_CHECK_H

#include "ops.h"

/**
 * SAGO_OK when fits; else SAGO_E_SHAPE "rmsnorm_forward: f32[2, 3], f32[4] are not y[N, D], scale[D]".
 * names: the shapes in words, in the order of the n tensors.
 */
sago_status sago_check_shapes(bool fits, const char *operation, const char *names, int n,
                              const sago_tensor tensors[]) SAGO_MUST_CHECK;

/** All of one dtype (and none without memory, unless it has no elements). */
bool sago_all_dtype(sago_dtype dtype, int n, const sago_tensor tensors[]);

#define SAGO_TENSORS(...) ((int)(sizeof((sago_tensor[]){__VA_ARGS__}) / sizeof(sago_tensor))), (sago_tensor[]){__VA_ARGS__}

#endif
