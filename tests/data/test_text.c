// SPDX-License-Identifier: Apache-2.0
/* Plain text: that a pass holds every document once and whole, that draws are functions of their number, and
 * what is refused. */
#include "data.h"
#include "files.h"
#include "index.h"
#include "mixture.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "text_mixture.h"

enum { DOCUMENTS = 90, BYTE = 3 }; /* id of a byte: itself + 3 */

static sago_str documents[DOCUMENTS];

/* Words, some with letters of two and three bytes; some documents are longer than a part of 2 KiB, some
 * without a space in it. The first word is the document's number. */
static void make_document(int d) {
    static const char *const words[] = {"stream",       "of",    "caf\xc3\xa9", "tea",
                                        "\xe6\xb0\xb4", "stone", "a",           "river"};
    uint64_t h = sago_mix(99, (uint64_t)d);
    int n = d % 11 == 0 ? 2000 : d % 3 == 0 ? 3 : 20 + (int)(h % 200);
    sago_str_printf(&documents[d], "d%d", d);
    for (int i = 0; i < n; i++)
        sago_str_printf(&documents[d], "%s%s", d % 22 == 0 ? "" : " ", words[sago_mix(h, (uint64_t)i) % 8]);
}

/* Three shards: 40 lines of text, 30 lines of JSON, 20 files' worth in one more text file. */
static int set_up(void **state) {
    (void)state;
    sago_str text = {0};
    for (int d = 0; d < DOCUMENTS; d++) {
        make_document(d);
        if (d >= 40 && d < 70)
            sago_str_printf(&text, "{\"id\": %d, \"text\": \"%s\"}\n", d, documents[d].data);
        else
            sago_str_printf(&text, "%s%s\n", documents[d].data, d % 7 == 0 ? "\n  " : d % 5 == 0 ? "\r" : "");
        if (d != 39 && d != 69 && d != 89) continue;
        test_write_bytes(d == 39   ? "shards/a.txt"
                         : d == 69 ? "shards/b.jsonl"
                                   : "shards/c.txt",
                         text.data, text.length);
        sago_str_clear(&text);
    }
    test_write("shards/notes.md", "not text of the corpus\n");
    sago_str_free(&text);
    return 0;
}

static sago_config *config_of(const char *objective, const char *keys) {
    char *text =
        sago_format("run: {seed: 3}\ndata:\n  input_length: 60\n  target_length: 40\n  tokenizer: bytes\n%s"
                    "  mixture:\n    - {name: web, format: text, path: shards, objective: %s}\n",
                    keys, objective);
    sago_config *config = test_config(text);
    free(text);
    return config;
}

static void draw(const sago_mixture *mixture, uint64_t number, sago_example *out) {
    if (sago_mixture_draw(mixture, number, out, NULL) != SAGO_OK) fail_msg("%s", sago_message());
}

/* Counts each document in a stream of bytes in which id 1 ends them; the last may be cut. Returns their
 * order. */
static int count_documents(const int32_t *stream, int64_t n, int counts[], int order[]) {
    sago_str text = {0};
    int n_order = 0;
    for (int64_t i = 0; i < n; i++) {
        if (stream[i] != 1) {
            sago_str_putc(&text, (char)(stream[i] - BYTE));
            continue;
        }
        int d = atoi(sago_str_text(&text) + 1);
        assert_in_range(d, 0, DOCUMENTS - 1);
        assert_string_equal(sago_str_text(&text), documents[d].data);
        counts[d]++;
        order[n_order++] = d;
        sago_str_clear(&text);
    }
    sago_str_free(&text);
    return n_order;
}

static int64_t pieces_of(const sago_mixture *mixture, int task) {
    sago_mixture_task info;
    sago_mixture_task_info(mixture, task, &info);
    assert_true(info.is_text && info.n_eval == 0 && info.n_examples == info.n_train);
    return info.n_train;
}

