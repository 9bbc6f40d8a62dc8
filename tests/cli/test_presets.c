// SPDX-License-Identifier: Apache-2.0
/* The presets in configs/ are the paper's: shapes by the published parameter counts, settings by its tables.
 */
#include "config.h"
#include "file.h"
#include "model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *root;

static sago_config *load(const char *name) {
    sago_config *config = NULL;
    char *path = sago_format("%s/configs/%s", root, name);
    if (sago_config_load(path, NULL, 0, &config) != SAGO_OK) fail_msg("%s", sago_message());
    free(path);
    return config;
}

static int64_t count_parameters(const sago_config *c) {
    sago_model_shape shape;
    if (sago_model_shape_from_config(c, &shape) != SAGO_OK) fail_msg("%s", sago_message());
    sago_registry registry = {0};
    if (sago_model_declare(&shape, &registry) != SAGO_OK) fail_msg("%s", sago_message());
    if (sago_registry_shard(&registry, NULL, 0, 0, 1) != SAGO_OK) fail_msg("%s", sago_message());
    int64_t n = registry.n_global_elements;
    sago_registry_free(&registry);
    return n;
}

static void flan_t5(void **state) {
    (void)state;
    static const struct {
        const char *file;
        int64_t parameters, steps;
    } models[] = {
        {"flan-t5-small.yaml", 76961152, 98000},  {"flan-t5-base.yaml", 247577856, 84000},
        {"flan-t5-large.yaml", 783150080, 64000}, {"flan-t5-xl.yaml", 2849757184, 38000},
        {"flan-t5-xxl.yaml", 11135332352, 14000},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sago_config *c = load(models[i].file);
        assert_int_equal(count_parameters(c), models[i].parameters);
        assert_int_equal(c->run.steps, models[i].steps);
        assert_int_equal(c->train.global_batch, 64);
        assert_true(c->train.dropout == .05 && c->optimizer.learning_rate == 5e-4 && c->train.z_loss == 1e-4);
        assert_string_equal(c->optimizer.schedule, "constant");
        assert_true(c->data.packing && c->data.input_length == 2048 && c->data.target_length == 512);
        static const struct {
            const char *name;
            double share;
            int64_t cap;
        } members[] = {
            {"muffin", 46.0, 30000}, {"t0sf", 27.9, 20000}, {"cot", 1.8, 100000}, {"niv2", 24.2, 5000}};
        assert_int_equal(c->data.n_mixture, 4);
        for (int m = 0; m < 4; m++) {
            assert_string_equal(c->data.mixture[m].name, members[m].name);
            assert_true(c->data.mixture[m].share == members[m].share &&
                        c->data.mixture[m].cap == members[m].cap);
        }
        sago_config_free(c);
    }
}

static void every_preset_loads(void **state) {
    (void)state;
    char *folder = sago_path_join(root, "configs");
    sago_names names;
    assert_int_equal(sago_dir_list(folder, &names), SAGO_OK);
    int n = 0;
    for (size_t i = 0; i < names.count; i++) {
        if (!sago_ends_with(names.names[i], ".yaml")) continue;
        sago_config_free(load(names.names[i]));
        n++;
    }
    assert_true(n >= 5);
    sago_names_free(&names);
    free(folder);
}

int main(int argc, char *argv[]) {
    if (argc != 2) return 2;
    root = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(flan_t5), cmocka_unit_test(every_preset_loads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
