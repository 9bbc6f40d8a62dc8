// SPDX-License-Identifier: Apache-2.0
#include "file.h"
#include "json.h"
#include "rng.h"
#include "tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/sago-test-tokenizer-XXXXXX";
static char *model_path; /* a small model trained by set_up */

static char *write_corpus(const char *name, bool json) {
    static const char *const words[] = {"river",    "stone",  "walks",   "under", "bright", "table",
                                        "question", "answer", "numbers", "green", "slowly", "north",
                                        "people",   "seven",  "write",   "paper"};
    char *path = sago_path_join(folder, name);
    sago_str text = {0};
    for (int line = 0; line < 600; line++) {
        if (json) sago_str_puts(&text, "{\"inputs\": \"");
        for (int i = 0; i < 9; i++)
            sago_str_printf(&text, "%s%s", i ? " " : "", words[sago_mix((uint64_t)line, (uint64_t)i) % 16]);
        if (json) sago_str_printf(&text, "\", \"targets\": \"%d times\"}", line);
        sago_str_putc(&text, '\n');
    }
    assert_int_equal(sago_file_replace(path, text.data, text.length), SAGO_OK);
    sago_str_free(&text);
    return path;
}

static int set_up(void **state) {
    (void)state;
    assert_non_null(mkdtemp(folder));
    model_path = sago_path_join(folder, "spiece.model");
    char *a = write_corpus("a.txt", false), *b = write_corpus("b.jsonl", true);
    const char *files[] = {a, b};
    const sago_tokenizer_training training = {files, 2, 80, model_path, "unigram", 7};
    if (sago_tokenizer_train(&training) != SAGO_OK) fail_msg("%s", sago_message());
    free(a);
    free(b);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(model_path);
    return sago_dir_remove(folder) == SAGO_OK ? 0 : -1;
}

static sago_tokenizer *open_model(const char *path) {
    sago_tokenizer *tokenizer;
    if (sago_tokenizer_open(path, &tokenizer) != SAGO_OK) fail_msg("%s", sago_message());
    return tokenizer;
}

static void encode(const sago_tokenizer *tokenizer, const char *text, size_t length, sago_ids *ids) {
    sago_ids_clear(ids);
    if (sago_tokenizer_encode(tokenizer, text, length, ids) != SAGO_OK) fail_msg("%s", sago_message());
}

static void decode(const sago_tokenizer *tokenizer, const sago_ids *ids, sago_str *text) {
    sago_str_clear(text);
    if (sago_tokenizer_decode(tokenizer, ids->data, ids->length, text) != SAGO_OK)
        fail_msg("%s", sago_message());
}

static void check_golden(const char *name) {
    const char *golden = getenv("SAGO_GOLDEN"), *data = getenv("SAGO_DATA");
    if (!golden || !data) skip();
    char *lines_path = sago_format("%s/tokenizer/%s.jsonl", golden, name);
    char *model = sago_format("%s/tokenizer/%s.model", data, name);
    sago_tokenizer *tokenizer = open_model(model);
    sago_line_reader lines;
    assert_int_equal(sago_lines_open(&lines, lines_path, 0), SAGO_OK);
    sago_ids ids = {0};
    sago_str text = {0};
    int n = 0;
    for (bool more; sago_lines_next(&lines, &more) == SAGO_OK && more; n++) {
        json_t *record;
        assert_int_equal(
            sago_json_parse(lines.line.data, lines.line.length, lines_path, lines.number, &record), SAGO_OK);
        const json_t *given = json_object_get(record, "text"), *wanted = json_object_get(record, "ids"),
                     *decoded = json_object_get(record, "decoded");
        encode(tokenizer, json_string_value(given), json_string_length(given), &ids);
        assert_int_equal(ids.length, json_array_size(wanted));
        for (int64_t i = 0; i < ids.length; i++)
            assert_int_equal(ids.data[i], json_integer_value(json_array_get(wanted, (size_t)i)));
        decode(tokenizer, &ids, &text);
        assert_int_equal(text.length, json_string_length(decoded));
        assert_memory_equal(sago_str_text(&text), json_string_value(decoded), text.length);
        json_decref(record);
    }
    assert_true(n > 50);
    sago_lines_close(&lines);
    sago_ids_free(&ids);
    sago_str_free(&text);
    sago_tokenizer_close(tokenizer);
    free(lines_path);
    free(model);
}

static void golden_t5like(void **state) {
    (void)state;
    check_golden("t5like");
}

static void golden_palmlike(void **state) {
    (void)state;
    check_golden("palmlike");
}

