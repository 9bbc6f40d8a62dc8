// SPDX-License-Identifier: Apache-2.0
/**
 * The open model: its layers and all the memory that open took. Shared by model.c, run.c and generate.c
 * alone.
 */
#ifndef SAGO_STATE_H
#define SAGO_STATE_H

#include "decode.h"
#include "greedy.h"
#include "loss.h"
#include "network.h"

/** What a micro-batch brings from the host, laid out alike in its memory and the device's. */
typedef struct sago_micro_inputs {
    int32_t *input_ids, *input_segments;   /* ids: -1 where padding */
    int32_t *target_ids, *target_segments; /* ids: what the decoder reads */
    int32_t *prefix, *positions;           /* of what a decoder alone reads; else NULL */
    int32_t *places, *targets;             /* sago_loss_tokens */
    float *weights;
} sago_micro_inputs;

enum { SAGO_STAGES = 2 }; /* the host fills one while the other may still be on its way */

struct sago_model {
    sago_model_shape shape;
    const sago_registry *registry;
    sago_device *device;
    sago_model_options options;
    sago_network network;
    sago_loss_head head;
    int64_t encoder_tokens, decoder_tokens; /* most of a micro-batch */

    void *memory; /* on the device */
    size_t memory_bytes;
    sago_micro_inputs inputs;
    size_t encoder_bytes, inputs_bytes; /* of inputs, from its beginning: what the encoder reads, and all */
    sago_stack_saved encoder, decoder;
    sago_block_saved encoder_common, decoder_common; /* unless every block keeps all */
    sago_block_work encoder_work, decoder_work;
    sago_loss_work loss;
    void *product;                   /* [most tokens, D] */
    void *d_x, *d_hidden, *d_memory; /* gradients: residual stream, decoder's output, encoder's output */
    /* Where ranks share the model (parallel.h). */
    sago_mesh *mesh;
    int model_rank, model_size;
    void *gathered[2], *narrow;
    void *memory_room; /* [encoder tokens, D]: the encoder's output, whole */
    int32_t *encoder_lo, *encoder_hi, *decoder_lo, *decoder_hi, *cross_lo, *cross_hi;
    sago_decode decode;
    sago_greedy greedy; /* the copy of the output matrix, made when a generation first needs it */

    struct {
        void *memory; /* that copies asynchronously */
        sago_micro_inputs inputs;
        sago_mark sent; /* has passed when it may be filled again */
    } stages[SAGO_STAGES];
    int stage; /* the one to be filled next */

    void *host; /* what is copied to the host and from it; of allocate_host */
    float *host_logprobs;
};

/** A pass over the values, without gradients and dropout. */
sago_pass sago_model_pass(const sago_model *model, const void *values);

/** Host memory to be filled for the next micro-batch; waits until the device has taken what stood there. */
sago_status sago_model_stage(sago_model *model, sago_micro_inputs **out) SAGO_MUST_CHECK;
/** Sends the first bytes of what was filled (encoder_bytes or inputs_bytes). */
sago_status sago_model_send(sago_model *model, size_t bytes) SAGO_MUST_CHECK;

/** Runs the encoder over the ids that were sent [rows, length]: out[rows, length, D]; leaves the ranges in
 * inputs->self. T5. */
sago_status sago_model_encode(sago_model *model, const sago_pass *pass, int64_t rows, int64_t length,
                              sago_block_inputs *inputs, sago_tensor *out) SAGO_MUST_CHECK;

/** What the decoder attends among its own tokens that were sent [rows, length]: ranges, and positions of a
 * decoder alone. */
sago_status sago_model_decoder_inputs(sago_model *model, int64_t rows, int64_t length,
                                      sago_block_inputs *inputs) SAGO_MUST_CHECK;

/** The row of this rank's slice of the embedding that id stands in, -1 for those of other ranks. */
int32_t sago_model_own_id(const sago_model *model, int32_t id);

/** Rounds a length up, so that products see few different shapes; at most limit. */
int64_t sago_model_round_length(int64_t length, int64_t limit);

#endif
