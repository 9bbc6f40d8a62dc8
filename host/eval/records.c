// SPDX-License-Identifier: Apache-2.0
#include "records.h"

#include "answer.h"
#include "interval.h"
#include "text_loss.h"

#include <stdlib.h>
#include <string.h>

/* --- one record ---------------------------------------------------------------------------------------------------- */

/* A string without a NUL inside, which would hide its rest from comparisons. */
static char *whole_text(const json_t *value) {
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? (char *)(uintptr_t)text : NULL;
}

/* The texts of an array of strings, or of one string; count -1 when it is neither. Free the array alone. */
static char **texts_of(const json_t *value, int *count) {
    if (json_is_string(value)) {
        char **one = sago_alloc(sizeof *one);
        one[0] = whole_text(value);
        *count = one[0] ? 1 : -1;
        return one;
    }
    *count = json_is_array(value) ? (int)json_array_size(value) : -1;
    char **texts = sago_alloc_zero(*count > 0 ? (size_t)*count : 1, sizeof *texts);
    for (int i = 0; i < *count; i++) {
        texts[i] = whole_text(json_array_get(value, (size_t)i));
        if (!texts[i]) *count = -1;
    }
    return texts;
}

/* The most frequent answer of the outputs; the earliest among equals. */
static void vote(char *const outputs[], int n, const char *marker, sago_str *answer) {
    sago_str *answers = sago_alloc_zero((size_t)n, sizeof *answers);
    int best = 0, best_votes = 0;
    for (int i = 0; i < n; i++) sago_answer_extract(outputs[i], marker, &answers[i]);
    for (int i = 0; i < n; i++) {
        int votes = 0;
        for (int j = 0; j < n; j++) votes += strcmp(sago_str_text(&answers[i]), sago_str_text(&answers[j])) == 0;
        if (votes > best_votes) best = i, best_votes = votes;
    }
    sago_str_clear(answer);
    sago_str_puts(answer, sago_str_text(&answers[best]));
    for (int i = 0; i < n; i++) sago_str_free(&answers[i]);
    free(answers);
}

sago_status sago_record_score(json_t *record) {
    bool is_text;
    if (!json_is_object(record)) return sago_fail(SAGO_E_INPUT, "not a JSON object");
    SAGO_TRY(sago_text_record_check(record, &is_text));
    if (is_text) return SAGO_OK;
    const json_t *references = json_object_get(record, "references"), *outputs = json_object_get(record, "outputs");
    if (!references) references = json_object_get(record, "targets");
    if (!outputs) outputs = json_object_get(record, "output");
    const char *marker = json_string_value(json_object_get(record, "marker"));
    int n_references, n_outputs;
    char **theirs = texts_of(references, &n_references), **mine = texts_of(outputs, &n_outputs);
    sago_status status = SAGO_OK;
    sago_str answer = {0};
    if (n_references < 1) {
        status = sago_fail(SAGO_E_INPUT, "no \"references\" (texts without NUL) or \"targets\" (a text) to compare with");
    } else if (n_outputs < 1) {
        status = sago_fail(SAGO_E_INPUT, "no \"outputs\" (texts without NUL) or \"output\" (a text) to score");
    } else {
        vote(mine, n_outputs, marker ? marker : "", &answer);
        const char *text = sago_str_text(&answer);
        json_object_set_new(record, "answer", json_string(text));
        json_object_set_new(record, "exact_match", json_real(sago_exact_match(text, theirs, n_references)));
        json_object_set_new(record, "token_f1", json_real(sago_token_f1(text, theirs, n_references)));
        json_object_set_new(record, "rouge_l", json_real(sago_rouge_l(text, theirs, n_references)));
    }
    sago_str_free(&answer);
    free(theirs);
    free(mine);
    return status;
}

/* --- groups -------------------------------------------------------------------------------------------------------- */

enum { EXACT, F1, ROUGE, ACCURACY, NORMALISED, MAJORITY, COPY_EXACT, COPY_ROUGE, N_KINDS };
static const char *const kind_names[N_KINDS] = {"exact_match",         "token_f1", "rouge_l",    "accuracy",
                                                "normalised_accuracy", "majority", "copy_exact", "copy_rouge"};