static void trained_model_is_t5s(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = open_model(model_path);
    assert_int_equal(sago_tokenizer_size(tokenizer), 80 + 100);
    assert_int_equal(sago_tokenizer_sentinel(tokenizer, 0), 179);
    assert_int_equal(sago_tokenizer_sentinel(tokenizer, 99), 80);
    sago_ids ids = {0};
    sago_str text = {0};
    static const char sentence[] = "seven people write numbers under a bright table";
    encode(tokenizer, sentence, strlen(sentence), &ids);
    for (int64_t i = 0; i < ids.length; i++) assert_in_range(ids.data[i], 3, 79);
    decode(tokenizer, &ids, &text);
    assert_string_equal(text.data, sentence);
    /* Pad, EOS, sentinels and what is beyond give no text, wherever they stand. */
    const int32_t noise[] = {0, 1, 179, 80, 5000, -4};
    for (int64_t i = 0; i < 6; i++) sago_ids_add(&ids, noise[i]);
    decode(tokenizer, &ids, &text);
    assert_string_equal(text.data, sentence);
    sago_ids_free(&ids);
    sago_str_free(&text);
    sago_tokenizer_close(tokenizer);
}

static void training_repeats(void **state) {
    (void)state;
    char *again = sago_path_join(folder, "again.model"), *bpe = sago_path_join(folder, "bpe.model");
    char *a = sago_path_join(folder, "a.txt"), *b = sago_path_join(folder, "b.jsonl");
    const char *files[] = {a, b};
    sago_tokenizer_training training = {files, 2, 80, again, "unigram", 7};
    assert_int_equal(sago_tokenizer_train(&training), SAGO_OK);
    sago_str one = {0}, two = {0};
    assert_int_equal(sago_file_read(model_path, 0, &one), SAGO_OK);
    assert_int_equal(sago_file_read(again, 0, &two), SAGO_OK);
    assert_int_equal(one.length, two.length);
    assert_memory_equal(one.data, two.data, one.length);
    training.kind = "bpe";
    training.output = bpe;
    assert_int_equal(sago_tokenizer_train(&training), SAGO_OK);
    sago_tokenizer_close(open_model(bpe));
    training.vocab_size = 100000;
    assert_int_equal(sago_tokenizer_train(&training), SAGO_E_INPUT);
    training.kind = "words";
    assert_int_equal(sago_tokenizer_train(&training), SAGO_E_USAGE);
    sago_str_free(&one);
    sago_str_free(&two);
    free(again);
    free(bpe);
    free(a);
    free(b);
}

/* Text that spells a symbol is text: none of the ids may be a special one, and it comes back as it was. */
static void symbols_in_text_are_text(void **state) {
    (void)state;
    static const char *const texts[] = {"</s>",     "<pad>", "<extra_id_0>",
                                        "a </s> b", "<unk>", "<extra_id_99>"};
    sago_tokenizer *tokenizers[] = {open_model(model_path), open_model("bytes")};
    for (size_t k = 0; k < 2; k++) {
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
            sago_ids ids = {0};
            encode(tokenizers[k], texts[t], strlen(texts[t]), &ids);
            assert_true(ids.length > 1);
            for (int64_t i = 0; i < ids.length; i++) {
                assert_true(ids.data[i] >= SAGO_UNK_ID);
                assert_true(ids.data[i] < sago_tokenizer_sentinel(tokenizers[k], 99));
            }
            sago_ids_free(&ids);
        }
        sago_tokenizer_close(tokenizers[k]);
    }
}

/* A model whose pieces hold "<extra_id_0>" as a user-defined symbol must not read it out of a text either. */
static void declared_sentinels_are_not_parsed(void **state) {
    (void)state;
    sago_str model = {0};
    assert_int_equal(sago_file_read(model_path, 0, &model), SAGO_OK);
    static const char piece[] = "\x0a\x15\x0a\x0c<extra_id_0>\x15\x00\x00\x00\x00\x18\x04";
    assert_int_equal(sizeof piece - 1, 2 + 0x15);
    sago_str_add(&model, piece, sizeof piece - 1);
    sago_tokenizer *tokenizer;
    if (sago_tokenizer_from_bytes("m", model.data, model.length, &tokenizer) != SAGO_OK)
        fail_msg("%s", sago_message());
    sago_ids ids = {0};
    encode(tokenizer, "river <extra_id_0> stone", 24, &ids);
    for (int64_t i = 0; i < ids.length; i++) assert_int_not_equal(ids.data[i], 80);
    sago_ids_free(&ids);
    sago_tokenizer_close(tokenizer);
    sago_str_free(&model);
}

