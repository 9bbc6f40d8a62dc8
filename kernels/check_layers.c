// SPDX-License-Identifier: Apache-2.0
#include "check_layers.h"
#include "check.h"
#include "rope.h"

#include <math.h>
#include <stdio.h>

/* All f32, or all bf16 where the device stores it. */
static bool floats(const sago_device *device, int n, const sago_tensor t[]) {
    return sago_all_dtype(device->stores_bf16 && t[0].dtype == SAGO_BF16 ? SAGO_BF16 : SAGO_F32, n, t);
}

static bool alike(int n, const sago_tensor t[]) {
    for (int i = 1; i < n; i++)
        if (!sago_tensor_same_shape(t[0], t[i])) return false;
    return true;
}

/* A matrix of these rows and columns, however many dimensions it takes to say so. */
static bool is_matrix(sago_tensor t, int64_t rows, int64_t width) {
    return sago_width(t) == width && sago_rows(t) == rows;
}

/* names: the tensors' shapes; before them comes which dtypes the device takes. */
static sago_status fits(bool fit, const sago_device *device, const char *operation, const char *names, int n,
                        const sago_tensor tensors[]) {
    if (fit) return SAGO_OK;
    char text[160];
    snprintf(text, sizeof text, "%s %s", device->stores_bf16 ? "f32 or bf16" : "f32", names);
    return sago_check_shapes(false, operation, text, n, tensors);
}

/* --- elementwise
 * ----------------------------------------------------------------------------------------------- */

sago_status sago_fits_fill(const sago_device *device, sago_tensor out) {
    return fits(floats(device, SAGO_TENSORS(out)), device, "fill", "out", SAGO_TENSORS(out));
}

sago_status sago_fits_copy(sago_tensor out, sago_tensor in) {
    bool castable = out.dtype == in.dtype || (out.dtype == SAGO_F32 && in.dtype == SAGO_BF16) ||
                    (out.dtype == SAGO_BF16 && in.dtype == SAGO_F32);
    return sago_check_shapes(
        castable && sago_tensor_count(out) == sago_tensor_count(in) &&
            sago_all_dtype(out.dtype, SAGO_TENSORS(out)) && sago_all_dtype(in.dtype, SAGO_TENSORS(in)),
        "copy", "out, in of one count and of f32, bf16 or one dtype", SAGO_TENSORS(out, in));
}

sago_status sago_fits_add_scaled(const sago_device *device, sago_tensor out, sago_tensor in) {
    return fits(floats(device, SAGO_TENSORS(out, in)) && sago_tensor_count(out) == sago_tensor_count(in),
                device, "add_scaled", "out, in of one count", SAGO_TENSORS(out, in));
}

sago_status sago_fits_scale(const sago_device *device, sago_tensor out) {
    return fits(floats(device, SAGO_TENSORS(out)), device, "scale", "out", SAGO_TENSORS(out));
}

sago_status sago_fits_sum_squares(const sago_device *device, const sago_tensor in[], int n) {
    for (int t = 0; t < n; t++)
        SAGO_TRY(fits(floats(device, 1, &in[t]), device, "sum_squares", "in", 1, &in[t]));
    return SAGO_OK;
}

/* --- dropout and activations
 * ------------------------------------------------------------------------------------- */

sago_status sago_fits_dropout(const sago_device *device, sago_tensor out, sago_tensor in,
                              const sago_dropout *dropout) {
    bool fit = floats(device, SAGO_TENSORS(out, in)) && sago_tensor_same_shape(out, in);
    SAGO_TRY(fits(fit, device, "dropout", "out, in, each [B, S, D]", SAGO_TENSORS(out, in)));
    return sago_check_dropout(dropout, "dropout", in);
}

sago_status sago_fits_residual(const sago_device *device, sago_tensor out, sago_tensor residual,
                               sago_tensor in, const sago_dropout *dropout) {
    bool fit = floats(device, SAGO_TENSORS(out, residual, in)) && alike(SAGO_TENSORS(out, residual, in));
    SAGO_TRY(
        fits(fit, device, "residual", "out, residual, in, each [B, S, D]", SAGO_TENSORS(out, residual, in)));
    return sago_check_dropout(dropout, "residual", in);
}

