// SPDX-License-Identifier: Apache-2.0
#include "ckpt.h"
#include "cli.h"
#include "file.h"
#include "generate.h"
#include "log.h"
#include "mixture.h"
#include "model.h"
#include "pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A mixture with what it needs. */
typedef struct opened {
    sago_config *config;
    sago_tokenizer *tokenizer;
    sago_mixture *mixture;
    bool decoder_only; /* rows of a model without an encoder */
} opened;

static void close_all(opened *o) {
    sago_mixture_close(o->mixture);
    sago_tokenizer_close(o->tokenizer);
    sago_config_free(o->config);
}

/* data.tokenizer, else the tokenizer that travels in model.init, else none: ids need none. */
static sago_status open_tokenizer(const sago_config *config, sago_ckpt *init, sago_tokenizer **out) {
    if (config->data.tokenizer[0]) return sago_tokenizer_open(config->data.tokenizer, out);
    if (!init) return SAGO_OK;
    sago_str bytes = {0};
    sago_status status = sago_ckpt_read_file(init, SAGO_TOKENIZER_FILE, &bytes);
    if (status == SAGO_OK)
        status = sago_tokenizer_from_bytes(sago_ckpt_dir(init), sago_str_text(&bytes), bytes.length, out);
    sago_str_free(&bytes);
    return status;
}

/* Data can be looked at before its weights are there, where the tokenizer is a file of its own. */
static sago_status open_init(sago_config *config, sago_ckpt **init, sago_model_shape *shape) {
    const char *path = config->model.init;
    if (path[0] && (!config->data.tokenizer[0] || sago_ckpt_exists(path))) {
        SAGO_TRY(sago_wrap(sago_ckpt_open(path, false, init), "model.init"));
        json_t *model = json_object_get(sago_ckpt_meta(*init), "model");
        SAGO_TRY(sago_wrap(sago_model_shape_from_json(model, shape), "%s", sago_ckpt_dir(*init)));
        return sago_model_shape_into_config(shape, sago_ckpt_dir(*init), config);
    }
    if (path[0] && !sago_config_given(config, "model.family"))
        sago_info("model.init: %s is not there; rows are those of a %s model", path, config->model.family);
    return sago_model_shape_from_config(config, shape);
}

static sago_status open_all(const sago_arguments *arguments, opened *o) {
    if (arguments->n_positional < 2)
        return sago_fail(SAGO_E_USAGE, "data %s: a configuration is missing", arguments->positional[0]);
    SAGO_TRY(sago_config_load(arguments->positional[1], arguments->sets, arguments->n_sets, &o->config));
    sago_ckpt *init = NULL;
    sago_model_shape shape;
    sago_status status = open_init(o->config, &init, &shape);
    if (status == SAGO_OK) status = open_tokenizer(o->config, init, &o->tokenizer);
    sago_ckpt_close(init);
    SAGO_TRY(status);
    o->decoder_only = sago_model_decoder_only(&shape);
    return sago_mixture_open(o->config, o->tokenizer, shape.vocab_size, o->decoder_only, &o->mixture);
}

/* ---- stats ---- */

/* Token lengths of a member or a task in a sample of draws. */
typedef struct lengths {
    int64_t draws, input_tokens, target_tokens, longest_input, longest_target, truncated, few_shot, chains;
} lengths;

static void count(lengths *to, const sago_example *example) {
    to->draws++;
    to->input_tokens += example->inputs.length;
    to->target_tokens += example->targets.length;
    if (example->inputs.length > to->longest_input) to->longest_input = example->inputs.length;
    if (example->targets.length > to->longest_target) to->longest_target = example->targets.length;
    to->truncated += example->truncated;
    to->few_shot += example->n_exemplars > 0;
    to->chains += example->chain_of_thought;
}

static json_t *lengths_json(const lengths *of) {
    double n = of->draws ? (double)of->draws : 1;
    return json_pack("{sI sf sf sI sI sf sf sf}", "draws", (json_int_t)of->draws, "input_tokens",
                     (double)of->input_tokens / n, "target_tokens", (double)of->target_tokens / n,
                     "longest_input", (json_int_t)of->longest_input, "longest_target",
                     (json_int_t)of->longest_target, "truncated", (double)of->truncated / n, "few_shot",
                     (double)of->few_shot / n, "chain_of_thought", (double)of->chains / n);
}

