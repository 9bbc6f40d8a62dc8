// SPDX-License-Identifier: Apache-2.0
#include "batch_rows.h"
#include "pack.h"
#include "pack_fill.h"
#include "rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Examples whose lengths are hashes of their number; ids tell number and place, so that a cut or a mix shows.
 */
typedef struct lengths {
    uint64_t key;
    int64_t n; /* how many there are; < 0: no end */
    int64_t most_inputs, most_targets;
    bool full_rows;  /* all have most_inputs */
    int64_t tiny;    /* with this number: 1 + 1 tokens (to be starved); -1: none */
    int64_t fail_at; /* drawing this one fails; -1: none */
} lengths;

static int64_t input_tokens(const lengths *s, uint64_t number) {
    if ((int64_t)number == s->tiny) return 1;
    if (s->full_rows) return s->most_inputs;
    return 1 + (int64_t)sago_below(sago_mix(s->key, 2 * number), (uint64_t)s->most_inputs);
}

static int64_t target_tokens(const lengths *s, uint64_t number) {
    if ((int64_t)number == s->tiny) return 1;
    return 1 + (int64_t)sago_below(sago_mix(s->key, 2 * number + 1), (uint64_t)s->most_targets);
}

static sago_status draw(const void *context, uint64_t number, sago_example *out, bool *end) {
    const lengths *s = context;
    *end = s->n >= 0 && (int64_t)number >= s->n;
    if (*end) return SAGO_OK;
    if ((int64_t)number == s->fail_at) return sago_fail(SAGO_E_INPUT, "example %d is broken", (int)number);
    sago_ids_clear(&out->inputs);
    sago_ids_clear(&out->targets);
    for (int64_t i = 0; i < input_tokens(s, number); i++)
        sago_ids_add(&out->inputs, (int32_t)(number * 1000) + (int32_t)i);
    for (int64_t i = 0; i < target_tokens(s, number); i++)
        sago_ids_add(&out->targets, -(int32_t)(number * 1000) - (int32_t)i);
    out->index = (int64_t)number;
    return SAGO_OK;
}

static sago_packer *open_packer(const sago_pack_options *options, const lengths *s) {
    sago_packer *packer;
    if (sago_packer_open(options, (sago_pack_source){draw, s}, &packer) != SAGO_OK)
        fail_msg("%s", sago_message());
    return packer;
}

static bool next(sago_packer *packer, sago_packed_row *row) {
    bool more;
    if (sago_packer_next(packer, row, &more) != SAGO_OK) fail_msg("%s", sago_message());
    return more;
}

/* Two examples of the T5 papers' packing, as batch.h defines the arrays. */
static sago_status worked_draw(const void *context, uint64_t number, sago_example *out, bool *end) {
    static const int32_t inputs[2][5] = {{7, 8, 5, 1}, {8, 4, 9, 3, 1}}, targets[2][3] = {{3, 9, 1}, {4, 1}};
    static const int n_inputs[2] = {4, 5}, n_targets[2] = {3, 2};
    (void)context;
    *end = number >= 2;
    if (*end) return SAGO_OK;
    sago_ids_clear(&out->inputs);
    sago_ids_clear(&out->targets);
    for (int i = 0; i < n_inputs[number]; i++) sago_ids_add(&out->inputs, inputs[number][i]);
    for (int i = 0; i < n_targets[number]; i++) sago_ids_add(&out->targets, targets[number][i]);
    return SAGO_OK;
}

