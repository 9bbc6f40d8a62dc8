// SPDX-License-Identifier: Apache-2.0
#include "eval.h"

#include "file.h"
#include "json.h"
#include "log.h"
#include "predict.h"
#include "records.h"
#include "str.h"
#include "text_loss.h"

#include <stdlib.h>
#include <string.h>

/* The questions of this rank; record r is question first + r * ranks of all. */
typedef struct question_set {
    sago_question *questions;
    json_t **records;
    int64_t n, room;
    json_t *texts; /* records of plain text, which is not asked but scored */
} question_set;

static void free_set(question_set *set) {
    for (int64_t i = 0; i < set->n; i++) {
        sago_question_free(&set->questions[i]);
        json_decref(set->records[i]);
    }
    free(set->questions);
    free(set->records);
    json_decref(set->texts);
    *set = (question_set){0};
}

static json_t *text_array(char *const texts[], int n) {
    json_t *array = json_array();
    for (int i = 0; i < n; i++) {
        json_t *text = json_string(texts[i]);
        json_array_append_new(array, text ? text : json_string(""));
    }
    return array;
}

/* What ids say. A byte model may write NULs and stop inside a character: both show as U+FFFD, and an answer is
 * compared as a whole. */
static sago_status text_of_ids(const sago_tokenizer *tokenizer, const int32_t *ids, int64_t n, json_t **out) {
    sago_str text = {0}, readable = {0}, quoted = {0};
    sago_status status = sago_tokenizer_decode(tokenizer, ids, n, &text);
    for (size_t i = 0; i < text.length; i++)
        if (text.data[i])
            sago_str_putc(&readable, text.data[i]);
        else
            sago_str_puts(&readable, "\xEF\xBF\xBD");
    sago_json_quote(&quoted, sago_str_text(&readable), readable.length);
    *out = json_loadb(quoted.data, quoted.length, JSON_DECODE_ANY, NULL);
    sago_str_free(&text);
    sago_str_free(&readable);
    sago_str_free(&quoted);
    return status;
}

/* A source of ids has no texts: what its ids say stands for them. */
static sago_status add_texts_of_ids(const sago_tokenizer *tokenizer, const sago_example *example, json_t *record) {
    json_t *prompt = NULL, *target = NULL, *references = json_array();
    sago_status status = text_of_ids(tokenizer, example->inputs.data, example->inputs.length, &prompt);
    if (status == SAGO_OK) status = text_of_ids(tokenizer, example->targets.data, example->targets.length, &target);
    if (target) json_array_append_new(references, target);
    json_object_set_new(record, "prompt", prompt);
    json_object_set_new(record, "references", references);
    return status;
}

/* The name that scores go by: MEMBER/TASK where another member has a task of that name. New memory. */
static char *score_name(const sago_mixture *mixture, const sago_mixture_task *task) {
    for (int t = 0; t < sago_mixture_tasks(mixture); t++) {
        sago_mixture_task other;
        sago_mixture_task_info(mixture, t, &other);
        if (other.member == task->member || strcmp(other.name, task->name) != 0) continue;
        sago_mixture_member member;
        sago_mixture_member_info(mixture, task->member, &member);
        return sago_format("%s/%s", member.name, task->name);
    }
    return sago_strdup(task->name);
}

static json_t *record_of(const sago_mixture_task *task, const char *name, int64_t item, int64_t index, const sago_question *q) {
    json_t *record = json_object();
    json_object_set_new(record, "item", json_integer((json_int_t)item));
    json_object_set_new(record, "task", json_string(name));
    json_object_set_new(record, "category", json_string(task->n_categories ? task->categories[0] : task->category));
    json_object_set_new(record, "held_out", json_boolean(task->held_out));
    json_object_set_new(record, "index", json_integer((json_int_t)index));
    json_object_set_new(record, "prompt", json_string(sago_str_text(&q->example.input_text)));
    if (q->example.prompt_cut) json_object_set_new(record, "prompt_cut", json_true());
    json_object_set_new(record, "references", text_array(q->references, q->n_references));
    json_object_set_new(record, "marker", json_string(q->answer_marker ? q->answer_marker : ""));
    if (q->n_options > 0) {
        json_object_set_new(record, "options", text_array(q->options, q->n_options));
        json_object_set_new(record, "right_option", json_integer(q->right_option));
    }
    return record;
}

