// SPDX-License-Identifier: Apache-2.0
#include "generate.h"

#include "file.h"
#include "json.h"
#include "rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sago_dice_roll(sago_dice *dice, int n) {
    return (int)sago_below(sago_mix(dice->key, dice->count++), (uint64_t)n);
}

void sago_dice_choose(sago_dice *dice, int n, int k, int out[]) {
    uint64_t key = sago_mix(dice->key, dice->count++);
    for (int i = 0; i < k; i++) out[i] = (int)sago_permute((uint64_t)i, (uint64_t)n, key);
}

const char *sago_dice_word(sago_dice *dice, int kind) {
    return sago_kinds[kind].words[sago_dice_roll(dice, SAGO_KIND_WORDS)];
}

sago_made_task *sago_made_tasks_add(sago_made_tasks *tasks, const char *folder, const char *category,
                                    sago_make *make, int operation, int kind, const char *name, ...) {
    if (tasks->count == tasks->capacity) {
        tasks->capacity = tasks->capacity ? 2 * tasks->capacity : 64;
        tasks->items = sago_realloc(tasks->items, (size_t)tasks->capacity * sizeof *tasks->items);
    }
    sago_made_task *task = &tasks->items[tasks->count++];
    *task = (sago_made_task){.make = make, .operation = operation, .kind = kind, .folder = folder};
    snprintf(task->category, sizeof task->category, "%s", category);
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(task->name, sizeof task->name, name, arguments);
    va_end(arguments);
    return task;
}

static void quote(sago_str *out, const sago_str *text) {
    sago_json_quote(out, sago_str_text(text), text->length);
}

static void add_niv2(const sago_made *made, sago_str *out, const char *id, int number) {
    sago_str_puts(out, "  {\n");
    if (id) sago_str_printf(out, "   \"id\": \"%s-%d\",\n", id, number);
    sago_str_puts(out, "   \"input\": ");
    quote(out, &made->input);
    sago_str_puts(out, id ? ",\n   \"output\": [" : ",\n   \"output\": ");
    quote(out, &made->output);
    sago_str_puts(out, id ? "]\n  }" : ",\n   \"explanation\": \"\"\n  }");
}

static void add_csv_cell(sago_str *out, const sago_str *text) {
    const char *t = sago_str_text(text);
    if (!strpbrk(t, ",\"\n")) {
        sago_str_puts(out, t);
        return;
    }
    sago_str_putc(out, '"');
    for (; *t; t++) {
        if (*t == '"') sago_str_putc(out, '"');
        sago_str_putc(out, *t);
    }
    sago_str_putc(out, '"');
}

static void add_choice(const sago_made *made, sago_str *out) {
    sago_str_printf(out, "{\"answerKey\": \"%s\", \"question\": {\"stem\": ", sago_str_text(&made->output));
    quote(out, &made->input);
    sago_str_puts(out, ", \"choices\": [");
    for (int i = 0; i < made->n_options; i++)
        sago_str_printf(out, "%s{\"label\": \"%c\", \"text\": \"%s\"}", i ? ", " : "", 'A' + i,
                        made->options[i]);
    sago_str_puts(out, "]}}\n");
}

/* One example in the format of the task's folder. */
static void add_example(const sago_made_task *task, const sago_made *made, int number, sago_str *out) {
    if (!strcmp(task->folder, "niv2")) {
        if (number) sago_str_puts(out, ",\n");
        add_niv2(made, out, task->name, number);
    } else if (!strcmp(task->folder, "jsonl")) {
        sago_str_puts(out, "{\"inputs\": ");
        quote(out, &made->input);
        sago_str_puts(out, ", \"targets\": ");
        quote(out, &made->output);
        sago_str_puts(out, "}\n");
    } else if (!strcmp(task->folder, "cot")) {
        sago_str_printf(out, "%s\t%s\t%s\n", sago_str_text(&made->input), sago_str_text(&made->output),
                        sago_str_text(&made->chain));
    } else if (!strcmp(task->folder, "table")) {
        add_csv_cell(out, &made->input);
        sago_str_putc(out, ',');
        add_csv_cell(out, &made->output);
        sago_str_putc(out, '\n');
    } else {
        add_choice(made, out);
    }
}

