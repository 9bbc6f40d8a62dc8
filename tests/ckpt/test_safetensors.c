// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include "safetensors.h"

#include <math.h>

/* A file of this header and so many bytes of data 0, 1, 2 ... */
static sago_str make_file(const char *header, size_t data_bytes) {
    sago_str file = {0};
    uint64_t length = strlen(header);
    sago_str_add(&file, (const char *)&length, 8);
    sago_str_puts(&file, header);
    for (size_t i = 0; i < data_bytes; i++) sago_str_putc(&file, (char)i);
    return file;
}

static sago_status parse(const char *header, size_t data_bytes) {
    sago_str file = make_file(header, data_bytes);
    sago_safetensors *parsed;
    sago_status status = sago_safetensors_parse("F", file.data, file.length, &parsed);
    if (status == SAGO_OK) sago_safetensors_close(parsed);
    sago_str_free(&file);
    return status;
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void hostile_headers(void **unused) {
    (void)unused;
    assert_ok(parse("{" A "}", 8));
    assert_ok(parse("{}", 0));
    assert_ok(parse("{\"__metadata__\":{\"format\":\"pt\"}," A "}   ", 8));
    assert_ok(parse("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4));
    assert_ok(parse("{\"e\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]}," A "}", 8));
    static const struct {
        const char *header;
        size_t bytes;
        const char *part;
    } bad[] = {
        {"", 0, "no JSON object"},
        {"[1]", 0, "no JSON object"},
        {"{" A, 8, "not JSON"},
        {"{" A "," A "}", 8, "not JSON"}, /* a name twice */
        {"{\"a\":1}", 0, "tensor a: its dtype"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: its dtype"},
        {"{\"a\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: its dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "tensor a: its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "no size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
         "too many dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "pair of integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", 8, "pair of integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "pair of integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "outside"},
        {"{" A "}", 7, "cut short"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 8, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "do not give the number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
         "do not give the number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,0],\"data_offsets\":[0,8]}}", 8,
         "do not give the number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
         "not JSON"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[4,12]}}", 12,
         "tensor b: its bytes overlap"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, "overlap"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[12,16]}}", 16,
         "belong to no tensor"},
        {"{" A "}", 9, "1 bytes at its end belong to no tensor"},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "not JSON"},
        {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "not JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(parse(bad[i].header, bad[i].bytes), SAGO_E_INPUT, bad[i].part);
    sago_str deep = {0};
    sago_str_puts(&deep, "{\"__metadata__\":");
    for (int i = 0; i < 1000000; i++) sago_str_putc(&deep, '[');
    assert_fails(parse(deep.data, 0), SAGO_E_INPUT, "not JSON");
    sago_str_free(&deep);
}

static void hostile_lengths(void **unused) {
    (void)unused;
    sago_safetensors *parsed;
    sago_str file = make_file("{" A "}", 8);
    static const uint64_t lengths[] = {0,         1,         61,        63,         71,
                                       100000000, 100000001, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(file.data, &lengths[i], 8);
        assert_int_equal(sago_safetensors_parse("F", file.data, file.length, &parsed), SAGO_E_INPUT);
        assert_null(strchr(sago_message(), '\n'));
    }
    uint64_t right = strlen("{" A "}");
    memcpy(file.data, &right, 8);
    for (size_t cut = 0; cut < file.length; cut++)
        assert_int_equal(sago_safetensors_parse("F", file.data, cut, &parsed), SAGO_E_INPUT);
    assert_ok(sago_safetensors_parse("F", file.data, file.length, &parsed));
    const sago_safetensor *t = sago_safetensors_find(parsed, "a");
    assert_non_null(t);
    assert_null(sago_safetensors_find(parsed, "b"));
    assert_int_equal(t->bytes, 8);
    unsigned char two[2];
    assert_ok(sago_safetensors_read(parsed, t, 1, 2, two));
    assert_int_equal(two[0], 1);
    assert_int_equal(two[1], 2);
    char text[64];
    assert_string_equal(sago_safetensor_text(t, text, sizeof text), "F32[2]");
    sago_safetensors_close(parsed);
    sago_str_free(&file);
    assert_fails(sago_safetensors_open(test_write("empty", "", 0), &parsed), SAGO_E_INPUT, "is empty");
    assert_fails(sago_safetensors_open(test_folder, &parsed), SAGO_E_INPUT, "no plain file");
    assert_fails(sago_safetensors_open(test_path("none"), &parsed), SAGO_E_IO, "No such file");
}

/* A file at rest is opened again as what it was, or not at all. */
static void files_rest(void **unused) {
    (void)unused;
    sago_str file = make_file("{" A "}", 8);
    const char *path = test_write("rest", file.data, file.length);
    sago_safetensors *opened;
    char bytes[8];
    assert_ok(sago_safetensors_open(path, &opened));
    const sago_safetensor *t = sago_safetensors_find(opened, "a");
    assert_ok(sago_safetensors_read(opened, t, 0, 4, bytes));
    sago_safetensors_rest(opened);
    assert_ok(sago_safetensors_read(opened, t, 4, 4, bytes + 4));
    for (int i = 0; i < 8; i++) assert_int_equal(bytes[i], i);
    sago_safetensors_rest(opened);
    sago_str_putc(&file, 'x');
    test_write("rest", file.data, file.length);
    assert_fails(sago_safetensors_read(opened, t, 0, 4, bytes), SAGO_E_INPUT,
                 "rest: changed while it was read");
    sago_safetensors_rest(opened);
    assert_int_equal(remove(path), 0);
    assert_fails(sago_safetensors_read(opened, t, 0, 4, bytes), SAGO_E_IO, "rest: cannot open");
    sago_safetensors_close(opened);
    sago_str_free(&file);
}

/* Against the definitions: sign, 5 or 8 bits of exponent, 10 or 7 of mantissa. Every half, every bfloat16. */
static void conversions(void **unused) {
    (void)unused;
    char header[128];
    sago_str file;
    uint16_t *all = sago_alloc(65536 * 2);
    float *got = sago_alloc(65536 * 4);
    for (int i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[65536],\"data_offsets\":[0,131072]}}",
                 bf16 ? "BF16" : "F16");
        file = make_file(header, 131072);
        memcpy(file.data + file.length - 131072, all, 131072);
        sago_safetensors *parsed;
        assert_ok(sago_safetensors_parse("F", file.data, file.length, &parsed));
        /* In windows of sizes that divide nothing. */
        for (int64_t at = 0, n = 1; at < 65536; at += n, n = 2 * n + 1) {
            if (n > 65536 - at) n = 65536 - at;
            assert_ok(sago_safetensors_read_f32(parsed, sago_safetensors_at(parsed, 0), at, n, got + at));
        }
        int mantissa_bits = bf16 ? 7 : 10, bias = bf16 ? 127 : 15, most = bf16 ? 255 : 31;
        for (int i = 0; i < 65536; i++) {
            int exponent = i >> mantissa_bits & most, mantissa = i & ((1 << mantissa_bits) - 1);
            double want = exponent ? ldexp(1 + ldexp(mantissa, -mantissa_bits), exponent - bias)
                                   : ldexp(mantissa, 1 - bias - mantissa_bits);
            if (exponent == most) want = mantissa ? NAN : INFINITY;
            if (i >> 15) want = -want;
            if (isnan(want))
                assert_true(isnan(got[i]));
            else if ((double)got[i] != want || !signbit(got[i]) != !signbit(want))
                fail_msg("%s 0x%04x is %g, not %g", bf16 ? "BF16" : "F16", i, (double)got[i], want);
        }
        sago_safetensors_close(parsed);
        sago_str_free(&file);
    }
    free(all);
    free(got);
    sago_safetensors *parsed;
    file = make_file("{\"a\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    float one;
    assert_ok(sago_safetensors_parse("F", file.data, file.length, &parsed));
    assert_fails(sago_safetensors_read_f32(parsed, sago_safetensors_at(parsed, 0), 0, 1, &one), SAGO_E_INPUT,
                 "tensor a is I32");
    sago_safetensors_close(parsed);
    sago_str_free(&file);
}

static void headers_read_back(void **unused) {
    (void)unused;
    const sago_safetensor_entry entries[] = {{"x.weight", 2, {3, 5}}, {"y \"quoted\"", 1, {2, 1}}};
    sago_str file = {0};
    sago_safetensors_header(entries, 2, &file);
    assert_int_equal(file.length % 64, 0);
    for (int i = 0; i < 4 * 17; i++) sago_str_putc(&file, (char)i);
    sago_safetensors *parsed;
    assert_ok(sago_safetensors_parse("F", file.data, file.length, &parsed));
    assert_int_equal(sago_safetensors_count(parsed), 2);
    const sago_safetensor *y = sago_safetensors_find(parsed, "y \"quoted\"");
    assert_non_null(y);
    char byte;
    assert_ok(sago_safetensors_read(parsed, y, 0, 1, &byte));
    assert_int_equal(byte, 60);
    assert_int_equal(y->n_dims, 1);
    sago_safetensors_close(parsed);
    sago_str_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_headers), cmocka_unit_test(hostile_lengths),
                                       cmocka_unit_test(files_rest), cmocka_unit_test(conversions),
                                       cmocka_unit_test(headers_read_back)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
