// SPDX-License-Identifier: Apache-2.0
/* The hardware files that are built in, and what is said of wrong ones. */
#include "hardware.h"

#include "file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void data_sheets(void **state) {
    (void)state;
    /* Dense bf16 products and memory bandwidth as the makers print them. */
    static const struct {
        const char *name;
        double tflops, gb_per_second, most_gib;
    } sheets[] = {{"h100-80", 989, 3350, 80},
                  {"h200", 989, 4800, 141},
                  {"a100-80", 312, 2039, 80},
                  {"a100-40", 312, 1555, 40}};
    for (size_t i = 0; i < sizeof sheets / sizeof *sheets; i++) {
        sago_hardware h;
        assert_int_equal(sago_hardware_load(sheets[i].name, &h), SAGO_OK);
        assert_true(h.bf16_tflops.datasheet == sheets[i].tflops && h.bf16_tflops.value < sheets[i].tflops);
        assert_true(h.copy_gb_per_second.datasheet == sheets[i].gb_per_second);
        assert_true(h.memory_gib < sheets[i].most_gib && h.memory_gib > .9 * sheets[i].most_gib);
        assert_true(h.stores_bf16 && !h.memory_is_host && h.devices_per_node == 8);
    }
    sago_hardware cpu;
    assert_int_equal(sago_hardware_load("cpu", &cpu), SAGO_OK);
    assert_true(cpu.memory_is_host && !cpu.stores_bf16);
}

static const char whole[] =
    "name: card\nmemory_gib: 16\nreserved_gib: 1\ndevices_per_node: 4\nstores_bf16: true\n"
    "memory_is_host: false\nbf16_tflops: {assumed: 90, datasheet: 100}\nfp32_tflops: {datasheet: 50}\n"
    "copy_gb_per_second: {datasheet: 900, measured: 700, assumed: 800}\nproduct_share: {assumed: "
    "1}\nproduct_half_size: {assumed: 20}\n"
    "attention_forward_share: {assumed: 0.5}\nattention_backward_share: {assumed: 0.4}\n"
    "operation_microseconds: {assumed: 5}\nnode_gb_per_second: {assumed: 100}\nnode_microseconds: {assumed: "
    "10}\n"
    "network_gb_per_second: {assumed: 50}\nnetwork_microseconds: {assumed: 20}\nlink_compute_share: "
    "{assumed: 0}\n";

static sago_status load_text(const char *text, sago_hardware *out) {
    char path[] = "/tmp/sago-hardware-XXXXXX.yaml";
    int file = mkstemps(path, 5);
    assert_true(file >= 0);
    close(file);
    assert_int_equal(sago_file_replace(path, text, strlen(text)), SAGO_OK);
    sago_status status = sago_hardware_load(path, out);
    unlink(path);
    return status;
}

static void measured_before_assumed_before_data_sheet(void **state) {
    (void)state;
    sago_hardware h;
    assert_int_equal(load_text(whole, &h), SAGO_OK);
    assert_string_equal(h.name, "card");
    assert_true(h.copy_gb_per_second.value == 700 && h.copy_gb_per_second.basis == SAGO_MEASURED);
    assert_true(h.bf16_tflops.value == 90 && h.bf16_tflops.basis == SAGO_ASSUMED &&
                h.bf16_tflops.datasheet == 100);
    assert_true(h.fp32_tflops.value == 50 && h.fp32_tflops.basis == SAGO_DATASHEET);
    assert_true(h.devices_per_node == 4 && h.memory_gib == 16 && h.reserved_gib == 1);
}

/* The text with one part replaced. */
static char *with(const char *part, const char *by) {
    const char *at = strstr(whole, part);
    assert_non_null(at);
    return sago_format("%.*s%s%s", (int)(at - whole), whole, by, at + strlen(part));
}

static void wrong_files(void **state) {
    (void)state;
    static const struct {
        const char *part, *by, *said;
    } wrong[] = {
        {"product_share: {assumed: 1}\n", "", "product_share is missing"},
        {"name: card\n", "", "name is missing"},
        {"devices_per_node: 4\n", "", "devices_per_node is missing"},
        {"name: card", "nmae: card", ":1: nmae: unknown key"},
        {"memory_gib: 16", "memory_gib: much", ":2: memory_gib: a number from"},
        {"memory_gib: 16", "memory_gib: -1", ":2: memory_gib: a number from"},
        {"stores_bf16: true", "stores_bf16: maybe", ":5: stores_bf16: true or false"},
        {"{datasheet: 50}", "50", ":8: fp32_tflops: {measured: X}"},
        {"{datasheet: 50}", "{guessed: 50}", ":8: fp32_tflops: {measured: X}"},
        {"{datasheet: 50}", "{}", ":8: fp32_tflops: {measured: X}"},
        {"name: card", "- name: card\n-", "not YAML"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sago_hardware h;
        char *text = with(wrong[i].part, wrong[i].by);
        assert_int_equal(load_text(text, &h), SAGO_E_CONFIG);
        if (!strstr(sago_message(), wrong[i].said))
            fail_msg("\"%s\" lacks \"%s\"", sago_message(), wrong[i].said);
        free(text);
    }
}

static void unknown_name(void **state) {
    (void)state;
    sago_hardware h;
    assert_int_equal(sago_hardware_load("h100", &h), SAGO_E_USAGE);
    assert_non_null(strstr(sago_message(), "a100-40, a100-80, cpu, h100-80, h200"));
    assert_int_equal(sago_hardware_load("missing.yaml", &h), SAGO_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(data_sheets),
                                       cmocka_unit_test(measured_before_assumed_before_data_sheet),
                                       cmocka_unit_test(wrong_files), cmocka_unit_test(unknown_name)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
