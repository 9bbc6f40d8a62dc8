// SPDX-License-Identifier: Apache-2.0
/* A plan beside what the program then takes, published FLOPs, and the presets' meshes. */
#include "plan.h"

#include "file.h"
#include "fsdp.h"
#include "optimizer.h"
#include "weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *root;

static sago_config *load(const char *name, int n_sets, char *const sets[]) {
    sago_config *config = NULL;
    char *path = name ? sago_format("%s/configs/%s.yaml", root, name) : NULL;
    if (sago_config_load(path, sets, n_sets, &config) != SAGO_OK) fail_msg("%s", sago_message());
    free(path);
    return config;
}

static sago_hardware hardware_of(const char *name) {
    sago_hardware h;
    if (sago_hardware_load(name, &h) != SAGO_OK) fail_msg("%s", sago_message());
    return h;
}

/* --- memory: to the byte what the program allocates
 * -------------------------------------------------------------- */

/* Sets of small models of both families, and of what changes their memory. */
static char *t5[] = {"model.vocab_size=500",   "model.d_model=144",    "model.n_heads=4",
                     "model.head_dim=36",      "model.d_ff=160",       "model.encoder_layers=2",
                     "model.decoder_layers=3", "data.input_length=40", "data.target_length=24",
                     "train.global_batch=6",   "train.loss_chunk=50"};
static char *palm[] = {"model.family=palm",     "model.vocab_size=500",   "model.d_model=144",
                       "model.n_heads=4",       "model.kv_heads=1",       "model.head_dim=32",
                       "model.d_ff=160",        "model.decoder_layers=3", "data.input_length=40",
                       "data.target_length=24", "train.global_batch=6",   "train.loss_chunk=50"};
static char *const variants[] = {"train.recompute=false",
                                 "train.recompute=true",
                                 "train.micro_batch=2",
                                 "optimizer.factored=false",
                                 "optimizer.momentum=0.9",
                                 "optimizer.min_factored_dim=1",
                                 "optimizer.groups=[{pattern: \"*mlp*\", multiplier: 0}]"};

/* Meshes: data, model, kind of data axis. */
static const struct {
    int data, model;
    char *axis, *gathered;
} meshes[] = {{1, 1, "replicated", "drop"}, {3, 1, "sharded", "drop"}, {3, 1, "sharded", "keep"},
              {2, 2, "sharded", "drop"},    {2, 2, "sharded", "keep"}, {2, 2, "replicated", "drop"},
              {7, 4, "sharded", "drop"}};

static int64_t packed_elements(const sago_registry *held, int model) {
    int64_t n = 0;
    for (int i = 0; model > 1 && i < held->n_params; i++)
        if (held->params[i].model_dim < 0)
            n += held->params[i].local_shape[0] * held->params[i].local_shape[1];
    return n;
}