/* A pass of causal pieces, put together by their numbers, is all documents with EOS after each. */
static void pass_holds_every_document(void **state) {
    (void)state;
    sago_config *config = config_of("causal-lm", "");
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_mixture *mixture = open_mixture(config, tokenizer, true);
    sago_example example = {0};
    int64_t total = DOCUMENTS;
    for (int d = 0; d < DOCUMENTS; d++) total += (int64_t)documents[d].length;
    int64_t pieces = pieces_of(mixture, 0);
    assert_int_equal(pieces, total / 100);
    int orders[2][DOCUMENTS], n_first_order = 0;
    for (int pass = 0; pass < 2; pass++) {
        int32_t *stream = calloc((size_t)pieces * 100, sizeof *stream);
        unsigned char *seen = calloc((size_t)pieces, 1);
        bool in_order = true;
        for (int64_t i = 0; i < pieces; i++) {
            draw(mixture, (uint64_t)(pass * pieces + i), &example);
            assert_in_range(example.index, 0, pieces - 1);
            assert_int_equal(seen[example.index]++, 0);
            in_order &= example.index == i;
            assert_int_equal(example.inputs.length, 0);
            assert_int_equal(example.targets.length, 100);
            memcpy(stream + example.index * 100, example.targets.data, 100 * sizeof *stream);
        }
        assert_false(in_order);
        int counts[DOCUMENTS] = {0}, n = count_documents(stream, pieces * 100, counts, orders[pass]);
        assert_true(n >= DOCUMENTS - 20); /* what does not fill a piece is left out: at most 99 bytes */
        for (int d = 0; d < DOCUMENTS; d++) assert_true(counts[d] <= 1);
        if (pass == 0) n_first_order = n;
        if (pass == 1) assert_memory_not_equal(orders[0], orders[1], (size_t)n_first_order * sizeof(int));
        bool sorted = true;
        for (int i = 1; i < n; i++) sorted &= orders[pass][i] > orders[pass][i - 1];
        assert_false(sorted);
        free(stream), free(seen);
    }
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
}

/* In sequential order the stream is the files'. */
static void sequential_is_file_order(void **state) {
    (void)state;
    sago_config *config = config_of("causal-lm", "  order: sequential\n");
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_mixture *mixture = open_mixture(config, tokenizer, true);
    sago_example example = {0};
    int64_t pieces = sago_mixture_length(mixture);
    assert_int_equal(pieces, pieces_of(mixture, 0));
    int d = 0;
    size_t at = 0;
    for (int64_t i = 0; i < pieces; i++) {
        draw(mixture, (uint64_t)i, &example);
        for (int64_t t = 0; t < example.targets.length; t++) {
            if (at == documents[d].length) {
                assert_int_equal(example.targets.data[t], 1);
                d++, at = 0;
            } else {
                assert_int_equal(example.targets.data[t], (unsigned char)documents[d].data[at++] + BYTE);
            }
        }
    }
    bool end = false;
    assert_int_equal(sago_mixture_draw(mixture, (uint64_t)pieces, &example, &end), SAGO_OK);
    assert_true(end);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
}

/* With document: file, a .txt is one document, line ends and all; what lines of JSON hold stays as it is. */
static void files_as_documents(void **state) {
    (void)state;
    sago_source source = {.format = SAGO_FORMAT_TEXT, .tokenizer = bytes_tokenizer()};
    for (int whole = 0; whole < 2; whole++) {
        source.whole_files = whole;
        sago_index *index;
        if (sago_index_open(&source, test_path("shards"), test_path("cache"), NULL, NULL, 2, &index) !=
            SAGO_OK)
            fail_msg("%s", sago_message());
        assert_int_equal(sago_index_tasks(index), 3);
        static const int lines[3] = {40, 30, 20};
        for (int f = 0; f < 3; f++) {
            const sago_index_task *task = sago_index_task_at(index, f);
            int64_t found = 0, tokens = 0, expected = 0;
            for (uint32_t r = 0; r < task->n_examples; r++) {
                const sago_record *record = &sago_index_records(index, f)[r];
                found += sago_text_part_of(record) == 0;
                tokens += sago_text_tokens_of(record);
                assert_true(sago_text_tokens_of(record) <= 2048);
            }
            int first = f == 0 ? 0 : f == 1 ? 40 : 70;
            for (int d = first; d < first + lines[f]; d++) expected += (int64_t)documents[d].length;
            if (whole && f != 1) expected = task->size_bytes;
            assert_int_equal(found, whole && f != 1 ? 1 : lines[f]);
            assert_int_equal(tokens, expected);
        }
        sago_index_close(index);
        /* What was counted once is not counted again; another way to count is another index. */
        assert_int_equal(
            sago_index_open(&source, test_path("shards"), test_path("cache"), NULL, NULL, 2, &index),
            SAGO_OK);
        assert_int_equal(sago_index_scanned(index), 0);
        sago_index_close(index);
    }
    sago_tokenizer_close((sago_tokenizer *)(uintptr_t)source.tokenizer);
}