static sago_status fits_activation(const sago_device *device, const char *operation, const char *names,
                                   const sago_dropout *dropout, int n, const sago_tensor t[]) {
    SAGO_TRY(fits(floats(device, n, t) && alike(n, t), device, operation, names, n, t));
    return sago_check_dropout(dropout, operation, t[0]);
}

sago_status sago_fits_relu_forward(const sago_device *device, sago_tensor y, sago_tensor x,
                                   const sago_dropout *dropout) {
    return fits_activation(device, "relu_forward", "y, x, each [B, S, F]", dropout, SAGO_TENSORS(y, x));
}

sago_status sago_fits_relu_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_y,
                                    sago_tensor x, const sago_dropout *dropout) {
    return fits_activation(device, "relu_backward", "d_x, d_y, x, each [B, S, F]", dropout,
                           SAGO_TENSORS(d_x, d_y, x));
}

sago_status sago_fits_geglu_forward(const sago_device *device, sago_tensor y, sago_tensor gate,
                                    sago_tensor linear, const sago_dropout *dropout) {
    return fits_activation(device, "geglu_forward", "y, gate, linear, each [B, S, F]", dropout,
                           SAGO_TENSORS(y, gate, linear));
}

sago_status sago_fits_geglu_backward(const sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                     sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *dropout) {
    return fits_activation(device, "geglu_backward", "d_gate, d_linear, d_y, gate, linear, each [B, S, F]",
                           dropout, SAGO_TENSORS(d_gate, d_linear, d_y, gate, linear));
}

sago_status sago_fits_swiglu_forward(const sago_device *device, sago_tensor y, sago_tensor gate,
                                     sago_tensor linear, const sago_dropout *dropout) {
    return fits_activation(device, "swiglu_forward", "y, gate, linear, each [B, S, F]", dropout,
                           SAGO_TENSORS(y, gate, linear));
}

sago_status sago_fits_swiglu_backward(const sago_device *device, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *dropout) {
    return fits_activation(device, "swiglu_backward", "d_gate, d_linear, d_y, gate, linear, each [B, S, F]",
                           dropout, SAGO_TENSORS(d_gate, d_linear, d_y, gate, linear));
}

/* --- rotary position embedding
 * ----------------------------------------------------------------------------------- */

sago_status sago_fits_rope(const sago_device *device, sago_tensor out, sago_tensor x, sago_tensor positions,
                           const sago_rope_args *args) {
    int64_t width = sago_width(x);
    bool fit = floats(device, SAGO_TENSORS(out, x)) && sago_all_dtype(SAGO_I32, SAGO_TENSORS(positions)) &&
               x.n_dims == 4 && sago_tensor_same_shape(out, x) && width % 2 == 0 &&
               width <= 2 * SAGO_ROPE_PAIRS && x.shape[2] <= INT32_MAX / (2 * SAGO_ROPE_PAIRS) &&
               sago_tensor_count(positions) == x.shape[0] * x.shape[1];
    SAGO_TRY(fits(fit, device, "rope",
                  "out, x, each [B, S, H, E] with E even and at most 512, i32 positions[B, S]",
                  SAGO_TENSORS(out, x, positions)));
    if (args->theta >= 1.0 && isfinite(args->theta)) return SAGO_OK;
    return sago_fail(SAGO_E_INTERNAL, "rope: a theta of %g is not a finite number of at least 1",
                     args->theta);
}

/* --- embedding
 * --------------------------------------------------------------------------------------------------- */

sago_status sago_fits_embedding_forward(const sago_device *device, sago_tensor y, sago_tensor table,
                                        sago_tensor ids) {
    bool fit = floats(device, SAGO_TENSORS(y, table)) && sago_all_dtype(SAGO_I32, SAGO_TENSORS(ids)) &&
               table.n_dims == 2 && is_matrix(y, sago_tensor_count(ids), sago_width(table));
    return fits(fit, device, "embedding_forward", "y[N, D], table[V, D], i32 ids[N]",
                SAGO_TENSORS(y, table, ids));
}

