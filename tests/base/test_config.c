// SPDX-License-Identifier: Apache-2.0
#include "config.h"
#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

static sago_config *config;

static sago_status load(const char *yaml) {
    sago_config_free(config);
    config = NULL;
    return sago_config_load(test_write("c.yaml", yaml, strlen(yaml)), NULL, 0, &config);
}

static sago_status set(const char *text) {
    char *sets[] = {(char *)text};
    sago_config_free(config);
    config = NULL;
    return sago_config_load(NULL, sets, 1, &config);
}

static sago_status load_and_set(const char *yaml, const char *text) {
    char *sets[] = {(char *)text};
    sago_config_free(config);
    config = NULL;
    return sago_config_load(test_write("c.yaml", yaml, strlen(yaml)), sets, 1, &config);
}

/* The golden cases of the folder that SAGO_GOLDEN names load as they stand. */
static void golden_configurations(void **state) {
    (void)state;
    static const char *const names[] = {"t5/train-ragged",      "t5/train-even",      "t5/train-packed",
                                        "t5-tied/train-ragged", "t5-tied/train-even", "t5-tied/train-packed"};
    const char *folder = getenv("SAGO_GOLDEN");
    if (!folder) skip();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = sago_format("%s/%s/config.yaml", folder, names[i]);
        sago_config_free(config);
        config = NULL;
        assert_ok(sago_config_load(path, NULL, 0, &config));
        assert_int_equal(config->run.steps, 10);
        assert_int_equal(config->data.n_mixture, 1);
        assert_true(sago_is_file(config->data.mixture[0].path));
        assert_true(config->optimizer.learning_rate == 3e-3);
        free(path);
    }
}

static void is_path(const char *path, const char *wanted) {
    char *real = realpath(test_folder, NULL), *whole = sago_path_join(real, wanted);
    assert_string_equal(path, whole);
    free(real);
    free(whole);
}

static void defaults(void **state) {
    (void)state;
    assert_ok(sago_config_load(NULL, NULL, 0, &config));
    assert_string_equal(config->file, "");
    assert_string_equal(config->model.family, "t5");
    assert_int_equal(config->train.global_batch, 64);
    assert_true(config->train.z_loss == 1e-4 && config->train.dropout == .05);
    assert_true(config->optimizer.learning_rate == 5e-4 && config->optimizer.decay_exponent == .8);
    assert_string_equal(config->run.dir, "");
    assert_int_equal(config->data.n_mixture, 0);
    assert_true(config->data.packing && !config->train.recompute);
}

/* The form that the golden cases have. */
static void a_whole_file(void **state) {
    (void)state;
    assert_ok(
        load("# comment\nrun:\n  steps: 10\n  seed: 1\nmodel:\n  init: ../model.ckpt\ndata:\n  mixture:\n"
             "    - {name: golden, format: ids, path: train.jsonl}\n  order: sequential\n  packing: true\n"
             "  input_length: 64\ntrain:\n  dropout: 0.0\n  z_loss: 1.0e-2\n  spike: {threshold: 2.5}\n"
             "optimizer:\n  name: adafactor\n  learning_rate: 3e-3\n  groups: [{pattern: '*.bias', "
             "multiplier: 0}]\n"
             "mesh: {rules: [heads: model, 'mlp: model']}\neval:\n  tasks: [a, b*]\n"));
    assert_int_equal(config->run.steps, 10);
    char *real = realpath(test_folder, NULL), *parent = sago_path_dir(real),
         *init = sago_path_join(parent, "model.ckpt");
    assert_string_equal(config->model.init, init);
    free(real), free(parent), free(init);
    assert_int_equal(config->data.n_mixture, 1);
    assert_string_equal(config->data.mixture[0].name, "golden");
    assert_string_equal(config->data.mixture[0].format, "ids");
    assert_true(config->data.mixture[0].share == 1 && config->data.mixture[0].cap == 0);
    is_path(config->data.mixture[0].path, "train.jsonl");
    assert_string_equal(config->data.order, "sequential");
    assert_true(config->train.z_loss == 1e-2 && config->train.spike.threshold == 2.5 &&
                config->train.dropout == 0);
    assert_true(config->optimizer.learning_rate == 3e-3 && config->optimizer.groups[0].multiplier == 0);
    assert_int_equal(config->mesh.rules.count, 2);
    assert_string_equal(config->mesh.rules.items[0], "heads: model");
    assert_string_equal(config->mesh.rules.items[1], "mlp: model");
    assert_string_equal(config->eval.tasks.items[1], "b*");
}