/* Of the piece that a draw took, inputs and targets hold everything: the stream comes back from any
 * objective. */
static void text_comes_back(const sago_example *example, const sago_tokenizer *tokenizer, bool decoder_only,
                            int64_t mode_tokens, sago_ids *out) {
    int32_t first = sago_tokenizer_sentinel(tokenizer, 0), last = first - SAGO_SENTINELS + 1;
    int64_t at = 0, n_inputs = example->inputs.length - !decoder_only,
            n_targets = example->targets.length - 1;
    if (!decoder_only) assert_int_equal(example->inputs.data[n_inputs], 1);
    assert_int_equal(example->targets.data[n_targets], 1);
    sago_ids_clear(out);
    for (int64_t i = mode_tokens; i < n_inputs; i++) {
        if (example->inputs.data[i] < last) {
            sago_ids_add(out, example->inputs.data[i]);
            continue;
        }
        assert_int_equal(example->targets.data[at++], example->inputs.data[i]);
        while (at < n_targets && example->targets.data[at] < last)
            sago_ids_add(out, example->targets.data[at++]);
    }
    while (at < n_targets) sago_ids_add(out, example->targets.data[at++]);
}

/* Both families: shares of the denoisers, mode tokens, lengths, and every piece of the file-order stream. */
static void denoisers_of_a_member(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_example example = {0};
    sago_ids text = {0};
    for (int decoder_only = 0; decoder_only < 2; decoder_only++) {
        sago_config *config = config_of("ul2r", "  order: sequential\n"), *sampled = config_of("ul2r", "");
        sago_mixture *mixture = open_mixture(config, tokenizer, decoder_only);
        sago_mixture *draws = open_mixture(sampled, tokenizer, decoder_only);
        sago_config *causal = config_of("causal-lm", "  order: sequential\n");
        sago_mixture *stream = open_mixture(causal, tokenizer, true);
        assert_int_equal(sago_mixture_tasks(mixture), 4);
        int32_t *all = calloc((size_t)pieces_of(stream, 0) * 100, sizeof *all);
        int64_t n_all = 0;
        for (int64_t i = 0; i < pieces_of(stream, 0); i++) {
            draw(stream, (uint64_t)i, &example);
            for (int64_t t = 0; t < example.targets.length; t++) /* T5 and UL2 see no EOS between documents */
                if (decoder_only || example.targets.data[t] != 1) all[n_all++] = example.targets.data[t];
        }
        static const char *const modes[4] = {"[S2S]", "[NLU]", "[NLG]", "[NLG]"};
        int64_t at[4] = {0};
        for (int64_t i = 0; i < sago_mixture_length(mixture); i++) {
            draw(mixture, (uint64_t)i, &example);
            for (int k = 0; k < 5; k++)
                assert_int_equal(example.inputs.data[k], modes[example.task][k] + BYTE);
            text_comes_back(&example, tokenizer, decoder_only, 5, &text);
            if (at[example.task] + text.length > n_all) break; /* the end that the causal stream leaves out */
            assert_memory_equal(text.data, all + at[example.task], (size_t)text.length * sizeof *all);
            at[example.task] += text.length;
            assert_true(example.inputs.length + example.targets.length <= 100);
            if (!decoder_only || example.task > 0)
                assert_true(example.inputs.length <= 60 && example.targets.length <= 40);
        }
        int counts[4] = {0};
        for (int64_t i = 0; i < 800; i++) {
            draw(draws, (uint64_t)i, &example);
            counts[example.task]++;
        }
        static const int expected[4] = {400, 200, 100, 100};
        assert_memory_equal(counts, expected, sizeof counts);
        free(all);
        sago_mixture_close(mixture), sago_mixture_close(draws), sago_mixture_close(stream);
        sago_config_free(config), sago_config_free(sampled), sago_config_free(causal);
    }
    sago_example_free(&example);
    sago_ids_free(&text);
    sago_tokenizer_close(tokenizer);
}

