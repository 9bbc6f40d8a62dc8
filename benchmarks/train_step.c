// SPDX-License-Identifier: Apache-2.0
/*
 * train_step: one whole training step of T5 v1.1 or PaLM, from token ids to updated weights.
 *
 *     bench_train_step [--device cpu] [--size small] [--rows 4] [--inputs 512] [--targets 128] [--segments 1]
 *                      [--threads 2] [--steps 11] [--micro-batch 0] [--recompute 0] [--bf16 0] [--dropout-percent 5]
 *                      [--chunk 512]
 *     bench_train_step --family palm [--size d1024] [--rows 1] [--tokens 1024] ...
 *
 * Weights and ids are random, rows are full; with --segments each row holds so many examples of equal length. PaLM
 * learns the next token of a row's every one. mfu, on a GPU: FLOPs of the products over the maker's dense bf16 speed.
 * On the cpu the GEMM ceiling is measured before every step, so that share_of_gemm_ceiling compares two things
 * of the same moments. Prints one JSON object; parts come from a few more steps with a clock around each
 * operation.
 */
#include "bench.h"
#include "config.h"
#include "optimizer.h"
#include "rng.h"
#include "str.h"
#include "timed_device.h"
#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 201, PROFILED_STEPS = 3 };

typedef struct bench {
    sago_model_shape shape;
    sago_registry registry;
    sago_device *device;
    sago_model *model;
    sago_optimizer *optimizer;
    sago_config *config;
    sago_batch batch;
    sago_weights weights;
    float *gradients;
    sago_step_state *state;
    int64_t micro_batch, step;
    float dropout;
    double loss;
} bench;

static int32_t random_id(uint64_t key, int64_t i, int64_t vocabulary) {
    return 2 + (int32_t)sago_below(sago_mix(key, (uint64_t)i), (uint64_t)vocabulary - 2);
}

/* Rows full of examples of equal length. */
static sago_batch make_batch(int64_t rows, int64_t inputs, int64_t targets, int64_t segments,
                             int64_t vocabulary) {
    sago_batch batch = {
        .n_rows = rows, .global_rows = rows, .input_length = inputs, .target_length = targets};
    batch.inputs = sago_alloc_zero((size_t)(rows * inputs), sizeof(int32_t));
    batch.input_segments = sago_alloc_zero((size_t)(rows * inputs), sizeof(int32_t));
    batch.targets = sago_alloc_zero((size_t)(rows * targets), sizeof(int32_t));
    batch.decoder_inputs = sago_alloc_zero((size_t)(rows * targets), sizeof(int32_t));
    batch.target_segments = sago_alloc_zero((size_t)(rows * targets), sizeof(int32_t));
    batch.weights = sago_alloc_zero((size_t)(rows * targets), sizeof(float));
    for (int64_t i = 0; i < rows * inputs; i++) {
        batch.inputs[i] = random_id(1, i, vocabulary);
        batch.input_segments[i] = 1 + (int32_t)(i % inputs * segments / inputs);
    }
    for (int64_t i = 0; i < rows * targets; i++) {
        batch.targets[i] = random_id(2, i, vocabulary);
        batch.target_segments[i] = 1 + (int32_t)(i % targets * segments / targets);
        bool starts = i % targets == 0 || batch.target_segments[i] != batch.target_segments[i - 1];
        batch.decoder_inputs[i] = starts ? 0 : batch.targets[i - 1];
        batch.weights[i] = 1;
    }
    batch.global_target_tokens = batch.n_target_tokens = rows * targets;
    return batch;
}

/* The same for a decoder alone: the first token of an example is given, each predicts the next (batch.h). */
static sago_batch make_decoder_batch(int64_t rows, int64_t tokens, int64_t segments, int64_t vocabulary) {
    sago_batch batch = {.n_rows = rows, .global_rows = rows, .target_length = tokens};
    size_t n = (size_t)(rows * tokens);
    batch.targets = sago_alloc_zero(n, sizeof(int32_t));
    batch.decoder_inputs = sago_alloc_zero(n, sizeof(int32_t));
    batch.target_segments = sago_alloc_zero(n, sizeof(int32_t));
    batch.prefix = sago_alloc_zero(n, sizeof(int32_t));
    batch.weights = sago_alloc_zero(n, sizeof(float));
    for (int64_t i = 0; i < rows * tokens; i++) {
        int64_t at = i % tokens;
        int32_t segment = 1 + (int32_t)(at * segments / tokens);
        batch.decoder_inputs[i] = random_id(2, i, vocabulary);
        batch.target_segments[i] = segment;
        batch.prefix[i] = at == 0 || batch.target_segments[i - 1] != segment;
        if (batch.prefix[i]) continue;
        batch.targets[i - 1] = batch.decoder_inputs[i];
        batch.weights[i - 1] = 1;
        batch.n_target_tokens++;
    }
    batch.global_target_tokens = batch.n_target_tokens;
    return batch;
}

