// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include "manifest.h"
#include "rng.h"

static void build(sago_manifest *m) {
    *m = (sago_manifest){.step = 120, .meta = json_pack("{s:s, s:f}", "k\"\n", "\xc3\xa9", "x", 0.1)};
    sago_manifest_add_file(m, "shard-00000-of-00002.h5", 5000000, 1);
    sago_manifest_add_file(m, "shard-00001-of-00002.h5", 4000, UINT64_MAX);
    for (int i = 0; i < 2; i++) {
        sago_manifest_piece p = {.file = i,
                                 .dataset = sago_format("/b@%d", 2 * i),
                                 .offset = {2 * i, 0},
                                 .shape = {2, 3},
                                 .at = 64,
                                 .n_hashes = 1};
        p.hashes = sago_alloc_zero(1, 8);
        assert_ok(sago_manifest_add_piece(m, "b", SAGO_F32, 2, (int64_t[]){4, 3}, p));
    }
    sago_manifest_piece p = {
        .file = 0, .dataset = sago_strdup("/a"), .shape = {1200000, 1}, .at = 128, .n_hashes = 2};
    p.hashes = sago_alloc_zero(2, 8);
    p.hashes[1] = 0xabcdef;
    assert_ok(sago_manifest_add_piece(m, "a", SAGO_F32, 1, (int64_t[]){1200000, 1}, p));
}

static void round_trip(void **unused) {
    (void)unused;
    sago_manifest m, back;
    sago_str text = {0}, again = {0};
    build(&m);
    assert_string_equal(m.tensors[0].name, "a"); /* sorted, in whatever order they came */
    sago_manifest_write(&m, &text);
    assert_ok(sago_manifest_parse(text.data, text.length, "M", true, &back));
    assert_int_equal(back.step, 120);
    assert_int_equal(back.n_files, 2);
    assert_true(back.files[1].hash == UINT64_MAX);
    assert_int_equal(sago_manifest_find(&back, "b"), 1);
    assert_int_equal(sago_manifest_find(&back, "c"), -1);
    assert_int_equal(back.tensors[1].pieces[1].offset[0], 2);
    assert_int_equal(back.tensors[0].pieces[0].n_hashes, 2);
    assert_true(back.tensors[0].pieces[0].hashes[1] == 0xabcdef);
    assert_true(json_equal(back.meta, m.meta));
    sago_manifest_write(&back, &again);
    assert_string_equal(text.data, again.data);
    sago_manifest_free(&m);
    sago_manifest_free(&back);
    sago_str_free(&text);
    sago_str_free(&again);
}

/* Each bit of each byte, each cut, one byte more at each place. */
static void every_damage(void **unused) {
    (void)unused;
    sago_manifest m, back;
    sago_str text = {0};
    build(&m);
    sago_manifest_write(&m, &text);
    char *bytes = sago_alloc(text.length + 1);
    for (size_t i = 0; i < text.length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            text.data[i] ^= (char)(1 << bit);
            assert_fails(sago_manifest_parse(text.data, text.length, "M", true, &back), SAGO_E_CORRUPT,
                         "M: damaged");
            sago_manifest_free(&back);
            text.data[i] ^= (char)(1 << bit);
        }
        assert_int_equal(sago_manifest_parse(text.data, i, "M", true, &back), SAGO_E_CORRUPT);
        memcpy(bytes, text.data, i);
        bytes[i] = ' ';
        memcpy(bytes + i + 1, text.data + i, text.length - i);
        assert_int_equal(sago_manifest_parse(bytes, text.length + 1, "M", true, &back), SAGO_E_CORRUPT);
    }
    free(bytes);
    sago_manifest_free(&m);
    sago_str_free(&text);
}

