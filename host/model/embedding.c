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

sago_status sago_embedding_forward(const sago_embedding *layer, const sago_pass *pass, sago_tensor y,
                                   int32_t *ids, int site) {
    const sago_ops *ops = pass->device->ops;
    int64_t tokens = y.shape[0] * y.shape[1];
    SAGO_TRY(ops->embedding_forward(pass->device, flat(y), sago_pass_value(pass, layer->table),
                                    sago_tensor_1d(ids, SAGO_I32, tokens), 1));
    if (pass->dropout_rate == 0) return SAGO_OK;
    const sago_dropout dropout = sago_pass_dropout(pass, site, y.shape[1]);
    return ops->dropout(pass->device, y, y, &dropout);
}

sago_status sago_embedding_backward(const sago_embedding *layer, const sago_pass *pass, sago_tensor d_y,
                                    int32_t *ids, int site) {
    const sago_ops *ops = pass->device->ops;
    if (pass->dropout_rate > 0) {
        const sago_dropout dropout = sago_pass_dropout(pass, site, d_y.shape[1]);
        SAGO_TRY(ops->dropout(pass->device, d_y, d_y, &dropout));
    }
    return ops->embedding_backward(pass->device, sago_pass_gradient(pass, layer->table), flat(d_y),
                                   sago_tensor_1d(ids, SAGO_I32, d_y.shape[0] * d_y.shape[1]), 1);
}
