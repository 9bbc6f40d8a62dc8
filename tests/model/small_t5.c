// SPDX-License-Identifier: Apache-2.0
#include "small_t5.h"

#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

sago_model_shape small_shape(bool version_1_1) {
    sago_model_shape shape = {.family = "t5",
                              .vocab_size = 53,
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
    sago_model_shape_complete(&shape);
    return shape;
}

static void must(sago_status status) {
    if (status != SAGO_OK) fail_msg("%s", sago_message());
}

void small_open(small_t5 *t5, bool version_1_1, small_options options) {
    *t5 = (small_t5){.shape = small_shape(version_1_1)};
    must(sago_model_declare(&t5->shape, &t5->registry));
    must(sago_registry_shard(&t5->registry, NULL, 0, 0, 1));
    must(sago_device_open("cpu", options.threads ? options.threads : 2, &t5->device));
    size_t bytes = (size_t)t5->registry.n_elements * sizeof(float);
    t5->values = malloc(bytes);
    t5->gradients = calloc(1, bytes);
    sago_registry_initialise(&t5->registry, options.seed ? (uint64_t)options.seed : 17, t5->values);
    for (int p = 0; p < t5->registry.n_params; p++) {
        /* Norm scales away from one, so that their place in the formulas shows. */
        const sago_param *param = &t5->registry.params[p];
        for (int64_t i = 0; param->n_dims == 1 && i < param->local_shape[0]; i++)
            t5->values[param->offset + i] += 0.4f * (float)sago_unit(sago_mix((uint64_t)p, (uint64_t)i));
    }
    const sago_model_options model = {.max_rows = options.max_rows ? options.max_rows : 4,
                                      .input_length = SMALL_INPUTS,
                                      .target_length = SMALL_TARGETS,
                                      .training = !options.inference,
                                      .recompute = options.recompute,
                                      .loss_chunk_tokens = options.chunk ? options.chunk : 7,
                                      .generate_rows = SMALL_GENERATE_ROWS,
                                      .generate_inputs = SMALL_INPUTS,
                                      .generate_tokens = SMALL_GENERATE_TOKENS};
    must(sago_model_open(&t5->shape, &t5->registry, t5->device, NULL, &model, &t5->model));
}

void small_close(small_t5 *t5) {
    sago_model_close(t5->model);
    sago_device_close(t5->device);
    sago_registry_free(&t5->registry);
    free(t5->values);
    free(t5->gradients);
}

void small_clear_gradients(small_t5 *t5) {
    memset(t5->gradients, 0, (size_t)t5->registry.n_elements * sizeof *t5->gradients);
}

reference small_reference(const small_t5 *t5) {
    reference r = {.shape = t5->shape, .registry = &t5->registry};
    r.values = malloc((size_t)t5->registry.n_elements * sizeof *r.values);
    for (int64_t i = 0; i < t5->registry.n_elements; i++) r.values[i] = (double)t5->values[i];
    return r;
}

sago_batch small_batch(int n_rows, const int rows[], const int inputs[], const int targets[], uint64_t seed) {
    sago_batch batch = {.n_rows = n_rows,
                        .global_rows = n_rows,
                        .input_length = SMALL_INPUTS,
                        .target_length = SMALL_TARGETS};
    size_t n_inputs = (size_t)(n_rows * SMALL_INPUTS), n_targets = (size_t)(n_rows * SMALL_TARGETS);
    batch.inputs = calloc(n_inputs, sizeof(int32_t));
    batch.input_segments = calloc(n_inputs, sizeof(int32_t));
    batch.targets = calloc(n_targets, sizeof(int32_t));
    batch.decoder_inputs = calloc(n_targets, sizeof(int32_t));
    batch.target_segments = calloc(n_targets, sizeof(int32_t));
    batch.weights = calloc(n_targets, sizeof(float));
    int example = 0;
    for (int row = 0; row < n_rows; row++) {
        int input = 0, target = 0;
        for (int k = 0; k < rows[row]; k++, example++) {
            assert_true(input + inputs[example] <= SMALL_INPUTS &&
                        target + targets[example] <= SMALL_TARGETS);
            for (int i = 0; i < inputs[example]; i++, input++) {
                uint64_t draw = sago_mix(sago_mix(seed, (uint64_t)example), (uint64_t)i);
                batch.inputs[row * SMALL_INPUTS + input] = 2 + (int32_t)sago_below(draw, 51);
                batch.input_segments[row * SMALL_INPUTS + input] = k + 1;
            }
            for (int i = 0; i < targets[example]; i++, target++) {
                int at = row * SMALL_TARGETS + target;
                uint64_t draw = sago_mix(sago_mix(seed + 1, (uint64_t)example), (uint64_t)i);
                batch.targets[at] = i + 1 == targets[example] ? 1 : 2 + (int32_t)sago_below(draw, 51);
                batch.decoder_inputs[at] = i == 0 ? 0 : batch.targets[at - 1];
                batch.target_segments[at] = k + 1;
                batch.weights[at] = 1;
                batch.n_target_tokens++;
            }
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
}

sago_loss_sums small_loss(small_t5 *t5, const sago_batch *batch, int first, int n,
                          const sago_loss_args *args) {
    sago_loss_sums loss = {0};
    must(sago_model_loss(t5->model, t5->values, t5->gradients, batch, first, n, args, &loss));
    return loss;
}
