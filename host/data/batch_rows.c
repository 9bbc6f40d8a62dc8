// SPDX-License-Identifier: Apache-2.0
#include "batch_rows.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

enum { DECODER_START_ID = 0 };

void sago_batch_open(sago_batch *batch, int64_t most_rows, int64_t input_length, int64_t target_length,
                     bool decoder_only) {
    if (decoder_only) target_length += input_length, input_length = 0;
    size_t inputs = (size_t)(most_rows * input_length), targets = (size_t)(most_rows * target_length);
    *batch = (sago_batch){.input_length = input_length, .target_length = target_length};
    batch->inputs = sago_alloc_zero(inputs + 1, sizeof *batch->inputs);
    batch->input_segments = sago_alloc_zero(inputs + 1, sizeof *batch->input_segments);
    batch->targets = sago_alloc_zero(targets + 1, sizeof *batch->targets);
    batch->decoder_inputs = sago_alloc_zero(targets + 1, sizeof *batch->decoder_inputs);
    batch->target_segments = sago_alloc_zero(targets + 1, sizeof *batch->target_segments);
    batch->weights = sago_alloc_zero(targets + 1, sizeof *batch->weights);
    if (decoder_only) batch->prefix = sago_alloc_zero(targets + 1, sizeof *batch->prefix);
}

void sago_batch_close(sago_batch *batch) {
    free(batch->inputs);
    free(batch->input_segments);
    free(batch->targets);
    free(batch->decoder_inputs);
    free(batch->target_segments);
    free(batch->weights);
    free(batch->prefix);
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
    if (batch->prefix) memset(batch->prefix, 0, targets * sizeof *batch->prefix);
    batch->n_rows = n_rows;
    batch->n_examples = batch->n_input_tokens = batch->n_target_tokens = batch->global_target_tokens = 0;
}

int64_t sago_batch_given(bool decoder_only, const sago_ids *inputs, const sago_ids *targets) {
    return decoder_only && inputs->length == 0 && targets->length > 0 ? 1 : inputs->length;
}

static void add_pair(sago_batch *batch, int64_t input_base, int64_t target_base, int32_t segment,
                     const sago_ids *inputs, const sago_ids *targets) {
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
}

/* Position i predicts token i + 1: the last one given the first target, the last target nothing. */
static void add_sequence(sago_batch *batch, int64_t base, int32_t segment, const sago_ids *inputs,
                         const sago_ids *targets, int64_t given) {
    int64_t length = inputs->length + targets->length;
    int32_t *tokens = batch->decoder_inputs + base;
    for (int64_t i = 0; i < length; i++) {
        tokens[i] = i < inputs->length ? inputs->data[i] : targets->data[i - inputs->length];
        batch->target_segments[base + i] = segment;
        batch->prefix[base + i] = i < given;
        batch->weights[base + i] = i + 1 >= given && i + 1 < length ? 1.0f : 0.0f;
    }
    for (int64_t i = 0; i + 1 < length; i++) batch->targets[base + i] = tokens[i + 1];
}

void sago_batch_add(sago_batch *batch, int64_t row, int32_t segment, const sago_ids *inputs,
                    const sago_ids *targets, int64_t *input_at, int64_t *target_at) {
    int64_t input_base = row * batch->input_length + *input_at,
            target_base = row * batch->target_length + *target_at;
    bool decoder_only = batch->prefix != NULL;
    int64_t given = sago_batch_given(decoder_only, inputs, targets);
    if (decoder_only) {
        add_sequence(batch, target_base, segment, inputs, targets, given);
        *target_at += inputs->length;
    } else {
        add_pair(batch, input_base, target_base, segment, inputs, targets);
        *input_at += inputs->length;
    }
    *target_at += targets->length;
    batch->n_examples++;
    batch->n_input_tokens += given;
    batch->n_target_tokens += inputs->length + targets->length - given;
}
