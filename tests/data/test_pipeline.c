// SPDX-License-Identifier: Apache-2.0
#include "data.h"
#include "file.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_LINES = 230, GLOBAL_BATCH = 7, VOCABULARY = 500 };

static char folder[] = "/tmp/sago-test-pipeline-XXXXXX";

/* Ids of line n: its number at the front of inputs and targets, EOS at the end; line 0 of part b is
 * "broken_at". */
static void write_part(const char *name, uint64_t key, int64_t broken_at) {
    sago_str text = {0};
    for (int64_t n = 0; n < N_LINES; n++) {
        uint64_t h = sago_mix(key, (uint64_t)n);
        sago_str_printf(&text, "{\"input_ids\": [%d", (int)(n % 400) + 3);
        for (uint64_t i = 0; i < h % 25; i++) sago_str_printf(&text, ", %d", (int)(sago_mix(h, i) % 400) + 3);
        if (n == broken_at) sago_str_puts(&text, ", 77777");
        sago_str_printf(&text, ", 1], \"target_ids\": [%d", (int)(n % 400) + 3);
        for (uint64_t i = 0; i < (h >> 32) % 9; i++)
            sago_str_printf(&text, ", %d", (int)(sago_mix(h, 99 + i) % 400) + 3);
        sago_str_puts(&text, ", 1]}\n");
    }
    char *path = sago_path_join(folder, name);
    assert_int_equal(sago_file_replace(path, text.data, text.length), SAGO_OK);
    free(path);
    sago_str_free(&text);
}

static int set_up(void **state) {
    (void)state;
    assert_non_null(mkdtemp(folder));
    write_part("a.jsonl", 1, -1);
    write_part("b.jsonl", 2, -1);
    write_part("broken.jsonl", 3, 57);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    return sago_dir_remove(folder) == SAGO_OK ? 0 : -1;
}

static sago_config *load(const char *mixture, const char *keys) {
    char *path = sago_path_join(folder, "config.yaml");
    sago_str text = {0};
    sago_config *config;
    sago_str_printf(
        &text,
        "run: {seed: 5}\ndata:\n  mixture:\n%s  cache_dir: cache\n  input_length: 40\n  target_length: 14\n"
        "  pack_window: 12\n%strain: {global_batch: %d}\n",
        mixture, keys, (int)GLOBAL_BATCH);
    assert_int_equal(sago_file_replace(path, text.data, text.length), SAGO_OK);
    if (sago_config_load(path, NULL, 0, &config) != SAGO_OK) fail_msg("%s", sago_message());
    free(path);
    sago_str_free(&text);
    return config;
}

static const char two_parts[] = "    - {name: a, format: ids, path: a.jsonl, share: 3}\n"
                                "    - {name: b, format: ids, path: b.jsonl, share: 1}\n";
static const char *const orders[] = {
    "  order: sampled\n  packing: true\n",
    "  order: sampled\n  packing: false\n",
    "  order: sequential\n  packing: true\n",
    "  order: sequential\n  packing: false\n",
    "  order: sampled\n  packing: true\nmodel: {family: palm}\n",
    "  order: sequential\n  packing: true\nmodel: {family: palm}\n",
};
enum { N_ORDERS = 6 };

static sago_data *open_rank(const sago_config *config, int rank, int size) {
    sago_data *data;
    bool decoder_only = strcmp(config->model.family, "palm") == 0;
    if (sago_data_open(config, NULL, VOCABULARY, decoder_only, rank, size, &data) != SAGO_OK)
        fail_msg("%s", sago_message());
    return data;
}

static const sago_batch *next(sago_data *data) {
    const sago_batch *batch;
    if (sago_data_next(data, &batch) != SAGO_OK) fail_msg("%s", sago_message());
    return batch;
}