static void worked_example(void **state) {
    (void)state;
    static const int32_t inputs[10] = {7, 8, 5, 1, 8, 4, 9, 3, 1, 0},
                         input_segments[10] = {1, 1, 1, 1, 2, 2, 2, 2, 2, 0};
    static const int32_t targets[7] = {3, 9, 1, 4, 1, 0, 0}, decoder[7] = {0, 3, 9, 0, 4, 0, 0},
                         target_segments[7] = {1, 1, 1, 2, 2, 0, 0};
    static const float weights[7] = {1, 1, 1, 1, 1, 0, 0};
    const sago_pack_options options = {
        .packing = true, .sequential = true, .window = 1, .input_length = 10, .target_length = 7};
    sago_packer *packer;
    sago_packed_row row;
    sago_batch batch;
    assert_int_equal(sago_packer_open(&options, (sago_pack_source){worked_draw, NULL}, &packer), SAGO_OK);
    sago_batch_open(&batch, 2, 10, 7, false);
    assert_true(next(packer, &row));
    assert_int_equal(row.n_examples, 2);
    int64_t input_at = 0, target_at = 0;
    sago_batch_clear(&batch, 2);
    for (int64_t i = 0; i < row.n_examples; i++)
        sago_batch_add(&batch, 1, (int32_t)i + 1, &row.examples[i]->inputs, &row.examples[i]->targets,
                       &input_at, &target_at);
    assert_memory_equal(batch.inputs + 10, inputs, sizeof inputs);
    assert_memory_equal(batch.input_segments + 10, input_segments, sizeof input_segments);
    assert_memory_equal(batch.targets + 7, targets, sizeof targets);
    assert_memory_equal(batch.decoder_inputs + 7, decoder, sizeof decoder);
    assert_memory_equal(batch.target_segments + 7, target_segments, sizeof target_segments);
    assert_memory_equal(batch.weights + 7, weights, sizeof weights);
    for (int i = 0; i < 10; i++)
        assert_int_equal(batch.inputs[i] | batch.input_segments[i], 0); /* row 0 is empty */
    assert_int_equal(batch.n_examples, 2);
    assert_int_equal(batch.n_input_tokens, 9);
    assert_int_equal(batch.n_target_tokens, 5);
    assert_false(next(packer, &row));
    sago_batch_close(&batch);
    sago_packer_close(packer);
}

/* The same two examples for a decoder-only model, and one without inputs. */
static void worked_example_decoder_only(void **state) {
    (void)state;
    static const int32_t tokens[17] = {7, 8, 5, 1, 3, 9, 1, 8, 4, 9, 3, 1, 4, 1, 0, 0, 0},
                         targets[17] = {8, 5, 1, 3, 9, 1, 0, 4, 9, 3, 1, 4, 1, 0, 0, 0, 0},
                         segments[17] = {1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0},
                         prefix[17] = {1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0};
    static const float weights[17] = {0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0};
    const sago_pack_options options = {.packing = true,
                                       .sequential = true,
                                       .window = 1,
                                       .input_length = 10,
                                       .target_length = 7,
                                       .decoder_only = true};
    sago_packer *packer;
    sago_packed_row row;
    sago_batch batch;
    assert_int_equal(sago_packer_open(&options, (sago_pack_source){worked_draw, NULL}, &packer), SAGO_OK);
    sago_batch_open(&batch, 3, 10, 7, true);
    assert_int_equal(batch.input_length, 0);
    assert_int_equal(batch.target_length, 17);
    assert_true(next(packer, &row));
    assert_int_equal(row.n_examples, 2);
    assert_int_equal(row.n_input_tokens, 9);
    assert_int_equal(row.n_target_tokens, 5);
    for (int again = 0; again < 2; again++) { /* nothing of an earlier batch is left */
        int64_t input_at = 0, target_at = 0;
        sago_batch_clear(&batch, 3);
        for (int64_t i = 0; i < row.n_examples; i++)
            sago_batch_add(&batch, 1 + again, (int32_t)i + 1, &row.examples[i]->inputs,
                           &row.examples[i]->targets, &input_at, &target_at);
        assert_int_equal(target_at, 14);
        int at = 17 + 17 * again;
        assert_memory_equal(batch.decoder_inputs + at, tokens, sizeof tokens);
        assert_memory_equal(batch.targets + at, targets, sizeof targets);
        assert_memory_equal(batch.target_segments + at, segments, sizeof segments);
        assert_memory_equal(batch.prefix + at, prefix, sizeof prefix);
        assert_memory_equal(batch.weights + at, weights, sizeof weights);
        for (int i = 0; i < at; i++)
            assert_int_equal(batch.decoder_inputs[i] | batch.targets[i] | batch.target_segments[i] |
                                 batch.prefix[i] | (batch.weights[i] != 0),
                             0);
        assert_int_equal(batch.n_input_tokens, 9);
        assert_int_equal(batch.n_target_tokens, 5);
    }

    int32_t three[3] = {5, 6, 1};
    const sago_ids none = {0}, alone = {.data = three, .length = 3, .capacity = 3};
    int64_t input_at = 0, target_at = 0;
    sago_batch_clear(&batch, 1);
    sago_batch_add(&batch, 0, 1, &none, &alone, &input_at, &target_at);
    static const int32_t next_of_three[4] = {6, 1, 0, 0}, given[4] = {1, 0, 0, 0};
    static const float two[4] = {1, 1, 0, 0};
    assert_memory_equal(batch.decoder_inputs, three, sizeof three);
    assert_memory_equal(batch.targets, next_of_three, sizeof next_of_three);
    assert_memory_equal(batch.prefix, given, sizeof given);
    assert_memory_equal(batch.weights, two, sizeof two);
    assert_int_equal(batch.n_input_tokens, 1);
    assert_int_equal(batch.n_target_tokens, 2);
    sago_batch_close(&batch);
    sago_packer_close(packer);
}

