// SPDX-License-Identifier: Apache-2.0
#include "small_model.h"

#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sago_model_shape t5_shape(bool version_1_1) {
    return (sago_model_shape){.family = "t5",
                              .d_model = 20,
                              .n_heads = 3,
                              .head_dim = 8,
                              .d_ff = 28,
                              .encoder_layers = version_1_1 ? 2 : 1,
                              .decoder_layers = version_1_1 ? 1 : 2,
                              .activation = version_1_1 ? SAGO_GATED_GELU : SAGO_RELU,
                              .tied_embeddings = !version_1_1,
                              .relative_buckets = 8,
                              .relative_max_distance = 12,
                              .norm_epsilon = 1e-6f};
}

static sago_model_shape palm_shape(bool grouped) {
    return (sago_model_shape){.family = "palm",
                              .d_model = 20,
                              .n_heads = grouped ? 4 : 3,
                              .kv_heads = grouped ? 2 : 1,
                              .head_dim = grouped ? 6 : 8,
                              .d_ff = 28,
                              .decoder_layers = grouped ? 3 : 2,
                              .activation = SAGO_SWIGLU,
                              .tied_embeddings = true,
                              .logit_scale = grouped ? 0.3f : 0, /* 0: D^-1/2 */
                              .rope_theta = grouped ? 300 : 10000,
                              .rope_interleaved = !grouped,
                              .norm_epsilon = 1e-5f};
}

sago_model_shape small_shape(small_kind kind) {
    bool palm = kind == SMALL_PALM || kind == SMALL_PALM_GROUPED;
    sago_model_shape shape = palm ? palm_shape(kind == SMALL_PALM_GROUPED) : t5_shape(kind != SMALL_T5_1_0);
    if (kind == SMALL_T5_UL2) shape.activation = SAGO_SWIGLU, shape.tied_embeddings = true;
    shape.vocab_size = SMALL_VOCABULARY;
    sago_model_shape_complete(&shape);
    return shape;
}

static void must(sago_status status) {
    if (status != SAGO_OK) fail_msg("%s", sago_message());
}

void small_open(small_model *small, small_kind kind, small_options options) {
    *small = (small_model){.shape = small_shape(kind), .prefix = kind == SMALL_PALM_GROUPED};
    must(sago_model_declare(&small->shape, &small->registry));
    must(sago_registry_shard(&small->registry, NULL, 0, 0, 1));
    must(sago_device_open("cpu", options.threads ? options.threads : 2, &small->device));
    size_t bytes = (size_t)small->registry.n_elements * sizeof(float);
    small->values = malloc(bytes);
    small->gradients = calloc(1, bytes);
    sago_registry_initialise(&small->registry, options.seed ? (uint64_t)options.seed : 17, small->values);
    for (int p = 0; p < small->registry.n_params; p++) {
        /* Norm scales away from one, so that their place in the formulas shows. */
        const sago_param *param = &small->registry.params[p];
        for (int64_t i = 0; param->n_dims == 1 && i < param->local_shape[0]; i++)
            small->values[param->offset + i] += 0.4f * (float)sago_unit(sago_mix((uint64_t)p, (uint64_t)i));
    }
    const sago_model_options model = {.max_rows = options.max_rows ? options.max_rows : 4,
                                      .input_length = SMALL_INPUTS,
                                      .target_length = SMALL_TARGETS,
                                      .prefix = small->prefix,
                                      .training = !options.inference,
                                      .recompute = options.recompute,
                                      .loss_chunk_tokens = options.chunk ? options.chunk : 7,
                                      .generate_rows = SMALL_GENERATE_ROWS,
                                      .generate_inputs = SMALL_INPUTS,
                                      .generate_tokens = SMALL_GENERATE_TOKENS};
    must(sago_model_open(&small->shape, &small->registry, small->device, NULL, &model, &small->model));
}

void small_close(small_model *small) {
    sago_model_close(small->model);
    sago_device_close(small->device);
    sago_registry_free(&small->registry);
    free(small->values);
    free(small->gradients);
}

void small_clear_gradients(small_model *small) {
    memset(small->gradients, 0, (size_t)small->registry.n_elements * sizeof *small->gradients);
}

reference small_reference(const small_model *small) {
    reference r = {.shape = small->shape, .registry = &small->registry, .prefix = small->prefix};
    r.values = malloc((size_t)small->registry.n_elements * sizeof *r.values);
    for (int64_t i = 0; i < small->registry.n_elements; i++) r.values[i] = (double)small->values[i];
    return r;
}

