// SPDX-License-Identifier: Apache-2.0
/* A driver for fuzz targets that any compiler builds: fuzz_NAME [--runs N] [--first N] [--seconds N]
 * SEED_FILE...
 *
 * Input i is a function of the seeds and i alone: the message on a crash names i, and --first i --runs 1
 * repeats it. */
#include "fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SEEDS = 256, ROOM = 1 << 20, SLOWEST_SECONDS = 10 };

static struct {
    uint8_t *data;
    size_t size;
} seeds[MAX_SEEDS];
static int n_seeds;
static volatile long current;

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void say_current(void) {
    char text[96];
    int n = snprintf(text, sizeof text, "fuzz: died at input %ld; repeat it with --first %ld --runs 1\n",
                     current, current);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0) _exit(1);
}

static void on_signal(int number) {
    say_current();
    signal(number, SIG_DFL);
    raise(number);
}

/* SplitMix64 */
static uint64_t state;
static uint64_t draw(void) {
    uint64_t x = state += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}
static size_t below(size_t n) {
    return n ? (size_t)(draw() % n) : 0;
}

static size_t insert(uint8_t *data, size_t size, size_t at, const void *bytes, size_t n) {
    if (size + n > ROOM) return size;
    memmove(data + at + n, data + at, size - at);
    memcpy(data + at, bytes, n);
    return size + n;
}

static const char *const words[] = {"{",
                                    "}",
                                    "[",
                                    "]",
                                    "\"",
                                    ":",
                                    ",",
                                    "\n",
                                    "\r\n",
                                    "\t",
                                    "\\",
                                    "\\u0000",
                                    "\\ud800",
                                    "#",
                                    "- ",
                                    "---",
                                    "&a",
                                    "*a",
                                    "!!",
                                    "null",
                                    "true",
                                    "-1",
                                    "0",
                                    "1e999",
                                    "nan",
                                    "99999999999999999999",
                                    "9223372036854775807",
                                    "\xff\xfe",
                                    "\xef\xbb\xbf",
                                    "\xed\xa0\x80",
                                    "\xf4\x90\x80\x80",
                                    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                                    "{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{",
                                    "../../",
                                    "/"};

static size_t mutate_once(uint8_t *data, size_t size) {
    uint8_t bytes[64];
    size_t at = below(size + 1), n;
    switch (draw() % 10) {
    case 0: /* a bit */
        if (size) data[below(size)] ^= (uint8_t)(1u << (draw() % 8));
        return size;
    case 1: /* a byte */
        if (size) data[below(size)] = (uint8_t)draw();
        return size;
    case 2: /* a few bytes go */
        if (at == size) return size;
        n = 1 + below(size - at < 64 ? size - at : 64);
        if (n > size - at) n = size - at;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 3: /* the end goes */
        return at;
    case 4: /* random bytes come */
        n = 1 + below(sizeof bytes);
        for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)draw();
        return insert(data, size, at, bytes, n);
    case 5: /* a NUL comes */
        return insert(data, size, at, "", 1);
    case 6: { /* a word of the formats comes */
        const char *word = words[below(sizeof words / sizeof *words)];
        return insert(data, size, at, word, strlen(word));
    }
    case 7: { /* a number takes the place of bytes */
        static const uint64_t numbers[] = {0,
                                           1,
                                           0x7F,
                                           0xFF,
                                           0x7FFF,
                                           0xFFFF,
                                           0x7FFFFFFF,
                                           0xFFFFFFFF,
                                           1ull << 40,
                                           0x7FFFFFFFFFFFFFFF,
                                           0xFFFFFFFFFFFFFFFF};
        uint64_t number = numbers[below(sizeof numbers / sizeof *numbers)];
        n = 1u << below(4);
        if (at + n <= size) memcpy(data + at, &number, n);
        return size;
    }
    case 8: { /* a piece comes twice */
        n = below(size - at < sizeof bytes ? size - at : sizeof bytes);
        memcpy(bytes, data + at, n);
        return insert(data, size, below(size + 1), bytes, n);
    }
    default: { /* a piece of another seed comes */
        int other = (int)below((size_t)n_seeds);
        size_t from = below(seeds[other].size);
        n = below(seeds[other].size - from);
        return insert(data, size, at, seeds[other].data + from, n);
    }
    }
}

static void add_seed(const uint8_t *data, size_t size) {
    if (n_seeds == MAX_SEEDS) return;
    seeds[n_seeds].data = malloc(size + 1);
    if (!seeds[n_seeds].data) abort();
    memcpy(seeds[n_seeds].data, data, size);
    seeds[n_seeds++].size = size;
}

static void add_seed_file(const char *path, uint8_t *room) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "fuzz: cannot open the seed %s\n", path);
        exit(2);
    }
    add_seed(room, fread(room, 1, ROOM / 2, file));
    fclose(file);
}

/* The input lies in memory of its exact size, so that a sanitizer sees a read past its end. */
static void run_one(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) abort();
    memcpy(exact, data, size);
    alarm(SLOWEST_SECONDS);
    LLVMFuzzerTestOneInput(exact, size);
    alarm(0);
    free(exact);
}

static void run_all(long first, long runs, double seconds, uint8_t *room) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = first; i < first + runs; i++) {
        current = i;
        state = (uint64_t)i * 0xD1342543DE82EF95ull;
        int seed = (int)(i % n_seeds);
        size_t size = seeds[seed].size;
        memcpy(room, seeds[seed].data, size);
        /* The seeds come first as they are. */
        for (uint64_t n = i < n_seeds ? 0 : 1 + draw() % 8; n > 0; n--) size = mutate_once(room, size);
        run_one(room, size);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (seconds > 0 && (double)(now.tv_sec - start.tv_sec) > seconds) {
            runs = i + 1 - first;
            break;
        }
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%ld inputs from %d seeds, %ld MiB at most\n", runs, n_seeds, usage.ru_maxrss / 1024);
}

int main(int argc, char *argv[]) {
    long runs = 1000, first = 0;
    double seconds = 0;
    uint8_t *room = malloc(ROOM + 64);
    if (!room) return 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
            runs = atol(argv[++i]);
        else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc)
            first = atol(argv[++i]);
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else
            add_seed_file(argv[i], room);
    }
    for (size_t size; sago_fuzz_seed && (size = sago_fuzz_seed(n_seeds, room, ROOM / 2)) > 0;)
        add_seed(room, size);
    if (!n_seeds) add_seed((const uint8_t *)"", 0);
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(say_current);
    const int deaths[] = {SIGABRT, SIGALRM, SIGFPE, SIGBUS, SIGSEGV};
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++)
        if (deaths[i] == SIGABRT || deaths[i] == SIGALRM || !__sanitizer_set_death_callback)
            signal(deaths[i], on_signal);
    run_all(first, runs, seconds, room);
    for (int i = 0; i < n_seeds; i++) free(seeds[i].data);
    free(room);
    return 0;
}
