// SPDX-License-Identifier: Apache-2.0
/*
 * SIGKILL at random points across saving: build/benchmarks/bench_crash FOLDER KILLS [SEED]
 *
 * A child continues from the newest checkpoint and saves step after step in the background, telling over a
 * pipe when a save starts and when it was committed; it is killed after a random time. Then the folder is
 * opened as a run would: every hash is checked and every byte compared with what that step must hold. Prints
 * one JSON object; exit code 1 when a checkpoint could not be loaded, held wrong bytes, or more than one
 * interval was lost.
 */
#include "ckpt.h"
#include "file.h"
#include "json.h"
#include "log.h"
#include "rng.h"
#include "steps.h"
#include "str.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_TENSORS = 24, ROWS = 257, COLS = 64, KEEP = 2 };

typedef struct note {
    int64_t step;
    char what; /* 's': a save starts, 'c': it was committed */
} note;

typedef struct tally {
    int kills, before_first, unloadable, wrong_bytes, lost_more, lost_one;
    int while_writing, with_manifest, while_removing, between; /* what the kill left in the folder */
} tally;

static float value_of(int64_t step, int tensor, int64_t i) {
    return (float)sago_unit(sago_mix(sago_mix((uint64_t)step, (uint64_t)tensor), (uint64_t)i));
}

static void make_pieces(sago_piece pieces[N_TENSORS], char names[N_TENSORS][32], float *memory) {
    for (int t = 0; t < N_TENSORS; t++) {
        snprintf(names[t], sizeof names[t], "param/layer.%d.weight", t);
        pieces[t] =
            (sago_piece){names[t], SAGO_F32, 2, {ROWS, COLS}, {0, 0}, {ROWS, COLS}, memory + t * ROWS * COLS};
    }
}

static void die(const char *what) {
    fprintf(stderr, "bench_crash: %s: %s\n", what, sago_message());
    exit(2);
}

static void tell(int fd, int64_t step, char what) {
    const note n = {step, what};
    if (write(fd, &n, sizeof n) != sizeof n) _exit(2);
}

/* Saves until it is killed. */
static void run_child(const char *dir, int64_t step, int fd, float *memory) {
    sago_piece pieces[N_TENSORS];
    char names[N_TENSORS][32];
    sago_ckpt_writer *writer;
    make_pieces(pieces, names, memory);
    json_t *meta = json_object();
    if (sago_ckpt_writer_open(NULL, true, &writer) != SAGO_OK) die("open");
    for (;;) {
        step++;
        for (int t = 0; t < N_TENSORS; t++)
            for (int64_t i = 0; i < ROWS * COLS; i++) ((float *)pieces[t].data)[i] = value_of(step, t, i);
        json_object_set_new(meta, "step", json_integer((json_int_t)step));
        const sago_ckpt_save save = {
            .dir = dir, .step = step, .meta = meta, .pieces = pieces, .n_pieces = N_TENSORS, .keep = KEEP};
        tell(fd, step, 's');
        int64_t committed;
        if (sago_ckpt_writer_start(writer, &save) != SAGO_OK) die("start");
        if (sago_ckpt_writer_wait(writer, &committed) != SAGO_OK || committed != step) die("wait");
        tell(fd, step, 'c');
    }
}

/* What lies in the folder beside whole steps tells where the kill struck. */
static void classify(const char *dir, tally *t) {
    sago_names names;
    bool writing = false, manifest = false, removing = false;
    if (sago_dir_list(dir, &names) != SAGO_OK) return;
    for (size_t i = 0; i < names.count; i++) {
        char *path = sago_format("%s/%s/" SAGO_MANIFEST_NAME, dir, names.names[i]);
        if (strstr(names.names[i], ".tmp-removed"))
            removing = true;
        else if (strstr(names.names[i], ".tmp-"))
            *(sago_is_file(path) ? &manifest : &writing) = true;
        free(path);
    }
    sago_names_free(&names);
    if (removing)
        t->while_removing++;
    else if (manifest)
        t->with_manifest++;
    else if (writing)
        t->while_writing++;
    else
        t->between++;
}

