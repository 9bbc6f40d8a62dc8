// SPDX-License-Identifier: Apache-2.0
/*
 * generate: greedy decoding with the KV cache, T5 v1.1 or PaLM with random weights; no row ends early.
 *
 *     bench_generate [--device cpu] [--family t5] [--size small] [--rows 8] [--inputs 128] [--tokens 64]
 *                    [--threads 2] [--runs 5] [--bf16 0] [--logprobs 0]
 *
 * Prints one JSON object: new tokens a second over all rows (prompts included), milliseconds a decoder step, and
 * on the cpu where the time of one more run goes; what is not in operations of the device's table, the search in
 * the 8-bit copy above all, is "the rest". bandwidth_gb_per_second counts the decoder's weights, read once a
 * step, of the output matrix the copy where steps read that. --logprobs 1 asks for log-probabilities too, and
 * so for all logits. Where the device has graphs, runs with and without them take turns, and the program fails
 * when their tokens differ.
 */
#include "bench.h"
#include "greedy.h"
#include "rng.h"
#include "str.h"
#include "timed_device.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 101 };

/* Bytes of the parameters that every decoder step reads: all blocks of the decoder less the cross keys and
 * values. */
static double bytes_per_step(const sago_registry *registry, bool tied, bool copied, sago_dtype dtype) {
    double bytes = 0;
    for (int p = 0; p < registry->n_params; p++) {
        const sago_param *param = &registry->params[p];
        bool read = sago_starts_with(param->name, "decoder.") &&
                    !strstr(param->name, "cross_attention.key") &&
                    !strstr(param->name, "cross_attention.value");
        bool output = strcmp(param->name, tied ? "shared.embedding" : "output.embedding") == 0;
        double element = output && copied ? 1 : (double)sago_dtype_bytes(dtype);
        if (read || output) bytes += element * (double)(param->global_shape[0] * param->global_shape[1]);
    }
    return bytes;
}

typedef struct bench {
    sago_model *model;
    const void *values;
    int32_t *ids, *lengths;
    double *logprobs;
    int64_t rows, inputs, tokens;
} bench;

static void generate(const bench *b, int64_t tokens, int32_t *out) {
    const sago_generate_args args = {.max_new_tokens = (int)tokens, .eos_id = -1, .sample = {.top_p = 1}};
    bench_check(sago_model_generate(b->model, b->values, b->ids, b->rows, b->inputs, &args, out, b->lengths,
                                    b->logprobs));
}

/* Runs with all tokens and with one, whose difference is the steps'. */
typedef struct times {
    double rates[MAX_RUNS], steps[MAX_RUNS];
} times;

static void time_run(const bench *b, int32_t *out, times *to, int64_t run) {
    int64_t start = bench_now_ns();
    generate(b, 1, out);
    int64_t after_one = bench_now_ns();
    generate(b, b->tokens, out);
    double seconds = (double)(bench_now_ns() - after_one) * 1e-9, first = (double)(after_one - start) * 1e-9;
    to->rates[run] = (double)(b->rows * b->tokens) / seconds;
    to->steps[run] = b->tokens > 1 ? (seconds - first) / (double)(b->tokens - 1) * 1e3 : 0;
}

static void add_times(json_t *json, times *from, int runs, double *step) {
    double rate;
    json_object_set_new(json, "tokens_per_second", bench_summary(from->rates, runs, &rate));
    json_object_set_new(json, "milliseconds_per_step", bench_summary(from->steps, runs, step));
}

/* One more run with a clock around each operation. */
static json_t *parts_of(const bench *b, int32_t *out) {
    double total;
    timed_device_reset();
    int64_t since = bench_now_ns();
    generate(b, b->tokens, out);
    double seconds = (double)(bench_now_ns() - since) * 1e-9 / (double)b->tokens;
    json_t *parts = timed_device_parts((double)b->tokens, &total);
    json_object_set_new(parts, "the rest", json_pack("{s:f}", "seconds", seconds - total));
    return parts;
}

