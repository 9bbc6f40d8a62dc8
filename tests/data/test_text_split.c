// SPDX-License-Identifier: Apache-2.0
/* Plain text kept for evaluation: that nothing trains on it, that the choice is one of the text alone, and
 * that copies of held-out documents are found. */
#include "data.h"
#include "files.h"
#include "mixture.h"
#include "rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "text_mixture.h"

/* Document d is one character, U+4E00 + d, over and over: of its three bytes the last names the document in
 * whatever piece of it, and no other byte is one of these. */
enum { DOCUMENTS = 56, BYTE = 3, FIRST_MARK = 0x80 + BYTE };

static int length_of(int d) {
    return d % 9 == 0 ? 900 : 5 + (int)(sago_mix(7, (uint64_t)d) % 60);
}

static void put_document(sago_str *out, int d) {
    for (int i = 0; i < length_of(d); i++) sago_str_printf(out, "\xe4\xb8%c", 0x80 + d);
}

/* The documents of a range, a line of text or JSON each. */
static void write_shard(const char *name, int from, int to, int step, bool json) {
    sago_str text = {0};
    for (int d = from; d != to; d += step) {
        sago_str_puts(&text, json ? "{\"text\": \"" : "");
        put_document(&text, d);
        sago_str_puts(&text, json ? "\"}\n" : "\n");
    }
    test_write_bytes(name, text.data, text.length);
    sago_str_free(&text);
}

/* What the split is by its definition: the hash of the text below the fraction of all hashes. */
static bool is_kept(int d, double fraction) {
    sago_str text = {0};
    put_document(&text, d); /* letters alone: they are their own normalised form */
    double place = (double)sago_hash_bytes(text.data, text.length) / 0x1p64;
    sago_str_free(&text);
    return place < fraction;
}

static int set_up(void **state) {
    (void)state;
    write_shard("one/a.txt", 0, DOCUMENTS, 1, false);
    write_shard("many/a.jsonl", DOCUMENTS - 1, 29, -1, true);
    write_shard("many/b.txt", 10, 30, 1, false);
    write_shard("many/c.txt", 9, -1, -1, false);
    return 0;
}

static sago_config *config_of(const char *folder, const char *objective, double fraction, int seed,
                              const char *keys) {
    char *text = sago_format("run: {seed: %d}\ntrain: {global_batch: 4}\ndata:\n  input_length: 60\n"
                             "  target_length: 40\n  tokenizer: bytes\n  eval_fraction: %g\n%s"
                             "  mixture:\n    - {name: web, format: text, path: %s, objective: %s}\n",
                             seed, fraction, keys, folder, objective);
    sago_config *config = test_config(text);
    free(text);
    return config;
}

static void mark(const int32_t *ids, int64_t n, int marks[DOCUMENTS]) {
    for (int64_t i = 0; i < n; i++) {
        int d = ids[i] - FIRST_MARK;
        if (d >= 0 && d < DOCUMENTS) marks[d]++;
    }
}

static void mark_example(const sago_example *example, int marks[DOCUMENTS]) {
    mark(example->inputs.data, example->inputs.length, marks);
    mark(example->targets.data, example->targets.length, marks);
}

static sago_mixture_task task_of(const sago_mixture *mixture, int task) {
    sago_mixture_task info;
    sago_mixture_task_info(mixture, task, &info);
    return info;
}

