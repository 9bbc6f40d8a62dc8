// SPDX-License-Identifier: Apache-2.0
/**
 * Adafactor against trajectories that another implementation recorded (SAGO_GOLDEN/adafactor, skipped when
 * the variable is unset).
 */
#include "adafactor_parameter.h"

#include <jansson.h>

/** A safetensors file in memory: 8 bytes of header length, the header, the data. */
typedef struct golden_file {
    json_t *header;
    char *bytes;
    const char *data;
} golden_file;

static golden_file golden_open(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/adafactor/%s.safetensors", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s cannot be read", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    golden_file out = {.bytes = malloc((size_t)size)};
    assert_non_null(out.bytes);
    assert_int_equal(fread(out.bytes, 1, (size_t)size, file), size);
    fclose(file);
    uint64_t length;
    memcpy(&length, out.bytes, sizeof length);
    assert_true(length < (uint64_t)size);
    out.header = json_loadb(out.bytes + 8, length, 0, NULL);
    assert_non_null(out.header);
    out.data = out.bytes + 8 + length;
    return out;
}

static const float *golden_values(const golden_file *file, const char *prefix, const char *name,
                                  int64_t shape[3], int *n_dims) {
    char key[128];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    json_t *entry = json_object_get(file->header, key);
    if (!entry) fail_msg("no tensor %s", key);
    assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "F32");
    json_t *dims = json_object_get(entry, "shape");
    *n_dims = (int)json_array_size(dims);
    for (int i = 0; i < *n_dims; i++) shape[i] = json_integer_value(json_array_get(dims, (size_t)i));
    return (const float *)(file->data +
                           json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0)));
}

static void golden_case(const char *folder, const char *name, sago_adafactor_args args, float learning_rate,
                        bool may_factor) {
    static const char *const names[] = {"factored", "tall",       "narrow",     "table",
                                        "norm",     "tiny_scale", "sparse_rows"};
    golden_file input = golden_open(folder, "input"), expected = golden_open(folder, name);
    sago_device *d = suite_device(0);
    for (int i = 0; i < LENGTH(names); i++) {
        int64_t shape[3], other[3];
        int n_dims, n;
        const float *before = golden_values(&input, "param.", names[i], shape, &n_dims);
        const float *g = golden_values(&input, "grad.", names[i], other, &n);
        int64_t rows = n_dims == 2 ? shape[0] : 0, columns = shape[n_dims - 1],
                count = (rows ? rows : 1) * columns;
        bool factored = may_factor && n_dims == 2 && rows >= 128 && columns >= 128;
        parameter p = open_parameter(d, before, rows, columns, rows, factored, args.momentum > 0);
        p.slot.learning_rate = learning_rate;
        for (int t = 1; t <= STEPS; t++) {
            args.beta2 = 1 - pow(t, -0.8);
            suite_ok(
                d->ops->upload(d, p.slot.gradient.data, g + (t - 1) * count, (size_t)count * sizeof(float)));
            step(d, &p.slot, 1, &args, 1);
            if (t != 1 && t != STEPS) continue;
            char prefix[16], what[160];
            snprintf(prefix, sizeof prefix, "step%d.", t);
            snprintf(what, sizeof what, "%s: %s%s", name, prefix, names[i]);
            double *exact = suite_to_double(golden_values(&expected, prefix, names[i], other, &n), count);
            float *now = values_of(d, &p);
            expect_trajectory(what, now, exact, before, count, 1e-4, 0);
            free(exact), free(now);
        }
        close_parameter(d, &p);
    }
    json_decref(input.header), json_decref(expected.header);
    free(input.bytes), free(expected.bytes);
}

static void test_goldens(void **state) {
    (void)state;
    const char *folder = getenv("SAGO_GOLDEN");
    if (!folder) skip();
    sago_adafactor_args args = {0, NULL, 1, true, 1e-3, 0, 0}, other = args;
    golden_case(folder, "default", args, 1e-2f, true);
    other.weight_decay = 1e-3;
    golden_case(folder, "weight_decay", other, 1e-2f, true);
    other = args, other.parameter_scale = false;
    golden_case(folder, "no_param_scale", other, 1e-3f, true);
    other = args, other.momentum = 0.9;
    golden_case(folder, "momentum", other, 1e-2f, true);
    golden_case(folder, "palm", other, 1e-2f, false);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
SUITE_MAIN(tests)