static void bytes_are_byt5s(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = open_model("bytes");
    assert_int_equal(sago_tokenizer_size(tokenizer), 3 + 256 + 100);
    sago_ids ids = {0};
    sago_str text = {0};
    static const char given[] = "A\0\xff\xc3\xa9";
    encode(tokenizer, given, 5, &ids);
    const int32_t wanted[] = {65 + 3, 0 + 3, 255 + 3, 0xc3 + 3, 0xa9 + 3};
    assert_int_equal(ids.length, 5);
    assert_memory_equal(ids.data, wanted, sizeof wanted);
    decode(tokenizer, &ids, &text);
    assert_int_equal(text.length, 5);
    assert_memory_equal(text.data, given, 5);
    sago_ids_free(&ids);
    sago_str_free(&text);
    sago_tokenizer_close(tokenizer);
}

static void nul_and_wrong_utf8_in_text(void **state) {
    (void)state;
    sago_tokenizer *tokenizer = open_model(model_path);
    sago_ids with = {0}, without = {0};
    encode(tokenizer, "river\0stone", 11, &with);
    encode(tokenizer, "river", 5, &without);
    assert_true(with.length > without.length); /* what follows the NUL is not lost */
    encode(tokenizer, "river \xff\xfe\xc3 stone", 15, &with);
    assert_true(with.length > without.length);
    encode(tokenizer, "", 0, &with);
    assert_int_equal(with.length, 0);
    assert_int_equal(sago_tokenizer_encode(tokenizer, "", (size_t)1 << 40, &with), SAGO_E_INPUT);
    sago_ids_free(&with);
    sago_ids_free(&without);
    sago_tokenizer_close(tokenizer);
}

/* Whatever bytes a file holds: an error of one line, or a tokenizer that works; never an end of the process.
 */
static void try_model(const char *bytes, size_t size) {
    sago_tokenizer *tokenizer;
    sago_status status = sago_tokenizer_from_bytes("hostile", bytes, size, &tokenizer);
    if (status != SAGO_OK) {
        assert_null(tokenizer);
        assert_true(strlen(sago_message()) > 8);
        assert_null(strchr(sago_message(), '\n'));
        return;
    }
    static const char text[] = "river stone \xef\xac\x81 \xe2\x85\xa3 12345 \xf0\x9f\x91\xa9 zzz";
    sago_ids ids = {0};
    sago_str out = {0};
    if (sago_tokenizer_encode(tokenizer, text, sizeof text, &ids) == SAGO_OK) {
        status = sago_tokenizer_decode(tokenizer, ids.data, ids.length, &out);
        (void)status;
    }
    sago_ids_free(&ids);
    sago_str_free(&out);
    sago_tokenizer_close(tokenizer);
}

static void damaged_models(void **state) {
    (void)state;
    sago_str model = {0}, changed = {0};
    assert_int_equal(sago_file_read(model_path, 0, &model), SAGO_OK);
    for (size_t i = 0; i < 200; i++) try_model(model.data, model.length * i / 200);
    for (uint64_t i = 0; i < 300; i++) {
        sago_str_clear(&changed);
        sago_str_add(&changed, model.data, model.length);
        /* Half of the flips hit the pieces at the beginning, half hit anywhere: mostly the normalisation
         * table. */
        uint64_t range = i % 2 ? 3000 : changed.length;
        for (uint64_t k = 0; k <= i % 8; k++)
            changed.data[sago_below(sago_mix(i, 2 * k), range)] ^= (char)(1u << (sago_mix(i, 2 * k + 1) % 8));
        try_model(changed.data, changed.length);
    }
    sago_tokenizer *tokenizer;
    assert_int_equal(sago_tokenizer_from_bytes("empty", "", 0, &tokenizer), SAGO_E_INPUT);
    assert_int_equal(sago_tokenizer_from_bytes("text", "{\"not\": \"a model\"}\n", 19, &tokenizer),
                     SAGO_E_INPUT);
    assert_int_equal(sago_tokenizer_open("/nonexistent/spiece.model", &tokenizer), SAGO_E_IO);
    assert_int_equal(sago_tokenizer_open(folder, &tokenizer), SAGO_E_IO);
    sago_str_free(&model);
    sago_str_free(&changed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_t5like),
        cmocka_unit_test(golden_palmlike),
        cmocka_unit_test(trained_model_is_t5s),
        cmocka_unit_test(training_repeats),
        cmocka_unit_test(symbols_in_text_are_text),
        cmocka_unit_test(declared_sentinels_are_not_parsed),
        cmocka_unit_test(bytes_are_byt5s),
        cmocka_unit_test(nul_and_wrong_utf8_in_text),
        cmocka_unit_test(damaged_models),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