/* Lengths of 83 examples, and how many targets another implementation found in each step of three rows of 64
 * + 32 tokens that it packed in file order for a decoder-only model. */
static const int recorded_lengths[][2] = {
    {14, 11}, {12, 9},  {8, 5},   {39, 8},  {38, 9},  {16, 14}, {11, 12}, {20, 19}, {16, 16}, {36, 14},
    {2, 2},   {16, 5},  {12, 1},  {2, 16},  {17, 9},  {27, 16}, {32, 7},  {22, 10}, {38, 8},  {36, 5},
    {6, 13},  {35, 1},  {5, 2},   {3, 4},   {3, 11},  {23, 9},  {33, 9},  {5, 12},  {33, 11}, {21, 3},
    {5, 3},   {38, 7},  {12, 14}, {10, 10}, {29, 9},  {27, 18}, {17, 19}, {20, 13}, {6, 15},  {13, 16},
    {2, 6},   {8, 5},   {35, 10}, {2, 9},   {15, 9},  {6, 10},  {20, 13}, {4, 4},   {24, 14}, {21, 19},
    {20, 12}, {18, 13}, {26, 18}, {6, 5},   {18, 16}, {30, 8},  {8, 1},   {31, 12}, {33, 6},  {14, 1},
    {13, 16}, {33, 10}, {2, 10},  {21, 7},  {5, 12},  {34, 17}, {24, 18}, {37, 15}, {9, 9},   {27, 10},
    {38, 8},  {18, 3},  {35, 3},  {22, 12}, {6, 6},   {19, 19}, {29, 3},  {19, 17}, {23, 16}, {14, 8},
    {7, 2},   {10, 16}, {9, 4},
};
static const int recorded_targets[] = {87, 86, 63, 69, 111, 103, 83, 89, 51, 85};

static sago_status recorded_draw(const void *context, uint64_t number, sago_example *out, bool *end) {
    (void)context;
    *end = number >= sizeof recorded_lengths / sizeof *recorded_lengths;
    if (*end) return SAGO_OK;
    sago_ids_clear(&out->inputs);
    sago_ids_clear(&out->targets);
    for (int i = 0; i < recorded_lengths[number][0]; i++) sago_ids_add(&out->inputs, 7);
    for (int i = 0; i < recorded_lengths[number][1]; i++) sago_ids_add(&out->targets, 8);
    return SAGO_OK;
}

static void packs_as_recorded(void **state) {
    (void)state;
    const sago_pack_options options = {.packing = true,
                                       .sequential = true,
                                       .window = 1,
                                       .input_length = 64,
                                       .target_length = 32,
                                       .decoder_only = true};
    sago_packer *packer;
    assert_int_equal(sago_packer_open(&options, (sago_pack_source){recorded_draw, NULL}, &packer), SAGO_OK);
    for (size_t step = 0; step < sizeof recorded_targets / sizeof *recorded_targets; step++) {
        int64_t targets = 0;
        for (int r = 0; r < 3; r++) {
            sago_packed_row row;
            assert_true(next(packer, &row));
            targets += row.n_target_tokens;
        }
        assert_int_equal(targets, recorded_targets[step]);
    }
    sago_packer_close(packer);
}

