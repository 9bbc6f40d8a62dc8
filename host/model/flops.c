// SPDX-License-Identifier: Apache-2.0
#include "model.h"

/* A decoder alone reads inputs and targets in one row. */
static double decoder_only_flops(const sago_model_shape *shape, double inputs, double targets, double pairs) {
    double d = (double)shape->d_model, e = (double)shape->head_dim;
    double width = (double)shape->n_heads * e, kv_width = (double)shape->kv_heads * e;
    double token = 2 * d * width + 2 * d * kv_width + 3 * d * (double)shape->d_ff;
    return (double)shape->decoder_layers * ((inputs + targets) * token + 2 * pairs * width) +
           targets * d * (double)shape->vocab_size;
}

double sago_model_flops(const sago_model_shape *shape, int64_t input_tokens, int64_t target_tokens,
                        double encoder_pairs, double decoder_pairs, double cross_pairs) {
    double inputs = (double)input_tokens, targets = (double)target_tokens, d = (double)shape->d_model;
    if (sago_model_decoder_only(shape)) return 6 * decoder_only_flops(shape, inputs, targets, decoder_pairs);
    double width = (double)(shape->n_heads * shape->head_dim);
    double projection = d * width; /* of a query, key, value or output */
    double mlp = (shape->activation == SAGO_RELU ? 2 : 3) * d * (double)shape->d_ff;
    double encoder =
        (double)shape->encoder_layers * (inputs * (4 * projection + mlp) + 2 * encoder_pairs * width);
    double decoder =
        (double)shape->decoder_layers * (targets * (6 * projection + mlp) + inputs * 2 * projection +
                                         2 * (decoder_pairs + cross_pairs) * width);
    double logits = targets * d * (double)shape->vocab_size;
    /* A product of n multiply-adds is 2 n FLOPs forward, and two such products backward. */
    return 3 * 2 * (encoder + decoder + logits);
}
