// SPDX-License-Identifier: Apache-2.0
/* What the records of a pre-flight's ranks say side by side: each fault planted in one of them must be named.
 */
#include "rank_checks.h"
#include "str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS = 8 };

/* Eight ranks on four nodes with figures that differ by a few percent, as they do. */
static json_t *sound(void) {
    json_t *records = json_array();
    for (int r = 0; r < RANKS; r++) {
        char host[8];
        snprintf(host, sizeof host, "n%d", r / 2);
        json_array_append_new(
            records,
            json_pack("{s:i, s:s, s:f, s:f, s:{s:s, s:s}, s:{s:{s:f, s:s}, s:{s:f, s:s}}, s:[]}", "rank", r,
                      "host", host, "clock", 1.8e9 + 0.01 * r, "late", 0.05 + 0.01 * (r % 3), "same", "hdf5",
                      "1.10.8", "gpu driver", "580.65", "speeds", "products", "value", 100.0 - r, "unit",
                      "GFLOP/s", "disk speed", "value", 500.0 + r, "unit", "MB/s", "failures"));
    }
    return records;
}

static json_t *part(json_t *records, int rank, const char *name) {
    json_t *found = json_object_get(json_array_get(records, (size_t)rank), name);
    assert_non_null(found);
    return found;
}

static void set_speed(json_t *records, int rank, const char *name, double value) {
    json_object_set_new(json_object_get(part(records, rank, "speeds"), name), "value", json_real(value));
}

static const json_t *finding(const json_t *findings, const char *name) {
    size_t i;
    json_t *found;
    json_array_foreach((json_t *)findings, i, found) {
        if (strcmp(json_string_value(json_object_get(found, "name")), name) == 0) return found;
    }
    fail_msg("no finding of the name %s", name);
    return NULL;
}

static const char *status_of(const json_t *findings, const char *name) {
    return json_string_value(json_object_get(finding(findings, name), "status"));
}

static void assert_says(const json_t *findings, const char *name, const char *words) {
    const char *text = json_string_value(json_object_get(finding(findings, name), "text"));
    if (!strstr(text, words)) fail_msg("%s: \"%s\" does not say \"%s\"", name, text, words);
}

/* Findings of these records, which go; all but `at` must be ok. */
static json_t *judge(json_t *records, const char *at) {
    json_t *findings = json_array(), *found;
    size_t i;
    sago_ranks_judge(records, findings);
    json_array_foreach(findings, i, found) {
        const char *name = json_string_value(json_object_get(found, "name"));
        bool ok = strcmp(json_string_value(json_object_get(found, "status")), "ok") == 0;
        if (!ok && (!at || strcmp(name, at) != 0)) fail_msg("%s is not well", name);
        assert_true(ok || json_string_value(json_object_get(found, "remedy"))[0]);
    }
    json_decref(records);
    return findings;
}

static void test_all_well(void **unused) {
    (void)unused;
    json_t *findings = judge(sound(), NULL);
    assert_says(findings, "versions", "alike on 8 ranks: hdf5 1.10.8, gpu driver 580.65");
    assert_says(findings, "products", "median 96 GFLOP/s of 8 ranks, least 93 on rank 7");
    assert_says(findings, "disk speed", "median 503 MB/s");
    json_decref(findings);
}

static void test_versions(void **unused) {
    (void)unused;
    json_t *records = sound();
    json_object_set_new(part(records, 5, "same"), "hdf5", json_string("1.12.2"));
    json_t *findings = judge(records, "hdf5");
    assert_string_equal(status_of(findings, "hdf5"), "fail");
    assert_says(findings, "hdf5",
                "1.10.8 on ranks 0-4, 6-7 (host n0, n1, n2, n3); 1.12.2 on rank 5 (host n2)");
    assert_says(findings, "versions", "gpu driver 580.65");
    json_decref(findings);
    /* What a rank lacks differs too, also where it is the first. */
    records = sound();
    json_object_del(part(records, 0, "same"), "gpu driver");
    findings = judge(records, "gpu driver");
    assert_string_equal(status_of(findings, "gpu driver"), "fail");
    assert_says(findings, "gpu driver", "none on rank 0 (host n0)");
    json_decref(findings);
}

static void test_slow_ranks(void **unused) {
    (void)unused;
    for (int slow = 0; slow < RANKS; slow++) {
        char named[64];
        json_t *records = sound();
        set_speed(records, slow, "products", 70);
        json_t *findings = judge(records, "products");
        assert_string_equal(status_of(findings, "products"), "warn");
        snprintf(named, sizeof named, "out of line: rank %d (host n%d) 70", slow, slow / 2);
        assert_says(findings, "products", named);
        json_decref(findings);
        /* Within the 20 %. */
        records = sound();
        set_speed(records, slow, "products", 80);
        json_decref(judge(records, NULL));
    }
    /* Of two ranks the slower one is measured against the other. */
    json_t *records = sound();
    while (json_array_size(records) > 2) json_array_remove(records, 2);
    set_speed(records, 0, "disk speed", 300);
    json_t *findings = judge(records, NULL);
    assert_says(findings, "disk speed", "least 300 on rank 0");
    json_decref(findings);
}

static void test_late_and_clocks(void **unused) {
    (void)unused;
    json_t *records = sound();
    json_object_set_new(json_array_get(records, 6), "late", json_real(0.4));
    json_t *findings = judge(records, "waited for");
    assert_says(findings, "waited for", "out of line: rank 6 (host n3) 40");
    json_decref(findings);
    records = sound();
    json_object_set_new(json_array_get(records, 3), "clock", json_real(1.8e9 - 60));
    findings = judge(records, "clocks");
    assert_says(findings, "clocks", "rank 3 (host n1) -60");
    json_decref(findings);
}

/* A message that many ranks have is told once, with all of them. */
static void test_failures(void **unused) {
    (void)unused;
    json_t *records = sound();
    for (int r = 2; r < RANKS; r += r == 3 ? 4 : 1)
        json_array_append_new(
            part(records, r, "failures"),
            json_pack("{s:s, s:s, s:s}", "name", "shared folder", "status", "fail", "text", "not seen"));
    json_t *findings = judge(records, "shared folder");
    assert_string_equal(status_of(findings, "shared folder"), "fail");
    assert_says(findings, "shared folder", "ranks 2-3, 7 (host n1, n3): not seen");
    assert_true(json_array_size(findings) == 6);
    json_decref(findings);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_well), cmocka_unit_test(test_versions), cmocka_unit_test(test_slow_ranks),
        cmocka_unit_test(test_late_and_clocks), cmocka_unit_test(test_failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