static bool is_chosen(const sago_config *config, const sago_mixture *mixture, int task) {
    if (config->eval.tasks.count == 0) return true;
    for (int i = 0; i < config->eval.tasks.count; i++)
        if (sago_mixture_task_matches(mixture, task, config->eval.tasks.items[i])) return true;
    return false;
}

static sago_status add_task(const sago_eval_args *args, const sago_tokenizer *tokenizer, const sago_mixture *mixture,
                            int task, int64_t *item, question_set *set) {
    const sago_config *config = args->config;
    sago_mixture_task info;
    sago_mixture_task_info(mixture, task, &info);
    int64_t n = args->split == SAGO_SPLIT_EVAL ? info.n_eval : info.n_train;
    if (info.is_text) return SAGO_OK;
    if (config->eval.examples_per_task > 0 && n > config->eval.examples_per_task) n = config->eval.examples_per_task;
    char *name = score_name(mixture, &info);
    sago_status status = SAGO_OK;
    for (int64_t index = 0; index < n && status == SAGO_OK; index++, (*item)++) {
        if (*item % args->mesh->axis_size[SAGO_DATA_AXIS] != args->mesh->axis_rank[SAGO_DATA_AXIS]) continue;
        if (set->n == set->room) {
            set->room = set->room ? 2 * set->room : 64;
            set->questions = sago_realloc(set->questions, (size_t)set->room * sizeof *set->questions);
            set->records = sago_realloc(set->records, (size_t)set->room * sizeof *set->records);
        }
        /* Question i takes wording i, so that a task is asked in all its wordings. */
        sago_render_options options = {.wording = (int)index,
                                       .n_exemplars = (int)config->eval.few_shot,
                                       .chain_of_thought = config->eval.cot,
                                       .seed = (uint64_t)config->run.seed};
        sago_question *q = &set->questions[set->n];
        memset(q, 0, sizeof *q);
        status = sago_mixture_question(mixture, task, args->split, index, &options, q);
        json_t *record = set->records[set->n++] = record_of(&info, name, *item, index, q);
        if (status == SAGO_OK && q->n_references == 0)
            status = add_texts_of_ids(tokenizer, &q->example, record);
    }
    free(name);
    return status;
}

static sago_status collect_questions(const sago_eval_args *args, const sago_tokenizer *tokenizer,
                                     const sago_mixture *mixture, int64_t *item, question_set *set) {
    const sago_string_list *patterns = &args->config->eval.tasks;
    for (int i = 0; i < patterns->count; i++) {
        int task = 0;
        while (task < sago_mixture_tasks(mixture) && !sago_mixture_task_matches(mixture, task, patterns->items[i])) task++;
        if (task == sago_mixture_tasks(mixture))
            return sago_fail(SAGO_E_CONFIG, "eval.tasks: \"%s\" matches no task, category or member; sago data stats "
                                            "lists the tasks", patterns->items[i]);
    }
    for (int task = 0; task < sago_mixture_tasks(mixture); task++)
        if (is_chosen(args->config, mixture, task)) SAGO_TRY(add_task(args, tokenizer, mixture, task, item, set));
    return SAGO_OK;
}

static sago_status score_texts(const sago_eval_args *args, sago_loaded_model *loaded, const sago_mixture *mixture,
                               int64_t *item, question_set *set) {
    sago_status status = SAGO_OK;
    set->texts = json_array();
    for (int task = 0; task < sago_mixture_tasks(mixture) && status == SAGO_OK; task++) {
        sago_mixture_task info;
        sago_mixture_task_info(mixture, task, &info);
        if (!info.is_text || !is_chosen(args->config, mixture, task)) continue;
        char *name = score_name(mixture, &info);
        status = sago_text_loss(args, loaded, mixture, task, name, item, set->texts);
        free(name);
    }
    if (status == SAGO_OK && *item == 0)
        return sago_fail(SAGO_E_CONFIG, "eval.tasks: no task that it names has %s examples; sago data stats counts them, "
                                        "data.eval_fraction and data.holdout make examples for evaluation",
                         args->split == SAGO_SPLIT_EVAL ? "evaluation" : "training");
    return status;
}