static bool fits(const sago_pack_options *options, int64_t inputs, int64_t targets) {
    return options->decoder_only ? inputs + targets <= options->input_length + options->target_length
                                 : inputs <= options->input_length && targets <= options->target_length;
}

/* Walks a source to its end: every example exactly once and whole, and rows that hold what they are given. */
static void check_all_once(const sago_pack_options *options, const lengths *s) {
    bool windowed = options->packing && !options->sequential;
    sago_packer *packer = open_packer(options, s);
    unsigned char *seen = calloc((size_t)s->n + 1, 1);
    int64_t last = -1, n_seen = 0;
    for (sago_packed_row row; next(packer, &row);) {
        int64_t inputs = 0, targets = 0;
        assert_true(row.n_examples >= 1);
        if (!options->packing) assert_int_equal(row.n_examples, 1);
        for (int64_t i = 0; i < row.n_examples; i++) {
            const sago_example *e = row.examples[i];
            uint64_t number = (uint64_t)e->index;
            assert_int_equal(seen[number]++, 0);
            n_seen++;
            assert_int_equal(e->inputs.length, input_tokens(s, number));
            assert_int_equal(e->targets.length, target_tokens(s, number));
            assert_int_equal(e->inputs.data[e->inputs.length - 1],
                             (int32_t)(number * 1000) + (int32_t)e->inputs.length - 1);
            if (i > 0) assert_true(e->index > row.examples[i - 1]->index);
            if (options->sequential || !options->packing) assert_int_equal(e->index, last + 1);
            last = e->index;
            inputs += e->inputs.length;
            targets += e->targets.length;
        }
        assert_true(fits(options, inputs, targets));
        assert_int_equal(row.n_input_tokens, inputs);
        assert_int_equal(row.n_target_tokens, targets);
        assert_true(row.longest_wait < options->window || !windowed);
        if (options->packing && options->sequential && last + 1 < s->n) {
            assert_false(fits(options, inputs + input_tokens(s, (uint64_t)last + 1),
                              targets + target_tokens(s, (uint64_t)last + 1)));
        }
    }
    assert_int_equal(n_seen, s->n);
    sago_packed_row after;
    assert_false(next(packer, &after));
    free(seen);
    sago_packer_close(packer);
}

static void every_example_once_and_whole(void **state) {
    (void)state;
    static const int64_t windows[] = {1, 2, 7, 64, 300};
    for (uint64_t k = 0; k < 60; k++) {
        lengths s = {.key = k, .n = (int64_t)sago_below(sago_mix(k, 1), 400), .tiny = -1, .fail_at = -1};
        sago_pack_options o = {.packing = k % 5 != 0,
                               .sequential = k % 3 == 0,
                               .decoder_only = k % 7 < 3,
                               .window = windows[k % 5],
                               .input_length = 16 + (int64_t)sago_below(sago_mix(k, 2), 200),
                               .target_length = 8 + (int64_t)sago_below(sago_mix(k, 3), 60)};
        s.most_inputs = 1 + (int64_t)sago_below(sago_mix(k, 4), (uint64_t)o.input_length);
        s.most_targets = 1 + (int64_t)sago_below(sago_mix(k, 5), (uint64_t)o.target_length);
        check_all_once(&o, &s);
    }
}

/* A small example among others that fill a row each is never the hardest and never fits: only its age brings
 * it in. */
static void no_example_starves(void **state) {
    (void)state;
    const sago_pack_options options = {
        .packing = true, .window = 32, .input_length = 100, .target_length = 100};
    const lengths s = {.key = 3,
                       .n = -1,
                       .full_rows = true,
                       .most_inputs = 100,
                       .most_targets = 50,
                       .tiny = 40,
                       .fail_at = -1};
    int64_t found_at = -1;
    sago_packer *packer = open_packer(&options, &s);
    for (int64_t r = 0; r < 200 && found_at < 0; r++) {
        sago_packed_row row;
        assert_true(next(packer, &row));
        for (int64_t i = 0; i < row.n_examples; i++)
            if (row.examples[i]->index == s.tiny) {
                found_at = r;
                assert_true(row.longest_wait < options.window);
            }
    }
    assert_in_range(found_at, options.window, 2 * options.window);
    sago_packer_close(packer);
}