/* Every draw of two passes and every question, of every objective, family, order and seed. */
static void nothing_trains_on_kept_documents(void **state) {
    (void)state;
    static const char *const objectives[] = {"causal-lm", "prefix-lm", "span-corruption", "ul2", "ul2r"};
    const double fraction = 0.3;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_example example = {0};
    sago_question question = {0};
    int n_kept = 0;
    for (int d = 0; d < DOCUMENTS; d++) n_kept += is_kept(d, fraction);
    assert_in_range(n_kept, 8, 28); /* 17 are expected; the documents are fixed */
    for (int o = 0; o < 5; o++) {
        for (int variant = 0; variant < 8; variant++) {
            bool decoder_only = variant & 1, sequential = variant & 2;
            if (o == 0 && !decoder_only) continue;
            sago_config *config = config_of(variant & 4 ? "many" : "one", objectives[o], fraction,
                                            variant & 4 ? 5 : 6, sequential ? "  order: sequential\n" : "");
            sago_mixture *mixture = open_mixture(config, tokenizer, decoder_only);
            sago_mixture_member member;
            sago_mixture_member_info(mixture, 0, &member);
            assert_int_equal(member.documents.eval, n_kept);
            assert_int_equal(member.documents.train, DOCUMENTS - n_kept);
            assert_int_equal(member.documents.dropped, 0);
            int trained[DOCUMENTS] = {0}, asked[DOCUMENTS] = {0};
            int64_t draws = 0;
            for (int t = 0; t < sago_mixture_tasks(mixture); t++)
                draws += (sequential ? 1 : 2) * task_of(mixture, t).n_train;
            if (sequential) assert_int_equal(draws, sago_mixture_length(mixture));
            for (int64_t i = 0; i < draws; i++) {
                assert_int_equal(sago_mixture_draw(mixture, (uint64_t)i, &example, NULL), SAGO_OK);
                mark_example(&example, trained);
            }
            for (int t = 0; t < sago_mixture_tasks(mixture); t++) {
                sago_mixture_task task = task_of(mixture, t);
                assert_true(task.n_eval > 0 && task.n_examples == task.n_train + task.n_eval);
                int of_task[DOCUMENTS] = {0};
                for (int64_t i = 0; i < task.n_eval; i++) {
                    assert_int_equal(sago_mixture_question(mixture, t, SAGO_SPLIT_EVAL, i,
                                                           &(sago_render_options){.seed = 1}, &question),
                                     SAGO_OK);
                    assert_int_equal(question.n_references + question.n_options, 0);
                    assert_true(question.example.inputs.length > 0 && question.example.targets.length > 0);
                    mark_example(&question.example, of_task);
                }
                for (int d = 0; d < DOCUMENTS; d++) {
                    asked[d] += of_task[d];
                    /* Once each, all of it; a causal piece begins with the last id of the one before, and a
                     * single id that is left at the end is nothing to ask. */
                    if (is_kept(d, fraction))
                        assert_in_range(of_task[d], length_of(d) - 1, length_of(d) + (o == 0 ? 40 : 0));
                }
            }
            for (int d = 0; d < DOCUMENTS; d++) {
                if (is_kept(d, fraction)) assert_int_equal(trained[d], 0);
                if (!is_kept(d, fraction)) assert_true(asked[d] == 0 && trained[d] > 0);
            }
            sago_mixture_close(mixture);
            sago_config_free(config);
        }
    }
    sago_example_free(&example);
    sago_question_free(&question);
    sago_tokenizer_close(tokenizer);
}

