// SPDX-License-Identifier: Apache-2.0
/*
 * data: what the data pipeline does a second on one core, stage by stage, and how full its rows are.
 *
 *     data CONFIG [--rows N] [--repeats N] [--set KEY=VALUE ...]
 *
 * Each stage runs over the same draws, repeats interleaved: rendered (text alone), tokenized (text and ids),
 * packed (the whole pipeline up to rows), and packing alone over ids that are ready. Seconds are those of the
 * thread's own processor time, so that other work on the machine disturbs little. Tokens are input and target
 * ids, padding aside. Fill compares windowed packing with seqio's: one open row, which ends at the first
 * example that does not fit (seqio.trim_and_pack_dataset), over the same draws.
 */
#include "config.h"
#include "json.h"
#include "mixture.h"
#include "pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_REPEATS = 99 };

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Draws whose ids are ready: lengths alone matter to the packer. */
typedef struct ready {
    int32_t (*lengths)[2];
    bool *truncated;
    uint64_t n;
} ready;

static void set_length(sago_ids *ids, int64_t length) {
    sago_ids_clear(ids);
    for (int64_t i = 0; i < length; i++) sago_ids_add(ids, SAGO_UNK_ID);
}

static sago_status draw_ready(const void *context, uint64_t number, sago_example *out, bool *end) {
    const ready *r = context;
    *end = number >= r->n;
    if (*end) return SAGO_OK;
    set_length(&out->inputs, r->lengths[number][0]);
    set_length(&out->targets, r->lengths[number][1]);
    out->truncated = r->truncated[number];
    return SAGO_OK;
}

typedef enum stage { RENDERED, TOKENIZED, PACKED, PACKING_ALONE, N_STAGES } stage;
static const char *const stage_names[N_STAGES] = {"rendered", "tokenized", "packed", "packing_alone"};

typedef struct bench {
    const sago_config *config;
    sago_mixture *texts, *mixture; /* without and with a tokenizer */
    ready ready;
    int64_t n_rows, n_draws, n_tokens; /* draws and tokens of the rows measured */
    double seconds[N_STAGES][MAX_REPEATS];
} bench;

static sago_status draw_all(const sago_mixture *mixture, int64_t n, double *seconds) {
    double start = thread_seconds();
    sago_example example = {0};
    sago_status status = SAGO_OK;
    for (int64_t i = 0; i < n && status == SAGO_OK; i++)
        status = sago_mixture_draw(mixture, (uint64_t)i, &example, NULL);
    sago_example_free(&example);
    *seconds = thread_seconds() - start;
    return status;
}

static sago_status pack(const sago_pack_options *options, sago_pack_source source, int64_t n_rows,
                        sago_pack_statistics *out, double *seconds) {
    sago_packer *packer;
    SAGO_TRY(sago_packer_open(options, source, &packer));
    *seconds = 0;
    /* The first rows make the window grow; from then on a row draws about what it takes. */
    sago_status status = sago_packer_measure(packer, options->window / 4, out);
    double start = thread_seconds();
    if (status == SAGO_OK) status = sago_packer_measure(packer, n_rows, out);
    *seconds = thread_seconds() - start;
    sago_packer_close(packer);
    return status;
}

static sago_status run_stage(bench *b, stage which, double *seconds) {
    const sago_pack_options options = sago_pack_options_of(b->config, false);
    sago_pack_statistics unused;
    switch (which) {
    case RENDERED:
        return draw_all(b->texts, b->n_draws, seconds);
    case TOKENIZED:
        return draw_all(b->mixture, b->n_draws, seconds);
    case PACKED:
        return pack(&options, sago_pack_source_of(b->mixture), b->n_rows, &unused, seconds);
    default:
        return pack(&options, (sago_pack_source){draw_ready, &b->ready}, b->n_rows, &unused, seconds);
    }
}

/* As many draws as the rows take and the window holds, with their lengths. */
static sago_status make_ready(bench *b) {
    const sago_pack_options options = sago_pack_options_of(b->config, false);
    sago_pack_statistics statistics;
    double seconds;
    SAGO_TRY(pack(&options, sago_pack_source_of(b->mixture), b->n_rows, &statistics, &seconds));
    b->n_draws = statistics.examples;
    b->n_tokens = statistics.input_tokens + statistics.target_tokens;
    /* Other packings of as many rows take somewhat more or fewer examples. */
    b->ready.n = (uint64_t)(statistics.examples + statistics.examples / 4 + 4 * options.window);
    b->ready.lengths = sago_alloc(b->ready.n * sizeof *b->ready.lengths);
    b->ready.truncated = sago_alloc(b->ready.n * sizeof *b->ready.truncated);
    sago_example example = {0};
    sago_status status = SAGO_OK;
    for (uint64_t i = 0; i < b->ready.n && status == SAGO_OK; i++) {
        status = sago_mixture_draw(b->mixture, i, &example, NULL);
        b->ready.lengths[i][0] = (int32_t)example.inputs.length;
        b->ready.lengths[i][1] = (int32_t)example.targets.length;
        b->ready.truncated[i] = example.truncated;
    }
    sago_example_free(&example);
    return status;
}