/* One task's records, as one array of scores a kind; accuracy only where a record has options. */
typedef struct task {
    const char *name, *category;
    bool held_out;
    int64_t n;
    double *values[N_KINDS];
    int64_t counts[N_KINDS];
    const json_t **records;
} task;

static const char *text_of(const json_t *record, const char *key, const char *otherwise) {
    const char *text = json_string_value(json_object_get(record, key));
    return text ? text : otherwise;
}

static const char *last_line(const char *text) {
    const char *line = text;
    for (const char *p = text; *p; p++)
        if (*p == '\n' && p[1] && p[1] != '\n') line = p + 1;
    return line;
}

static void push(task *t, int kind, double value) { t->values[kind][t->counts[kind]++] = 100 * value; }

static const char *first_reference(const json_t *record) {
    const json_t *references = json_object_get(record, "references");
    if (!references) references = json_object_get(record, "targets");
    return json_string_value(json_is_array(references) ? json_array_get(references, 0) : references);
}

/* The first reference that most records share. */
static const char *majority_answer(const task *t) {
    const char *best = "";
    json_int_t best_votes = 0;
    json_t *votes = json_object();
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < t->n; i++) {
            const char *mine = first_reference(t->records[i]);
            json_int_t count = json_integer_value(json_object_get(votes, mine));
            if (pass == 0)
                json_object_set_new(votes, mine, json_integer(count + 1));
            else if (count > best_votes)
                best = mine, best_votes = count;
        }
    json_decref(votes);
    return best;
}

static void score_task(task *t) {
    for (int kind = 0; kind < N_KINDS; kind++) t->values[kind] = sago_alloc((size_t)t->n * sizeof(double));
    const char *majority = majority_answer(t);
    for (int64_t i = 0; i < t->n; i++) {
        const json_t *record = t->records[i];
        for (int kind = EXACT; kind <= ROUGE; kind++)
            push(t, kind, json_number_value(json_object_get(record, kind_names[kind])));
        const json_t *accuracy = json_object_get(record, "accuracy");
        size_t options = json_array_size(json_object_get(record, "options"));
        if (!json_is_number(accuracy)) accuracy = NULL;
        if (accuracy) push(t, ACCURACY, json_number_value(accuracy));
        if (accuracy && options > 1) {
            double chance = 1.0 / (double)options;
            push(t, NORMALISED, (json_number_value(accuracy) - chance) / (1 - chance));
        }
        int n;
        const json_t *references = json_object_get(record, "references");
        char **theirs = texts_of(references ? references : json_object_get(record, "targets"), &n);
        sago_str copied = {0};
        sago_answer_extract(last_line(text_of(record, "prompt", "")), "", &copied);
        push(t, MAJORITY, sago_exact_match(majority, theirs, n));
        push(t, COPY_EXACT, sago_exact_match(sago_str_text(&copied), theirs, n));
        push(t, COPY_ROUGE, sago_rouge_l(sago_str_text(&copied), theirs, n));
        sago_str_free(&copied);
        free(theirs);
    }
}

typedef bool (*chooser)(const task *t, const void *context);

static json_t *interval_json(sago_interval x) {
    return json_pack("{s:f, s:f, s:f}", "mean", x.mean, "low", x.low, "high", x.high);
}

/* The GROUP object of the tasks that choose() takes. */
static json_t *group(const task *tasks, int n_tasks, chooser choose, const void *context, int resamples, uint64_t seed) {
    sago_scores *chosen = sago_alloc_zero((size_t)n_tasks, sizeof *chosen);
    json_t *out = json_object(), *majority = json_object(), *copy = json_object();
    int64_t counted = 0, examples = 0;
    for (int i = 0; i < n_tasks; i++) {
        if (!choose(&tasks[i], context)) continue;
        counted++;
        examples += tasks[i].n;
    }
    json_object_set_new(out, "tasks", json_integer((json_int_t)counted));
    json_object_set_new(out, "examples", json_integer((json_int_t)examples));
    for (int kind = 0; kind < N_KINDS; kind++) {
        int n = 0;
        int64_t values = 0;
        for (int i = 0; i < n_tasks; i++) {
            if (!choose(&tasks[i], context)) continue;
            chosen[n++] = (sago_scores){tasks[i].values[kind], tasks[i].counts[kind]};
            values += tasks[i].counts[kind];
        }
        if (values == 0) continue;
        json_t *score = interval_json(sago_bootstrap(chosen, n, resamples, seed));
        if (kind == MAJORITY)
            json_object_set_new(majority, "exact_match", score);
        else if (kind == COPY_EXACT || kind == COPY_ROUGE)
            json_object_set_new(copy, kind == COPY_EXACT ? "exact_match" : "rouge_l", score);
        else
            json_object_set_new(out, kind_names[kind], score);
    }
    json_object_set_new(out, "majority", majority);
    json_object_set_new(out, "copy", copy);
    free(chosen);
    return out;
}