/* What the last rank of each axis takes, which holds as much as any. */
static void compare_memory(const sago_config *config, sago_device *device, int data, int model_ranks) {
    sago_hardware cpu = hardware_of("cpu");
    const sago_plan_options options = {.nodes = 1, .devices_per_node = data * model_ranks};
    sago_planned planned;
    if (sago_plan_open(config, &cpu, &options, &planned) != SAGO_OK) fail_msg("%s", sago_message());
    const int64_t *bytes = planned.as_configured.memory.bytes;
    sago_mesh mesh = {.size = data * model_ranks,
                      .axis_size = {[SAGO_DATA_AXIS] = data, [SAGO_MODEL_AXIS] = model_ranks},
                      .axis_rank = {[SAGO_DATA_AXIS] = data - 1, [SAGO_MODEL_AXIS] = model_ranks - 1}};
    sago_mesh model_mesh = {.size = model_ranks,
                            .axis_size = {[SAGO_DATA_AXIS] = 1, [SAGO_MODEL_AXIS] = model_ranks},
                            .axis_rank = {[SAGO_MODEL_AXIS] = model_ranks - 1}};
    bool sharded = data > 1 && strcmp(config->mesh.data_axis, "sharded") == 0;
    sago_registry whole = {0}, held;
    sago_weights weights;
    sago_model *model;
    sago_optimizer *optimizer;
    sago_fsdp *fsdp = NULL;
    assert_int_equal(sago_model_declare(&planned.work.shape, &whole), SAGO_OK);
    assert_int_equal(sago_model_shard(&planned.work.shape, &whole, NULL, 0, model_ranks - 1, model_ranks),
                     SAGO_OK);
    sago_registry_cut_rows(&whole, sharded ? data - 1 : 0, sharded ? data : 1, &held);
    int64_t rows = (6 + data - 1) / data, micro = config->train.micro_batch;
    const sago_model_options model_options = {.max_rows = micro && micro < rows ? micro : rows,
                                              .input_length = 40,
                                              .target_length = 24,
                                              .training = true,
                                              .recompute = config->train.recompute,
                                              .loss_chunk_tokens = 50};
    assert_int_equal(
        sago_model_open(&planned.work.shape, &whole, device, &model_mesh, &model_options, &model), SAGO_OK);
    assert_int_equal(sago_weights_open(&held, device, SAGO_F32, true, &weights), SAGO_OK);
    assert_int_equal(sago_optimizer_open(config, &held, &mesh, device, &optimizer), SAGO_OK);
    if (sharded) {
        bool keep = strcmp(config->mesh.gathered, "keep") == 0;
        assert_int_equal(sago_fsdp_open(&whole, &held, &mesh, device, SAGO_F32, keep, &fsdp), SAGO_OK);
    }
    assert_int_equal(bytes[SAGO_MEMORY_ACTIVATIONS], sago_model_bytes(model));
    assert_int_equal(bytes[SAGO_MEMORY_PARAMETERS], sago_weights_bytes(&weights));
    assert_int_equal(bytes[SAGO_MEMORY_GRADIENTS],
                     4 * (held.n_elements + packed_elements(&held, model_ranks)));
    assert_int_equal(bytes[SAGO_MEMORY_OPTIMIZER], sago_optimizer_bytes(optimizer));
    assert_int_equal(bytes[SAGO_MEMORY_GATHERED], fsdp ? sago_fsdp_bytes(fsdp) : 0);
    sago_fsdp_close(fsdp);
    sago_optimizer_close(optimizer);
    sago_weights_close(&weights);
    sago_model_close(model);
    sago_registry_free(&held);
    sago_registry_free(&whole);
}

static void compare_meshes(char *sets[], int n, sago_device *device) {
    for (size_t m = 0; m < sizeof meshes / sizeof *meshes; m++) {
        char *texts[] = {sago_format("mesh.data=%d", meshes[m].data),
                         sago_format("mesh.model=%d", meshes[m].model),
                         sago_format("mesh.data_axis=%s", meshes[m].axis),
                         sago_format("mesh.gathered=%s", meshes[m].gathered)};
        memcpy(sets + n, texts, sizeof texts);
        sago_config *config = load(NULL, n + 4, sets);
        compare_memory(config, device, meshes[m].data, meshes[m].model);
        sago_config_free(config);
        for (int i = 0; i < 4; i++) free(texts[i]);
    }
}

static void memory_is_what_is_allocated(void **state) {
    (void)state;
    sago_device *device;
    assert_int_equal(sago_device_open("cpu", 1, &device), SAGO_OK);
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        for (int family = 0; family < 2; family++) {
            char *sets[20];
            int n = family ? sizeof palm / sizeof *palm : sizeof t5 / sizeof *t5;
            memcpy(sets, family ? palm : t5, (size_t)n * sizeof *sets);
            sets[n++] = variants[v];
            compare_meshes(sets, n, device);
        }
    }
    sago_device_close(device);
}

/* Two layers are two blocks beside the embedding: a slot each, and with one layer there are but two blocks.
 */
static void slots_of_few_blocks(void **state) {
    (void)state;
    sago_device *device;
    assert_int_equal(sago_device_open("cpu", 1, &device), SAGO_OK);
    for (int layers = 1; layers <= 4; layers++) {
        char *sets[20], *depth = sago_format("model.decoder_layers=%d", layers);
        int n = sizeof palm / sizeof *palm;
        memcpy(sets, palm, sizeof palm);
        sets[n++] = depth;
        compare_meshes(sets, n, device);
        free(depth);
    }
    sago_device_close(device);
}