static void unknown_keys_name_the_nearest(void **state) {
    (void)state;
    assert_fails(load("run:\n  steps: 1\ntrain:\n  dropuot: 0.1\n"), SAGO_E_CONFIG,
                 "c.yaml:4: train.dropuot: unknown key; did you mean train.dropout?");
    assert_fails(load("trian:\n  dropout: 0.1\n"), SAGO_E_CONFIG,
                 "c.yaml:1: trian: unknown key; did you mean train?");
    assert_fails(load("train: {learning_rate: 1}"), SAGO_E_CONFIG, "did you mean optimizer.learning_rate?");
    assert_fails(load("run: {zzzzzzzz: 1}"), SAGO_E_CONFIG, "the keys here: dir, steps, seed");
    assert_fails(load("zzzzzzzz: 1"), SAGO_E_CONFIG,
                 "the keys here: run, model, data, train, optimizer, mesh");
    assert_fails(load("data:\n  mixture:\n  - name: a\n    fromat: ids\n    path: x\n"), SAGO_E_CONFIG,
                 "c.yaml:4: data.mixture.0.fromat: unknown key; did you mean format?");
    assert_fails(set("run.stepps=3"), SAGO_E_CONFIG,
                 "--set run.stepps: unknown key; did you mean run.steps?");
    assert_fails(load("run: {? [a] : 1}"), SAGO_E_CONFIG, "a key is no text");
    assert_fails(load("? [a]\n: 1\n"), SAGO_E_CONFIG, "a key is no text");
}