static sago_status sample_lengths(const sago_mixture *mixture, int64_t draws, lengths *members,
                                  lengths *tasks) {
    sago_example example = {0};
    sago_status status = SAGO_OK;
    bool end = false;
    for (int64_t i = 0; i < draws && status == SAGO_OK; i++) {
        status = sago_mixture_draw(mixture, (uint64_t)i, &example, &end);
        if (end) break;
        if (status != SAGO_OK) break;
        count(&members[example.member], &example);
        count(&tasks[example.task], &example);
        if (i % 500 == 499) sago_progress("stats", (double)i / (double)draws, "draw %lld", (long long)i);
    }
    sago_progress_end();
    sago_example_free(&example);
    return status;
}

static json_t *task_json(const sago_mixture_task *task, const lengths *of) {
    json_t *categories = json_array();
    for (int i = 0; i < task->n_categories; i++)
        json_array_append_new(categories, json_string(task->categories[i]));
    json_t *out = json_pack("{ss so ss sb sI sI sI sf}", "name", task->name, "categories", categories,
                            "template", task->category, "held_out", (int)task->held_out, "examples",
                            (json_int_t)task->n_examples, "train", (json_int_t)task->n_train, "eval",
                            (json_int_t)task->n_eval, "proportion", task->proportion);
    json_object_set_new(out, "lengths", lengths_json(of));
    return out;
}

static json_t *stats_json(const sago_mixture *mixture, const lengths *members, const lengths *tasks) {
    json_t *list = json_array();
    for (int m = 0; m < sago_mixture_members(mixture); m++) {
        sago_mixture_member member;
        sago_mixture_member_info(mixture, m, &member);
        json_t *of = json_array();
        int64_t examples = 0, train = 0, eval = 0;
        for (int t = member.first_task; t < member.first_task + member.n_tasks; t++) {
            sago_mixture_task task;
            sago_mixture_task_info(mixture, t, &task);
            examples += task.n_examples, train += task.held_out ? 0 : task.n_train, eval += task.n_eval;
            json_array_append_new(of, task_json(&task, &tasks[t]));
        }
        json_t *entry = json_pack("{ss ss sf sI sI sI}", "name", member.name, "format", member.format,
                                  "proportion", member.share, "examples", (json_int_t)examples, "train",
                                  (json_int_t)train, "eval", (json_int_t)eval);
        if (strcmp(member.format, "text") == 0)
            json_object_set_new(entry, "documents",
                                json_pack("{sI sI sI sI sI}", "train", (json_int_t)member.documents.train, "eval",
                                          (json_int_t)member.documents.eval, "dropped",
                                          (json_int_t)member.documents.dropped, "train_tokens",
                                          (json_int_t)member.documents.train_tokens, "eval_tokens",
                                          (json_int_t)member.documents.eval_tokens));
        json_object_set_new(entry, "lengths", lengths_json(&members[m]));
        json_object_set_new(entry, "tasks", of);
        json_array_append_new(list, entry);
    }
    return json_pack("{si so}", "tasks", sago_mixture_tasks(mixture), "members", list);
}

static void print_json(json_t *value) {
    sago_str text = {0};
    sago_json_add(&text, value, 9);
    puts(sago_str_text(&text));
    sago_str_free(&text);
    json_decref(value);
}

static void print_row(const char *name, int64_t tasks, int64_t examples, int64_t held, double share,
                      const lengths *of) {
    double n = of->draws ? (double)of->draws : 1;
    printf("%-36.36s %6lld %10lld %9lld %8.2f %9.1f %9.1f %8lld %7.2f\n", name, (long long)tasks,
           (long long)examples, (long long)held, 100 * share, (double)of->input_tokens / n,
           (double)of->target_tokens / n, (long long)of->longest_input, 100 * (double)of->truncated / n);
}

