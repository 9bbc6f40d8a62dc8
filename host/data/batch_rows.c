// SPDX-License-Identifier: Apache-2.0
#include "batch_rows.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

enum { DECODER_START_ID = 0 };

void sago_batch_open(sago_batch *batch, int64_t most_rows, int64_t input_length, int64_t target_length) {
    size_t inputs = (size_t)(most_rows * input_length), targets = (size_t)(most_rows * target_length);
    *batch = (sago_batch){.input_length = input_length, .target_length = target_length};
    batch->inputs = sago_alloc_zero(inputs + 1, sizeof *batch->inputs);
    batch->input_segments = sago_alloc_zero(inputs + 1, sizeof *batch->input_segments);
    batch->targets = sago_alloc_zero(targets + 1, sizeof *batch->targets);
    batch->decoder_inputs = sago_alloc_zero(targets + 1, sizeof *batch->decoder_inputs);
    batch->target_segments = sago_alloc_zero(targets + 1, sizeof *batch->target_segments);
    batch->weights = sago_alloc_zero(targets + 1, sizeof *batch->weights);
}

void sago_batch_close(sago_batch *batch) {
    free(batch->inputs);
    free(batch->input_segments);
    free(batch->targets);
    free(batch->decoder_inputs);
    free(batch->target_segments);
    free(batch->weights);
    *batch = (sago_batch){0};
}

void sago_batch_clear(sago_batch *batch, int64_t n_rows) {
    size_t inputs = (size_t)(n_rows * batch->input_length), targets = (size_t)(n_rows * batch->target_length);
    memset(batch->inputs, 0, inputs * sizeof *batch->inputs);
    memset(batch->input_segments, 0, inputs * sizeof *batch->input_segments);
    memset(batch->targets, 0, targets * sizeof *batch->targets);
    memset(batch->decoder_inputs, 0, targets * sizeof *batch->decoder_inputs);
    memset(batch->target_segments, 0, targets * sizeof *batch->target_segments);
    memset(batch->weights, 0, targets * sizeof *batch->weights);
    batch->n_rows = n_rows;
    batch->n_examples = batch->n_input_tokens = batch->n_target_tokens = batch->global_target_tokens = 0;
}

void sago_batch_add(sago_batch *batch, int64_t row, int32_t segment, const sago_ids *inputs,
                    const sago_ids *targets, int64_t *input_at, int64_t *target_at) {
    int64_t input_base = row * batch->input_length + *input_at,
            target_base = row * batch->target_length + *target_at;
    for (int64_t i = 0; i < inputs->length; i++) {
        batch->inputs[input_base + i] = inputs->data[i];
        batch->input_segments[input_base + i] = segment;
    }
    for (int64_t i = 0; i < targets->length; i++) {
        batch->targets[target_base + i] = targets->data[i];
        batch->decoder_inputs[target_base + i] = i == 0 ? DECODER_START_ID : targets->data[i - 1];
        batch->target_segments[target_base + i] = segment;
        batch->weights[target_base + i] = 1.0f;
    }
    *input_at += inputs->length;
    *target_at += targets->length;
    batch->n_examples++;
    batch->n_input_tokens += inputs->length;
    batch->n_target_tokens += targets->length;
}