/* Of the products of a step. */
static double count_flops(const bench *b, int64_t inputs, int64_t targets, int64_t segments) {
    double examples = (double)(b->batch.n_rows * segments);
    double length = (double)b->batch.target_length / (double)segments, pairs = examples * length * (length + 1) / 2;
    int64_t rows = b->batch.n_rows;
    if (sago_model_decoder_only(&b->shape)) {
        int64_t predicted = b->batch.n_target_tokens;
        return sago_model_flops(&b->shape, rows * b->batch.target_length - predicted, predicted, 0, pairs, 0);
    }
    return sago_model_flops(&b->shape, rows * inputs, rows * targets, examples * pow((double)inputs / (double)segments, 2),
                            pairs, (double)(rows * inputs) * length);
}

static void step(bench *b) {
    const sago_batch *batch = &b->batch;
    sago_tensor gradients = sago_tensor_1d(b->gradients, SAGO_F32, b->registry.n_elements);
    bench_check(b->device->ops->fill(b->device, gradients, 0));
    const sago_loss_args args = {.dropout = b->dropout,
                                 .dropout_key = sago_mix(3, (uint64_t)b->step),
                                 .z_loss = 1e-4f,
                                 .scale = 1.0 / (double)batch->global_target_tokens};
    sago_step_state *state = b->state;
    bench_check(
        b->device->ops->fill(b->device, sago_tensor_1d(&state->sums, SAGO_F32, sizeof state->sums / 4), 0));
    for (int64_t first = 0; first < batch->n_rows; first += b->micro_batch) {
        int64_t rows = batch->n_rows - first < b->micro_batch ? batch->n_rows - first : b->micro_batch;
        bench_check(sago_model_loss(b->model, b->weights.values, b->gradients, batch, first, rows, &args,
                                    &state->sums));
    }
    bench_check(b->device->ops->sum_squares(b->device, &state->squares, &gradients, 1));
    bench_check(b->device->ops->step_control(b->device, &state->control, &state->squares, &state->sums, 1));
    bench_check(
        sago_optimizer_step(b->optimizer, &b->weights, b->gradients, ++b->step, 1e-3, &state->control));
    sago_loss_sums sums;
    bench_check(b->device->ops->download(b->device, &sums, &state->sums, sizeof sums));
    b->loss = sums.nll * args.scale;
}

static void open_all(bench *b, sago_device *device, const sago_model_options *options) {
    b->device = device;
    bench_check(sago_model_declare(&b->shape, &b->registry));
    bench_check(sago_registry_shard(&b->registry, NULL, 0, 0, 1));
    size_t bytes = (size_t)b->registry.n_elements * sizeof(float);
    bench_check(sago_weights_open(&b->registry, device, options->dtype, true, &b->weights));
    bench_check(device->ops->allocate(device, (void **)&b->gradients, bytes));
    bench_check(device->ops->allocate(device, (void **)&b->state, sizeof *b->state));
    bench_check(sago_weights_initialise(&b->weights, 1));
    bench_check(sago_model_open(&b->shape, &b->registry, device, NULL, options, &b->model));
    bench_check(sago_config_load(NULL, NULL, 0, &b->config));
    bench_check(sago_optimizer_open(b->config, &b->registry, NULL, device, &b->optimizer));
}

/* A few more steps with a clock around each operation. */
static void add_parts(bench *b, json_t *out) {
    timed_device_reset();
    int64_t since = bench_now_ns();
    for (int i = 0; i < PROFILED_STEPS; i++) step(b);
    double profiled = (double)(bench_now_ns() - since) * 1e-9 / PROFILED_STEPS, in_parts;
    json_t *parts = timed_device_parts(PROFILED_STEPS, &in_parts);
    json_object_set_new(out, "profiled_seconds_per_step", json_real(profiled));
    json_object_set_new(out, "outside_operations_seconds", json_real(profiled - in_parts));
    json_object_set_new(out, "parts", parts);
}