static sago_status generate(const sago_eval_args *args, sago_loaded_model *loaded, question_set *set) {
    const sago_config *config = args->config;
    sago_prompt *prompts = sago_alloc_zero((size_t)set->n, sizeof *prompts);
    for (int64_t i = 0; i < set->n; i++) {
        const sago_ids *ids = &set->questions[i].example.inputs;
        prompts[i] = (sago_prompt){.inputs = ids->data, .n_inputs = ids->length};
    }
    sago_predict_args predict = {
        .batch = config->eval.batch,
        .max_new_tokens = (int)config->eval.max_new_tokens,
        .samples = (int)config->eval.samples,
        .sample = {.temperature = (float)config->eval.temperature,
                   .top_k = (int)config->eval.top_k,
                   .top_p = (float)config->eval.top_p,
                   .key = (uint64_t)config->run.seed},
        .first_prompt = args->mesh->axis_rank[SAGO_DATA_AXIS],
        .prompt_stride = args->mesh->axis_size[SAGO_DATA_AXIS],
        .stage = "generate",
    };
    sago_prediction *out = NULL;
    sago_status status = sago_predict_generate(loaded, prompts, set->n, &predict, &out);
    for (int64_t i = 0; i < set->n && status == SAGO_OK; i++) {
        json_t *outputs = json_array();
        for (int s = 0; s < predict.samples && status == SAGO_OK; s++) {
            const sago_prediction *p = &out[i * predict.samples + s];
            json_t *output = NULL;
            status = text_of_ids(loaded->tokenizer, p->ids, p->n_ids, &output);
            json_array_append_new(outputs, output);
        }
        json_object_set_new(set->records[i], "outputs", outputs);
        json_object_set_new(set->records[i], "logprob", json_real(out[i * predict.samples].logprob));
    }
    sago_predictions_free(out, set->n * predict.samples);
    free(prompts);
    return status;
}

/* Ranks the options of the questions that have any by the log-probability of their text. */
static sago_status rank_options(const sago_eval_args *args, sago_loaded_model *loaded, question_set *set) {
    int64_t n = 0, at = 0;
    for (int64_t i = 0; i < set->n; i++) n += set->questions[i].n_options;
    if (n == 0) return SAGO_OK;
    sago_prompt *prompts = sago_alloc_zero((size_t)n, sizeof *prompts);
    sago_ids *targets = sago_alloc_zero((size_t)n, sizeof *targets);
    sago_prediction *out = NULL;
    sago_status status = SAGO_OK;
    for (int64_t i = 0; i < set->n && status == SAGO_OK; i++) {
        const sago_question *q = &set->questions[i];
        for (int o = 0; o < q->n_options && status == SAGO_OK; o++, at++) {
            status = sago_tokenizer_encode(loaded->tokenizer, q->options[o], strlen(q->options[o]), &targets[at]);
            sago_ids_add(&targets[at], SAGO_EOS_ID);
            prompts[at] = (sago_prompt){q->example.inputs.data, targets[at].data, q->example.inputs.length,
                                        targets[at].length};
        }
    }
    sago_predict_args predict = {.batch = args->config->eval.batch, .stage = "rank options"};
    if (status == SAGO_OK) status = sago_predict_score(loaded, prompts, n, &predict, &out);
    at = 0;
    for (int64_t i = 0; i < set->n && status == SAGO_OK; i++) {
        const sago_question *q = &set->questions[i];
        if (q->n_options == 0) continue;
        json_t *logprobs = json_array();
        int best = 0;
        double best_score = 0;
        for (int o = 0; o < q->n_options; o++, at++) {
            double score = out[at].logprob;
            if (args->config->eval.length_normalised) score /= (double)targets[at].length;
            json_array_append_new(logprobs, json_real(score));
            if (o == 0 || score > best_score) best = o, best_score = score;
        }
        json_object_set_new(set->records[i], "option_logprobs", logprobs);
        json_object_set_new(set->records[i], "chosen_option", json_integer(best));
        if (q->right_option >= 0)
            json_object_set_new(set->records[i], "accuracy", json_real(strcmp(q->options[best], q->options[q->right_option]) == 0));
    }
    sago_predictions_free(out, n);
    for (int64_t i = 0; i < n; i++) sago_ids_free(&targets[i]);
    free(targets);
    free(prompts);
    return status;
}

static int by_item(const void *a, const void *b) {
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "item"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "item"));
    return (x > y) - (x < y);
}

/* All ranks' records at rank 0, in the order of the questions; NULL elsewhere. Ranks that share a model have the same
 * ones. */
