// SPDX-License-Identifier: Apache-2.0
/* Draws: proportions, epochs, splits, exemplars, leaks; and questions for evaluation. */
#include "files.h"
#include "mixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Lines whose answer names task and number, so that a prompt tells where each part came from. */
static void write_lines(const char *name, const char *task, int count) {
    sago_str text = {0};
    for (int i = 0; i < count; i++)
        sago_str_printf(&text, "{\"inputs\": \"%s question %d\", \"targets\": \"%s-%d\"}\n", task, i, task,
                        i);
    test_write_bytes(name, text.data, text.length);
    sago_str_free(&text);
}

static void write_niv2(const char *name, const char *task, const char *category, int count) {
    sago_str text = {0};
    sago_str_printf(&text,
                    "{\"Definition\": [\"Solve %s.\"], \"Categories\": [\"%s\"],\n\"Positive Examples\": [",
                    task, category);
    for (int i = 0; i < 2; i++)
        sago_str_printf(&text, "%s{\"input\": \"%s positive %d\", \"output\": \"%s+%d\"}", i ? ",\n" : "",
                        task, i, task, i);
    sago_str_puts(&text, "],\n\"Instances\": [\n");
    for (int i = 0; i < count; i++)
        sago_str_printf(&text, "%s{\"input\": \"%s instance %d\", \"output\": [\"%s-%d\", \"also %d\"]}",
                        i ? ",\n" : "", task, i, task, i, i);
    sago_str_puts(&text, "]}\n");
    test_write_bytes(name, text.data, text.length);
    sago_str_free(&text);
}

static sago_mixture *open_mixture(const sago_config *config, const sago_tokenizer *tokenizer) {
    sago_mixture *mixture = NULL;
    sago_status status = sago_mixture_open(config, tokenizer, 0, false, &mixture);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
    return mixture;
}

static void draw(const sago_mixture *mixture, uint64_t number, sago_example *example) {
    sago_status status = sago_mixture_draw(mixture, number, example, NULL);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
}

static int task_named(const sago_mixture *mixture, const char *name) {
    for (int t = 0; t < sago_mixture_tasks(mixture); t++) {
        sago_mixture_task task;
        sago_mixture_task_info(mixture, t, &task);
        if (!strcmp(task.name, name)) return t;
    }
    fail_msg("no task %s", name);
    return -1;
}

static const char *const three_members = "data:\n"
                                         "  eval_fraction: 0.0\n"
                                         "  mixture:\n"
                                         "    - {name: m1, format: jsonl, path: m1, share: 5, cap: 30}\n"
                                         "    - {name: m2, format: jsonl, path: m2, share: 3}\n"
                                         "    - {name: m3, format: niv2, path: m3, share: 2, cap: 10}\n";

static void write_three_members(void) {
    write_lines("m1/big.jsonl", "big", 100);
    write_lines("m1/small.jsonl", "small", 10);
    write_lines("m2/one.jsonl", "one", 40);
    write_lines("m2/two.jsonl", "two", 20);
    write_niv2("m3/task1.json", "alpha", "Question Answering", 25);
    write_niv2("m3/task2.json", "beta", "Program Execution", 5);
}