/* Opens what is left; the newest step, or -1. */
static int64_t check_folder(const char *dir, int64_t committed, float *memory, tally *t) {
    sago_ckpt *ckpt;
    sago_piece pieces[N_TENSORS];
    char names[N_TENSORS][32];
    if (!sago_ckpt_exists(dir)) {
        if (committed >= 0) t->unloadable++;
        t->before_first++;
        return -1;
    }
    if (sago_ckpt_open(dir, true, &ckpt) != SAGO_OK) {
        fprintf(stderr, "bench_crash: %s\n", sago_message());
        t->unloadable++;
        return -1;
    }
    int64_t step = sago_ckpt_step(ckpt);
    make_pieces(pieces, names, memory);
    bool good = sago_ckpt_load(ckpt, pieces, N_TENSORS) == SAGO_OK;
    for (int k = 0; k < N_TENSORS && good; k++)
        for (int64_t i = 0; i < ROWS * COLS && good; i++)
            good = ((float *)pieces[k].data)[i] == value_of(step, k, i);
    if (!good) t->wrong_bytes++;
    sago_ckpt_close(ckpt);
    return step;
}

static void kill_once(const char *dir, int64_t *newest, uint64_t draw, double cycle_seconds, float *memory,
                      tally *t) {
    int notes[2], status;
    int64_t started = *newest, committed = *newest;
    if (pipe(notes) != 0) die("pipe");
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        close(notes[0]);
        run_child(dir, *newest, notes[1], memory);
    }
    close(notes[1]);
    usleep((useconds_t)(sago_unit(draw) * 2.5 * cycle_seconds * 1e6));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status)) die("the child ended by itself");
    for (note n; read(notes[0], &n, sizeof n) == sizeof n;) *(n.what == 's' ? &started : &committed) = n.step;
    close(notes[0]);
    classify(dir, t);
    t->kills++;
    int64_t found = check_folder(dir, committed, memory, t);
    if (found < committed) t->lost_more++;
    if (found < started) t->lost_one++;
    *newest = found;
}

int main(int argc, char *argv[]) {
    if (argc < 3) {
        fprintf(stderr, "usage: bench_crash FOLDER KILLS [SEED]\n");
        return 2;
    }
    const char *dir = argv[1];
    int kills = atoi(argv[2]);
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    float *memory = sago_alloc_zero(N_TENSORS * ROWS * COLS, sizeof *memory);
    tally t = {0};
    int64_t newest = -1;
    double cycle_seconds = 0.05;
    if (sago_is_dir(dir) && sago_dir_remove(dir) != SAGO_OK) die("clean");
    if (sago_dir_make(dir) != SAGO_OK) die("make");
    for (int i = 0; i < kills; i++) {
        int64_t before = newest, start_ns = sago_now_ns();
        kill_once(dir, &newest, sago_mix(seed, (uint64_t)i), cycle_seconds, memory, &t);
        /* Follows the speed of the disk, so that kills fall into every part of a save. */
        double seconds = (double)(sago_now_ns() - start_ns) * 1e-9, saves = (double)(newest - before) + 0.5;
        cycle_seconds = 0.9 * cycle_seconds + 0.1 * (seconds / saves < 1 ? seconds / saves : 1);
    }
    json_t *result = json_pack(
        "{s:s, s:i, s:I, s:i, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:i, s:i}, s:i}", "benchmark", "crash",
        "kills", t.kills, "last_step", (json_int_t)newest, "unloadable", t.unloadable, "wrong_bytes",
        t.wrong_bytes, "more_than_one_interval_lost", t.lost_more, "save_in_flight_lost", t.lost_one,
        "before_first_commit", t.before_first, "killed", "while_writing_shard", t.while_writing,
        "with_manifest_before_rename", t.with_manifest, "while_removing_old_step", t.while_removing,
        "between", t.between, "bytes_a_step", (int)(N_TENSORS * ROWS * COLS * sizeof(float)));
    sago_str text = {0};
    sago_json_add(&text, result, 9);
    printf("%s\n", sago_str_text(&text));
    sago_str_free(&text);
    json_decref(result);
    free(memory);
    bool good = t.unloadable == 0 && t.wrong_bytes == 0 && t.lost_more == 0 && t.kills == kills && newest > 0;
    if (sago_dir_remove(dir) != SAGO_OK) good = false;
    return good ? 0 : 1;
}