/* Replaces `from` by `to` and gives the text a hash that holds: only the checks of the fields are left. */
static sago_status parse_changed(const char *from, const char *to) {
    sago_manifest m, back;
    sago_str text = {0}, changed = {0};
    build(&m);
    sago_manifest_write(&m, &text);
    const char *at = strstr(text.data, from);
    assert_non_null(at);
    sago_str_add(&changed, text.data, (size_t)(at - text.data));
    sago_str_puts(&changed, to);
    sago_str_puts(&changed, at + strlen(from));
    char *digits = changed.data + changed.length - 20, hash[17];
    memset(digits, '0', 16);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)sago_hash_bytes(changed.data, changed.length));
    memcpy(digits, hash, 16);
    sago_status status = sago_manifest_parse(changed.data, changed.length, "M", true, &back);
    sago_manifest_free(&back);
    sago_manifest_free(&m);
    sago_str_free(&text);
    sago_str_free(&changed);
    return status;
}

static void wrong_fields(void **unused) {
    (void)unused;
    assert_ok(parse_changed("\"step\": 120", "\"step\": 121"));
    assert_fails(parse_changed("\"version\": 1", "\"version\": 2"), SAGO_E_INPUT,
                 "format version 2; this sago reads version 1");
    static const char *const changes[][3] = {
        {"sago checkpoint", "other checkpoint", "no MANIFEST of a sago checkpoint"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"\"step\": 120", "\"step\": -1", "step"},
        {"\"step\": 120", "\"step\": 1.5", "step"},
        {"\"hash_block_bytes\": 4194304", "\"hash_block_bytes\": 1", "hash_block_bytes"},
        {"\"meta\": {", "\"mete\": {", "meta"},
        {"\"files\": [", "\"files\": 1, \"x\": [", "files"},
        {"\"name\": \"shard-00001-of-00002.h5\"", "\"name\": \"../x\"", "files"},
        {"\"name\": \"shard-00001-of-00002.h5\"", "\"name\": \"shard-00000-of-00002.h5\"", "one file twice"},
        {"\"bytes\": 4000", "\"bytes\": -4000", "files"},
        {"\"bytes\": 4000", "\"bytes\": 80", "outside of its file"},
        {"ffffffffffffffff", "FFFFFFFFFFFFFFFF", "files"},
        {"\"name\": \"b\"", "\"name\": \"a\"", "not sorted"},
        {"\"name\": \"b\"", "\"name\": \"\"", "no name"},
        {"\"dtype\": \"f32\"", "\"dtype\": \"f64\"", "tensor a: unknown dtype"},
        {"\"shape\": [1200000]", "\"shape\": [0]", "tensor a: its shape"},
        {"\"shape\": [1200000]", "\"shape\": [9223372036854775807]", "tensor a: its shape"},
        {"\"shape\": [4, 3]", "\"shape\": [4, 3, 1]", "tensor b: its shape"},
        {"\"shape\": [4, 3]", "\"shape\": [281474976710656, 281474976710656]", "tensor b: its shape"},
        {"\"shape\": [4, 3]", "\"shape\": [5, 3]", "do not cover"},
        {"\"offset\": [2, 0]", "\"offset\": [1, 0]", "do not cover"},
        {"\"offset\": [2, 0]", "\"offset\": [3, 0]", "outside of its tensor"},
        {"\"offset\": [2, 0]", "\"offset\": [-1, 0]", "malformed"},
        {"\"at\": 64", "\"at\": 9223372036854775807", "outside of its file"},
        {"\"at\": 64", "\"at\": -1", "outside of its file"},
        {"\"pieces\": [{", "\"pieces\": [], \"x\": [{", "no pieces"},
        {"\"xxh3\": [\"", "\"xxh3\": [\"0000000000000000\", \"", "wrong number of hashes"},
        {"{\"file\": \"shard-00001-of-00002.h5\"", "{\"file\": \"other\"", "a file that \"files\" lacks"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++)
        assert_fails(parse_changed(changes[i][0], changes[i][1]), SAGO_E_CORRUPT, changes[i][2]);
    assert_int_equal(parse_changed("\"meta\": {", "\"meta\": [[[[{"), SAGO_E_INPUT); /* no JSON */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(every_damage),
                                       cmocka_unit_test(wrong_fields)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