/* Causal questions, one after the other: every id of the kept documents is a target once, but the first. */
static void causal_questions_are_the_stream(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_question question = {0};
    sago_ids streams[2] = {{0}};
    for (int seed = 0; seed < 2; seed++) { /* of which nothing depends */
        sago_config *config = config_of("one", "causal-lm", 0.3, seed, "");
        sago_mixture *mixture = open_mixture(config, tokenizer, true);
        sago_ids *stream = &streams[seed];
        for (int64_t i = 0; i < task_of(mixture, 0).n_eval; i++) {
            assert_int_equal(
                sago_mixture_question(mixture, 0, SAGO_SPLIT_EVAL, i, &(sago_render_options){0}, &question),
                SAGO_OK);
            const sago_ids *inputs = &question.example.inputs, *targets = &question.example.targets;
            assert_int_equal(inputs->length, 1);
            assert_true(targets->length <= 99);
            if (i == 0) sago_ids_add(stream, inputs->data[0]);
            assert_int_equal(inputs->data[0], stream->data[stream->length - 1]);
            for (int64_t k = 0; k < targets->length; k++) sago_ids_add(stream, targets->data[k]);
        }
        int64_t at = 0;
        int seen[DOCUMENTS] = {0};
        while (at < stream->length) {
            int d = stream->data[at + 2] - FIRST_MARK;
            assert_in_range(d, 0, DOCUMENTS - 1);
            assert_true(is_kept(d, 0.3) && seen[d]++ == 0);
            for (int i = 0; i < length_of(d); i++, at += 3)
                assert_true(stream->data[at] == 0xe4 + BYTE && stream->data[at + 1] == 0xb8 + BYTE &&
                            stream->data[at + 2] == FIRST_MARK + d);
            assert_int_equal(stream->data[at++], 1); /* EOS */
        }
        for (int d = 0; d < DOCUMENTS; d++) assert_int_equal(seen[d], is_kept(d, 0.3));
        sago_mixture_close(mixture);
        sago_config_free(config);
    }
    assert_int_equal(streams[0].length, streams[1].length);
    assert_memory_equal(streams[0].data, streams[1].data, (size_t)streams[0].length * sizeof(int32_t));
    sago_ids_free(&streams[0]), sago_ids_free(&streams[1]);
    sago_question_free(&question);
    sago_tokenizer_close(tokenizer);
}

/* Batches of one, two and three ranks hold the same documents, none of them kept. */
static void ranks_share_the_split(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    int first[DOCUMENTS] = {0};
    for (int ranks = 1; ranks <= 3; ranks++) {
        int marks[DOCUMENTS] = {0};
        for (int rank = 0; rank < ranks; rank++) {
            sago_config *config = config_of("many", "causal-lm", 0.3, 1, "");
            sago_data *data;
            assert_int_equal(sago_data_open(config, tokenizer, 400, true, rank, ranks, &data), SAGO_OK);
            for (int step = 0; step < 40; step++) {
                const sago_batch *batch;
                assert_int_equal(sago_data_next(data, &batch), SAGO_OK);
                mark(batch->decoder_inputs, batch->n_rows * batch->target_length, marks);
            }
            sago_data_close(data);
            sago_config_free(config);
        }
        for (int d = 0; d < DOCUMENTS; d++)
            if (is_kept(d, 0.3)) assert_int_equal(marks[d], 0);
        if (ranks == 1) memcpy(first, marks, sizeof first);
        assert_memory_equal(first, marks, sizeof first);
    }
    sago_tokenizer_close(tokenizer);
}

