// SPDX-License-Identifier: Apache-2.0
#include "matmul.h"

#include "check.h"

static bool dtypes_fit(const sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b) {
    if (sago_all_dtype(SAGO_F32, SAGO_TENSORS(c, a, b))) return true;
    return device->stores_bf16 && sago_all_dtype(SAGO_BF16, SAGO_TENSORS(a, b)) &&
           (sago_all_dtype(SAGO_F32, 1, &c) || sago_all_dtype(SAGO_BF16, 1, &c));
}

sago_status sago_matmul_check(const sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                              const sago_matmul_args *args, sago_matmul_sizes *out) {
    sago_matmul_sizes s = {.m = args->transpose_a ? sago_width(a) : sago_rows(a),
                           .k = args->transpose_a ? sago_rows(a) : sago_width(a),
                           .n = args->transpose_b ? sago_rows(b) : sago_width(b)};
    *out = s;
    bool fits = dtypes_fit(device, c, a, b) && sago_rows(c) == s.m && sago_width(c) == s.n &&
                (args->transpose_b ? sago_width(b) : sago_rows(b)) == s.k;
    return sago_check_shapes(fits, "matmul",
                             device->stores_bf16 ? "c[m, n], op(a)[m, k], op(b)[k, n], a and b in f32 or bf16"
                                                 : "f32 c[m, n], op(a)[m, k], op(b)[k, n]",
                             SAGO_TENSORS(c, a, b));
}