static void print_stats(const sago_mixture *mixture, const lengths *members, const lengths *tasks,
                        bool each) {
    printf("%-36s %6s %10s %9s %8s %9s %9s %8s %7s\n", "", "tasks", "examples", "kept", "share %", "inputs",
           "targets", "longest", "cut %");
    for (int m = 0; m < sago_mixture_members(mixture); m++) {
        sago_mixture_member member;
        sago_mixture_member_info(mixture, m, &member);
        int64_t examples = 0, held = 0;
        for (int t = member.first_task; t < member.first_task + member.n_tasks; t++) {
            sago_mixture_task task;
            sago_mixture_task_info(mixture, t, &task);
            examples += task.n_examples, held += task.n_eval;
        }
        print_row(member.name, member.n_tasks, examples, held, member.share, &members[m]);
        if (strcmp(member.format, "text") == 0)
            printf("  documents: %lld trained on (%lld tokens), %lld kept (%lld tokens), %lld left out as copies of "
                   "held-out texts\n",
                   (long long)member.documents.train, (long long)member.documents.train_tokens,
                   (long long)member.documents.eval, (long long)member.documents.eval_tokens,
                   (long long)member.documents.dropped);
        for (int t = member.first_task; each && t < member.first_task + member.n_tasks; t++) {
            sago_mixture_task task;
            sago_mixture_task_info(mixture, t, &task);
            char name[64];
            snprintf(name, sizeof name, "  %s%s", task.held_out ? "(held out) " : "", task.name);
            print_row(name, 1, task.n_examples, task.n_eval, task.proportion, &tasks[t]);
        }
    }
    printf("kept: for evaluation. inputs, targets: tokens of an example with its EOS, as drawn; cut: "
           "truncated draws.\n");
}

static sago_status stats(const sago_arguments *arguments) {
    opened o = {0};
    lengths *members = NULL, *tasks = NULL;
    int64_t draws;
    sago_status status;
    SAGO_TRY_TO(done, sago_argument_int(arguments, "--count", 2000, 0, 1000000000, &draws));
    SAGO_TRY_TO(done, open_all(arguments, &o));
    members = sago_alloc_zero((size_t)sago_mixture_members(o.mixture), sizeof *members);
    tasks = sago_alloc_zero((size_t)sago_mixture_tasks(o.mixture), sizeof *tasks);
    SAGO_TRY_TO(done, sample_lengths(o.mixture, draws, members, tasks));
    if (sago_argument_switch(arguments, "--json"))
        print_json(stats_json(o.mixture, members, tasks));
    else
        print_stats(o.mixture, members, tasks, sago_argument_switch(arguments, "--tasks"));
done:
    free(members), free(tasks);
    close_all(&o);
    return status;
}

/* ---- sample ---- */

static void add_ids(json_t *to, const char *key, const sago_ids *ids) {
    json_t *list = json_array();
    for (int64_t i = 0; i < ids->length; i++) json_array_append_new(list, json_integer(ids->data[i]));
    json_object_set_new(to, key, list);
}

/* The text of ids with sentinels as <extra_id_0>, ...; not there where ids cut a character in two. */
static sago_status add_decoded(json_t *to, const char *key, const sago_tokenizer *tokenizer,
                               const sago_ids *ids) {
    sago_str text = {0};
    sago_status status = SAGO_OK;
    int32_t first = sago_tokenizer_sentinel(tokenizer, 0), last = first - SAGO_SENTINELS + 1;
    for (int64_t i = 0, n; i < ids->length && status == SAGO_OK; i += n) {
        for (n = 0; i + n < ids->length && ids->data[i + n] < last;) n++;
        status = sago_tokenizer_decode(tokenizer, ids->data + i, n, &text);
        if (n == 0) n = 1, sago_str_printf(&text, "<extra_id_%d>", (int)(first - ids->data[i]));
    }
    size_t wrong;
    if (status == SAGO_OK && sago_utf8_valid(sago_str_text(&text), text.length, &wrong))
        json_object_set_new(to, key, json_stringn(sago_str_text(&text), text.length));
    sago_str_free(&text);
    return status;
}