/* Rows of part are rows [first_row, first_row + n_rows) of whole. */
static void assert_rows_equal(const sago_batch *part, const sago_batch *whole) {
    size_t inputs = (size_t)part->input_length, targets = (size_t)part->target_length;
    assert_int_equal(part->global_rows, whole->global_rows);
    assert_int_equal(part->global_target_tokens, whole->global_target_tokens);
    for (int64_t r = 0; r < part->n_rows; r++) {
        size_t i = (size_t)r * inputs, j = (size_t)(part->first_row + r - whole->first_row) * inputs;
        size_t t = (size_t)r * targets, u = (size_t)(part->first_row + r - whole->first_row) * targets;
        assert_memory_equal(part->inputs + i, whole->inputs + j, inputs * sizeof(int32_t));
        assert_memory_equal(part->input_segments + i, whole->input_segments + j, inputs * sizeof(int32_t));
        assert_memory_equal(part->targets + t, whole->targets + u, targets * sizeof(int32_t));
        assert_memory_equal(part->decoder_inputs + t, whole->decoder_inputs + u, targets * sizeof(int32_t));
        assert_memory_equal(part->target_segments + t, whole->target_segments + u, targets * sizeof(int32_t));
        assert_memory_equal(part->weights + t, whole->weights + u, targets * sizeof(float));
        assert_int_equal(part->prefix == NULL, whole->prefix == NULL);
        if (part->prefix) assert_memory_equal(part->prefix + t, whole->prefix + u, targets * sizeof(int32_t));
    }
}

static void assert_batches_equal(const sago_batch *a, const sago_batch *b) {
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_examples, b->n_examples);
    assert_int_equal(a->n_input_tokens, b->n_input_tokens);
    assert_int_equal(a->n_target_tokens, b->n_target_tokens);
    assert_rows_equal(a, b);
}

static void ranks_share_one_order(void **state) {
    (void)state;
    for (int o = 0; o < N_ORDERS; o++) {
        sago_config *config = load(two_parts, orders[o]);
        for (int size = 2; size <= 9; size += size < 4 ? 1 : 5) {
            sago_data *whole = open_rank(config, 0, 1), *parts[9];
            for (int r = 0; r < size; r++) parts[r] = open_rank(config, r, size);
            for (int step = 0; step < 12; step++) {
                const sago_batch *all = next(whole);
                int64_t first = 0, examples = 0, inputs = 0, targets = 0;
                for (int r = 0; r < size; r++) {
                    const sago_batch *mine = next(parts[r]);
                    assert_int_equal(mine == NULL, all == NULL);
                    if (!all) continue;
                    assert_int_equal(mine->first_row, first);
                    assert_int_equal(mine->n_rows, GLOBAL_BATCH / size + (r < GLOBAL_BATCH % size));
                    first += mine->n_rows, examples += mine->n_examples;
                    inputs += mine->n_input_tokens, targets += mine->n_target_tokens;
                    assert_rows_equal(mine, all);
                }
                if (!all) continue;
                assert_int_equal(first, GLOBAL_BATCH);
                assert_int_equal(examples, all->n_examples);
                assert_int_equal(inputs, all->n_input_tokens);
                assert_int_equal(targets, all->global_target_tokens);
            }
            sago_data_close(whole);
            for (int r = 0; r < size; r++) sago_data_close(parts[r]);
        }
        sago_config_free(config);
    }
}

static int64_t drawn_examples(const sago_data *data) {
    json_t *drawn = sago_data_drawn(data);
    int64_t sum = 0, sum_of_tasks = 0;
    for (size_t m = 0; m < json_array_size(json_object_get(drawn, "members")); m++) {
        const json_t *member = json_array_get(json_object_get(drawn, "members"), m);
        sum += json_integer_value(json_object_get(member, "examples"));
        const json_t *tasks = json_object_get(member, "tasks");
        for (size_t t = 0; t < json_array_size(tasks); t++)
            sum_of_tasks += json_integer_value(json_object_get(json_array_get(tasks, t), "examples"));
    }
    json_decref(drawn);
    assert_int_equal(sum, sum_of_tasks);
    return sum;
}

/* From the cursor of any batch, on another number of ranks and another depth of prefetch, all that follows is
 * equal. */
