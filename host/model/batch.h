// SPDX-License-Identifier: Apache-2.0
/**
 * Batch: the rows that one step of one rank computes, on the host. Made by host/data, read by host/model.
 *
 * Encoder-decoder, B rows of Si input and St target tokens, all [B, S] row-major:
 *     inputs           token ids, 0 where padding
 *     input_segments   1, 2, ... an example, 0 where padding
 *     targets          token ids to predict (EOS included), 0 where padding
 *     decoder_inputs   targets shifted right inside each segment; a segment starts with id 0
 *     target_segments  like input_segments, the same number for the same example
 *     weights          1 where a target counts, else 0
 * Decoder-only models have one sequence a row, inputs and then targets of each example: input_length is 0 and
 * target_length the length of the row, which holds as many tokens as inputs and targets together may have:
 *     decoder_inputs   token ids of inputs and targets, 0 where padding
 *     targets          the next token of each position of the same example, 0 elsewhere
 *     target_segments  1, 2, ... an example, 0 where padding
 *     weights          1 where `targets` is one of the example's targets: from its last input on
 *     prefix           1 where the token is one of the example's inputs, else 0
 * An example without inputs has its first target in their place: no token comes before it that could predict
 * it, so it is given, has the prefix flag, and counts as an input token. Positions of a row: input and target
 * tokens. Worked example: docs/packing.md.
 */
#ifndef SAGO_BATCH_H
#define SAGO_BATCH_H

#include <stdint.h>

typedef struct sago_batch {
    int64_t n_rows;                      /* rows of this rank; rows without any example are allowed */
    int64_t first_row;                   /* index of row 0 in the global batch */
    int64_t global_rows;                 /* rows of the global batch over all ranks */
    int64_t input_length, target_length; /* Si, St */
    int32_t *inputs, *input_segments;    /* [n_rows, Si] */
    int32_t *targets, *decoder_inputs, *target_segments; /* [n_rows, St] */
    float *weights;                                      /* [n_rows, St] */
    int32_t *prefix;                                     /* [n_rows, St]; decoder-only models, else NULL */
    int64_t n_examples, n_input_tokens,
        n_target_tokens;          /* of this rank; target tokens are those with weight */
    int64_t global_target_tokens; /* of all ranks */
} sago_batch;

#endif
