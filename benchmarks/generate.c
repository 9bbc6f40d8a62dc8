// SPDX-License-Identifier: Apache-2.0
/*
 * generate: greedy decoding with the KV cache, T5 v1.1 with random weights; no row ends early.
 *
 *     bench_generate [--size small] [--rows 8] [--inputs 128] [--tokens 64] [--threads 2] [--runs 5]
 *                    [--bf16 0] [--logprobs 0]
 *
 * Prints one JSON object: new tokens a second over all rows (encoder included), milliseconds a decoder step,
 * and where the time of one more run goes; what is not in operations of the device's table, the search in the
 * 8-bit copy above all, is "the rest". bandwidth_gb_per_second counts the decoder's weights, read once a
 * step, of the output matrix the copy where steps read that. --logprobs 1 asks for log-probabilities too, and
 * so for all logits.
 */
#include "bench.h"
#include "greedy.h"
#include "rng.h"
#include "str.h"
#include "timed_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 101 };

/* Bytes of the parameters that every decoder step reads: all blocks of the decoder less the cross keys and
 * values. */
static double bytes_per_step(const sago_registry *registry, bool tied, bool copied) {
    double bytes = 0;
    for (int p = 0; p < registry->n_params; p++) {
        const sago_param *param = &registry->params[p];
        bool read = sago_starts_with(param->name, "decoder.") &&
                    !strstr(param->name, "cross_attention.key") &&
                    !strstr(param->name, "cross_attention.value");
        bool output = strcmp(param->name, tied ? "shared.embedding" : "output.embedding") == 0;
        double element = output && copied ? 1 : 4;
        if (read || output) bytes += element * (double)(param->global_shape[0] * param->global_shape[1]);
    }
    return bytes;
}

int main(int argc, char **argv) {
    int64_t rows = bench_option(argc, argv, "rows", 8), inputs = bench_option(argc, argv, "inputs", 128);
    int64_t tokens = bench_option(argc, argv, "tokens", 64), runs = bench_option(argc, argv, "runs", 5);
    if (runs < 1 || runs > MAX_RUNS) bench_check(sago_fail(SAGO_E_USAGE, "--runs is from 1 to %d", MAX_RUNS));
    sago_model_shape shape = bench_shape("t5", bench_text(argc, argv, "size", "small"));
    sago_registry registry = {0};
    bench_check(sago_model_declare(&shape, &registry));
    bench_check(sago_registry_shard(&registry, NULL, 0, 0, 1));
    sago_device *real;
    bench_check(sago_device_open("cpu", bench_threads(argc, argv), &real));
    sago_device *device = timed_device_open(real, shape.vocab_size);
    size_t bytes = (size_t)registry.n_elements * sizeof(float);
    float *values, *host = sago_alloc(bytes);
    bench_check(device->ops->allocate(device, (void **)&values, bytes));
    sago_registry_initialise(&registry, 1, host);
    bench_check(device->ops->upload(device, values, host, bytes));
    free(host);
    const sago_model_options options = {.max_rows = rows,
                                        .input_length = inputs,
                                        .target_length = 1,
                                        .bf16 = bench_option(argc, argv, "bf16", 0) != 0,
                                        .loss_chunk_tokens = 32,
                                        .generate_rows = rows,
                                        .generate_inputs = inputs,
                                        .generate_tokens = tokens};
    sago_model *model;
    bench_check(sago_model_open(&shape, &registry, device, NULL, &options, &model));
    int32_t *ids = sago_alloc_zero((size_t)(rows * inputs), sizeof *ids);
    int32_t *out = sago_alloc_zero((size_t)(rows * tokens), sizeof *out);
    int32_t *lengths = sago_alloc_zero((size_t)rows, sizeof *lengths);
    for (int64_t i = 0; i < rows * inputs; i++)
        ids[i] = 2 + (int32_t)sago_below(sago_mix(1, (uint64_t)i), (uint64_t)shape.vocab_size - 2);
    double *logprobs =
        bench_option(argc, argv, "logprobs", 0) ? sago_alloc_zero((size_t)rows, sizeof *logprobs) : NULL;
    const sago_generate_args whole = {.max_new_tokens = (int)tokens, .eos_id = -1, .sample = {.top_p = 1}};
    const sago_generate_args one = {.max_new_tokens = 1, .eos_id = -1, .sample = {.top_p = 1}};
    double rates[MAX_RUNS], steps[MAX_RUNS], rate, step, total;
    bench_check(sago_model_generate(model, values, ids, rows, inputs, &whole, out, lengths, logprobs));
    for (int64_t run = 0; run < runs; run++) {
        int64_t start = bench_now_ns();
        bench_check(sago_model_generate(model, values, ids, rows, inputs, &one, out, lengths, logprobs));
        int64_t after_one = bench_now_ns();
        bench_check(sago_model_generate(model, values, ids, rows, inputs, &whole, out, lengths, logprobs));
        double seconds = (double)(bench_now_ns() - after_one) * 1e-9,
               first = (double)(after_one - start) * 1e-9;
        rates[run] = (double)(rows * tokens) / seconds;
        steps[run] = tokens > 1 ? (seconds - first) / (double)(tokens - 1) * 1e3 : 0;
    }
    timed_device_reset();
    int64_t since = bench_now_ns();
    bench_check(sago_model_generate(model, values, ids, rows, inputs, &whole, out, lengths, logprobs));
    double seconds = (double)(bench_now_ns() - since) * 1e-9 / (double)tokens;
    json_t *parts = timed_device_parts((double)tokens, &total);
    json_object_set_new(parts, "the rest", json_pack("{s:f}", "seconds", seconds - total));
    bool copied = !logprobs && !options.bf16 && rows <= SAGO_GREEDY_ROWS;
    json_t *json = json_object();
    json_object_set_new(json, "command", bench_command(argc, argv));
    json_object_set_new(json, "device", json_string(real->description));
    json_object_set_new(json, "tokens_per_second", bench_summary(rates, (int)runs, &rate));
    json_object_set_new(json, "milliseconds_per_step", bench_summary(steps, (int)runs, &step));
    json_object_set_new(json, "bandwidth_gb_per_second",
                        json_real(bytes_per_step(&registry, shape.tied_embeddings, copied) / (step * 1e6)));
    json_object_set_new(json, "peak_memory_mib", json_real(bench_peak_mib()));
    json_object_set_new(json, "parts_per_token", parts);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    sago_model_close(model);
    return 0;
}