static sago_status draw_json(const opened *o, const sago_example *example, json_t **record) {
    const sago_mixture *mixture = o->mixture;
    sago_mixture_member member;
    sago_mixture_task task;
    sago_mixture_member_info(mixture, example->member, &member);
    sago_mixture_task_info(mixture, example->task, &task);
    json_t *exemplars = json_array();
    for (int i = 0; i < example->n_exemplars; i++)
        json_array_append_new(exemplars, json_integer(example->exemplars[i]));
    json_t *out = json_pack("{ss ss ss sI so sb sb}", "mixture", member.name, "task", task.name, "template",
                            sago_mixture_template_name(mixture, example->template_), "example",
                            (json_int_t)example->index, "exemplars", exemplars, "chain_of_thought",
                            (int)example->chain_of_thought, "truncated", (int)example->truncated);
    if (example->input_text.length || example->target_text.length) {
        json_object_set_new(out, "inputs",
                            json_stringn(sago_str_text(&example->input_text), example->input_text.length));
        json_object_set_new(out, "targets",
                            json_stringn(sago_str_text(&example->target_text), example->target_text.length));
    } else {
        add_ids(out, "input_ids", &example->inputs);
        add_ids(out, "target_ids", &example->targets);
    }
    sago_status status = SAGO_OK;
    if (task.is_text) status = add_decoded(out, "inputs", o->tokenizer, &example->inputs);
    if (task.is_text && status == SAGO_OK)
        status = add_decoded(out, "targets", o->tokenizer, &example->targets);
    json_object_set_new(out, "input_tokens", json_integer((json_int_t)example->inputs.length));
    json_object_set_new(out, "target_tokens", json_integer((json_int_t)example->targets.length));
    *record = out;
    return status;
}

static sago_status write_draws(const opened *o, int64_t draws, FILE *file, const char *path) {
    sago_example example = {0};
    sago_str line = {0};
    sago_status status = SAGO_OK;
    bool end = false;
    for (int64_t i = 0; i < draws; i++) {
        SAGO_TRY_TO(done, sago_mixture_draw(o->mixture, (uint64_t)i, &example, &end));
        if (end) break;
        json_t *record;
        status = draw_json(o, &example, &record);
        sago_str_clear(&line);
        sago_json_add(&line, record, 9);
        sago_str_putc(&line, '\n');
        json_decref(record);
        if (status != SAGO_OK) goto done;
        if (fwrite(line.data, 1, line.length, file) != line.length) {
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
            goto done;
        }
        if (i % 500 == 499) sago_progress("sample", (double)i / (double)draws, "draw %lld", (long long)i);
    }
done:
    sago_progress_end();
    sago_example_free(&example);
    sago_str_free(&line);
    return status;
}

static sago_status sample(const sago_arguments *arguments) {
    opened o = {0};
    int64_t draws;
    char *temporary = NULL;
    FILE *file = NULL;
    const char *path = sago_argument(arguments, "--output");
    sago_status status;
    if (!path) return sago_fail(SAGO_E_USAGE, "data sample: --output FILE is missing");
    SAGO_TRY(sago_file_replaceable(path));
    SAGO_TRY_TO(done, sago_argument_int(arguments, "--count", 100, 1, 1000000000000, &draws));
    SAGO_TRY_TO(done, open_all(arguments, &o));
    temporary = sago_file_temporary(path);
    SAGO_TRY_TO(done, sago_file_open(temporary, "wb", &file));
    status = write_draws(&o, draws, file, path);
    sago_status closed = sago_file_close_synced(file, temporary);
    if (status == SAGO_OK) status = closed;
    if (status == SAGO_OK && rename(temporary, path) != 0)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot replace", path);
    if (status != SAGO_OK) remove(temporary);
done:
    free(temporary);
    close_all(&o);
    return status;
}

/* ---- pack ---- */

/* Rows of decoder-only models have one length, and so one fill. */
static json_t *packed_json(const sago_pack_statistics *found, bool decoder_only) {
    json_t *fill = decoder_only ? json_pack("{sf}", "fill", found->fill)
                                : json_pack("{sf sf}", "input_fill", found->input_fill, "target_fill",
                                            found->target_fill);
    json_t *out =
        json_pack("{sI sI sI sI sI sI sf}", "rows", (json_int_t)found->rows, "examples",
                  (json_int_t)found->examples, "truncated", (json_int_t)found->truncated, "input_tokens",
                  (json_int_t)found->input_tokens, "target_tokens", (json_int_t)found->target_tokens,
                  "longest_wait", (json_int_t)found->longest_wait, "seconds", found->seconds);
    json_object_update(out, fill);
    json_decref(fill);
    return out;
}