/* A data axis of D keeps a D-th of what one rank kept, and whole rows where they do not divide. */
static void shares_cover_everything(void **state) {
    (void)state;
    sago_config *config = load("flan-t5-base", 0, NULL);
    sago_hardware h = hardware_of("h100-80");
    sago_workload work;
    assert_int_equal(sago_workload_open(config, &h, &work), SAGO_OK);
    const int64_t data[] = {1, 2, 3, 7, 64}, model[] = {1, 2, 4};
    for (size_t m = 0; m < 3; m++) {
        sago_shares whole = {0};
        const sago_layout one = {.data = 1, .model = model[m], .micro_batch = 1};
        assert_int_equal(sago_shares_open(&work, &one, &whole), SAGO_OK);
        /* Cut over the model axis: matrices are, norms and none other are not. */
        double part = (double)whole.held_elements * (double)model[m] / (double)work.n_parameters;
        assert_true(part >= 1 && part < 1.001);
        for (size_t d = 0; d < sizeof data / sizeof *data; d++) {
            sago_shares shares = {0};
            const sago_layout layout = {
                .data = data[d], .model = model[m], .sharing = SAGO_SHARDED_DROP, .micro_batch = 1};
            assert_int_equal(sago_shares_open(&work, &layout, &shares), SAGO_OK);
            double cover = (double)(shares.held_elements * data[d]) / (double)whole.held_elements;
            assert_true(cover >= 1 && cover < 1.1);
            sago_shares_close(&shares);
        }
        sago_shares_close(&whole);
    }
    sago_config_free(config);
}

/* --- FLOPs
 * ------------------------------------------------------------------------------------------------------- */

/* Chung et al. 2022, table 2: FLOPs of instruction finetuning. */
static const struct {
    const char *name;
    double flops;
} table[] = {{"flan-t5-small", 2.9e18}, {"flan-t5-base", 9.1e18},  {"flan-t5-large", 2.4e19},
             {"flan-t5-xl", 5.6e19},    {"flan-t5-xxl", 7.6e19},   {"flan-palm-8b", 1.6e20},
             {"flan-palm-62b", 1.2e21}, {"flan-palm-540b", 5.6e21}};

static void flops_of_the_paper(void **state) {
    (void)state;
    sago_hardware h = hardware_of("h100-80");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        sago_config *config = load(table[i].name, 0, NULL);
        sago_workload work;
        if (sago_workload_open(config, &h, &work) != SAGO_OK) fail_msg("%s", sago_message());
        double flops = sago_step_flops_by_parameters(&work) * (double)config->run.steps;
        if (!(fabs(flops / table[i].flops - 1) < .08))
            fail_msg("%s: %g, published %g", table[i].name, flops, table[i].flops);
        sago_config_free(config);
    }
}

/* What the metrics of a run count for full rows of one segment. */
static void flops_of_the_model(void **state) {
    (void)state;
    for (int family = 0; family < 2; family++) {
        sago_config *config =
            family ? load(NULL, sizeof palm / sizeof *palm, palm) : load(NULL, sizeof t5 / sizeof *t5, t5);
        sago_hardware h = hardware_of("cpu");
        sago_workload work;
        assert_int_equal(sago_workload_open(config, &h, &work), SAGO_OK);
        double expected =
            family ? sago_model_flops(&work.shape, 6 * 40, 6 * 24, 0, 6 * 64 * 65 / 2, 0)
                   : sago_model_flops(&work.shape, 6 * 40, 6 * 24, 6 * 40 * 40, 6 * 24 * 25 / 2, 6 * 40 * 24);
        if (family) /* a decoder alone takes the logits of its targets, and everything else of all of the row
                     */
            assert_int_equal(work.loss_tokens, 24);
        assert_true(fabs(sago_step_flops(&work) / expected - 1) < 1e-12);
        sago_config_free(config);
    }
}

/* --- the search
 * -------------------------------------------------------------------------------------------------- */

static void search_finds_the_fastest(void **state) {
    (void)state;
    char *sets[] = {"train.global_batch=24", "train.precision=bf16"};
    sago_config *config = load("flan-t5-xxl", 2, sets);
    sago_hardware h = hardware_of("a100-40");
    const sago_plan_options options = {.nodes = 2, .devices_per_node = 4};
    sago_planned planned;
    assert_int_equal(sago_plan_open(config, &h, &options, &planned), SAGO_OK);
    assert_true(planned.has_best && sago_memory_fits(&planned.best.memory));
    int fitting = 0;
    double fastest = INFINITY;
    for (int64_t model = 1; model <= 4; model *= 2) {
        for (int kind = 0; kind < SAGO_SHARINGS; kind++) {
            for (int64_t micro = 1; micro <= 24; micro++) {
                for (int recompute = 0; recompute < 2; recompute++) {
                    const sago_layout layout = {8 / model, model, (sago_sharing)kind, micro, recompute != 0};
                    int64_t rows = sago_layout_rows(&planned.work, &layout), activations;
                    if (micro > rows || (rows % micro != 0 && (micro & (micro - 1)) != 0)) continue;
                    sago_shares shares;
                    sago_projection x;
                    assert_int_equal(sago_activation_bytes(&planned.work, &layout, &activations), SAGO_OK);
                    assert_int_equal(sago_shares_open(&planned.work, &layout, &shares), SAGO_OK);
                    sago_project(&planned, &layout, &shares, activations, &x);
                    sago_shares_close(&shares);
                    if (!sago_memory_fits(&x.memory)) continue;
                    fitting++;
                    fastest = fmin(fastest, x.step.seconds);
                }
            }
        }
    }
    assert_int_equal(planned.fitting, fitting);
    assert_true(planned.best.step.seconds <= fastest * 1.002);
    sago_config_free(config);
}

