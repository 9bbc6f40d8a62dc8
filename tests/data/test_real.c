// SPDX-License-Identifier: Apache-2.0
/* Published data, where SAGO_DATA names a folder with niv2/tasks, t0sf, cot and raw; else skipped. Every task
 * opens, draws render, and the indices open again at once. */
#include "files.h"
#include "log.h"
#include "mixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char *const members =
    "    - {name: niv2, format: niv2, path: %1$s/niv2/tasks, share: 24.2, cap: 5000}\n"
    "    - {name: t0sf, format: jsonl, path: %1$s/t0sf, share: 27.9, cap: 20000}\n"
    "    - {name: cot, format: cot, path: %1$s/cot, share: 5, cap: 100000}\n"
    "    - {name: commonsense_qa, format: table, path: %1$s/raw/commonsense_qa.jsonl, template: "
    "commonsense_qa}\n"
    "    - {name: aqua, format: table, path: %1$s/raw/aqua_test.jsonl, template: aqua}\n"
    "    - {name: svamp, format: table, path: %1$s/raw/svamp.json, template: svamp}\n"
    "    - {name: multi_arith, format: table, path: %1$s/raw/multi_arith.json, template: multi_arith}\n"
    "    - {name: coin_flip, format: table, path: %1$s/raw/coin_flip.json, template: coin_flip}\n"
    "    - {name: last_letters, format: table, path: %1$s/raw/last_letters.json, template: last_letters}\n"
    "    - {name: antonyms, format: table, path: %1$s/raw/induction/antonyms.json, template: antonyms}\n"
    "    - {name: negation, format: table, path: %1$s/raw/induction/negation.json, template: negation}\n"
    "    - {name: rhymes, format: table, path: %1$s/raw/induction/rhymes.json, template: rhymes}\n"
    "    - {name: sum, format: table, path: %1$s/raw/induction/sum.json, template: sum}\n"
    "    - {name: diff, format: table, path: %1$s/raw/induction/diff.json, template: diff}\n"
    "    - {name: plural, format: table, path: %1$s/raw/induction/singular_to_plural.json, template: "
    "singular_to_plural}\n"
    "    - {name: passive, format: table, path: %1$s/raw/induction/active_to_passive.json, template: "
    "active_to_passive}\n"
    "    - {name: words, format: table, path: %1$s/raw/induction/num_to_verbal.json, template: "
    "num_to_verbal}\n"
    "    - {name: german, format: table, path: %1$s/raw/induction/translation_en-de.json, template: "
    "translation_en_de}\n"
    "    - {name: sentiment, format: table, path: %1$s/raw/induction/sentiment.json, template: sentiment}\n";

static void opens_and_draws(void **state) {
    (void)state;
    const char *data = getenv("SAGO_DATA");
    sago_str text = {0};
    sago_str_printf(
        &text,
        "data:\n  tokenizer: %s/tokenizer/t5like.model\n  few_shot: 0.3\n  cot: 0.5\n  eval_fraction: 0.05\n"
        "  holdout: [\"Program Execution\", sentiment]\n  mixture:\n",
        data);
    sago_str_printf(&text, members, data);
    sago_config *config = test_config(sago_str_text(&text));
    sago_tokenizer *tokenizer;
    assert_int_equal(sago_tokenizer_open(config->data.tokenizer, &tokenizer), SAGO_OK);
    sago_mixture *mixture;
    for (int again = 0; again < 2; again++) {
        int64_t start = sago_now_ns();
        sago_status status = sago_mixture_open(config, tokenizer, 0, false, &mixture);
        if (status != SAGO_OK) print_message("%s\n", sago_message());
        assert_int_equal(status, SAGO_OK);
        print_message("opened %d tasks in %.3f s\n", sago_mixture_tasks(mixture),
                      (double)(sago_now_ns() - start) * 1e-9);
        if (!again) sago_mixture_close(mixture);
    }
    assert_true(sago_mixture_tasks(mixture) >= 480);
    sago_example example = {0};
    int shots = 0, chains = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        sago_status status = sago_mixture_draw(mixture, i, &example, NULL);
        if (status != SAGO_OK) print_message("%s\n", sago_message());
        assert_int_equal(status, SAGO_OK);
        assert_true(example.inputs.length > 1 && example.inputs.length <= config->data.input_length);
        assert_true(example.targets.length >= 1 && example.targets.length <= config->data.target_length);
        shots += example.n_exemplars > 0;
        chains += example.chain_of_thought;
    }
    assert_true(shots > 300 && chains > 30);
    /* Every task answers a question of its evaluation split, where it has one. */
    sago_question question = {0};
    for (int t = 0; t < sago_mixture_tasks(mixture); t++) {
        sago_mixture_task task;
        sago_mixture_task_info(mixture, t, &task);
        sago_render_options how = {.wording = t, .n_exemplars = t % 3, .chain_of_thought = t % 2};
        if (task.n_eval == 0) continue;
        sago_status status =
            sago_mixture_question(mixture, t, SAGO_SPLIT_EVAL, task.n_eval / 2, &how, &question);
        if (status != SAGO_OK) print_message("%s: %s\n", task.name, sago_message());
        assert_int_equal(status, SAGO_OK);
        assert_true(question.n_references > 0);
    }
    sago_question_free(&question);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
    sago_str_free(&text);
}

int main(void) {
    const char *data = getenv("SAGO_DATA");
    if (!data || !sago_is_dir(data)) return 77; /* skipped */
    const struct CMUnitTest tests[] = {cmocka_unit_test(opens_and_draws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
