// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file.h"
#include "run_dir.h"
#include "spike.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static void test_metrics_are_cut_at_the_checkpoint(void **state) {
    (void)state;
    char dir[] = "/tmp/sago-test-run-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = sago_path_join(dir, "metrics.jsonl");
    /* Odd spacing must survive byte for byte; the last line was torn by a kill. */
    const char text[] = "{\"step\":1,\"loss\":2.5}\n{\"step\": 2,   \"loss\":2}\n{\"event\":\"resume\",\"step\":2}\n"
                        "{\"step\":3,\"loss\":1}\n{\"step\":4,\"lo";
    assert_int_equal(sago_file_replace(path, text, sizeof text - 1), SAGO_OK);
    FILE *metrics;
    assert_int_equal(sago_metrics_open(dir, 2, &metrics), SAGO_OK);
    json_t *line = json_pack("{s:i, s:f}", "step", 3, "loss", 0.5);
    assert_int_equal(sago_metrics_append(metrics, line), SAGO_OK);
    json_decref(line);
    fclose(metrics);
    sago_str got = {0};
    assert_int_equal(sago_file_read(path, 0, &got), SAGO_OK);
    assert_string_equal(sago_str_text(&got), "{\"step\":1,\"loss\":2.5}\n{\"step\": 2,   \"loss\":2}\n"
                                             "{\"event\":\"resume\",\"step\":2}\n{\"step\":3,\"loss\":0.5}\n");
    sago_str_free(&got);
    free(path);
    assert_int_equal(sago_dir_remove(dir), SAGO_OK);
}

static void test_spike(void **state) {
    (void)state;
    sago_spike_detector d = {0};
    /* Too young to judge: even a wild loss is taken. */
    for (int i = 0; i < SAGO_SPIKE_WINDOW / 2; i++) assert_false(sago_spike_check(&d, i == 3 ? 50 : 2.0, 2));
    assert_false(sago_spike_check(&d, 3.9, 2));
    assert_true(sago_spike_check(&d, 4.1, 2));
    assert_true(sago_spike_check(&d, NAN, 2));
    assert_false(sago_spike_check(&d, 1e9, 0)); /* threshold 0: off */
    /* A spike does not move the median that it was judged by. */
    for (int i = 0; i < 200; i++) assert_true(sago_spike_check(&d, 10, 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics_are_cut_at_the_checkpoint),
                                       cmocka_unit_test(test_spike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