/* Each preset of a mesh fits GPUs of 80 GB, and is what the search proposes for as many of them, or as fast.
 */
static void presets_fit(void **state) {
    (void)state;
    static const char *const names[] = {
        "palm-8b",       "palm-62b",         "palm-540b",     "flan-palm-8b",
        "flan-palm-62b", "flan-palm-540b",   "cont-palm-62b", "flan-cont-palm-62b",
        "u-palm-540b",   "flan-u-palm-540b", "ul2",           "t5-xxl-lm"};
    sago_hardware h = hardware_of("h100-80");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        sago_config *config = load(names[i], 0, NULL);
        int64_t devices = config->mesh.data * config->mesh.model;
        assert_true(devices > 0 && devices % 8 == 0);
        sago_plan_options options = {.nodes = devices / 8};
        sago_planned planned;
        if (sago_plan_open(config, &h, &options, &planned) != SAGO_OK)
            fail_msg("%s: %s", names[i], sago_message());
        assert_true(sago_memory_fits(&planned.as_configured.memory));
        if (!(planned.as_configured.step.seconds < planned.best.step.seconds * 1.01))
            fail_msg("%s: not the fastest", names[i]);
        /* A mesh of copies would not fit. */
        options.data_axis = SAGO_ONLY_REPLICATED;
        assert_int_equal(sago_plan_open(config, &h, &options, &planned), SAGO_OK);
        assert_int_equal(planned.as_configured.layout.sharing, SAGO_REPLICATED);
        assert_false(sago_memory_fits(&planned.as_configured.memory));
        sago_config_free(config);
    }
}

/* The T5 presets state no mesh: what they compute at once fits one GPU of 80 GB in fp32, XXL a node of them.
 */
static void t5_presets_fit(void **state) {
    (void)state;
    static const char *const names[] = {"flan-t5-small", "flan-t5-base", "flan-t5-large", "flan-t5-xl",
                                        "flan-t5-xxl"};
    sago_hardware h = hardware_of("h100-80");
    for (int i = 0; i < 5; i++) {
        sago_config *config = load(names[i], 0, NULL);
        const sago_plan_options options = {.nodes = 1, .devices_per_node = i < 4 ? 1 : 8};
        sago_planned planned;
        assert_int_equal(sago_plan_open(config, &h, &options, &planned), SAGO_OK);
        if (!sago_memory_fits(&planned.as_configured.memory)) fail_msg("%s does not fit", names[i]);
        sago_config_free(config);
    }
}

static void wrong_meshes(void **state) {
    (void)state;
    static const struct {
        char *set;
        const char *said;
    } wrong[] = {{"mesh.model=3", "mesh.model: 3 does not divide the 8 devices"}, {"mesh.model=8", "heads"}};
    sago_hardware h = hardware_of("h100-80");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *sets[] = {wrong[i].set};
        sago_config *config = load("flan-t5-small", 1, sets);
        const sago_plan_options options = {.nodes = 1};
        sago_planned planned;
        assert_int_not_equal(sago_plan_open(config, &h, &options, &planned), SAGO_OK);
        assert_non_null(strstr(sago_message(), wrong[i].said));
        sago_config_free(config);
    }
}

int main(int argc, char *argv[]) {
    if (argc != 2) return 2;
    root = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_what_is_allocated),
                                       cmocka_unit_test(slots_of_few_blocks),
                                       cmocka_unit_test(shares_cover_everything),
                                       cmocka_unit_test(flops_of_the_paper),
                                       cmocka_unit_test(flops_of_the_model),
                                       cmocka_unit_test(search_finds_the_fastest),
                                       cmocka_unit_test(presets_fit),
                                       cmocka_unit_test(t5_presets_fit),
                                       cmocka_unit_test(wrong_meshes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
