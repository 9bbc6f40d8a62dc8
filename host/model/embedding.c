// SPDX-License-Identifier: Apache-2.0
#include "embedding.h"

sago_status sago_embedding_declare(sago_embedding *layer, sago_registry *registry, int block,
                                   const char *prefix, int64_t vocab_size, int64_t d_model,
                                   double deviation) {
    return sago_layer_declare(registry, block, prefix, "embedding", 2, (const int64_t[]){vocab_size, d_model},
                              (const sago_axis[]){SAGO_AXIS_VOCAB, SAGO_AXIS_EMBED}, SAGO_INIT_NORMAL,
                              deviation, &layer->table);
}

static sago_tensor flat(sago_tensor t) {
    return sago_tensor_2d(t.data, t.dtype, t.shape[0] * t.shape[1], t.shape[2]);
}

/* The rows that other ranks have are zeros here; the sum over ranks, in f32, adds nothing but zeros to each.
 */
static sago_status look_up(const sago_embedding *layer, const sago_pass *pass, const sago_tensor *y,
                           sago_tensor ids, int64_t rows, int64_t tokens) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor table = sago_pass_value(pass, layer->table);
    if (pass->model_size <= 1) return ops->embedding_forward(pass->device, flat(*y), table, ids, 1);
    sago_tensor sum = sago_partial_sum(pass, pass->product, rows, tokens, y->shape[2]), found = sum;
    if (pass->dtype != SAGO_F32) found = sago_tokens(pass, pass->gathered[0], rows, tokens, y->shape[2]);
    SAGO_TRY(ops->embedding_forward(pass->device, flat(found), table, ids, 1));
    if (pass->dtype != SAGO_F32) SAGO_TRY(ops->copy(pass->device, sum, found));
    SAGO_TRY(sago_sum_partial(pass, &sum, sum));
    return ops->copy(pass->device, *y, sum);
}

sago_status sago_embedding_forward(const sago_embedding *layer, const sago_pass *pass, sago_tensor y,
                                   int32_t *ids, int64_t rows, int64_t tokens, int site) {
    SAGO_TRY(look_up(layer, pass, &y, sago_tensor_1d(ids, SAGO_I32, rows * tokens), rows, tokens));
    if (pass->dropout_rate == 0) return SAGO_OK;
    const sago_dropout dropout = sago_residual_dropout(pass, site, y, rows, tokens);
    return pass->device->ops->dropout(pass->device, y, y, &dropout);
}

sago_status sago_embedding_backward(const sago_embedding *layer, const sago_pass *pass, sago_tensor d_y,
                                    int32_t *ids, int64_t rows, int64_t tokens, int site) {
    const sago_ops *ops = pass->device->ops;
    if (pass->dropout_rate > 0) {
        const sago_dropout dropout = sago_residual_dropout(pass, site, d_y, rows, tokens);
        SAGO_TRY(ops->dropout(pass->device, d_y, d_y, &dropout));
    }
    SAGO_TRY(sago_gather_tokens(pass, &d_y, d_y, rows, tokens, pass->gathered[1]));
    return ops->embedding_backward(pass->device, sago_pass_gradient(pass, layer->table), flat(d_y),
                                   sago_tensor_1d(ids, SAGO_I32, rows * tokens), 1);
}