static sago_status gather(sago_mesh *mesh, const question_set *set, json_t **out) {
    sago_str lines = {0};
    for (int64_t i = 0; mesh->axis_rank[SAGO_MODEL_AXIS] == 0 && i < set->n; i++) {
        sago_json_add(&lines, set->records[i], 17);
        sago_str_putc(&lines, '\n');
    }
    for (size_t i = 0; mesh->axis_rank[SAGO_MODEL_AXIS] == 0 && i < json_array_size(set->texts); i++) {
        sago_json_add(&lines, json_array_get(set->texts, i), 17);
        sago_str_putc(&lines, '\n');
    }
    char *all = NULL;
    size_t *sizes = sago_alloc_zero((size_t)mesh->size, sizeof *sizes), total = 0;
    sago_status status =
        sago_gather_bytes(mesh, SAGO_WORLD_AXIS, sago_str_text(&lines), lines.length, 0, &all, sizes);
    sago_str_free(&lines);
    *out = NULL;
    if (status == SAGO_OK && mesh->rank == 0) {
        for (int r = 0; r < mesh->size; r++) total += sizes[r];
        json_t **records = NULL;
        size_t n = 0;
        for (size_t start = 0, i = 0; i < total; i++) {
            if (all[i] != '\n') continue;
            records = sago_realloc(records, (n + 1) * sizeof *records);
            status = sago_json_parse(all + start, i - start, "record", (int64_t)n + 1, &records[n]);
            if (status != SAGO_OK) break;
            n++;
            start = i + 1;
        }
        if (n) qsort(records, n, sizeof *records, by_item);
        *out = json_array();
        for (size_t i = 0; i < n; i++) {
            json_object_del(records[i], "item");
            json_array_append_new(*out, records[i]);
        }
        free(records);
    }
    free(all);
    free(sizes);
    return status;
}

static void say_group(const json_t *scores, const char *name) {
    const json_t *group = json_object_get(scores, name), *exact = json_object_get(group, "exact_match");
    if (!exact) return;
    const json_t *rouge = json_object_get(group, "rouge_l"), *accuracy = json_object_get(group, "accuracy");
    char ranked[64] = "";
    if (accuracy)
        snprintf(ranked, sizeof ranked, "  accuracy %.1f", json_number_value(json_object_get(accuracy, "mean")));
    sago_info("%-8s %3d tasks  exact match %5.1f [%.1f, %.1f]  ROUGE-L %.1f%s", name,
              (int)json_integer_value(json_object_get(group, "tasks")),
              json_number_value(json_object_get(exact, "mean")), json_number_value(json_object_get(exact, "low")),
              json_number_value(json_object_get(exact, "high")), json_number_value(json_object_get(rouge, "mean")),
              ranked);
}

static void say_texts(const json_t *scores) {
    const json_t *rows = json_object_get(scores, "text");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *loss = json_object_get(row, "loss");
        sago_info("text     %s/%s  loss %.4f [%.4f, %.4f] nats a token, perplexity %.2f  (%lld tokens)",
                  json_string_value(json_object_get(row, "category")), json_string_value(json_object_get(row, "name")),
                  json_number_value(json_object_get(loss, "mean")), json_number_value(json_object_get(loss, "low")),
                  json_number_value(json_object_get(loss, "high")),
                  json_number_value(json_object_get(json_object_get(row, "perplexity"), "mean")),
                  (long long)json_integer_value(json_object_get(row, "target_tokens")));
    }
}