int main(int argc, char **argv) {
    const char *family = bench_text(argc, argv, "family", "t5");
    bool palm = strcmp(family, "palm") == 0;
    int64_t tokens = bench_option(argc, argv, "tokens", 1024), rows = bench_option(argc, argv, "rows", palm ? 1 : 4);
    int64_t inputs = palm ? 1 : bench_option(argc, argv, "inputs", 512);
    int64_t targets = palm ? tokens - 1 : bench_option(argc, argv, "targets", 128);
    int64_t segments = bench_option(argc, argv, "segments", 1);
    int64_t steps = bench_option(argc, argv, "steps", 11),
            micro_batch = bench_option(argc, argv, "micro-batch", 0);
    if (steps < 1 || steps > MAX_STEPS)
        bench_check(sago_fail(SAGO_E_USAGE, "--steps is from 1 to %d", MAX_STEPS));
    bench b = {.shape = bench_shape(family, bench_text(argc, argv, "size", palm ? "d1024" : "small")),
               .micro_batch = micro_batch > 0 ? micro_batch : rows,
               .dropout = (float)bench_option(argc, argv, "dropout-percent", 5) / 100};
    sago_device *device;
    bench_check(
        sago_device_open(bench_text(argc, argv, "device", "cpu"), bench_threads(argc, argv), &device));
    bool bf16 = bench_option(argc, argv, "bf16", 0) != 0;
    const sago_model_options options = {.max_rows = b.micro_batch,
                                        .dtype = bf16 && device->stores_bf16 ? SAGO_BF16 : SAGO_F32,
                                        .input_length = inputs,
                                        .target_length = targets,
                                        .training = true,
                                        .recompute = bench_option(argc, argv, "recompute", 0) != 0,
                                        .bf16 = bf16 && !device->stores_bf16,
                                        .loss_chunk_tokens = bench_option(argc, argv, "chunk", 512)};
    b.batch = palm ? make_decoder_batch(rows, tokens, segments, b.shape.vocab_size)
                   : make_batch(rows, inputs, targets, segments, b.shape.vocab_size);
    /* Where operations return before they are done, a clock around each says nothing. */
    bool parts_wanted = !device->asynchronous;
    open_all(&b, parts_wanted ? timed_device_open(device, b.shape.vocab_size) : device, &options);

    double flops = count_flops(&b, inputs, targets, segments);
    double seconds[MAX_STEPS], ceilings[MAX_STEPS], shares[MAX_STEPS];
    step(&b); /* touches all memory, makes oneDNN's primitives */
    for (int64_t i = 0; i < steps; i++) {
        ceilings[i] = device->asynchronous ? 0 : bench_ceiling(device);
        int64_t since = bench_now_ns();
        step(&b);
        seconds[i] = (double)(bench_now_ns() - since) * 1e-9;
        shares[i] = device->asynchronous ? 0 : flops / seconds[i] / (ceilings[i] * 1e9);
    }
    double median, ceiling, share;
    json_t *out = json_object();
    json_object_set_new(out, "command", bench_command(argc, argv));
    json_object_set_new(out, "device", json_string(device->description));
    json_object_set_new(out, "parameters", json_integer(b.registry.n_global_elements));
    json_object_set_new(out, "seconds_per_step", bench_summary(seconds, (int)steps, &median));
    if (!device->asynchronous) {
        json_object_set_new(out, "gemm_ceiling_gflops", bench_summary(ceilings, (int)steps, &ceiling));
        json_object_set_new(out, "share_of_gemm_ceiling", bench_summary(shares, (int)steps, &share));
    }
    json_object_set_new(out, "gflop_per_step", json_real(flops * 1e-9));
    json_object_set_new(out, "rows_per_second", json_real((double)rows / median));
    if (device->peak_flops > 0) json_object_set_new(out, "mfu", json_real(flops / median / device->peak_flops));
    json_object_set_new(out, "tokens_per_second", json_real((double)(rows * (inputs + targets)) / median));
    json_object_set_new(out, "activation_mib", json_real((double)sago_model_bytes(b.model) / 1048576));
    json_object_set_new(out, "peak_memory_mib", json_real(bench_peak_mib()));
    json_object_set_new(out, "loss", json_real(b.loss));
    if (parts_wanted) add_parts(&b, out);
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(out);
    return 0;
}
