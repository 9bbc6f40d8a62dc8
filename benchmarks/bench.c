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

static const struct named_shape {
    const char *family, *size;
    int64_t vocab_size, d_model, n_heads, head_dim, d_ff, layers;
} shapes[] = {
    /* tiny is not a published one: to see that a program runs */
    {"t5", "tiny", 512, 64, 1, 64, 128, 2},
    {"t5", "small", 32128, 512, 6, 64, 1024, 8},
    {"t5", "base", 32128, 768, 12, 64, 2048, 12},
    {"t5", "large", 32128, 1024, 16, 64, 2816, 24},
    {"t5", "xl", 32128, 2048, 32, 64, 5120, 24},
    {"palm", "tiny", 512, 64, 2, 32, 256, 2},
    {"palm", "d1024", 32128, 1024, 8, 128, 4096, 8},
    {"palm", "1b", 32128, 2048, 16, 128, 8192, 16},
    {"palm", "3b", 32128, 3072, 24, 128, 12288, 24},
    {"palm", "8b", 256000, 4096, 16, 256, 16384, 32},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

sago_model_shape bench_shape(const char *family, const char *size) {
    const struct named_shape *s = shapes;
    while (s < shapes + N_SHAPES && (strcmp(family, s->family) != 0 || strcmp(size, s->size) != 0)) s++;
    if (s == shapes + N_SHAPES)
        bench_check(sago_fail(SAGO_E_USAGE, "no %s %s: --family t5 has --size tiny, small, base, large and xl; --family "
                                            "palm tiny, d1024, 1b, 3b and 8b",
                              family, size));
    bool palm = strcmp(family, "palm") == 0;
    sago_model_shape shape = {.vocab_size = s->vocab_size,
                              .d_model = s->d_model,
                              .n_heads = s->n_heads,
                              .head_dim = s->head_dim,
                              .d_ff = s->d_ff,
                              .encoder_layers = palm ? 0 : s->layers,
                              .decoder_layers = s->layers,
                              .activation = palm ? SAGO_SWIGLU : SAGO_GATED_GELU,
                              .tied_embeddings = palm,
                              .rope_interleaved = palm,
                              .relative_buckets = palm ? 0 : 32,
                              .relative_max_distance = palm ? 0 : 128,
                              .norm_epsilon = palm ? 1e-5f : 1e-6f};
    snprintf(shape.family, sizeof shape.family, "%s", family);
    sago_model_shape_complete(&shape);
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