int main(int argc, char **argv) {
    bench b = {.rows = bench_option(argc, argv, "rows", 8),
               .inputs = bench_option(argc, argv, "inputs", 128),
               .tokens = bench_option(argc, argv, "tokens", 64)};
    int64_t runs = bench_option(argc, argv, "runs", 5);
    if (runs < 1 || runs > MAX_RUNS) bench_check(sago_fail(SAGO_E_USAGE, "--runs is from 1 to %d", MAX_RUNS));
    sago_model_shape shape =
        bench_shape(bench_text(argc, argv, "family", "t5"), bench_text(argc, argv, "size", "small"));
    sago_registry registry = {0};
    bench_check(sago_model_declare(&shape, &registry));
    bench_check(sago_registry_shard(&registry, NULL, 0, 0, 1));
    sago_device *real;
    bench_check(sago_device_open(bench_text(argc, argv, "device", "cpu"), bench_threads(argc, argv), &real));
    sago_device *device = real->asynchronous ? real : timed_device_open(real, shape.vocab_size);
    bool bf16 = bench_option(argc, argv, "bf16", 0) != 0;
    sago_dtype dtype = bf16 && device->stores_bf16 ? SAGO_BF16 : SAGO_F32;
    sago_weights weights;
    bench_check(sago_weights_open(&registry, device, dtype, false, &weights));
    bench_check(sago_weights_initialise(&weights, 1));
    const sago_model_options options = {.max_rows = b.rows,
                                        .input_length = b.inputs,
                                        .target_length = 1,
                                        .dtype = dtype,
                                        .bf16 = bf16 && !device->stores_bf16,
                                        .loss_chunk_tokens = 32,
                                        .generate_rows = b.rows,
                                        .generate_inputs = b.inputs,
                                        .generate_tokens = b.tokens};
    bench_check(sago_model_open(&shape, &registry, device, NULL, &options, &b.model));
    size_t n_out = (size_t)(b.rows * b.tokens);
    int32_t *out = sago_alloc_zero(n_out, sizeof *out), *plain = sago_alloc_zero(n_out, sizeof *plain);
    b.values = weights.values;
    b.ids = sago_alloc_zero((size_t)(b.rows * b.inputs), sizeof *b.ids);
    b.lengths = sago_alloc_zero((size_t)b.rows, sizeof *b.lengths);
    for (int64_t i = 0; i < b.rows * b.inputs; i++)
        b.ids[i] = 2 + (int32_t)sago_below(sago_mix(1, (uint64_t)i), (uint64_t)shape.vocab_size - 2);
    if (bench_option(argc, argv, "logprobs", 0)) b.logprobs = sago_alloc_zero((size_t)b.rows, sizeof *b.logprobs);

    const sago_graph_ops *graphs = device->graphs;
    static times usual, one_by_one;
    generate(&b, b.tokens, out);
    for (int64_t run = 0; run < runs; run++) {
        device->graphs = graphs;
        time_run(&b, out, &usual, run);
        device->graphs = NULL;
        if (graphs) time_run(&b, plain, &one_by_one, run);
        if (graphs && memcmp(out, plain, n_out * sizeof *out) != 0)
            bench_check(sago_fail(SAGO_E_INTERNAL, "generate: tokens of steps launched as graphs differ"));
    }
    bool copied = !b.logprobs && !bf16 && !device->asynchronous && b.rows <= SAGO_GREEDY_ROWS;
    double step, other;
    json_t *json = json_object();
    json_object_set_new(json, "command", bench_command(argc, argv));
    json_object_set_new(json, "device", json_string(real->description));
    add_times(json, &usual, (int)runs, &step);
    if (graphs) {
        json_t *without = json_object();
        add_times(without, &one_by_one, (int)runs, &other);
        json_object_set_new(json, "without_graphs", without);
    }
    json_object_set_new(
        json, "bandwidth_gb_per_second",
        json_real(bytes_per_step(&registry, shape.tied_embeddings, copied, dtype) / (step * 1e6)));
    json_object_set_new(json, "peak_memory_mib", json_real(bench_peak_mib()));
    if (!device->asynchronous) json_object_set_new(json, "parts_per_token", parts_of(&b, out));
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    sago_model_close(b.model);
    return 0;
}
