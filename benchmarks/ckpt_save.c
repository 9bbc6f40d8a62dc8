// SPDX-License-Identifier: Apache-2.0
/*
 * Speed of saving: build/benchmarks/bench_ckpt_save FOLDER [MIB] [ROUNDS]
 *
 * Interleaved in one run, so that all meet the same disk: one large write + fsync of the tensors' bytes (what
 * any program must pay), a save from request to commit (fsync and hashes included), and the same in the
 * background, where the time that start() holds the caller is compared with a memcpy of the same bytes.
 * Prints one JSON object: medians and their quartiles in seconds, and save_of_write = write / save (1: hashes
 * and HDF5 cost nothing).
 */
#include "ckpt.h"
#include "file.h"
#include "json.h"
#include "log.h"
#include "str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ROUNDS = 99, COLS = 1024, ROWS = 1024 }; /* tensors of 4 MiB and less */

enum { WRITE, SAVE, BLOCKED, MEMCPY, BACKGROUND, N_TIMES };
static const char *const time_names[N_TIMES] = {"write_fsync", "save", "background_blocked", "memcpy",
                                                "background_save"};

static void die(void) {
    fprintf(stderr, "bench_ckpt_save: %s\n", sago_message());
    exit(2);
}

static double since(int64_t ns) {
    return (double)(sago_now_ns() - ns) * 1e-9;
}

static double time_write(const char *dir, const char *bytes, size_t size) {
    char *path = sago_path_join(dir, "plain");
    int64_t start = sago_now_ns();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (size_t done = 0; done < size;) {
        ssize_t put = write(fd, bytes + done, size - done);
        if (put <= 0) exit(2);
        done += (size_t)put;
    }
    if (fsync(fd) != 0 || close(fd) != 0) exit(2);
    double seconds = since(start);
    unlink(path);
    free(path);
    return seconds;
}

static double time_save(sago_ckpt_writer *writer, const sago_ckpt_save *save, double *blocked) {
    int64_t start = sago_now_ns();
    if (sago_ckpt_writer_start(writer, save) != SAGO_OK) die();
    *blocked = since(start);
    if (sago_ckpt_writer_wait(writer, NULL) != SAGO_OK) die();
    double seconds = since(start);
    if (sago_dir_remove(save->dir) != SAGO_OK || sago_dir_make(save->dir) != SAGO_OK) die();
    return seconds;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *spread(double *times, int n) {
    qsort(times, (size_t)n, sizeof *times, ascending);
    return json_pack("{s:f, s:f, s:f}", "median", times[n / 2], "low", times[n / 4], "high",
                     times[n - 1 - n / 4]);
}

int main(int argc, char *argv[]) {
    if (argc < 2) {
        fprintf(stderr, "usage: bench_ckpt_save FOLDER [MIB] [ROUNDS]\n");
        return 2;
    }
    int mib = argc > 2 ? atoi(argv[2]) : 512, rounds = argc > 3 ? atoi(argv[3]) : 7;
    if (mib < 4 || rounds < 1 || rounds > MAX_ROUNDS) return 2;
    size_t size = (size_t)mib << 20;
    char *bytes = sago_alloc(size), *copy = sago_alloc(size), *dir = sago_path_join(argv[1], "steps");
    for (size_t i = 0; i < size; i += 4) memcpy(bytes + i, &(uint32_t){(uint32_t)(i * 2654435761u)}, 4);
    memset(copy, 1, size);
    int n = mib / 4;
    sago_piece *pieces = sago_alloc_zero((size_t)n, sizeof *pieces);
    char(*names)[32] = sago_alloc_zero((size_t)n, sizeof *names);
    for (int i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "param/tensor.%d", i);
        pieces[i] = (sago_piece){
            names[i], SAGO_F32, 2, {ROWS, COLS}, {0, 0}, {ROWS, COLS}, bytes + (size_t)i * ROWS * COLS * 4};
    }
    json_t *meta = json_object();
    const sago_ckpt_save save = {.dir = dir, .step = 1, .meta = meta, .pieces = pieces, .n_pieces = n};
    sago_ckpt_writer *front, *back;
    if (sago_dir_make(dir) != SAGO_OK || sago_ckpt_writer_open(NULL, false, &front) != SAGO_OK ||
        sago_ckpt_writer_open(NULL, true, &back) != SAGO_OK)
        die();
    static double times[N_TIMES][MAX_ROUNDS], ratios[MAX_ROUNDS];
    double unused;
    for (int r = -1; r < rounds; r++) { /* the first round warms up and does not count */
        int at = r < 0 ? 0 : r;
        times[WRITE][at] = time_write(dir, bytes, size);
        times[SAVE][at] = time_save(front, &save, &unused);
        ratios[at] = times[WRITE][at] / times[SAVE][at];
        times[BACKGROUND][at] = time_save(back, &save, &times[BLOCKED][at]);
        int64_t start = sago_now_ns();
        memcpy(copy, bytes, size);
        times[MEMCPY][at] = since(start);
    }
    sago_ckpt_writer_close(front);
    sago_ckpt_writer_close(back);
    json_t *result = json_pack("{s:s, s:s, s:i, s:i}", "benchmark", "ckpt_save", "folder", argv[1], "mib",
                               mib, "rounds", rounds);
    json_object_set_new(result, "save_of_write", spread(ratios, rounds));
    for (int i = 0; i < N_TIMES; i++) json_object_set_new(result, time_names[i], spread(times[i], rounds));
    sago_str text = {0};
    sago_json_add(&text, result, 4);
    printf("%s\n", sago_str_text(&text));
    if (sago_dir_remove(dir) != SAGO_OK) die();
    sago_str_free(&text);
    json_decref(result);
    json_decref(meta);
    free(pieces), free(names), free(bytes), free(copy), free(dir);
    return 0;
}