static void cursor_continues(void **state) {
    (void)state;
    for (int o = 0; o < N_ORDERS; o++) {
        char *deep = sago_format("  prefetch: 5\n%s", orders[o]);
        sago_config *config = load(two_parts, orders[o]), *other = load(two_parts, deep);
        for (int at = 0; at < 6; at++) {
            sago_data *whole = open_rank(config, 0, 1), *later = open_rank(other, 1, 2);
            int64_t examples = 0;
            for (int step = 0; step < at; step++) examples += next(whole)->n_examples;
            assert_int_equal(drawn_examples(whole), examples);
            json_t *cursor = sago_data_cursor(whole);
            char *text = json_dumps(cursor, 0);
            json_decref(cursor);
            cursor = json_loads(text, 0, NULL);
            for (int round = 0; round < 2; round++) { /* the second time from the middle of its own reading */
                if (sago_data_restore(later, cursor) != SAGO_OK) fail_msg("%s", sago_message());
                json_t *again = sago_data_cursor(later);
                assert_true(json_equal(again, cursor));
                json_decref(again);
                assert_int_equal(drawn_examples(later), examples);
                if (round == 0) next(later), next(later);
            }
            for (int step = 0; step < 4; step++) {
                const sago_batch *all = next(whole), *half = next(later);
                examples += all->n_examples;
                assert_rows_equal(half, all);
                assert_int_equal(drawn_examples(later), examples);
            }
            json_t *a = sago_data_cursor(whole), *b = sago_data_cursor(later);
            assert_true(json_equal(a, b));
            json_decref(a);
            json_decref(b);
            json_decref(cursor);
            free(text);
            sago_data_close(whole);
            sago_data_close(later);
        }
        sago_config_free(config);
        sago_config_free(other);
        free(deep);
    }
}

static void prefetch_depth_is_irrelevant(void **state) {
    (void)state;
    char *one = sago_format("%s  prefetch: 1\n", orders[0]),
         *many = sago_format("%s  prefetch: 9\n", orders[0]);
    sago_config *a = load(two_parts, one), *b = load(two_parts, many);
    sago_data *x = open_rank(a, 0, 1), *y = open_rank(b, 0, 1);
    for (int step = 0; step < 30; step++) {
        const sago_batch *first = next(x);
        assert_batches_equal(next(y), first);
        assert_true(sago_data_wait_seconds(x) >= 0);
        json_t *c = sago_data_cursor(x), *d = sago_data_cursor(y);
        assert_true(json_equal(c, d));
        json_decref(c);
        json_decref(d);
    }
    sago_data_close(x);
    sago_data_close(y);
    sago_config_free(a);
    sago_config_free(b);
    free(one);
    free(many);
}

/* In file order, once: the last batch is filled up with empty rows, then there is none. */
static void sequential_ends(void **state) {
    (void)state;
    sago_config *config = load("    - {name: a, format: ids, path: a.jsonl}\n", orders[3]);
    sago_data *data = open_rank(config, 0, 1);
    int64_t line = 0;
    for (const sago_batch *batch; (batch = next(data));) {
        assert_int_equal(batch->n_rows, GLOBAL_BATCH);
        for (int64_t r = 0; r < batch->n_rows; r++) {
            const int32_t *inputs = batch->inputs + r * batch->input_length;
            if (line < N_LINES)
                assert_int_equal(inputs[0], line++ % 400 + 3);
            else
                assert_int_equal(inputs[0], 0);
        }
    }
    assert_int_equal(line, N_LINES);
    assert_null(next(data));
    assert_int_equal(drawn_examples(data), N_LINES);
    json_t *cursor = sago_data_cursor(data);
    assert_int_equal(sago_data_restore(data, cursor), SAGO_OK);
    assert_null(next(data));
    json_decref(cursor);
    sago_data_close(data);
    sago_config_free(config);
}

/* What the thread fails with arrives in its place, after the batches before it, and stays. */
static void failure_arrives(void **state) {
    (void)state;
    char *deep = sago_format("%s  prefetch: 20\n", orders[3]);
    sago_config *config = load("    - {name: a, format: ids, path: broken.jsonl}\n", deep);
    sago_data *data;
    const sago_batch *batch;
    sago_status status = sago_data_open(config, NULL, VOCABULARY, false, 0, 1, &data);
    if (status == SAGO_OK) {
        for (int step = 0; step < 57 / GLOBAL_BATCH; step++) assert_non_null(next(data));
        status = sago_data_next(data, &batch);
        assert_int_equal(status, sago_data_next(data, &batch));
        sago_data_close(data);
    }
    assert_int_equal(status, SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "broken.jsonl:58"));
    assert_non_null(strstr(sago_message(), "77777"));
    sago_config_free(config);
    free(deep);
}