/* Draws depend on their number alone, and a saved cursor continues, in a mixture of text and instructions. */
static void draws_are_pure(void **state) {
    (void)state;
    test_write("lines.jsonl", "{\"inputs\": \"one and one\", \"targets\": \"two\"}\n"
                              "{\"inputs\": \"two and one\", \"targets\": \"three\"}\n");
    static const char text[] = "run: {seed: 8}\ntrain: {global_batch: 5}\ndata:\n  input_length: 60\n"
                               "  target_length: 50\n  tokenizer: bytes\n  pack_window: 9\n  mixture:\n"
                               "    - {name: web, format: text, path: shards, objective: ul2, share: 3}\n"
                               "    - {name: few, format: jsonl, path: lines.jsonl, share: 1}\n";
    sago_tokenizer *tokenizer = bytes_tokenizer();
    sago_config *config = test_config(text);
    for (int decoder_only = 0; decoder_only < 2; decoder_only++) {
        sago_mixture *a = open_mixture(config, tokenizer, decoder_only),
                     *b = open_mixture(config, tokenizer, decoder_only);
        sago_example x = {0}, y = {0};
        int from_text = 0;
        for (uint64_t i = 0; i < 300; i++) {
            uint64_t number = sago_mix(4, i) % 20000; /* of many passes */
            draw(a, number, &x);
            if (i % 3 == 0) draw(b, sago_mix(5, i) % 20000, &y);
            draw(b, number, &y);
            assert_int_equal(x.task, y.task);
            assert_int_equal(x.inputs.length, y.inputs.length);
            assert_int_equal(x.targets.length, y.targets.length);
            assert_memory_equal(x.inputs.data, y.inputs.data, (size_t)x.inputs.length * sizeof(int32_t));
            assert_memory_equal(x.targets.data, y.targets.data, (size_t)x.targets.length * sizeof(int32_t));
            from_text += x.member == 0;
        }
        assert_in_range(from_text, 195, 255);
        sago_example_free(&x), sago_example_free(&y);
        sago_mixture_close(a), sago_mixture_close(b);

        sago_data *whole, *later;
        const sago_batch *p, *q;
        assert_int_equal(sago_data_open(config, tokenizer, 400, decoder_only, 0, 1, &whole), SAGO_OK);
        assert_int_equal(sago_data_open(config, tokenizer, 400, decoder_only, 1, 2, &later), SAGO_OK);
        for (int step = 0; step < 4; step++) assert_int_equal(sago_data_next(whole, &p), SAGO_OK);
        json_t *cursor = sago_data_cursor(whole);
        if (sago_data_restore(later, cursor) != SAGO_OK) fail_msg("%s", sago_message());
        json_decref(cursor);
        for (int step = 0; step < 4; step++) {
            assert_int_equal(sago_data_next(whole, &p), SAGO_OK);
            assert_int_equal(sago_data_next(later, &q), SAGO_OK);
            size_t n = (size_t)(q->n_rows * q->target_length),
                   skip = (size_t)(q->first_row * q->target_length);
            assert_memory_equal(q->targets, p->targets + skip, n * sizeof(int32_t));
            assert_memory_equal(q->decoder_inputs, p->decoder_inputs + skip, n * sizeof(int32_t));
            assert_memory_equal(q->weights, p->weights + skip, n * sizeof(float));
            assert_int_equal(q->global_target_tokens, p->global_target_tokens);
        }
        sago_data_close(whole), sago_data_close(later);
    }
    sago_config_free(config);
    sago_tokenizer_close(tokenizer);
}