static void print_packed(const sago_pack_statistics *found, bool decoder_only) {
    printf("rows          %lld\nexamples      %lld (%.2f a row)\n", (long long)found->rows,
           (long long)found->examples, found->rows ? (double)found->examples / (double)found->rows : 0);
    if (decoder_only)
        printf("fill          %.4f\n", found->fill);
    else
        printf("input_fill    %.4f\ntarget_fill   %.4f\n", found->input_fill, found->target_fill);
    printf("truncated     %lld\nlongest_wait  %lld rows\ntokens        %lld in %.2f s\n",
           (long long)found->truncated, (long long)found->longest_wait,
           (long long)(found->input_tokens + found->target_tokens), found->seconds);
}

static sago_status pack(const sago_arguments *arguments) {
    opened o = {0};
    sago_packer *packer = NULL;
    sago_pack_statistics found;
    int64_t rows;
    sago_status status;
    SAGO_TRY_TO(done, sago_argument_int(arguments, "--rows", 1000, 1, 1000000000, &rows));
    SAGO_TRY_TO(done, open_all(arguments, &o));
    sago_pack_options options = sago_pack_options_of(o.config, o.decoder_only);
    SAGO_TRY_TO(done, sago_packer_open(&options, sago_pack_source_of(o.mixture), &packer));
    SAGO_TRY_TO(done, sago_packer_measure(packer, rows, &found));
    if (sago_argument_switch(arguments, "--json"))
        print_json(packed_json(&found, o.decoder_only));
    else
        print_packed(&found, o.decoder_only);
done:
    sago_packer_close(packer);
    close_all(&o);
    return status;
}

static sago_status generate(const sago_arguments *arguments) {
    int64_t seed, examples;
    if (arguments->n_positional < 2) return sago_fail(SAGO_E_USAGE, "data generate: a folder is missing");
    SAGO_TRY(sago_argument_int(arguments, "--seed", 1, 0, INT64_MAX, &seed));
    SAGO_TRY(sago_argument_int(arguments, "--count", 400, 8, 100000, &examples));
    SAGO_TRY(sago_generate(arguments->positional[1], (uint64_t)seed, (int)examples));
    sago_info("wrote the bundled tasks to %s", arguments->positional[1]);
    return SAGO_OK;
}

static sago_status run(const sago_arguments *arguments) {
    static const sago_verb verbs[] = {
        {"stats", stats}, {"sample", sample}, {"pack", pack}, {"generate", generate}, {0}};
    return sago_run_verb(verbs, arguments);
}

static const sago_option options[] = {
    {"--count", "N",
     "sample: draws to write (default 100); stats: draws to measure (default 2000); generate: "
     "examples a task (default 400)",
     false},
    {"--rows", "N", "pack: rows to fill (default 1000)", false},
    {"--output", "FILE", "sample: JSONL file to write", false},
    {"--seed", "N", "generate: seed of the tasks (default 1)", false},
    {"--tasks", NULL, "stats: a line for each task too", false},
    {"--json", NULL, "stats, pack: one JSON object on standard output", false},
    {0},
};

const sago_command sago_command_data = {
    .name = "data",
    .summary = "look at a mixture: its tasks, its draws, how it packs; or generate the bundled tasks",
    .usage = "sago data stats|sample|pack CONFIG.yaml [options], or sago data generate DIR [--seed N]",
    .details =
        "stats counts tasks, examples and effective proportions, and measures token lengths in the first "
        "draws. sample writes the first draws, a JSON line each: mixture, task, template, example, exemplars "
        "(below 0: the task's own), inputs, targets. pack fills rows as training does and says how full they "
        "are. generate writes small English tasks in the formats niv2, jsonl, cot and table, and corpus.txt "
        "to train a tokenizer on.",
    .example = "sago data sample configs/quickstart.yaml --count 20 --output draws.jsonl",
    .options = options,
    .min_positional = 1,
    .max_positional = 2,
    .verbs = "stats sample pack generate",
    .run = run,
};
