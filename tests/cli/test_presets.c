// SPDX-License-Identifier: Apache-2.0
/* The presets in configs/ are the paper's: shapes by the published parameter counts, settings by its tables.
 */
#include "config.h"
#include "file.h"
#include "model.h"
#include "schedule.h"

#include <math.h>
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

/* Chowdhery et al. 2022, table 1 and section 5; Chung et al. 2022, table 2 and appendix E; Tay et al. 2022a,
 * 2022b; Lester et al. 2021; Sanh et al. 2021. Counts in billions, as published, or of UL2 by the published
 * shape: 32 encoder layers of 4 d^2 + 3 d f, 32 decoder layers of 8 d^2 + 3 d f, one embedding of 32128 d. */
typedef struct preset {
    const char *file;
    double billions, rounding;
    int64_t steps, rows, inputs, targets;
    double dropout, rate;
    const char *schedule, *objective; /* objective "": the instruction mixture */
    bool factored;
} preset;

static const preset larger[] = {
    {"palm-8b.yaml", 8.63, .01, 185000, 2048, 1024, 1024, 0, 1e-2, "rsqrt", "causal-lm", false},
    {"palm-62b.yaml", 62.50, .01, 185000, 2048, 1024, 1024, 0, 1e-2, "rsqrt", "causal-lm", false},
    {"palm-540b.yaml", 540.35, .01, 185000, 2048, 1024, 1024, 0, 1e-2, "rsqrt", "causal-lm", false},
    {"cont-palm-62b.yaml", 62.50, .01, 124000, 2048, 1024, 1024, 0, 2.325e-3, "rsqrt", "causal-lm", false},
    {"u-palm-540b.yaml", 540.35, .01, 20000, 32, 1024, 1024, 0, 1e-4, "cosine", "ul2r", false},
    {"flan-palm-8b.yaml", 8.63, .01, 40000, 32, 2048, 512, .05, 3e-3, "constant", "", true},
    {"flan-palm-62b.yaml", 62.50, .01, 40000, 32, 2048, 512, .05, 3e-3, "constant", "", true},
    {"flan-palm-540b.yaml", 540.35, .01, 21000, 32, 2048, 512, .1, 1e-3, "constant", "", true},
    {"flan-cont-palm-62b.yaml", 62.50, .01, 60000, 32, 2048, 512, .05, 3e-3, "constant", "", true},
    {"flan-u-palm-540b.yaml", 540.35, .01, 30000, 32, 2048, 512, .1, 1e-3, "constant", "", true},
    {"ul2.yaml", 19.459, .001, 2000000, 1024, 512, 512, 0, 1e-2, "rsqrt", "ul2", true},
    {"t5-xxl-lm.yaml", 11.135332352, 0, 100000, 2048, 512, 512, 0, 1e-3, "constant", "prefix-lm", true},
};

static void larger_models(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof larger / sizeof *larger; i++) {
        const preset *p = &larger[i];
        sago_config *c = load(p->file);
        double billions = (double)count_parameters(c) * 1e-9, off = billions - p->billions;
        if (!(off <= p->rounding && off >= -p->rounding))
            fail_msg("%s: %.3f billion, not %.3f", p->file, billions, p->billions);
        assert_int_equal(c->run.steps, p->steps);
        assert_int_equal(c->train.global_batch, p->rows);
        assert_int_equal(c->data.input_length, p->inputs);
        assert_int_equal(c->data.target_length, p->targets);
        assert_true(c->train.dropout == p->dropout && c->optimizer.learning_rate == p->rate &&
                    c->train.z_loss == 1e-4);
        assert_string_equal(c->optimizer.schedule, p->schedule);
        assert_true(c->optimizer.factored == p->factored && c->optimizer.momentum == (p->factored ? 0 : .9));
        assert_int_equal(c->data.n_mixture, p->objective[0] ? 1 : 4);
        if (p->objective[0]) assert_string_equal(c->data.mixture[0].objective, p->objective);
        sago_config_free(c);
    }
}

/* Rates at the places that the papers name. */
static void schedules(void **state) {
    (void)state;
    sago_config *palm = load("palm-540b.yaml"), *u_palm = load("u-palm-540b.yaml"),
                *cont = load("cont-palm-62b.yaml");
    assert_true(sago_schedule_rate(palm, 1) == 1e-2 && sago_schedule_rate(palm, 10000) == 1e-2);
    assert_true(fabs(sago_schedule_rate(palm, 40000) / 5e-3 - 1) < 1e-12);
    assert_true(fabs(sago_schedule_rate(u_palm, 20000) / 1e-6 - 1) < 1e-9);
    assert_true(fabs(sago_schedule_rate(cont, 1) / sago_schedule_rate(palm, 185000) - 1) < 1e-3);
    sago_config_free(palm);
    sago_config_free(u_palm);
    sago_config_free(cont);
}

static void every_preset_loads(void **state) {
    (void)state;
    char *folder = sago_path_join(root, "configs");
    sago_names names;
    assert_int_equal(sago_dir_list(folder, &names), SAGO_OK);
    int n = 0;
    for (size_t i = 0; i < names.count; i++) {
        if (!sago_ends_with(names.names[i], ".yaml")) continue;
        sago_config *config = load(names.names[i]);
        assert_string_equal(config->train.precision, "auto"); /* bf16 on GPUs, and CPUs are not refused */
        sago_config_free(config);
        n++;
    }
    assert_true(n >= 17);
    sago_names_free(&names);
    free(folder);
}

int main(int argc, char *argv[]) {
    if (argc != 2) return 2;
    root = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(flan_t5), cmocka_unit_test(larger_models),
                                       cmocka_unit_test(schedules), cmocka_unit_test(every_preset_loads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