/* The member "test" is held out as a whole; what it holds leaves the others, whatever its case and marks. */
static void copies_of_held_out_documents(void **state) {
    (void)state;
    test_write("test/t.txt", "A stone, in the river!\nof its own\n");
    test_write("web/a.txt", "first\na stone in  the river\nAnother line\n");
    test_write("web/b.jsonl",
               "{\"text\": \"more\"}\n{\"text\": \"A STONE IN THE RIVER\"}\n"
               "{\"text\": \"What is two and two?\"}\n{\"text\": \"a stone in the river, too\"}\n");
    test_write("asked.jsonl", "{\"inputs\": \"what is two and two\", \"targets\": \"four\"}\n"
                              "{\"inputs\": \"What is two and one?\", \"targets\": \"three\"}\n");
    static const char text[] = "data:\n  input_length: 60\n  target_length: 40\n  holdout: [test, asked]\n%s"
                               "  mixture:\n"
                               "    - {name: web, format: text, path: web, objective: causal-lm}\n"
                               "    - {name: test, format: text, path: test, objective: causal-lm}\n"
                               "    - {name: asked, format: jsonl, path: asked.jsonl}\n";
    sago_tokenizer *tokenizer = bytes_tokenizer();
    for (int check = 0; check < 2; check++) {
        char *lines = sago_format(text, check ? "" : "  leak_check: false\n");
        sago_config *config = test_config(lines);
        sago_mixture *mixture = open_mixture(config, tokenizer, true);
        sago_mixture_member web, test;
        sago_mixture_member_info(mixture, 0, &web);
        sago_mixture_member_info(mixture, 1, &test);
        assert_int_equal(web.documents.train, check ? 4 : 7);
        assert_int_equal(web.documents.dropped, check ? 3 : 0);
        assert_true(web.documents.eval == 0 && test.documents.train == 0 && test.documents.eval == 2);
        assert_true(test.share == 0 && web.share == 1);
        assert_true(task_of(mixture, 1).held_out && task_of(mixture, 1).n_eval == 1);
        assert_int_equal(task_of(mixture, 1).n_train, 0);
        sago_mixture_close(mixture);
        sago_config_free(config);
        free(lines);
    }
    /* Instructions that are trained on hold none either; that is refused, with both lines. */
    sago_config *config = test_config("data:\n  holdout: [test]\n  mixture:\n"
                                      "    - {name: test, format: text, path: test, objective: prefix-lm}\n"
                                      "    - {name: tasks, format: jsonl, path: leaky.jsonl}\n");
    test_write("leaky.jsonl", "{\"inputs\": \"fine\", \"targets\": \"x\"}\n"
                              "{\"inputs\": \"a stone in the river\", \"targets\": \"y\"}\n");
    sago_mixture *mixture;
    assert_int_equal(sago_mixture_open(config, tokenizer, 400, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "leaky.jsonl:2 (training)"));
    assert_non_null(strstr(sago_message(), "t.txt:1 (held out)"));
    sago_config_free(config);
    /* Copies among the documents of one member are kept or trained on together. */
    sago_str many = {0};
    for (int i = 0; i < 400; i++) sago_str_printf(&many, "Line %d\nline, %d.\n", i % 40, i % 40);
    test_write_bytes("copies/a.txt", many.data, many.length);
    config = test_config("data:\n  input_length: 60\n  target_length: 40\n  eval_fraction: 0.4\n  mixture:\n"
                         "    - {name: web, format: text, path: copies, objective: causal-lm}\n");
    mixture = open_mixture(config, tokenizer, true);
    sago_mixture_member web;
    sago_mixture_member_info(mixture, 0, &web);
    assert_true(web.documents.eval > 0 && web.documents.eval % 20 == 0 && web.documents.train % 20 == 0);
    sago_mixture_close(mixture);
    sago_config_free(config);
    sago_str_free(&many);
    sago_tokenizer_close(tokenizer);
}

static void what_is_left_must_do(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    test_write("pair/t.txt", "the only line\n");
    test_write("pair2/t.txt", "The only line.\n");
    sago_config *config = test_config("data:\n  holdout: [b]\n  mixture:\n"
                                      "    - {name: a, format: text, path: pair, objective: prefix-lm}\n"
                                      "    - {name: b, format: text, path: pair2, objective: prefix-lm}\n");
    sago_mixture *mixture;
    assert_int_equal(sago_mixture_open(config, tokenizer, 400, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "\"a\""));
    assert_non_null(strstr(sago_message(), "to train on"));
    sago_config_free(config);
    /* Held out alone, it can be evaluated, and nothing can be drawn. */
    config = test_config("data:\n  holdout: [b]\n  mixture:\n"
                         "    - {name: b, format: text, path: pair2, objective: prefix-lm}\n");
    mixture = open_mixture(config, tokenizer, false);
    assert_int_equal(sago_mixture_drawable(mixture), SAGO_E_CONFIG);
    assert_int_equal(task_of(mixture, 0).n_eval, 1);
    sago_mixture_close(mixture);
    sago_config_free(config);
    sago_tokenizer_close(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_trains_on_kept_documents),
        cmocka_unit_test(causal_questions_are_the_stream),
        cmocka_unit_test(ranks_share_the_split),
        cmocka_unit_test(copies_of_held_out_documents),
        cmocka_unit_test(what_is_left_must_do),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