/* Scores the records and writes both files; rank 0. */
static sago_status finish(const sago_eval_args *args, json_t *records, int64_t step) {
    const sago_config *config = args->config;
    for (size_t i = 0; i < json_array_size(records); i++)
        SAGO_TRY(sago_wrap(sago_record_score(json_array_get(records, i)), "record %zu", i + 1));
    json_t *scores = sago_records_summarise(records, (int)config->eval.bootstrap, (uint64_t)config->run.seed);
    json_object_set_new(scores, "label", json_string(args->label));
    json_object_set_new(scores, "checkpoint", json_string(args->checkpoint));
    json_object_set_new(scores, "step", json_integer((json_int_t)step));
    json_object_set_new(scores, "split", json_string(args->split == SAGO_SPLIT_EVAL ? "eval" : "train"));
    json_object_set_new(scores, "settings",
                        json_pack("{s:I, s:b, s:I, s:f, s:I, s:f, s:I, s:b}", "few_shot", (json_int_t)config->eval.few_shot,
                                  "cot", config->eval.cot, "samples", (json_int_t)config->eval.samples, "temperature",
                                  config->eval.temperature, "top_k", (json_int_t)config->eval.top_k, "top_p",
                                  config->eval.top_p, "max_new_tokens", (json_int_t)config->eval.max_new_tokens,
                                  "length_normalised", config->eval.length_normalised));
    sago_str lines = {0};
    for (size_t i = 0; i < json_array_size(records); i++) {
        sago_json_add(&lines, json_array_get(records, i), 9);
        sago_str_putc(&lines, '\n');
    }
    char *predictions = sago_path_join(args->output_dir, "predictions.jsonl");
    char *summary = sago_path_join(args->output_dir, "scores.json");
    sago_status status = sago_dir_make(args->output_dir);
    if (status == SAGO_OK) status = sago_file_replace(predictions, sago_str_text(&lines), lines.length);
    if (status == SAGO_OK) status = sago_json_write(summary, scores);
    size_t cut = 0;
    for (size_t i = 0; i < json_array_size(records); i++)
        cut += json_is_true(json_object_get(json_array_get(records, i), "prompt_cut"));
    if (status == SAGO_OK && cut > 0)
        sago_warn("%zu of %zu prompts are longer than data.input_length and lost their end (\"prompt_cut\" in %s)", cut,
                  json_array_size(records), predictions);
    if (status == SAGO_OK) {
        say_group(scores, "seen");
        say_group(scores, "unseen");
        say_texts(scores);
        sago_info("scores: %s", summary);
    }
    free(predictions);
    free(summary);
    sago_str_free(&lines);
    json_decref(scores);
    return status;
}

static sago_status predict_all(const sago_eval_args *args, sago_loaded_model *loaded, question_set *set) {
    sago_mixture *mixture = NULL;
    if (!loaded->tokenizer)
        return sago_fail(SAGO_E_INPUT, "%s: has no tokenizer, so it can't be asked questions; import it with its "
                                       "spiece.model, or train with data.tokenizer", loaded->step_dir);
    SAGO_TRY(sago_mixture_open(args->config, loaded->tokenizer, loaded->shape.vocab_size,
                               sago_model_decoder_only(&loaded->shape), &mixture));
    int64_t item = 0;
    sago_status status = collect_questions(args, loaded->tokenizer, mixture, &item, set);
    if (status == SAGO_OK) status = score_texts(args, loaded, mixture, &item, set);
    if (status == SAGO_OK) status = generate(args, loaded, set);
    if (status == SAGO_OK) status = rank_options(args, loaded, set);
    sago_mixture_close(mixture);
    return status;
}

sago_status sago_eval_model(const sago_eval_args *args, sago_loaded_model *loaded) {
    question_set set = {0};
    json_t *records = NULL;
    sago_status status = sago_agree(args->mesh, predict_all(args, loaded, &set));
    if (status == SAGO_OK) status = gather(args->mesh, &set, &records);
    if (status == SAGO_OK && args->mesh->rank == 0) status = finish(args, records, loaded->step);
    sago_progress_end();
    json_decref(records);
    free_set(&set);
    return sago_agree(args->mesh, status);
}

sago_status sago_eval_records(const sago_eval_args *args, const char *predictions) {
    sago_line_reader reader = {0};
    json_t *records = json_array();
    sago_status status;
    SAGO_TRY_TO(done, sago_lines_open(&reader, predictions, 1u << 26));
    for (bool more;;) {
        SAGO_TRY_TO(done, sago_lines_next(&reader, &more));
        if (!more) break;
        if (reader.line.length == 0) continue;
        json_t *record;
        SAGO_TRY_TO(done, sago_json_parse(reader.line.data, reader.line.length, predictions, reader.number, &record));
        json_array_append_new(records, record);
        status = sago_wrap(sago_record_score(record), "%s:%lld", predictions, (long long)reader.number);
        if (status != SAGO_OK) goto done;
    }
    if (json_array_size(records) == 0) {
        status = sago_fail(SAGO_E_INPUT, "%s: no recorded outputs", predictions);
        goto done;
    }
    status = finish(args, records, 0);
done:
    sago_lines_close(&reader);
    json_decref(records);
    return status;
}