/* Cutting a document into parts changes none of its ids, where a model puts white space in front of words. */
static void parts_of_words(void **state) {
    (void)state;
    sago_str long_text = {0};
    for (int d = 1; d < DOCUMENTS; d++)
        if (d % 22) sago_str_printf(&long_text, "%s%s", long_text.length ? " " : "", documents[d].data);
    test_write_bytes("long/only.txt", long_text.data, long_text.length);
    const char *files[] = {test_path("shards/a.txt"), test_path("shards/c.txt")},
               *model = test_path("long.model");
    sago_tokenizer_training training = {
        .files = files, .n_files = 2, .vocab_size = 60, .output = model, .kind = "unigram", .seed = 1};
    if (sago_tokenizer_train(&training) != SAGO_OK) fail_msg("%s", sago_message());
    sago_tokenizer *tokenizer;
    assert_int_equal(sago_tokenizer_open(model, &tokenizer), SAGO_OK);
    sago_ids ids = {0};
    assert_int_equal(sago_tokenizer_encode(tokenizer, long_text.data, long_text.length, &ids), SAGO_OK);
    sago_config *config =
        test_config("data:\n  input_length: 60\n  target_length: 40\n  order: sequential\n  mixture:\n"
                    "    - {name: web, format: text, path: long, objective: causal-lm}\n");
    sago_mixture *mixture;
    assert_int_equal(sago_mixture_open(config, tokenizer, 0, true, &mixture), SAGO_OK);
    sago_example example = {0};
    assert_int_equal(sago_mixture_length(mixture), (ids.length + 1) / 100);
    for (int64_t i = 0; i < sago_mixture_length(mixture); i++) {
        draw(mixture, (uint64_t)i, &example);
        int64_t n = ids.length - i * 100 < 100 ? ids.length - i * 100 : 100;
        assert_memory_equal(example.targets.data, ids.data + i * 100, (size_t)n * sizeof(int32_t));
    }
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
    sago_ids_free(&ids);
    sago_str_free(&long_text);
    sago_tokenizer_close(tokenizer);
}

static void refused(const char *member, const sago_tokenizer *tokenizer, int64_t vocabulary,
                    bool decoder_only, const char *message) {
    char *text = sago_format(
        "data:\n  input_length: 60\n  target_length: 40\n  mixture:\n    - {name: web, %s}\n", member);
    sago_config *config = test_config(text);
    sago_mixture *mixture;
    assert_int_not_equal(sago_mixture_open(config, tokenizer, vocabulary, decoder_only, &mixture), SAGO_OK);
    if (!strstr(sago_message(), message)) fail_msg("\"%s\" is not in: %s", message, sago_message());
    sago_config_free(config);
    free(text);
}

static void what_is_refused(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = bytes_tokenizer();
    test_write("bad/a.jsonl", "{\"text\": \"fine\"}\n{\"inputs\": \"x\", \"targets\": \"y\"}\n");
    test_write("bad/b.txt", "fine\nnot \xff fine\n");
    test_write("bad/c.txt", "\n  \n\n");
    test_write("bad/d.txt", "x\n");
    refused("format: text, path: bad/a.jsonl, objective: prefix-lm", tokenizer, 0, false, "a.jsonl:2: ");
    refused("format: text, path: bad/b.txt, objective: prefix-lm", tokenizer, 0, false, "b.txt:2: ");
    refused("format: text, path: bad/b.txt, objective: prefix-lm, document: file", tokenizer, 0, false,
            "b.txt:1: ");
    refused("format: text, path: bad/c.txt, objective: prefix-lm", tokenizer, 0, false, "no examples");
    refused("format: text, path: bad/d.txt, objective: prefix-lm", tokenizer, 0, false,
            "fewer than two tokens");
    refused("format: text, path: shards, objective: causal-lm", tokenizer, 0, false, "decoder-only");
    refused("format: text, path: shards, objective: ul2", tokenizer, 300, false, "sentinels");
    refused("format: text, path: shards, objective: ul2", NULL, 0, false, "data.tokenizer");
    static const char *const configs[][2] = {
        {"format: text, path: shards", "objective"},
        {"format: jsonl, path: shards, objective: ul2", "format text"},
        {"format: text, path: shards, objective: ul2, cap: 5", "cap"},
        {"format: text, path: shards, objective: ul2, template: direct", "template"},
        {"format: text, path: shards, objective: ul3", "causal-lm"}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        char *text = sago_format("data: {mixture: [{name: web, %s}]}\n", configs[i][0]);
        sago_config *config = NULL;
        const char *path = test_write("refused.yaml", text);
        assert_int_equal(sago_config_load(path, NULL, 0, &config), SAGO_E_CONFIG);
        assert_non_null(strstr(sago_message(), configs[i][1]));
        free(text);
    }
    sago_tokenizer_close(tokenizer);
}

static int tear_down(void **state) {
    (void)state;
    for (int d = 0; d < DOCUMENTS; d++) sago_str_free(&documents[d]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass_holds_every_document),
        cmocka_unit_test(sequential_is_file_order),
        cmocka_unit_test(files_as_documents),
        cmocka_unit_test(denoisers_of_a_member),
        cmocka_unit_test(draws_are_pure),
        cmocka_unit_test(parts_of_words),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
