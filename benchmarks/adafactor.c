// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor of the cpu device over the parameters of T5 v1.1 small: bench_adafactor [--threads N] [--rounds
 * N]
 *
 * Its bandwidth counts fp32 gradients three times, values read and written once (20 bytes a parameter); the
 * peer is a copy by as many threads over the same memory, bytes read plus bytes written, in turns with
 * it. One JSON line.
 */
#include "bench.h"
#include "log.h"
#include "ops.h"
#include "rng.h"
#include "str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 256, MAX_SLOTS = 512 };

typedef struct bench_state {
    sago_device *device;
    sago_adafactor_slot slots[MAX_SLOTS];
    int n;
    int64_t parameters;
} bench_state;

static void *take(bench_state *s, size_t bytes) {
    void *memory;
    bench_check(s->device->ops->allocate(s->device, &memory, bytes));
    return memory;
}

/** rows 0: a vector. */
static void add(bench_state *s, int count, int64_t rows, int64_t columns) {
    for (int i = 0; i < count && s->n < MAX_SLOTS; i++, s->n++) {
        int64_t n = (rows ? rows : 1) * columns;
        sago_adafactor_slot *slot = &s->slots[s->n];
        slot->value =
            rows ? sago_tensor_2d(NULL, SAGO_F32, rows, columns) : sago_tensor_1d(NULL, SAGO_F32, columns);
        slot->gradient = slot->value;
        slot->value.data = take(s, (size_t)n * sizeof(float));
        slot->gradient.data = take(s, (size_t)n * sizeof(float));
        float *value = slot->value.data, *gradient = slot->gradient.data;
        for (int64_t j = 0; j < n; j++) {
            value[j] = (float)sago_unit(sago_mix((uint64_t)j, 1)) - 0.5f;
            gradient[j] = 0.01f * ((float)sago_unit(sago_mix((uint64_t)j, 2)) - 0.5f);
        }
        slot->factored = rows >= 128 && columns >= 128;
        slot->global_rows = rows ? rows : 1, slot->global_columns = columns;
        slot->learning_rate = 1e-3f;
        if (slot->factored) {
            slot->row = take(s, (size_t)rows * sizeof(float)),
            slot->column = take(s, (size_t)columns * sizeof(float));
            slot->row_sum = take(s, (size_t)rows * sizeof(double));
            slot->column_sum = take(s, (size_t)columns * sizeof(double));
        } else {
            slot->moment = take(s, (size_t)n * sizeof(float));
        }
        slot->value_square = take(s, sizeof(double)), slot->update_square = take(s, sizeof(double));
        slot->kept_square = take(s, sizeof(double));
        s->parameters += n;
    }
}

/** Copies the first slot's value over its gradient's twin, a contiguous part a thread. */
static void copy(char *to, const char *from, size_t bytes, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int t = 0; t < n_threads; t++) {
        size_t first = bytes * (size_t)t / (size_t)n_threads,
               last = bytes * (size_t)(t + 1) / (size_t)n_threads;
        memcpy(to + first, from + first, last - first);
    }
}

int main(int argc, char **argv) {
    int rounds = (int)bench_option(argc, argv, "rounds", 9);
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = MAX_ROUNDS;
    bench_state *s = sago_alloc_zero(1, sizeof *s);
    bench_check(sago_device_open("cpu", (int)bench_option(argc, argv, "threads", 0), &s->device));
    add(s, 2, 32128, 512);                                  /* embedding, output */
    add(s, 8 * 3 * 3, 512, 384), add(s, 8 * 3, 384, 512);   /* q, k, v; o */
    add(s, 8 * 2 * 2, 512, 1024), add(s, 8 * 2, 1024, 512); /* gate and linear; back */
    add(s, 8 * 5 + 2, 0, 512), add(s, 2, 32, 6);            /* norms, relative positions */
    const sago_ops *ops = s->device->ops;
    size_t bytes = (size_t)64 << 20;
    char *from = take(s, bytes), *to = take(s, bytes);
    memset(from, 1, bytes);
    double seconds[4][MAX_ROUNDS], copied[MAX_ROUNDS];
    for (int round = -1; round < rounds; round++) {
        sago_adafactor_args args = {.beta2 = 1 - pow(round + 2, -0.8),
                                    .clip_threshold = 1,
                                    .parameter_scale = true,
                                    .minimum_scale = 1e-3};
        int64_t at[5];
        at[0] = sago_now_ns();
        bench_check(ops->adafactor_statistics(s->device, s->slots, s->n, &args));
        at[1] = sago_now_ns();
        bench_check(ops->adafactor_moments(s->device, s->slots, s->n, &args));
        at[2] = sago_now_ns();
        bench_check(ops->adafactor_apply(s->device, s->slots, s->n, &args));
        at[3] = sago_now_ns();
        for (int i = 0; i < 4; i++) copy(to, from, bytes, s->device->n_threads);
        at[4] = sago_now_ns();
        if (round < 0) continue;
        for (int i = 0; i < 3; i++) seconds[i][round] = (double)(at[i + 1] - at[i]) * 1e-9;
        seconds[3][round] = (double)(at[3] - at[0]) * 1e-9;
        copied[round] = (double)(at[4] - at[3]) * 1e-9 / 4;
    }
    double median, copy_seconds, part;
    json_t *all = bench_summary(seconds[3], rounds, &median),
           *peer = bench_summary(copied, rounds, &copy_seconds);
    double speed = 20.0 * (double)s->parameters / median * 1e-9,
           copy_speed = 2.0 * (double)bytes / copy_seconds * 1e-9;
    json_t *line =
        json_pack("{s:s, s:o, s:s, s:I, s:o, s:o, s:f, s:f, s:f}", "benchmark", "adafactor", "command",
                  bench_command(argc, argv), "device", s->device->description, "parameters", s->parameters,
                  "seconds", all, "copy_seconds", peer, "gigabytes_per_second", speed,
                  "copy_gigabytes_per_second", copy_speed, "share_of_copy", speed / copy_speed);
    static const char *const names[] = {"statistics_seconds", "moments_seconds", "apply_seconds"};
    for (int i = 0; i < 3; i++) json_object_set_new(line, names[i], bench_summary(seconds[i], rounds, &part));
    char *text = json_dumps(line, JSON_REAL_PRECISION(5) | JSON_PRESERVE_ORDER);
    puts(text);
    free(text);
    json_decref(line);
    sago_device_close(s->device);
    free(s);
    return 0;
}