/* Token i of an example: of its inputs, or of its targets, which end with id 1. */
static int32_t input_id(uint64_t seed, int example, int i) {
    return 2 + (int32_t)sago_below(sago_mix(sago_mix(seed, (uint64_t)example), (uint64_t)i),
                                   SMALL_VOCABULARY - 2);
}

static int32_t target_id(uint64_t seed, int example, int i, int n) {
    return i + 1 == n ? 1 : input_id(seed + 1, example, i);
}

/* Writes an example into its place of a row, from token `input` or `target` on. */
static void put_t5(sago_batch *batch, int row, int segment, int input, int target, int example, int n_inputs,
                   int n_targets, uint64_t seed) {
    assert_true(input + n_inputs <= SMALL_INPUTS && target + n_targets <= SMALL_TARGETS);
    for (int i = 0; i < n_inputs; i++) {
        batch->inputs[row * SMALL_INPUTS + input + i] = input_id(seed, example, i);
        batch->input_segments[row * SMALL_INPUTS + input + i] = segment;
    }
    for (int i = 0; i < n_targets; i++) {
        int at = row * SMALL_TARGETS + target + i;
        batch->targets[at] = target_id(seed, example, i, n_targets);
        batch->decoder_inputs[at] = i == 0 ? 0 : batch->targets[at - 1];
        batch->target_segments[at] = segment;
        batch->weights[at] = 1;
    }
}

static void put_palm(sago_batch *batch, int row, int segment, int from, int example, int n_inputs,
                     int n_targets, uint64_t seed) {
    int n = n_inputs + n_targets, at = row * SMALL_LENGTH + from;
    assert_true(n_inputs > 0 && from + n <= SMALL_LENGTH);
    for (int i = 0; i < n; i++, at++) {
        batch->decoder_inputs[at] =
            i < n_inputs ? input_id(seed, example, i) : target_id(seed, example, i - n_inputs, n_targets);
        batch->target_segments[at] = segment;
        batch->prefix[at] = i < n_inputs;
        if (i > 0) batch->targets[at - 1] = batch->decoder_inputs[at];
        batch->weights[at] = i + 1 >= n_inputs && i + 1 < n;
    }
}

sago_batch small_batch(const sago_model_shape *shape, int n_rows, const int rows[], const int inputs[],
                       const int targets[], uint64_t seed) {
    bool palm = sago_model_decoder_only(shape);
    sago_batch batch = {.n_rows = n_rows,
                        .global_rows = n_rows,
                        .input_length = palm ? 0 : SMALL_INPUTS,
                        .target_length = palm ? SMALL_LENGTH : SMALL_TARGETS};
    size_t n_inputs = (size_t)(n_rows * batch.input_length),
           n_targets = (size_t)(n_rows * batch.target_length);
    if (!palm) batch.inputs = calloc(n_inputs, sizeof(int32_t));
    if (!palm) batch.input_segments = calloc(n_inputs, sizeof(int32_t));
    batch.targets = calloc(n_targets, sizeof(int32_t));
    batch.decoder_inputs = calloc(n_targets, sizeof(int32_t));
    batch.target_segments = calloc(n_targets, sizeof(int32_t));
    batch.weights = calloc(n_targets, sizeof(float));
    if (palm) batch.prefix = calloc(n_targets, sizeof(int32_t));
    int example = 0;
    for (int row = 0; row < n_rows; row++) {
        int input = 0, target = 0;
        for (int k = 0; k < rows[row]; k++, example++) {
            if (palm)
                put_palm(&batch, row, k + 1, input + target, example, inputs[example], targets[example],
                         seed);
            else
                put_t5(&batch, row, k + 1, input, target, example, inputs[example], targets[example], seed);
            input += inputs[example], target += targets[example];
            batch.n_target_tokens += targets[example];
            batch.n_examples++;
        }
    }
    batch.global_target_tokens = batch.n_target_tokens;
    return batch;
}

void small_batch_free(sago_batch *batch) {
    free(batch->inputs);
    free(batch->input_segments);
    free(batch->targets);
    free(batch->decoder_inputs);
    free(batch->target_segments);
    free(batch->weights);
    free(batch->prefix);
}

sago_loss_sums small_loss(small_model *small, const sago_batch *batch, int first, int n,
                          const sago_loss_args *args) {
    sago_loss_sums loss = {0};
    must(sago_model_loss(small->model, small->values, small->gradients, batch, first, n, args, &loss));
    return loss;
}
