// SPDX-License-Identifier: Apache-2.0
#include "ceiling.h"
#include "cli.h"
#include "json.h"

#include <stdio.h>
#include <string.h>

/* Squares, and the products of T5 v1.1 small: MLP, its gradient's transpose would be alike, logits, decoding.
 */
static const struct {
    const char *name;
    int64_t m, n, k;
} products[] = {
    {"square 512", 512, 512, 512},
    {"square 1024", 1024, 1024, 1024},
    {"square 1536", 1536, 1536, 1536},
    {"square 2048", 2048, 2048, 2048},
    {"2048 tokens, MLP", 2048, 1024, 512},
    {"512 tokens, logits", 512, 32128, 512},
    {"decoding, batch 8", 8, 1024, 512},
    {"square 8192", 8192, 8192, 8192}, /* the next two on GPUs alone */
    {"8192 tokens, MLP of XL", 8192, 5120, 2048},
};

enum { N_PRODUCTS = sizeof products / sizeof products[0], N_FOR_GPUS = 2, COPY_MIB = 256 };

static json_t *rate_json(const sago_rate *rate) {
    return json_pack("{s:f, s:f, s:f, s:i}", "median", rate->median, "low", rate->low, "high", rate->high,
                     "calls", rate->calls);
}

static void print_rate(const char *name, const sago_rate *rate, const char *unit) {
    printf("%-28s %10.1f %10.1f %10.1f  %s\n", name, rate->median, rate->low, rate->high, unit);
}

static sago_status bench_products(sago_device *device, bool bf16, double seconds, bool json, json_t *out) {
    double best = 0;
    json_t *list = json_array();
    json_object_set_new(out, bf16 ? "matmul_bf16_gflops" : "matmul_f32_gflops", list);
    int n = N_PRODUCTS - (strcmp(device->name, "cuda") == 0 ? 0 : N_FOR_GPUS);
    for (int i = 0; i < n; i++) {
        sago_rate rate;
        SAGO_TRY(sago_device_measure_product(device, products[i].m, products[i].n, products[i].k, bf16,
                                             seconds, &rate));
        if (rate.median > best) best = rate.median;
        char name[64];
        snprintf(name, sizeof name, "%s %s", bf16 ? "bf16" : "fp32", products[i].name);
        if (!json) print_rate(name, &rate, "GFLOP/s");
        json_t *row = rate_json(&rate);
        json_object_set_new(row, "name", json_string(products[i].name));
        json_object_set_new(row, "m", json_integer(products[i].m));
        json_object_set_new(row, "n", json_integer(products[i].n));
        json_object_set_new(row, "k", json_integer(products[i].k));
        json_array_append_new(list, row);
        fflush(stdout);
    }
    json_object_set_new(out, bf16 ? "ceiling_bf16_gflops" : "ceiling_f32_gflops", json_real(best));
    if (!json) printf("%-28s %10.1f %32s\n", bf16 ? "bf16 ceiling" : "fp32 ceiling", best, "GFLOP/s");
    return SAGO_OK;
}

static sago_status bench_device(sago_device *device, double seconds, bool json, json_t *out) {
    json_object_set_new(out, "device", json_string(device->description));
    json_object_set_new(out, "threads", json_integer(device->n_threads));
    if (!json) printf("%s\n%-28s %10s %10s %10s\n", device->description, "", "median", "low", "high");
    SAGO_TRY(bench_products(device, false, seconds, json, out));
    if (device->has_bf16) SAGO_TRY(bench_products(device, true, seconds, json, out));
    sago_rate rate;
    SAGO_TRY(sago_device_measure_copy(device, (size_t)COPY_MIB << 20, seconds, &rate));
    if (!json) print_rate("copy 256 MiB", &rate, "GB/s read + written");
    json_object_set_new(out, "copy_gb_per_second", rate_json(&rate));
    return SAGO_OK;
}

static sago_status run(const sago_arguments *arguments) {
    int64_t threads, milliseconds;
    SAGO_TRY(sago_argument_int(arguments, "--threads", 0, 0, 4096, &threads));
    SAGO_TRY(sago_argument_int(arguments, "--milliseconds", 300, 1, 60000, &milliseconds));
    const char *name = sago_argument(arguments, "--device");
    bool json = sago_argument_switch(arguments, "--json");
    sago_device *device;
    SAGO_TRY(sago_device_open(name ? name : "auto", (int)threads, &device));
    json_t *out = json_object();
    sago_status status = bench_device(device, (double)milliseconds * 1e-3, json, out);
    if (status == SAGO_OK && json) {
        sago_str text = {0};
        sago_json_add(&text, out, 6);
        printf("%s\n", sago_str_text(&text));
        sago_str_free(&text);
    }
    json_decref(out);
    sago_device_close(device);
    return status;
}

const sago_command sago_command_bench = {
    .name = "bench",
    .summary = "measures this machine's ceilings: matrix products and copy bandwidth",
    .usage = "sago bench [--device NAME] [--threads N] [--milliseconds N] [--json]",
    .details =
        "Multiplies matrices of several shapes with the device's own operation, in fp32 and in bf16 where "
        "the "
        "device has it, and copies memory. Prints the median and the quartiles of single calls; the ceiling "
        "is "
        "the best median. MFU in the training log is a share of the fp32 ceiling. Run it on an idle machine.",
    .example = "sago bench --threads 2",
    .options = (const sago_option[]){{"--device", "NAME", "The device: auto or cpu (default auto)", false},
                                     {"--threads", "N", "Threads; 0 for all cores (default 0)", false},
                                     {"--milliseconds", "N", "Time of each measurement (default 300)", false},
                                     {"--json", NULL, "Prints one JSON object", false},
                                     {NULL}},
    .run = run,
};