static void wrong_types_and_ranges(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *part;
    } cases[] = {
        {"run:\n  steps: many", "c.yaml:2: run.steps: many is given, a whole number from 0 up is needed"},
        {"run: {steps: -1}", "-1 is given, a whole number from 0 up is needed"},
        {"run: {steps: 1.5}", "1.5 is given"},
        {"run: {steps: 1_000}", "1_000 is given"},
        {"run: {steps: 0x10}", "0x10 is given"},
        {"run: {steps: 1e3}", "1e3 is given"},
        {"run: {steps: '10'}", "the text \"10\" is given"},
        {"run: {steps: }", "nothing is given"},
        {"run: {steps: [1]}", "a list is given"},
        {"run: {steps: {a: 1}}", "a section is given"},
        {"run: {steps: 99999999999999999999}", "is given, a whole number"},
        {"run: {steps: 1000000000000001}", "is given, a whole number"},
        {"threads: 5000", "5000 is given, a whole number from 0 to 4096 is needed"},
        {"train: {dropout: 1.5}", "train.dropout: 1.5 is given, a number from 0 to 0.99 is needed"},
        {"train: {dropout: nan}", "nan is given"},
        {"train: {dropout: .inf}", ".inf is given"},
        {"train: {dropout: 1e999}", "1e999 is given"},
        {"train: {dropout: 1e}", "1e is given"},
        {"train: {dropout: .}", ". is given"},
        {"train: {dropout: 0.1 0.2}", "0.1 0.2 is given"},
        {"train: {recompute: yes}", "yes is given, true or false is needed"},
        {"train: {recompute: 'true'}", "the text \"true\" is given"},
        {"train: {precision: fp16}", "fp16 is given, one of auto, fp32, bf16 is needed"},
        {"train: {precision: fp}", "fp is given"},
        {"train: {precision: fp32|bf16}", "is given, one of"},
        {"data: {order: ''}", "is given, one of sampled, sequential is needed"},
        {"run: {dir: [a]}", "a list is given, a path is needed"},
        {"run: {dir: ~/runs}", "'~' is not replaced"},
        {"eval: {tasks: a}", "a is given, a list of texts, as [a, b] is needed"},
        {"eval:\n  tasks:\n  - a\n  - [b]\n", "c.yaml:4: eval.tasks: a list is given"},
        {"eval: {tasks: [a, '']}", "is given, a list of texts"},
        {"train: 3", "c.yaml:1: train: this is a section"},
        {"train: [dropout]", "train: this is a section"},
        {"data: {mixture: {name: a}}",
         "a list of sections, as [{name: ..., format: ..., path: ...}] is needed"},
        {"data: {mixture: [a]}", "data.mixture.0: a section is needed"},
        {"data: {mixture: [{name: a, format: ids}]}", "data.mixture.0: path is missing"},
        {"data: {mixture: [{name: a, format: ids, path: ''}]}", "data.mixture.0.path: a path is needed"},
        {"data: {mixture: [{name: a, format: xml, path: p}]}",
         "one of niv2, jsonl, cot, table, ids, text is needed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (load(cases[i].yaml) == SAGO_OK || !strstr(sago_message(), cases[i].part))
            fail_msg("%s: %s: no \"%s\"", cases[i].yaml, sago_message(), cases[i].part);
}

static void numbers_in_every_spelling(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double value;
    } cases[] = {{"1e-3", 1e-3}, {"1.0e-3", 1e-3}, {"1E-3", 1e-3}, {".5", .5},
                 {"5.", 5},      {"+1", 1},        {"0", 0},       {"1e-400", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char yaml[64];
        snprintf(yaml, sizeof yaml, "optimizer: {learning_rate: %s}", cases[i].text);
        assert_ok(load(yaml));
        assert_true(config->optimizer.learning_rate == cases[i].value);
    }
}

static void what_is_no_yaml(void **state) {
    (void)state;
    assert_fails(load("run:\n\tsteps: 1\n"), SAGO_E_CONFIG,
                 "c.yaml:2: not YAML: a tab in the indentation; use spaces");
    assert_fails(load("run:\n  steps: 1\n  seed: [1\ntrain: 2\n"), SAGO_E_CONFIG, "c.yaml:4: not YAML:");
    assert_fails(load("run: {steps: 1\n"), SAGO_E_CONFIG, "c.yaml:2: not YAML:");
    assert_fails(load("run: 'abc\n"), SAGO_E_CONFIG, "not YAML:");
    assert_fails(load(""), SAGO_E_CONFIG, "c.yaml:1: is empty");
    assert_fails(load("# nothing\n"), SAGO_E_CONFIG, "is empty");
    assert_fails(load("- a\n"), SAGO_E_CONFIG, "no configuration");
    assert_fails(load("just words\n"), SAGO_E_CONFIG, "no configuration");
    assert_fails(load("run: {steps: 1}\n---\nrun: {steps: 2}\n"), SAGO_E_CONFIG,
                 "c.yaml:2: a second document");
    assert_fails(load("run: &a {steps: 1}\ntrain: *a\n"), SAGO_E_CONFIG, "c.yaml:2: aliases");
    assert_fails(load("run: !!map {steps: 1}\n"), SAGO_E_CONFIG, "tags");
    assert_fails(load("run: {steps: !!int 1}\n"), SAGO_E_CONFIG, "tags");
    assert_fails(load("run: {dir: \"a\\0b\"}\n"), SAGO_E_CONFIG, "NUL");
    assert_fails(load("run: {dir: \"a\nb: \xff\"}\n"), SAGO_E_CONFIG, "c.yaml:2: not UTF-8");
    assert_fails(load("run: {dir: \x01}\n"), SAGO_E_CONFIG, "not YAML");
    const char nul[] = "run: {steps: 1}\n\0\n";
    assert_int_equal(sago_config_load(test_write("nul.yaml", nul, sizeof nul), NULL, 0, &config),
                     SAGO_E_CONFIG);
    assert_fails(sago_config_load(test_path("none.yaml"), NULL, 0, &config), SAGO_E_IO,
                 "none.yaml: cannot open");
    assert_fails(sago_config_load(test_folder, NULL, 0, &config), SAGO_E_IO, "is a folder");
    assert_null(config);
}

static void keys_given_twice(void **state) {
    (void)state;
    assert_fails(load("run:\n  steps: 1\n  seed: 2\n  steps: 3\n"), SAGO_E_CONFIG,
                 "c.yaml:4: run.steps: given twice, first in line 2");
    assert_fails(load("run: {steps: 1}\ntrain: {}\nrun: {seed: 1}\n"), SAGO_E_CONFIG,
                 "c.yaml:3: run: given twice, first in line 1");
    assert_fails(load("run.steps: 1\nrun: {steps: 1}\n"), SAGO_E_CONFIG, "given twice");
    assert_fails(load("data:\n  mixture:\n  - {name: a,\n     name: b, format: ids, path: p}\n"),
                 SAGO_E_CONFIG, "c.yaml:4: data.mixture.0.name: given twice, first in line 3");
}

/* Size, depth and number of values are bounded, so that a hostile file costs neither memory nor stack. */
static void what_is_too_much(void **state) {
    (void)state;
    enum { MANY = 5 << 20 };
    char *text = sago_alloc(MANY + 1);
    memset(text, '[', MANY);
    text[1000] = '\0';
    assert_fails(load(text), SAGO_E_CONFIG, "nested too deeply");
    for (int i = 0; i < 1000; i++) text[i] = "a: {"[i % 4];
    assert_fails(load(text), SAGO_E_CONFIG, "nested too deeply");
    memset(text, ' ', MANY);
    text[MANY] = '\0';
    assert_fails(load(text), SAGO_E_INPUT, "larger than 4194304 bytes");
    int at = sprintf(text, "eval: {tasks: [");
    while (at < 600000) at += sprintf(text + at, "a,");
    sprintf(text + at, "a]}");
    assert_fails(load(text), SAGO_E_CONFIG, "too many values");
    free(text);
}

static void sets(void **state) {
    (void)state;
    char *several[] = {"run.steps=5", "train.spike.threshold=2", "run.steps=7", "eval.tasks=[a, 'b c']",
                       "run.dir=x=y", "model.activation=relu"};
    sago_config_free(config);
    assert_ok(sago_config_load(NULL, several, 6, &config));
    assert_int_equal(config->run.steps, 7);
    assert_true(config->train.spike.threshold == 2);
    assert_int_equal(config->eval.tasks.count, 2);
    assert_string_equal(config->eval.tasks.items[1], "b c");
    assert_string_equal(sago_path_base(config->run.dir), "x=y");
    assert_ok(set("eval.tasks=one"));
    assert_int_equal(config->eval.tasks.count, 1);
    assert_ok(load_and_set("eval: {tasks: [a]}", "eval.tasks="));
    assert_int_equal(config->eval.tasks.count, 0);
    assert_ok(load_and_set("run: {dir: x}", "run.dir="));
    assert_string_equal(config->run.dir, "");
    assert_fails(set("run.steps"), SAGO_E_CONFIG, "KEY=VALUE");
    assert_fails(set("=3"), SAGO_E_CONFIG, "KEY=VALUE");
    assert_fails(set("run.steps=x"), SAGO_E_CONFIG,
                 "--set run.steps: x is given, a whole number from 0 up is needed");
    assert_fails(set("run=3"), SAGO_E_CONFIG, "this is a section");
    assert_fails(set("eval.tasks=[a"), SAGO_E_CONFIG, "--set eval.tasks: not YAML");
    assert_fails(set("run.dir=\xff"), SAGO_E_CONFIG, "not UTF-8");
}

static void sets_reach_into_lists(void **state) {
    (void)state;
    static const char yaml[] = "data:\n  mixture:\n  - {name: niv2, format: niv2, path: p}\n"
                               "  - {name: a.b, format: ids, path: q}\n";
    assert_ok(load_and_set(yaml, "data.mixture.niv2.share=2.5"));
    assert_true(config->data.mixture[0].share == 2.5 && config->data.mixture[1].share == 1);
    assert_ok(load_and_set(yaml, "data.mixture.a.b.include=[x, y]"));
    assert_int_equal(config->data.mixture[1].include.count, 2);
    assert_ok(load_and_set(yaml, "data.mixture.1.path=/elsewhere"));
    assert_string_equal(config->data.mixture[1].path, "/elsewhere");
    assert_ok(load_and_set(yaml, "data.mixture=[{name: c, format: cot, path: /r}]"));
    assert_int_equal(config->data.n_mixture, 1);
    assert_fails(load_and_set(yaml, "data.mixture.t0.share=2"), SAGO_E_CONFIG,
                 "data.mixture has no such member");
    assert_fails(load_and_set(yaml, "data.mixture.2.share=2"), SAGO_E_CONFIG,
                 "data.mixture has no such member");
    assert_fails(load_and_set(yaml, "data.mixture.niv2.shaer=2"), SAGO_E_CONFIG, "did you mean share?");
    assert_fails(load_and_set(yaml, "data.mixture.niv2.share=x"), SAGO_E_CONFIG,
                 "--set data.mixture.niv2.share: x is given");
    assert_fails(load_and_set(yaml, "data.mixture.niv2=x"), SAGO_E_CONFIG, "unknown key");
}

static void relative_paths(void **state) {
    (void)state;
    assert_int_equal(chdir("/usr"), 0);
    assert_ok(load_and_set("run: {dir: ../x/./y}\ndata: {tokenizer: bytes}\nmodel: {init: /a/../b}\n",
                           "data.templates=lib/t"));
    assert_string_equal(config->data.templates, "/usr/lib/t");
    assert_string_equal(config->data.tokenizer, "bytes");
    assert_string_equal(config->model.init, "/b");
    assert_ok(load("data: {mixture: [{name: a, format: table, path: p, template: svamp},"
                   " {name: b, format: table, path: p, template: own.yaml}]}"));
    assert_string_equal(config->data.mixture[0].template_, "svamp");
    is_path(config->data.mixture[1].template_, "own.yaml");
    assert_ok(load("data: {tokenizer: bytes.model}"));
    is_path(config->data.tokenizer, "bytes.model");
    /* Through a link to the folder, ".." means what it means to the system. */
    assert_int_equal(mkdir(test_path("real"), 0777), 0);
    assert_int_equal(mkdir(test_path("real/inner"), 0777), 0);
    assert_int_equal(symlink("real/inner", test_path("link")), 0);
    test_write("real/inner/l.yaml", "run: {dir: ../runs}\n", 20);
    sago_config_free(config);
    assert_ok(sago_config_load(test_path("link/l.yaml"), NULL, 0, &config));
    is_path(config->run.dir, "real/runs");
}

static void keys_that_must_fit_together(void **state) {
    (void)state;
    assert_fails(load("optimizer:\n  schedule: cosine\n"), SAGO_E_CONFIG,
                 "optimizer.schedule_steps: the cosine schedule needs");
    assert_fails(load("optimizer:\n  schedule: linear\n  schedule_steps: 5\n  warmup_steps: 5\n"),
                 SAGO_E_CONFIG, "c.yaml:4: optimizer.warmup_steps: 5 must be less");
    assert_ok(load("optimizer: {schedule: rsqrt, schedule_steps: 5, warmup_steps: 5}"));
    assert_fails(
        load("data:\n  mixture:\n  - {name: a, format: ids, path: p}\n  - {name: a, format: ids, path: q}\n"),
        SAGO_E_CONFIG, "data.mixture.1.name: \"a\" is the name of member 0 too");
    assert_fails(load("data: {mixture: [{name: a, format: ids, path: p, share: 0}]}"), SAGO_E_CONFIG,
                 "all shares are 0");
    assert_fails(set("train.spike.threshold=0.5"), SAGO_E_CONFIG,
                 "--set: train.spike.threshold: 0.5 is given");
}

static char *written(const sago_config *c) {
    sago_str text = {0};
    sago_config_write(c, &text);
    return text.data;
}

/* What is written loads to the same values, and is then written in the same bytes. */
static void writing_and_reading_back(void **state) {
    (void)state;
    assert_ok(load(
        "run: {dir: \"/a b/\\u00e9 \\\"q\\\" \\\\ \\t\\n \\x85 \\u2028 \\U0001F600 \\uFEFF#: -\", "
        "seed: 1000000000000000}\ndata:\n  mixture:\n"
        "    - {name: 'null', format: ids, path: x, share: 0.1, include: ['- a', '[b]', '*c', yes, ' ']}\n"
        "    - {name: \"1\", format: cot, path: ./~, share: 3.3333333333333335e-5, template: '.'}\n"
        "train: {z_loss: 0.30000000000000004, dropout: 5e-324}\n"));
    char *first = written(config);
    sago_config *again;
    assert_ok(sago_config_load(test_write("w.yaml", first, strlen(first)), NULL, 0, &again));
    char *second = written(again);
    assert_string_equal(first, second);
    assert_string_equal(again->run.dir, config->run.dir);
    assert_string_equal(
        again->run.dir,
        "/a b/\xc3\xa9 \"q\" \\ \t\n \xc2\x85 \xe2\x80\xa8 \xf0\x9f\x98\x80 \xef\xbb\xbf#: -");
    assert_int_equal(again->run.seed, 1000000000000000);
    assert_string_equal(again->data.mixture[0].name, "null");
    assert_string_equal(again->data.mixture[0].include.items[2], "*c");
    assert_string_equal(again->data.mixture[1].template_, ".");
    assert_true(again->data.mixture[1].share == 3.3333333333333335e-5);
    assert_true(again->train.z_loss == 0.30000000000000004 && again->train.dropout == 5e-324);
    assert_ok(sago_config_check_resume(config, again));
    sago_config_free(again);
    free(first);
    free(second);
}

/* Every key by itself: its value survives writing, and resuming notices it exactly when it may not change.
 * The documentation is the list of keys, so that none is forgotten. */
static void every_key_changes_and_comes_back(void **state) {
    (void)state;
    sago_str docs = {0};
    sago_config *plain, *changed, *again;
    sago_config_document(&docs);
    assert_ok(sago_config_load(NULL, NULL, 0, &plain));
    int n_keys = 0;
    for (char *save = NULL, *line = strtok_r(docs.data, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char key[128], takes[256], otherwise[128], resume[8], assignment[512];
        if (sscanf(line, "| `%127[a-z0-9_.]` | %255[^|] | %127[^|] | %7[a-z] |", key, takes, otherwise,
                   resume) != 4)
            continue;
        const char *value =
            strncmp(takes, "a whole", 7) == 0 ? strstr(key, "bytes") ? "4096" : "7"
            : strncmp(takes, "a number", 8) == 0
                ? strstr(key, "threshold") || strstr(key, "theta") ? "1.25" : "0.625"
            : strncmp(takes, "true", 4) == 0         ? strstr(otherwise, "true") ? "false" : "true"
            : strncmp(takes, "a list of t", 11) == 0 ? "[x, y]"
            : strncmp(takes, "a list of s", 11) == 0
                ? strstr(key, "groups") ? "[{pattern: x}]" : "[{name: x, format: ids, path: /x}]"
            : strncmp(takes, "a path", 6) == 0 ? "/x/y"
                                               : NULL;
        char choice[64] = "";
        if (!value) { /* the last of "one of a, b, c", or the only one */
            sscanf(strrchr(takes, ',') ? strrchr(takes, ',') + 1 : takes, " %63[^ |]", choice);
            value = choice;
        }
        n_keys++;
        snprintf(assignment, sizeof assignment, "%s=%s", key, value);
        if (strcmp(key, "optimizer.schedule") == 0) strcpy(assignment, "optimizer.schedule=constant");
        char *sets_of_one[] = {assignment};
        assert_ok(sago_config_load(NULL, sets_of_one, 1, &changed));
        char *first = written(changed), *before = written(plain);
        bool differs = strcmp(first, before) != 0;
        bool only_one =
            strstr(key, "model.family") || strstr(key, "optimizer.name") || strstr(key, "schedule");
        if (!differs && !only_one) fail_msg("%s changes nothing", assignment);
        assert_ok(sago_config_load(test_write("w.yaml", first, strlen(first)), NULL, 0, &again));
        char *second = written(again);
        assert_string_equal(first, second);
        if (differs && strcmp(resume, "no") == 0)
            assert_fails(sago_config_check_resume(plain, changed), SAGO_E_CONFIG, key);
        else
            assert_ok(sago_config_check_resume(plain, changed));
        free(first);
        free(before);
        free(second);
        sago_config_free(changed);
        sago_config_free(again);
    }
    assert_true(n_keys >= 85);
    sago_config_free(plain);
    sago_str_free(&docs);
}

static void resume_compares_members(void **state) {
    (void)state;
    static const char yaml[] =
        "data: {mixture: [{name: a, format: ids, path: /p, include: [x]}]}\ntrain: {global_batch: 8}";
    sago_config *before, *now;
    assert_ok(load(yaml));
    before = config, config = NULL;
    assert_ok(load_and_set(yaml, "data.mixture.a.include=[y]"));
    now = config;
    assert_fails(sago_config_check_resume(before, now), SAGO_E_CONFIG,
                 "data.mixture.0.include: [x] in the run, [\"y\"] now");
    assert_ok(load_and_set(yaml, "data.mixture=[]"));
    assert_fails(sago_config_check_resume(before, config), SAGO_E_CONFIG,
                 "data.mixture: 1 members in the run, 0 members now");
    assert_ok(load_and_set(yaml, "train.global_batch=9"));
    assert_fails(sago_config_check_resume(before, config), SAGO_E_CONFIG,
                 "train.global_batch: 8 in the run, 9 now");
    assert_ok(load_and_set(yaml, "run.steps=9"));
    assert_ok(sago_config_check_resume(before, config));
    sago_config_free(before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_whole_file),
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(wrong_types_and_ranges),
        cmocka_unit_test(numbers_in_every_spelling),
        cmocka_unit_test(what_is_no_yaml),
        cmocka_unit_test(keys_given_twice),
        cmocka_unit_test(what_is_too_much),
        cmocka_unit_test(sets),
        cmocka_unit_test(sets_reach_into_lists),
        cmocka_unit_test(relative_paths),
        cmocka_unit_test(keys_that_must_fit_together),
        cmocka_unit_test(writing_and_reading_back),
        cmocka_unit_test(every_key_changes_and_comes_back),
        cmocka_unit_test(resume_compares_members),
        cmocka_unit_test(golden_configurations),
    };
    int failed = cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
    sago_config_free(config);
    return failed;
}