/* Lines without inputs are for decoder-only models alone: there the first target is given. */
static void lines_without_inputs(void **state) {
    (void)state;
    static const char lines[] = "{\"input_ids\": [7, 8], \"target_ids\": [9, 1]}\n"
                                "{\"input_ids\": [], \"target_ids\": [5, 6, 1]}\n";
    char *path = sago_path_join(folder, "bare.jsonl");
    assert_int_equal(sago_file_replace(path, lines, sizeof lines - 1), SAGO_OK);
    sago_config *config = load("    - {name: bare, format: ids, path: bare.jsonl}\n", orders[3]);
    sago_data *data;
    for (int again = 0; again < 2; again++) { /* whatever the other kind of model has left in the cache */
        assert_int_equal(sago_data_open(config, NULL, VOCABULARY, false, 0, 1, &data), SAGO_E_INPUT);
        assert_non_null(strstr(sago_message(), "bare.jsonl:2: \"input_ids\" is empty"));
        if (sago_data_open(config, NULL, VOCABULARY, true, 0, 1, &data) != SAGO_OK)
            fail_msg("%s", sago_message());
        const sago_batch *batch = next(data);
        assert_int_equal(batch->n_examples, 2);
        assert_int_equal(batch->n_input_tokens, 3);
        assert_int_equal(batch->n_target_tokens, 4);
        assert_int_equal(batch->global_target_tokens, 4);
        sago_data_close(data);
    }
    sago_config_free(config);
    free(path);
}

/* Text of an encoder's inputs ends with EOS; a decoder-only model reads on from them to the targets. */
static void end_of_text(void **state) {
    (void)state;
    static const char line[] = "{\"inputs\": \"ab\", \"targets\": \"c\"}\n";
    enum { A = 'a' + 3, B = 'b' + 3, C = 'c' + 3 }; /* bytes */
    char *path = sago_path_join(folder, "text.jsonl");
    assert_int_equal(sago_file_replace(path, line, sizeof line - 1), SAGO_OK);
    sago_config *config = load("    - {name: text, format: jsonl, path: text.jsonl}\n", orders[3]);
    sago_tokenizer *tokenizer;
    sago_data *data;
    assert_int_equal(sago_tokenizer_open("bytes", &tokenizer), SAGO_OK);
    if (sago_data_open(config, tokenizer, VOCABULARY, false, 0, 1, &data) != SAGO_OK)
        fail_msg("%s", sago_message());
    const sago_batch *batch = next(data);
    static const int32_t inputs[4] = {A, B, 1, 0}, targets[3] = {C, 1, 0}, sequence[5] = {A, B, C, 1, 0};
    assert_memory_equal(batch->inputs, inputs, sizeof inputs);
    assert_memory_equal(batch->targets, targets, sizeof targets);
    sago_data_close(data);
    if (sago_data_open(config, tokenizer, VOCABULARY, true, 0, 1, &data) != SAGO_OK)
        fail_msg("%s", sago_message());
    batch = next(data);
    assert_memory_equal(batch->decoder_inputs, sequence, sizeof sequence);
    assert_int_equal(batch->n_target_tokens, 2);
    sago_data_close(data);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
    free(path);
}

static void closes_at_any_time(void **state) {
    (void)state;
    sago_config *config = load(two_parts, orders[0]);
    for (int taken = 0; taken < 4; taken++) {
        for (int again = 0; again < 10; again++) {
            sago_data *data = open_rank(config, 0, 2);
            for (int i = 0; i < taken; i++) next(data);
            sago_data_close(data);
        }
    }
    sago_data_close(NULL);
    sago_config_free(config);
}

static void tokenizer_that_does_not_fit(void **state) {
    (void)state;
    sago_config *config = load(two_parts, orders[0]);
    sago_tokenizer *tokenizer;
    sago_data *data;
    assert_int_equal(sago_tokenizer_open("bytes", &tokenizer), SAGO_OK);
    assert_int_equal(sago_data_open(config, tokenizer, 258, false, 0, 1, &data), SAGO_E_CONFIG);
    assert_null(data);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_share_one_order),
        cmocka_unit_test(cursor_continues),
        cmocka_unit_test(prefetch_depth_is_irrelevant),
        cmocka_unit_test(sequential_ends),
        cmocka_unit_test(failure_arrives),
        cmocka_unit_test(lines_without_inputs),
        cmocka_unit_test(end_of_text),
        cmocka_unit_test(closes_at_any_time),
        cmocka_unit_test(tokenizer_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