static bool is_any(const task *t, const void *context) { return (void)t, (void)context, true; }
static bool is_seen(const task *t, const void *context) { return (void)context, !t->held_out; }
static bool is_unseen(const task *t, const void *context) { return (void)context, t->held_out; }
static bool is_itself(const task *t, const void *context) { return t == context; }
static bool in_category(const task *t, const void *context) { return strcmp(t->category, context) == 0; }

static int by_name(const void *a, const void *b) {
    const task *x = a, *y = b;
    int order = strcmp(x->category, y->category);
    return order ? order : strcmp(x->name, y->name);
}

/* Tasks in the order of category and name; records keep their order inside. */
static task *collect(const json_t *records, int *n_tasks) {
    size_t n = json_array_size(records);
    task *tasks = sago_alloc_zero(n, sizeof *tasks);
    json_t *index = json_object();
    *n_tasks = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *record = json_array_get(records, i);
        const char *name = text_of(record, "task", "all");
        if (json_object_get(record, "target_tokens")) continue;
        const json_t *known = json_object_get(index, name);
        task *t = &tasks[known ? json_integer_value(known) : *n_tasks];
        if (!known) {
            json_object_set_new(index, name, json_integer((*n_tasks)++));
            t->name = name;
            t->category = text_of(record, "category", "all");
            t->held_out = json_is_true(json_object_get(record, "held_out"));
        }
        if ((t->n & (t->n - 1)) == 0)
            t->records = sago_realloc(t->records, (t->n ? 2 * (size_t)t->n : 1) * sizeof(const json_t *));
        t->records[t->n++] = record;
    }
    json_decref(index);
    qsort(tasks, (size_t)*n_tasks, sizeof *tasks, by_name);
    for (int i = 0; i < *n_tasks; i++) score_task(&tasks[i]);
    return tasks;
}

json_t *sago_records_summarise(const json_t *records, int resamples, uint64_t seed) {
    int n;
    task *tasks = collect(records, &n);
    json_t *out = json_object(), *categories = json_array(), *table = json_array();
    json_object_set_new(out, "overall", group(tasks, n, is_any, NULL, resamples, seed));
    json_object_set_new(out, "seen", group(tasks, n, is_seen, NULL, resamples, seed));
    json_object_set_new(out, "unseen", group(tasks, n, is_unseen, NULL, resamples, seed));
    for (int i = 0; i < n; i++) {
        if (i == 0 || strcmp(tasks[i].category, tasks[i - 1].category) != 0) {
            json_t *category = group(tasks, n, in_category, tasks[i].category, resamples, seed);
            json_object_set_new(category, "name", json_string(tasks[i].category));
            json_array_append_new(categories, category);
        }
        json_t *row = group(tasks, n, is_itself, &tasks[i], resamples, seed);
        json_object_set_new(row, "name", json_string(tasks[i].name));
        json_object_set_new(row, "category", json_string(tasks[i].category));
        json_object_set_new(row, "held_out", json_boolean(tasks[i].held_out));
        json_array_append_new(table, row);
    }
    json_object_set_new(out, "categories", categories);
    json_object_set_new(out, "tasks", table);
    json_t *text = sago_text_summarise(records, resamples, seed);
    if (json_array_size(text) > 0) json_object_set(out, "text", text);
    json_decref(text);
    for (int i = 0; i < n; i++) {
        for (int kind = 0; kind < N_KINDS; kind++) free(tasks[i].values[kind]);
        free(tasks[i].records);
    }
    free(tasks);
    return out;
}
