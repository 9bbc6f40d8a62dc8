// SPDX-License-Identifier: Apache-2.0
#include "bench.h"

#include "ceiling.h"
#include "log.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool processor_time;

const char *bench_text(int argc, char **argv, const char *name, const char *fallback) {
    for (int i = 1; i + 1 < argc; i++)
        if (sago_starts_with(argv[i], "--") && strcmp(argv[i] + 2, name) == 0) return argv[i + 1];
    return fallback;
}

int64_t bench_option(int argc, char **argv, const char *name, int64_t fallback) {
    const char *text = bench_text(argc, argv, name, NULL);
    return text ? strtoll(text, NULL, 10) : fallback;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

json_t *bench_summary(double values[], int n, double *median) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    *median = values[n / 2];
    return json_pack("{s:f, s:f, s:f, s:i}", "median", values[n / 2], "low", values[n / 4], "high",
                     values[n * 3 / 4], "runs", n);
}

double bench_peak_mib(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sago_starts_with(line, "VmHWM:")) kib = strtod(line + 6, NULL);
    if (file) fclose(file);
    return kib / 1024;
}

sago_model_shape bench_shape(const char *size) {
    sago_model_shape shape = {.family = "t5",
                              .vocab_size = 32128,
                              .d_model = 512,
                              .n_heads = 6,
                              .head_dim = 64,
                              .d_ff = 1024,
                              .encoder_layers = 8,
                              .decoder_layers = 8,
                              .activation = SAGO_GATED_GELU,
                              .relative_buckets = 32,
                              .relative_max_distance = 128,
                              .norm_epsilon = 1e-6f};
    sago_model_shape_complete(&shape);
    if (strcmp(size, "small") == 0) return shape;
    static const struct {
        const char *name;
        int64_t d_model, n_heads, d_ff, layers;
    } sizes[] = {
        {"tiny", 64, 1, 128, 2}, /* not a published one: to see that a program runs */
        {"base", 768, 12, 2048, 12},
        {"large", 1024, 16, 2816, 24},
        {"xl", 2048, 32, 5120, 24},
    };
    size_t i = 0;
    while (i < sizeof sizes / sizeof sizes[0] && strcmp(size, sizes[i].name) != 0) i++;
    if (i == sizeof sizes / sizeof sizes[0])
        bench_check(sago_fail(SAGO_E_USAGE, "--size is tiny, small, base, large or xl"));
    shape.d_model = sizes[i].d_model, shape.n_heads = shape.kv_heads = sizes[i].n_heads, shape.d_ff = sizes[i].d_ff;
    shape.encoder_layers = shape.decoder_layers = sizes[i].layers;
    if (strcmp(size, "tiny") == 0) shape.vocab_size = 512;
    return shape;
}

void bench_check(sago_status status) {
    if (status == SAGO_OK) return;
    sago_error_line(sago_message());
    exit(1);
}

json_t *bench_command(int argc, char **argv) {
    sago_str text = {0};
    for (int i = 0; i < argc; i++) sago_str_printf(&text, "%s%s", i ? " " : "", argv[i]);
    json_t *json = json_string(sago_str_text(&text));
    sago_str_free(&text);
    return json;
}

int bench_threads(int argc, char **argv) {
    int threads = (int)bench_option(argc, argv, "threads", 2);
    processor_time = bench_option(argc, argv, "processor-time", 0) != 0;
    if (processor_time && threads != 1)
        bench_check(sago_fail(SAGO_E_USAGE, "--processor-time 1 measures one thread: add --threads 1"));
    return threads;
}

int64_t bench_now_ns(void) {
    if (!processor_time) return sago_now_ns();
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What sago_device_measure_gemm does, by the other clock. */
static double ceiling_by_processor_time(sago_device *device) {
    enum { N = 1024, RUNS = 9 };
    static float *a, *b, *c;
    double seconds[RUNS];
    if (!a) {
        a = sago_alloc(sizeof *a * N * N), b = sago_alloc(sizeof *b * N * N),
        c = sago_alloc(sizeof *c * N * N);
        for (int i = 0; i < N * N; i++) a[i] = (float)(i % 17) - 8, b[i] = (float)(i % 13) - 6;
    }
    const sago_matmul_args args = {.alpha = 1};
    for (int run = 0; run < RUNS; run++) {
        int64_t since = bench_now_ns();
        bench_check(device->ops->matmul(device, sago_tensor_2d(c, SAGO_F32, N, N),
                                        sago_tensor_2d(a, SAGO_F32, N, N), sago_tensor_2d(b, SAGO_F32, N, N),
                                        &args));
        seconds[run] = (double)(bench_now_ns() - since) * 1e-9;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return 2.0 * N * N * N / seconds[RUNS / 2] * 1e-9;
}

double bench_ceiling(sago_device *device) {
    double gflops;
    if (processor_time) return ceiling_by_processor_time(device);
    bench_check(sago_device_measure_gemm(device, &gflops));
    return gflops;
}
