// SPDX-License-Identifier: Apache-2.0
#include "residual.h"

sago_status sago_products_residual(const sago_pass *pass, sago_tensor out, sago_tensor residual,
                                   const sago_product products[], int n, int site) {
    int64_t rows = products[0].x.shape[0], tokens = products[0].x.shape[1];
    bool in_place = pass->model_size <= 1 && pass->dropout_rate == 0 && out.data == residual.data;
    sago_tensor sum = sago_partial_sum(pass, in_place ? out.data : pass->product, rows, tokens, out.shape[2]);
    for (int i = 0; i < n; i++)
        SAGO_TRY(
            sago_linear_forward(pass, sum, products[i].x, products[i].weight, in_place || i > 0 ? 1 : 0));
    if (in_place) return SAGO_OK;
    SAGO_TRY(sago_sum_partial(pass, &sum, sum));
    const sago_dropout dropout = sago_residual_dropout(pass, site, out, rows, tokens);
    return pass->device->ops->residual(pass->device, out, residual, sum, &dropout);
}

sago_status sago_linear_residual(const sago_pass *pass, sago_tensor out, sago_tensor residual, sago_tensor x,
                                 int weight, int site) {
    return sago_products_residual(pass, out, residual, &(sago_product){x, weight}, 1, site);
}

sago_status sago_residual_gradient(const sago_pass *pass, sago_tensor *d, sago_tensor d_out, int64_t rows,
                                   int64_t tokens, void *room, int site) {
    sago_tensor own = d_out;
    if (pass->dropout_rate > 0) {
        own.data = room;
        const sago_dropout dropout = sago_residual_dropout(pass, site, own, rows, tokens);
        SAGO_TRY(pass->device->ops->dropout(pass->device, own, d_out, &dropout));
    }
    return sago_gather_tokens(pass, d, own, rows, tokens, pass->gathered[1]);
}
