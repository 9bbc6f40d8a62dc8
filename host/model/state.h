// SPDX-License-Identifier: Apache-2.0
/**
 * The open model: its layers and all the memory that open took. Shared by model.c and generate.c alone.
 */
#ifndef SAGO_STATE_H
#define SAGO_STATE_H

#include "decode.h"
#include "loss.h"
#include "t5.h"

struct sago_model {
    sago_model_shape shape;
    const sago_registry *registry;
    sago_device *device;
    sago_model_options options;
    sago_t5 t5;
    sago_loss_head head;
    int64_t encoder_tokens, decoder_tokens; /* most of a micro-batch */

    void *memory; /* on the device */
    size_t memory_bytes;
    sago_stack_saved encoder, decoder;
    sago_block_saved encoder_common, decoder_common; /* unless every block keeps all */
    sago_block_work encoder_work, decoder_work;
    sago_loss_work loss;
    float *product;                   /* [most tokens, D] */
    float *d_x, *d_hidden, *d_memory; /* gradients: residual stream, decoder's output, encoder's output */
    int32_t *input_segments, *target_segments;
    int32_t *encoder_lo, *encoder_hi, *decoder_lo, *decoder_hi, *cross_lo, *cross_hi;
    sago_decode decode;

    sago_arena host; /* staging */
    int32_t *host_ids, *host_segments;
    sago_loss_tokens tokens;
    float *host_logprobs;
};

/** A pass over the values, without gradients and dropout. */
sago_pass sago_model_pass(const sago_model *model, const float *values);

/**
 * Runs the encoder over host_ids and host_segments [rows, length]: out[rows, length, D]. Leaves the segments
 * on the device and the ranges in inputs->self.
 */
sago_status sago_model_encode(sago_model *model, const sago_pass *pass, int64_t rows, int64_t length,
                              sago_block_inputs *inputs, sago_tensor *out) SAGO_MUST_CHECK;

/** Rounds a length up, so that products see few different shapes; at most limit. */
int64_t sago_model_round_length(int64_t length, int64_t limit);

#endif