static sago_status add_fill(bench *b, json_t *out, const char *name, bool packing, bool sequential,
                            int64_t window) {
    const sago_pack_options options = {packing, sequential, window, b->config->data.input_length,
                                       b->config->data.target_length};
    sago_pack_statistics s;
    double seconds;
    SAGO_TRY(pack(&options, (sago_pack_source){draw_ready, &b->ready}, b->n_rows, &s, &seconds));
    json_array_append_new(out, json_pack("{s:s,s:I,s:I,s:I,s:f,s:f,s:I,s:I}", "packing", name, "window",
                                         (json_int_t)window, "rows", (json_int_t)s.rows, "examples",
                                         (json_int_t)s.examples, "input_fill", s.input_fill, "target_fill",
                                         s.target_fill, "truncated", (json_int_t)s.truncated,
                                         "longest_wait_rows", (json_int_t)s.longest_wait));
    return SAGO_OK;
}

/* No packing of whole examples is fuller: one whose targets fill a row has it alone, the others' inputs at
   best leave no place empty. */
static double fill_bound(const bench *b) {
    int64_t alone = 0, inputs = 0, inputs_alone = 0, length = b->config->data.input_length;
    for (int64_t i = 0; i < b->n_draws; i++) {
        bool full = b->ready.lengths[i][1] == b->config->data.target_length;
        alone += full;
        inputs += b->ready.lengths[i][0];
        inputs_alone += full ? b->ready.lengths[i][0] : 0;
    }
    return (double)inputs / ((double)alone * (double)length + (double)(inputs - inputs_alone));
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static json_t *stage_results(bench *b, int repeats) {
    json_t *out = json_object();
    for (int s = 0; s < N_STAGES; s++) {
        qsort(b->seconds[s], (size_t)repeats, sizeof(double), by_value);
        double tokens = (double)b->n_tokens;
        json_object_set_new(
            out, stage_names[s],
            json_pack("{s:f,s:f,s:f}", "tokens_per_second", tokens / b->seconds[s][repeats / 2], "slowest",
                      tokens / b->seconds[s][repeats - 1], "fastest", tokens / b->seconds[s][0]));
    }
    return out;
}

static sago_status run(const char *path, char *sets[], int n_sets, int64_t n_rows, int repeats,
                       json_t **out) {
    sago_config *config = NULL;
    sago_tokenizer *tokenizer = NULL;
    bench b = {.n_rows = n_rows};
    json_t *fills = json_array();
    sago_status status;
    SAGO_TRY_TO(done, sago_config_load(path, sets, n_sets, &config));
    b.config = config;
    SAGO_TRY_TO(done, sago_tokenizer_open(config->data.tokenizer, &tokenizer));
    SAGO_TRY_TO(done, sago_mixture_open(config, NULL, 0, false, &b.texts));
    SAGO_TRY_TO(done, sago_mixture_open(config, tokenizer, 0, false, &b.mixture));
    SAGO_TRY_TO(done, make_ready(&b));
    for (int repeat = 0; repeat < repeats; repeat++) {
        for (stage s = 0; s < N_STAGES; s++) {
            SAGO_TRY_TO(done, run_stage(&b, s, &b.seconds[s][repeat]));
        }
    }
    for (int64_t window = 16; window <= config->data.pack_window; window *= 4)
        SAGO_TRY_TO(done, add_fill(&b, fills, "windowed", true, false, window));
    SAGO_TRY_TO(done, add_fill(&b, fills, "seqio greedy", true, true, 1));
    SAGO_TRY_TO(done, add_fill(&b, fills, "unpacked", false, true, 1));
    *out = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:i,s:o,s:O,s:f}", "benchmark", "data", "config", path,
                     "input_length", (json_int_t)config->data.input_length, "target_length",
                     (json_int_t)config->data.target_length, "rows", (json_int_t)n_rows, "examples",
                     (json_int_t)b.n_draws, "tokens", (json_int_t)b.n_tokens, "repeats", repeats, "one_core",
                     stage_results(&b, repeats), "fill", fills, "input_fill_bound", fill_bound(&b));
done:
    json_decref(fills);
    free(b.ready.lengths);
    free(b.ready.truncated);
    sago_mixture_close(b.texts);
    sago_mixture_close(b.mixture);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
    return status;
}

int main(int argc, char *argv[]) {
    const char *path = NULL;
    char *sets[64];
    int n_sets = 0, repeats = 5;
    int64_t n_rows = 1000;
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && strcmp(argv[i], "--set") == 0 && n_sets < 64)
            sets[n_sets++] = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--rows") == 0)
            n_rows = atoll(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--repeats") == 0)
            repeats = atoi(argv[++i]);
        else
            path = argv[i];
    }
    if (!path || n_rows < 1 || repeats < 1 || repeats > MAX_REPEATS) {
        fprintf(stderr, "usage: data CONFIG [--rows N] [--repeats N] [--set KEY=VALUE ...]\n");
        return 2;
    }
    json_t *out = NULL;
    if (run(path, sets, n_sets, n_rows, repeats, &out) != SAGO_OK) {
        fprintf(stderr, "data: %s\n", sago_message());
        return 1;
    }
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(out);
    return 0;
}