static void proportions(void **state) {
    (void)state;
    write_three_members();
    sago_config *config = test_config(three_members);
    sago_mixture *mixture = open_mixture(config, NULL);
    enum { DRAWS = 6000 };
    int tasks[6] = {0}, members[3] = {0};
    sago_example example = {0};
    for (int i = 0; i < DRAWS; i++) {
        draw(mixture, (uint64_t)i, &example);
        tasks[example.task]++;
        members[example.member]++;
        /* Members keep to their shares in every run of draws, not only in the end. */
        assert_true(fabs(members[0] - 0.5 * (i + 1)) < 3);
        assert_true(fabs(members[1] - 0.3 * (i + 1)) < 3);
    }
    /* min(cap, examples): 30 and 10; 40 and 20; 10 and 5. A pass holds them exactly, so the distance from
     * what is expected stays below one pass. */
    const double expected[6] = {.5 * 30 / 40, .5 * 10 / 40, .3 * 40 / 60,
                                .3 * 20 / 60, .2 * 10 / 15, .2 * 5 / 15};
    const int pass[6] = {40, 40, 60, 60, 15, 15};
    for (int t = 0; t < 6; t++) {
        sago_mixture_task info;
        sago_mixture_task_info(mixture, t, &info);
        assert_true(fabs(info.proportion - expected[t]) < 1e-12);
        assert_true(fabs(tasks[t] - expected[t] * DRAWS) < pass[t]);
    }
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

static void epochs_without_replacement(void **state) {
    (void)state;
    write_three_members();
    sago_config *config = test_config(three_members);
    sago_mixture *mixture = open_mixture(config, NULL);
    int big = task_named(mixture, "big"), seen[100] = {0}, drawn = 0;
    sago_example example = {0};
    /* The cap of 30 makes a pass hold 30 of its 100 examples: after 10 passes each was drawn 3 times. Passes
     * come in an order of their own, so before that an epoch may begin while the last few of the one before
     * are to come. */
    int first[30], second[30];
    for (uint64_t i = 0; drawn < 300; i++) {
        draw(mixture, i, &example);
        if (example.task != big) continue;
        if (drawn < 30) first[drawn] = (int)example.index;
        if (drawn >= 100 && drawn < 130) second[drawn - 100] = (int)example.index;
        seen[example.index]++;
        drawn++;
        for (int e = 0; e < 100; e++) assert_true(seen[e] <= drawn / 100 + 2);
        if (drawn == 30 || drawn == 60 || drawn == 90)
            for (int e = 0; e < 100; e++) assert_true(seen[e] <= 1);
    }
    for (int e = 0; e < 100; e++) assert_int_equal(seen[e], 3);
    assert_memory_not_equal(first, second, sizeof first);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

/* A draw depends on seed and number alone: not on what was drawn before, nor on when the mixture was opened.
 */
static void pure_function_of_the_number(void **state) {
    (void)state;
    write_three_members();
    sago_config *config = test_config(three_members);
    sago_mixture *mixture = open_mixture(config, NULL), *again = open_mixture(config, NULL);
    sago_example a = {0}, b = {0};
    int differ = 0;
    for (int i = 0; i < 300; i++) {
        draw(mixture, (uint64_t)i, &a);
        uint64_t other = (uint64_t)(299 - i);
        draw(again, other, &b);
        draw(again, (uint64_t)i, &b);
        assert_int_equal(a.task, b.task);
        assert_int_equal(a.index, b.index);
        assert_string_equal(sago_str_text(&a.input_text), sago_str_text(&b.input_text));
        assert_string_equal(sago_str_text(&a.target_text), sago_str_text(&b.target_text));
    }
    sago_mixture_close(again);
    sago_config *other_seed = test_config(three_members);
    other_seed->run.seed = 2;
    again = open_mixture(other_seed, NULL);
    for (int i = 0; i < 100; i++) {
        draw(mixture, (uint64_t)i, &a);
        draw(again, (uint64_t)i, &b);
        differ += strcmp(sago_str_text(&a.input_text), sago_str_text(&b.input_text)) != 0;
    }
    assert_true(differ > 50);
    sago_example_free(&a);
    sago_example_free(&b);
    sago_mixture_close(again);
    sago_config_free(other_seed);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

static void sequential_order(void **state) {
    (void)state;
    write_three_members();
    for (int part = 0; part < 2; part++) {
        char *text = sago_format(
            "data:\n  order: sequential\n  eval_fraction: %s\n  mixture:\n"
            "    - {name: m1, format: jsonl, path: m1}\n    - {name: m2, format: jsonl, path: m2}\n",
            part ? "0.3" : "0");
        sago_config *config = test_config(text);
        sago_mixture *mixture = open_mixture(config, NULL);
        int64_t length = sago_mixture_length(mixture), last_task = -1, last_index = -1;
        if (part)
            assert_true(length > 85 && length < 155);
        else
            assert_int_equal(length, 170);
        sago_example example = {0};
        bool end = false;
        for (int64_t i = 0; i < length; i++) {
            assert_int_equal(sago_mixture_draw(mixture, (uint64_t)i, &example, &end), SAGO_OK);
            assert_false(end);
            assert_true(example.task > last_task ||
                        (example.task == last_task && example.index > last_index));
            if (!part) assert_true(example.task != last_task || example.index == last_index + 1);
            last_task = example.task, last_index = example.index;
        }
        assert_int_equal(sago_mixture_draw(mixture, (uint64_t)length, &example, &end), SAGO_OK);
        assert_true(end);
        sago_example_free(&example);
        sago_mixture_close(mixture);
        sago_config_free(config);
        free(text);
    }
}

static void splits(void **state) {
    (void)state;
    write_lines("s/first.jsonl", "shared", 400);
    write_lines("s/second.jsonl", "shared", 400); /* the same inputs in another task */
    write_niv2("n/held.json", "held", "Hidden Things", 50);
    write_lines("h/outside.jsonl", "outside", 200);
    sago_config *config =
        test_config("data:\n  eval_fraction: 0.25\n  holdout: [\"hidden *\", outside]\n  mixture:\n"
                    "    - {name: s, format: jsonl, path: s}\n    - {name: n, format: niv2, path: n}\n"
                    "    - {name: h, format: jsonl, path: h}\n");
    sago_mixture *mixture = open_mixture(config, NULL);
    sago_mixture_task first, second, held, outside;
    sago_mixture_task_info(mixture, task_named(mixture, "first"), &first);
    sago_mixture_task_info(mixture, task_named(mixture, "second"), &second);
    sago_mixture_task_info(mixture, task_named(mixture, "held"), &held);
    sago_mixture_task_info(mixture, task_named(mixture, "outside"), &outside);
    assert_int_equal(first.n_train + first.n_eval, 400);
    assert_true(first.n_eval > 60 && first.n_eval < 140);
    assert_true(held.held_out && outside.held_out && !first.held_out);
    assert_true(held.proportion == 0 && outside.proportion == 0);
    assert_int_equal(held.n_eval, 50);
    assert_true(outside.n_train > 0 && outside.n_train <= 40);
    assert_int_equal(outside.n_train + outside.n_eval, 200);
    /* Equal inputs land on one side: what one task evaluates, the other never trains on. */
    bool evaluated[400] = {0};
    sago_question question = {0};
    sago_render_options how = {0};
    for (int64_t i = 0; i < first.n_eval; i++) {
        assert_int_equal(
            sago_mixture_question(mixture, task_named(mixture, "first"), SAGO_SPLIT_EVAL, i, &how, &question),
            SAGO_OK);
        evaluated[question.example.index] = true;
    }
    assert_int_equal(second.n_eval, first.n_eval);
    sago_example example = {0};
    for (int i = 0; i < 2000; i++) {
        draw(mixture, (uint64_t)i, &example);
        assert_int_equal(example.member, 0);
        assert_false(evaluated[example.index]);
    }
    sago_example_free(&example);
    sago_question_free(&question);
    sago_mixture_close(mixture);
    sago_config_free(config);
    config = test_config(
        "data:\n  holdout: [nothing_like_it]\n  mixture:\n    - {name: s, format: jsonl, path: s}\n");
    assert_int_equal(sago_mixture_open(config, NULL, 0, false, &mixture), SAGO_E_CONFIG);
    assert_non_null(strstr(sago_message(), "\"nothing_like_it\" matches no task"));
    sago_config_free(config);
}

/* Whether `what` stands in a text as a whole word. */
static bool holds_word(const char *text, const char *what) {
    size_t n = strlen(what);
    for (const char *at = text; (at = strstr(at, what)); at++)
        if ((at[n] < '0' || at[n] > '9') && (at == text || at[-1] <= ' ' || strchr(">:", at[-1])))
            return true;
    return false;
}

static void exemplars_exclude_the_query(void **state) {
    (void)state;
    write_lines("x/few.jsonl", "few", 8); /* so few that the query would often come up */
    write_niv2("y/task.json", "task", "C", 12);
    sago_config *config =
        test_config("data:\n  few_shot: 1\n  max_exemplars: 5\n  eval_fraction: 0.2\n  mixture:\n"
                    "    - {name: x, format: jsonl, path: x}\n    - {name: y, format: niv2, path: y}\n");
    sago_mixture *mixture = open_mixture(config, NULL);
    bool kept[2][12] = {0};
    sago_question question = {0};
    sago_render_options how = {.n_exemplars = 3, .seed = 5};
    for (int t = 0; t < 2; t++) {
        sago_mixture_task task;
        sago_mixture_task_info(mixture, t, &task);
        for (int64_t i = 0; i < task.n_eval; i++) {
            assert_int_equal(sago_mixture_question(mixture, t, SAGO_SPLIT_EVAL, i, &how, &question), SAGO_OK);
            kept[t][question.example.index] = true;
            assert_true(question.example.n_exemplars > 0);
        }
    }
    sago_example example = {0};
    int own = 0, shots = 0;
    for (int i = 0; i < 1000; i++) {
        draw(mixture, (uint64_t)i, &example);
        const char *text = sago_str_text(&example.input_text), *target = sago_str_text(&example.target_text);
        assert_true(example.n_exemplars >= 1 && example.n_exemplars <= 5);
        shots += example.n_exemplars;
        if (!sago_starts_with(target, "also")) assert_false(holds_word(text, target));
        for (int e = 0; e < example.n_exemplars; e++) {
            assert_int_not_equal(example.exemplars[e], example.index);
            for (int k = 0; k < e; k++) assert_int_not_equal(example.exemplars[k], example.exemplars[e]);
            own += example.exemplars[e] < 0;
            if (example.exemplars[e] >= 0) assert_false(kept[example.task][example.exemplars[e]]);
        }
    }
    assert_true(own > 0);
    assert_true(shots > 2000);
    sago_example_free(&example);
    sago_question_free(&question);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

static void long_prompts_lose_exemplars_first(void **state) {
    (void)state;
    write_lines("l/long.jsonl", "a question of some length", 50);
    write_lines("l/longer.jsonl",
                "an even longer question about nothing in particular, which alone is more than what "
                "fits into the input of this model, whatever it is that it asks for, number",
                50);
    sago_config *config =
        test_config("data:\n  tokenizer: bytes\n  few_shot: 1\n  max_exemplars: 5\n  input_length: 160\n"
                    "  target_length: 20\n  mixture:\n    - {name: l, format: jsonl, path: l}\n");
    sago_tokenizer *tokenizer;
    assert_int_equal(sago_tokenizer_open("bytes", &tokenizer), SAGO_OK);
    sago_mixture *mixture = open_mixture(config, tokenizer);
    sago_example example = {0};
    int with = 0, without = 0;
    for (int i = 0; i < 200; i++) {
        draw(mixture, (uint64_t)i, &example);
        assert_true(example.inputs.length <= 160 && example.targets.length <= 20);
        assert_int_equal(example.inputs.data[example.inputs.length - 1], SAGO_EOS_ID);
        assert_int_equal(example.targets.data[example.targets.length - 1], SAGO_EOS_ID);
        assert_true(example.truncated); /* every target here is longer than 20 bytes */
        if (example.task == 0) {
            assert_int_equal(example.inputs.length,
                             example.input_text.length + 1); /* the question is whole */
            example.n_exemplars ? with++ : without++;
        } else {
            assert_int_equal(example.n_exemplars, 0);
            assert_int_equal(example.inputs.length, 160);
        }
    }
    assert_true(with > 0);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_tokenizer_close(tokenizer);
    sago_config_free(config);
}

static void proportion_keys(void **state) {
    (void)state;
    sago_str text = {0};
    for (int i = 0; i < 60; i++)
        sago_str_printf(&text, "What is %d and one?\t%d\tIt is one more than %d.\n", i, i + 1, i);
    test_write_bytes("c/chains.tsv", text.data, text.length);
    sago_str_free(&text);
    sago_config *config = test_config(
        "data:\n  few_shot: 0.3\n  cot: 0.6\n  mixture:\n    - {name: c, format: cot, path: c}\n");
    sago_mixture *mixture = open_mixture(config, NULL);
    sago_example example = {0};
    int few = 0, chains = 0, both = 0, zero = 0;
    for (int i = 0; i < 4000; i++) {
        draw(mixture, (uint64_t)i, &example);
        few += example.n_exemplars > 0;
        chains += example.chain_of_thought;
        bool reasons = strstr(sago_str_text(&example.target_text), "one more than") != NULL;
        const char *name = sago_mixture_template_name(mixture, example.template_);
        if (!strstr(name, "question") && !strstr(name, "ask"))
            assert_int_equal(reasons, example.chain_of_thought);
        both += example.chain_of_thought && sago_starts_with(name, "cot_few_shot/");
        zero += example.chain_of_thought && sago_starts_with(name, "cot_zero_shot/");
    }
    /* Within four standard deviations of a binomial. */
    assert_true(fabs(few / 4000.0 - 0.3) < 4 * sqrt(.3 * .7 / 4000));
    assert_true(fabs(chains / 4000.0 - 0.6) < 4 * sqrt(.6 * .4 / 4000));
    assert_true(both > 500 && zero > 1200);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

static void leaks(void **state) {
    (void)state;
    test_write("k/train.jsonl", "{\"inputs\": \"What is 2 + 2?\", \"targets\": \"4\"}\n"
                                "{\"inputs\": \"Who, then, is  there?\", \"targets\": \"me\"}\n");
    test_write("k/test.jsonl", "{\"inputs\": \"what is 2 - 2\", \"targets\": \"0\"}\n"
                               "{\"inputs\": \"something else\", \"targets\": \"x\"}\n"
                               "{\"inputs\": \"who then is there\", \"targets\": \"you\"}\n");
    const char *lines = "data:\n  holdout: [test]\n%s  mixture:\n    - {name: k, format: jsonl, path: k}\n";
    char *text = sago_format(lines, ""), *off = sago_format(lines, "  leak_check: false\n");
    sago_config *config = test_config(text);
    sago_mixture *mixture = NULL;
    assert_int_equal(sago_mixture_open(config, NULL, 0, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "k/train.jsonl:2 (training)"));
    assert_non_null(strstr(sago_message(), "k/test.jsonl:3 (held out)"));
    sago_config_free(config);
    config = test_config(off);
    sago_mixture_close(open_mixture(config, NULL));
    sago_config_free(config);
    free(text), free(off);

    /* The same question as a table's record and as finished text of another set. */
    test_write("k3/choice.jsonl",
               "{\"answerKey\": \"A\", \"question\": {\"stem\": \"What flies?\", \"choices\": "
               "[{\"text\": \"a bird\"}, {\"text\": \"a stone\"}]}}\n");
    test_write("k4/flan.tsv", "What burns?\\nOptions:\\n- wood\\n- rain\twood\tIt does.\n"
                              "What flies?\\nOptions:\\n- a bird\\n- a stone\ta bird\tIt has wings.\n");
    config = test_config(
        "data:\n  holdout: [choice]\n  mixture:\n    - {name: k3, format: table, path: k3, template: arc}\n"
        "    - {name: k4, format: cot, path: k4}\n");
    assert_int_equal(sago_mixture_open(config, NULL, 0, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "k4/flan.tsv:2 (training)"));
    assert_non_null(strstr(sago_message(), "k3/choice.jsonl:1 (held out)"));
    sago_config_free(config);

    /* One input under two instructions is two questions; under one instruction it is a leak. */
    write_niv2("k2/a.json", "same", "A", 10);
    write_niv2("k2/b.json", "same", "B", 10);
    config = test_config("data:\n  holdout: [B]\n  mixture:\n    - {name: k2, format: niv2, path: k2}\n");
    assert_int_equal(sago_mixture_open(config, NULL, 0, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "k2/a.json:"));
    assert_non_null(strstr(sago_message(), "k2/b.json:"));
    sago_str changed = {0};
    assert_int_equal(sago_file_read(test_path("k2/b.json"), 0, &changed), SAGO_OK);
    memcpy(strstr(changed.data, "Solve"), "Count", 5);
    test_write_bytes("k2/b.json", changed.data, changed.length);
    sago_mixture_close(open_mixture(config, NULL));
    sago_str_free(&changed);
    sago_config_free(config);
}

static void questions(void **state) {
    (void)state;
    test_write("q/choice.jsonl", "{\"answerKey\": \"B\", \"question\": {\"stem\": \"Which?\", \"choices\": "
                                 "[{\"text\": \"red\"}, {\"text\": \"green\"}]}}\n"
                                 "{\"answerKey\": \"A\", \"question\": {\"stem\": \"What?\", \"choices\": "
                                 "[{\"text\": \"up\"}, {\"text\": \"down\"}]}}\n");
    write_niv2("q2/held.json", "held", "C", 20);
    sago_str text = {0};
    for (int i = 0; i < 40; i++)
        sago_str_printf(&text, "Is %d even?\t%s\tLook at %d.\n", i, i % 2 ? "no" : "yes", i);
    test_write_bytes("q3/even.tsv", text.data, text.length);
    sago_str_free(&text);
    write_lines("q4/train.jsonl", "train", 5);
    sago_config *config =
        test_config("data:\n  holdout: [q, held, even]\n  mixture:\n"
                    "    - {name: q, format: table, path: q, template: commonsense_qa}\n"
                    "    - {name: q2, format: niv2, path: q2}\n    - {name: q3, format: cot, path: q3}\n"
                    "    - {name: q4, format: jsonl, path: q4}\n");
    sago_mixture *mixture = open_mixture(config, NULL);
    sago_question question = {0};
    sago_render_options how = {0};
    for (how.wording = 0; how.wording < 30; how.wording++) {
        assert_int_equal(sago_mixture_question(mixture, task_named(mixture, "choice"), SAGO_SPLIT_EVAL, 0,
                                               &how, &question),
                         SAGO_OK);
        assert_int_equal(question.n_options, 2);
        assert_true(question.right_option >= 0);
        /* The right option is spelled as the target is, in every wording. */
        assert_string_equal(question.options[question.right_option], question.references[0]);
        assert_string_equal(question.options[question.right_option],
                            sago_str_text(&question.example.target_text));
        assert_string_not_equal(question.options[0], question.options[1]);
    }
    how = (sago_render_options){.wording = 1};
    assert_int_equal(
        sago_mixture_question(mixture, task_named(mixture, "held"), SAGO_SPLIT_EVAL, 3, &how, &question),
        SAGO_OK);
    assert_int_equal(question.n_references, 2);
    assert_true(sago_starts_with(question.references[1], "also "));
    assert_int_equal(question.n_options, 0);
    how.n_exemplars = 2;
    assert_int_equal(
        sago_mixture_question(mixture, task_named(mixture, "held"), SAGO_SPLIT_EVAL, 3, &how, &question),
        SAGO_OK);
    assert_int_equal(question.example.n_exemplars, 2);
    assert_non_null(strstr(sago_str_text(&question.example.input_text), "held positive"));
    /* A task with few different answers has them as options. */
    how = (sago_render_options){0};
    assert_int_equal(
        sago_mixture_question(mixture, task_named(mixture, "even"), SAGO_SPLIT_EVAL, 1, &how, &question),
        SAGO_OK);
    assert_int_equal(question.n_options, 2);
    assert_string_equal(question.options[question.right_option], question.references[0]);
    assert_string_equal(question.answer_marker, "");
    how.chain_of_thought = true;
    assert_int_equal(
        sago_mixture_question(mixture, task_named(mixture, "even"), SAGO_SPLIT_EVAL, 1, &how, &question),
        SAGO_OK);
    assert_true(question.answer_marker[0] != '\0');
    const char *marked = strstr(sago_str_text(&question.example.target_text), question.answer_marker);
    assert_non_null(marked);
    assert_non_null(strstr(marked, question.references[0]));
    sago_question_free(&question);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

/* Mappings and template sets of the user's own, beside the configuration. */
static void own_templates(void **state) {
    (void)state;
    test_write("o/data.csv", "ask,reply\nWhat?,this\nWhich?,that\n");
    test_write("maps/mine.yaml", "category: direct\nfields: {question: ask}\nanswer: reply\n");
    test_write(
        "maps/short.yaml",
        "category: short\nwordings:\n  - {name: only, inputs: \"<{inputs}>\", targets: \"{answer}!\"}\n");
    write_lines("o2/lines.jsonl", "line", 5);
    sago_config *config =
        test_config("data:\n  mixture:\n    - {name: o, format: table, path: o, template: maps/mine.yaml}\n"
                    "    - {name: o2, format: jsonl, path: o2, template: maps/short.yaml}\n");
    sago_mixture *mixture = open_mixture(config, NULL);
    sago_example example = {0};
    for (int i = 0; i < 20; i++) {
        draw(mixture, (uint64_t)i, &example);
        if (example.member == 0) continue;
        assert_string_equal(sago_mixture_template_name(mixture, example.template_), "short/only");
        assert_int_equal(sago_str_text(&example.input_text)[0], '<');
        assert_true(sago_ends_with(sago_str_text(&example.target_text), "!"));
    }
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
    config =
        test_config("data:\n  mixture:\n    - {name: o, format: table, path: o, template: commonsense_q}\n");
    assert_int_equal(sago_mixture_open(config, NULL, 0, false, &mixture), SAGO_E_CONFIG);
    assert_non_null(strstr(sago_message(), "commonsense_qa"));
    sago_config_free(config);
}

static void ids_and_vocabulary(void **state) {
    (void)state;
    test_write("i/ids.jsonl", "{\"input_ids\": [5, 6, 7, 1], \"target_ids\": [8, 1]}\n{\"input_ids\": [9], "
                              "\"target_ids\": [99, 1]}\n"
                              "{\"input_ids\": [9], \"target_ids\": [100, 1]}\n");
    sago_config *config = test_config(
        "data:\n  order: sequential\n  input_length: 3\n  mixture:\n    - {name: i, format: ids, path: i}\n");
    sago_mixture *mixture = NULL;
    assert_int_equal(sago_mixture_open(config, NULL, 99, false, &mixture), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "i/ids.jsonl:2: id 99 is out of the vocabulary of 99"));
    assert_int_equal(sago_mixture_open(config, NULL, 101, false, &mixture), SAGO_OK);
    sago_example example = {0};
    draw(mixture, 0, &example);
    assert_int_equal(example.inputs.length, 3);
    assert_int_equal(example.inputs.data[1], 6);
    assert_int_equal(example.inputs.data[2], 1);
    assert_true(example.truncated);
    draw(mixture, 1, &example);
    assert_int_equal(example.inputs.length, 1);
    assert_int_equal(example.targets.data[0], 99);
    assert_false(example.truncated);
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proportions),
        cmocka_unit_test(epochs_without_replacement),
        cmocka_unit_test(pure_function_of_the_number),
        cmocka_unit_test(sequential_order),
        cmocka_unit_test(splits),
        cmocka_unit_test(exemplars_exclude_the_query),
        cmocka_unit_test(long_prompts_lose_exemplars_first),
        cmocka_unit_test(proportion_keys),
        cmocka_unit_test(leaks),
        cmocka_unit_test(questions),
        cmocka_unit_test(own_templates),
        cmocka_unit_test(ids_and_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