/* The chosen subset against all subsets: no other that holds the row's first item fills the inputs more. */
static void fill_is_the_best_there_is(void **state) {
    (void)state;
    for (uint64_t k = 0; k < 400; k++) {
        int64_t input_length = 20 + (int64_t)sago_below(sago_mix(k, 1), 60),
                target_length = 10 + (int64_t)(k % 20);
        int64_t n = 1 + (int64_t)sago_below(sago_mix(k, 2), 10);
        sago_fill_item items[10];
        for (int64_t i = 0; i < n; i++) {
            items[i].inputs =
                (int32_t)sago_below(sago_mix(k, 10 + 2 * (uint64_t)i), (uint64_t)input_length + 1);
            items[i].targets =
                (int32_t)sago_below(sago_mix(k, 11 + 2 * (uint64_t)i), (uint64_t)target_length / 2);
        }
        sago_fill *fill = sago_fill_open(input_length, target_length);
        int64_t chosen[10], n_chosen = sago_fill_row(fill, items, n, chosen);
        int64_t inputs = 0, targets = 0, best = 0;
        assert_int_equal(chosen[0], 0);
        for (int64_t i = 0; i < n_chosen; i++) {
            inputs += items[chosen[i]].inputs;
            targets += items[chosen[i]].targets;
            if (i) assert_true(chosen[i] > chosen[i - 1]);
        }
        assert_true(inputs <= input_length && targets <= target_length);
        for (uint32_t set = 1; set < 1u << n; set += 2) {
            int64_t a = 0, b = 0;
            for (int64_t i = 0; i < n; i++)
                if (set >> i & 1) a += items[i].inputs, b += items[i].targets;
            if (a <= input_length && b <= target_length && a > best) best = a;
        }
        assert_int_equal(inputs, best);
        sago_fill_close(fill);
    }
}

static void window_fills_rows(void **state) {
    (void)state;
    const lengths s = {.key = 11, .n = -1, .most_inputs = 300, .most_targets = 30, .tiny = -1, .fail_at = -1};
    const sago_pack_options options = {
        .packing = true, .window = 256, .input_length = 512, .target_length = 128};
    sago_packer *packer = open_packer(&options, &s);
    sago_pack_statistics statistics;
    assert_int_equal(sago_packer_measure(packer, 500, &statistics), SAGO_OK);
    assert_int_equal(statistics.rows, 500);
    assert_true(statistics.input_fill > 0.995);
    assert_true(statistics.examples > 1000);
    assert_true(statistics.longest_wait < options.window);
    sago_packer_close(packer);

    /* The other lengths of a decoder-only row count together. */
    sago_pack_options joint = options;
    joint.decoder_only = true;
    packer = open_packer(&joint, &s);
    assert_int_equal(sago_packer_measure(packer, 500, &statistics), SAGO_OK);
    double tokens = (double)(statistics.input_tokens + statistics.target_tokens);
    assert_true(statistics.fill > 0.999 && statistics.fill <= 1);
    assert_true(fabs(statistics.fill - tokens / (500 * 640)) < 1e-12);
    assert_true(statistics.input_fill == 0 && statistics.target_fill == 0);
    sago_packer_close(packer);
}