sago_status sago_fits_embedding_backward(const sago_device *device, sago_tensor d_table, sago_tensor d_y,
                                         sago_tensor ids) {
    int64_t tokens = sago_tensor_count(ids);
    bool fit = floats(device, SAGO_TENSORS(d_table)) && floats(device, SAGO_TENSORS(d_y)) &&
               (d_table.dtype == SAGO_F32 || d_table.dtype == d_y.dtype) &&
               sago_all_dtype(SAGO_I32, SAGO_TENSORS(ids)) && d_table.n_dims == 2 &&
               d_table.shape[0] < INT32_MAX && tokens <= INT32_MAX &&
               is_matrix(d_y, tokens, sago_width(d_table));
    return fits(fit, device, "embedding_backward", "d_table[V, D], d_y[N, D], i32 ids[N]",
                SAGO_TENSORS(d_table, d_y, ids));
}

/* --- norms
 * ------------------------------------------------------------------------------------------------------- */

/* Rows [N, D] of one dtype, and per row [N] or column [D] in f32. */
static bool is_norm(const sago_device *device, int n, const sago_tensor rows[], sago_tensor scale, int n_row,
                    const sago_tensor of_row[], int n_column, const sago_tensor of_column[]) {
    bool fit = floats(device, n, rows) && floats(device, SAGO_TENSORS(rows[0], scale)) &&
               sago_tensor_count(scale) == sago_width(rows[0]) && sago_all_dtype(SAGO_F32, n_row, of_row) &&
               sago_all_dtype(SAGO_F32, n_column, of_column);
    for (int i = 1; i < n; i++) fit = fit && is_matrix(rows[i], sago_rows(rows[0]), sago_width(rows[0]));
    for (int i = 0; i < n_row; i++) fit = fit && sago_tensor_count(of_row[i]) == sago_rows(rows[0]);
    for (int i = 0; i < n_column; i++) fit = fit && sago_tensor_count(of_column[i]) == sago_width(rows[0]);
    return fit;
}

sago_status sago_fits_rmsnorm_forward(const sago_device *device, sago_tensor y, sago_tensor rstd,
                                      sago_tensor x, sago_tensor scale) {
    bool fit = is_norm(device, SAGO_TENSORS(x, y), scale, SAGO_TENSORS(rstd), 0, NULL);
    return fits(fit, device, "rmsnorm_forward", "y[N, D], f32 rstd[N], x[N, D], scale[D]",
                SAGO_TENSORS(y, rstd, x, scale));
}

sago_status sago_fits_rmsnorm_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                       sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor rstd) {
    bool fit = is_norm(device, SAGO_TENSORS(x, d_x, d_y), scale, SAGO_TENSORS(rstd), SAGO_TENSORS(d_scale));
    return fits(fit, device, "rmsnorm_backward",
                "d_x[N, D], f32 d_scale[D], d_y[N, D], x[N, D], scale[D], f32 rstd[N]",
                SAGO_TENSORS(d_x, d_scale, d_y, x, scale, rstd));
}

sago_status sago_fits_layernorm_forward(const sago_device *device, sago_tensor y, sago_tensor mean,
                                        sago_tensor rstd, sago_tensor x, sago_tensor scale) {
    bool fit = is_norm(device, SAGO_TENSORS(x, y), scale, SAGO_TENSORS(mean, rstd), 0, NULL);
    return fits(fit, device, "layernorm_forward", "y[N, D], f32 mean[N] and rstd[N], x[N, D], scale[D]",
                SAGO_TENSORS(y, mean, rstd, x, scale));
}

sago_status sago_fits_layernorm_backward(const sago_device *device, sago_tensor d_x, sago_tensor d_scale,
                                         sago_tensor d_y, sago_tensor x, sago_tensor scale, sago_tensor mean,
                                         sago_tensor rstd) {
    bool fit =
        is_norm(device, SAGO_TENSORS(x, d_x, d_y), scale, SAGO_TENSORS(mean, rstd), SAGO_TENSORS(d_scale));
    return fits(fit, device, "layernorm_backward",
                "d_x[N, D], f32 d_scale[D], d_y[N, D], x[N, D], scale[D], f32 mean[N] and rstd[N]",
                SAGO_TENSORS(d_x, d_scale, d_y, x, scale, mean, rstd));
}