static void make_one(const sago_made_task *task, uint64_t key, uint64_t number, sago_made *made) {
    sago_str_clear(&made->input), sago_str_clear(&made->output), sago_str_clear(&made->chain);
    made->n_options = 0;
    sago_dice dice = {.key = sago_mix(key, number)};
    task->make(&dice, task->operation, task->kind, made);
}

static void begin_file(const sago_made_task *task, uint64_t key, sago_made *made, sago_str *out) {
    if (!strcmp(task->folder, "table")) sago_str_puts(out, "question,answer\n");
    if (strcmp(task->folder, "niv2") != 0) return;
    sago_str_printf(
        out,
        "{\n \"Contributors\": [\"sago\"],\n \"Source\": [\"generated\"],\n \"Categories\": [\"%s\"],\n"
        " \"Definition\": [",
        task->category);
    quote(out, &task->definition);
    sago_str_puts(out, "],\n \"Input_language\": [\"English\"],\n \"Output_language\": [\"English\"],\n"
                       " \"Positive Examples\": [\n");
    for (uint64_t i = 0; i < 2; i++) {
        make_one(task, key, UINT64_MAX - i, made);
        if (i) sago_str_puts(out, ",\n");
        add_niv2(made, out, NULL, 0);
    }
    sago_str_puts(out, "\n ],\n \"Negative Examples\": [],\n \"Instances\": [\n");
}

static void add_line(sago_str *corpus, const sago_str *text) {
    if (!text->length) return;
    sago_str_add(corpus, sago_str_text(text), text->length);
    sago_str_putc(corpus, '\n');
}

static sago_status write_task(const char *dir, const sago_made_task *task, uint64_t seed, int examples,
                              sago_str *corpus) {
    uint64_t key = sago_mix(seed, sago_hash_bytes(task->name, strlen(task->name)));
    sago_made made = {0};
    sago_str text = {0};
    begin_file(task, key, &made, &text);
    add_line(corpus, &task->definition);
    uint64_t *seen = sago_alloc_zero((size_t)examples, sizeof *seen);
    int made_so_far = 0;
    /* Small spaces run out of new inputs; what repeats is left out, and the task is shorter. */
    for (uint64_t number = 0; made_so_far < examples && number < 20u * (uint64_t)examples; number++) {
        make_one(task, key, number, &made);
        uint64_t hash = sago_hash_bytes(sago_str_text(&made.input), made.input.length);
        for (int i = 0; i < made.n_options; i++)
            hash = sago_mix(hash, sago_hash_bytes(made.options[i], strlen(made.options[i])));
        int i = 0;
        while (i < made_so_far && seen[i] != hash) i++;
        if (i < made_so_far) continue;
        seen[made_so_far] = hash;
        add_example(task, &made, made_so_far++, &text);
        add_line(corpus, &made.input), add_line(corpus, &made.output), add_line(corpus, &made.chain);
    }
    free(seen);
    bool niv2 = !strcmp(task->folder, "niv2");
    if (niv2) sago_str_puts(&text, "\n ]\n}\n");
    const char *ending = niv2                             ? "json"
                         : !strcmp(task->folder, "cot")   ? "tsv"
                         : !strcmp(task->folder, "table") ? "csv"
                                                          : "jsonl";
    char *folder = sago_path_join(dir, task->folder),
         *name = sago_format("%s/%s.%s", folder, task->name, ending);
    sago_status status = sago_dir_make(folder);
    if (status == SAGO_OK) status = sago_file_replace(name, text.data, text.length);
    free(folder), free(name);
    sago_str_free(&text), sago_str_free(&made.input), sago_str_free(&made.output), sago_str_free(&made.chain);
    return status;
}

sago_status sago_generate(const char *dir, uint64_t seed, int examples) {
    sago_made_tasks tasks = {0};
    sago_str corpus = {0};
    sago_made_lists(&tasks);
    sago_made_texts(&tasks);
    sago_made_chains(&tasks);
    sago_status status = sago_dir_make(dir);
    for (int i = 0; i < tasks.count && status == SAGO_OK; i++)
        status = write_task(dir, &tasks.items[i], seed, examples, &corpus);
    if (status == SAGO_OK) {
        char *path = sago_path_join(dir, "corpus.txt");
        status = sago_file_replace(path, corpus.data, corpus.length);
        free(path);
    }
    for (int i = 0; i < tasks.count; i++) sago_str_free(&tasks.items[i].definition);
    free(tasks.items);
    sago_str_free(&corpus);
    return status;
}