/* Restored at any row, by way of the JSON text, the packer gives the rows that it would have given. */
static void cursor_continues(void **state) {
    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        const lengths s = {
            .key = 21, .n = 300, .most_inputs = 60, .most_targets = 20, .tiny = -1, .fail_at = -1};
        const sago_pack_options options = {.packing = mode > 0,
                                           .sequential = mode == 1,
                                           .window = 20,
                                           .input_length = 100,
                                           .target_length = 40};
        sago_packer *whole = open_packer(&options, &s), *part = open_packer(&options, &s);
        sago_pack_cursor cursor = {0}, read = {0};
        sago_packed_row a, b;
        for (bool more = true; more;) {
            sago_packer_save(whole, &cursor);
            json_t *json = sago_pack_cursor_to_json(&cursor);
            assert_int_equal(sago_pack_cursor_from_json(json, &read), SAGO_OK);
            json_decref(json);
            if (sago_packer_restore(part, &read) != SAGO_OK) fail_msg("%s", sago_message());
            more = next(whole, &a);
            assert_int_equal(next(part, &b), more);
            for (int again = 0; again < 2 && more; again++) {
                assert_int_equal(a.n_examples, b.n_examples);
                assert_int_equal(a.longest_wait, b.longest_wait);
                for (int64_t i = 0; i < a.n_examples; i++) {
                    assert_int_equal(a.examples[i]->index, b.examples[i]->index);
                    assert_int_equal(a.examples[i]->inputs.length, b.examples[i]->inputs.length);
                }
                if (again) break;
                bool also = next(whole, &a);
                assert_int_equal(next(part, &b), also);
                if (!also) more = false;
            }
        }
        sago_pack_cursor_free(&cursor);
        sago_pack_cursor_free(&read);
        sago_packer_close(whole);
        sago_packer_close(part);
    }
}

static void wrong_cursors(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        "{\"next_draw\": -1, \"rows\": 0, \"waiting\": []}",
        "{\"next_draw\": 5, \"rows\": 0, \"waiting\": 7}",
        "{\"next_draw\": 5, \"rows\": 0, \"waiting\": [[9, 0]]}",
        "{\"next_draw\": 5, \"rows\": 1, \"waiting\": [[3, 2]]}",
        "{\"next_draw\": 5, \"rows\": 1, \"waiting\": [\"x\"]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *json;
        sago_pack_cursor cursor = {0};
        assert_int_equal(sago_json_parse(texts[i], strlen(texts[i]), "cursor", 0, &json), SAGO_OK);
        assert_int_equal(sago_pack_cursor_from_json(json, &cursor), SAGO_E_CORRUPT);
        sago_pack_cursor_free(&cursor);
        json_decref(json);
    }
}

static void failures_of_the_source(void **state) {
    (void)state;
    const lengths broken = {
        .key = 2, .n = -1, .most_inputs = 10, .most_targets = 10, .tiny = -1, .fail_at = 30};
    const lengths longer = {
        .key = 2, .n = -1, .most_inputs = 500, .most_targets = 10, .tiny = -1, .fail_at = -1};
    for (int mode = 0; mode < 3; mode++) {
        const sago_pack_options options = {.packing = mode > 0,
                                           .sequential = mode == 1,
                                           .window = 8,
                                           .input_length = 40,
                                           .target_length = 40};
        sago_packer *packer = open_packer(&options, &broken);
        sago_packed_row row;
        bool more = true;
        sago_status status = SAGO_OK;
        for (int r = 0; r < 100 && status == SAGO_OK; r++) status = sago_packer_next(packer, &row, &more);
        assert_int_equal(status, SAGO_E_INPUT);
        assert_non_null(strstr(sago_message(), "example 30 is broken"));
        sago_packer_close(packer);
        packer = open_packer(&options, &longer);
        status = SAGO_OK;
        for (int r = 0; r < 100 && status == SAGO_OK; r++) status = sago_packer_next(packer, &row, &more);
        assert_int_equal(status, SAGO_E_SHAPE);
        sago_packer_close(packer);
    }
    sago_packer *packer;
    const sago_pack_options none = {.packing = true, .window = 8, .input_length = 0, .target_length = 4};
    assert_int_equal(sago_packer_open(&none, (sago_pack_source){draw, &broken}, &packer), SAGO_E_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_example),
        cmocka_unit_test(every_example_once_and_whole),
        cmocka_unit_test(no_example_starves),
        cmocka_unit_test(fill_is_the_best_there_is),
        cmocka_unit_test(window_fills_rows),
        cmocka_unit_test(cursor_continues),
        cmocka_unit_test(wrong_cursors),
        cmocka_unit_test(failures_of_the_source),
        cmocka_unit_test(worked_example_decoder_only),
        cmocka_unit_test(packs_as_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
