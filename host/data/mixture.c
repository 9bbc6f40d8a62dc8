// SPDX-License-Identifier: Apache-2.0
#include "mixture.h"

#include "leak.h"
#include "log.h"
#include "mixture_text.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- wordings that fit a member ---- */

static bool has_field(const sago_source *source, const char *name) {
    static const char *const niv2[] = {"definition", "input", "answer", NULL};
    static const char *const cot[] = {"question", "answer", "chain", NULL};
    static const char *const jsonl[] = {"inputs", "answer", NULL};
    if (source->format == SAGO_FORMAT_TABLE) {
        for (int i = 0; i < source->mapping->n_fields; i++)
            if (!strcmp(source->mapping->fields[i].name, name)) return true;
        return source->mapping->answer_after[0] && !strcmp(name, "chain");
    }
    const char *const *names = source->format == SAGO_FORMAT_NIV2  ? niv2
                               : source->format == SAGO_FORMAT_COT ? cot
                                                                   : jsonl;
    for (; *names; names++)
        if (!strcmp(*names, name)) return true;
    return false;
}

static const char *lacking(const sago_source *source, const sago_wording *wording) {
    const sago_pattern *const parts[] = {wording->instruction, wording->lead, wording->inputs, wording->cue,
                                         wording->targets};
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        const char *name;
        for (int i = 0; (name = sago_pattern_needs(parts[p], i)); i++)
            if (!has_field(source, name)) return name;
    }
    return NULL;
}

static sago_status list_wordings(sago_mixture *mixture, const sago_member *member, const char *set_name,
                                 sago_wording_list *out) {
    const sago_template_set *set;
    SAGO_TRY(sago_templates_set(mixture->templates, set_name, &set));
    out->all = sago_alloc_zero((size_t)set->n_wordings, sizeof *out->all);
    out->plain = sago_alloc_zero((size_t)set->n_wordings, sizeof *out->plain);
    const char *missing = NULL;
    for (int i = 0; i < set->n_wordings; i++) {
        const sago_wording *wording = &set->wordings[i];
        const char *name = lacking(&member->source, wording);
        if (name) missing = name;
        if (name || (wording->inverted && member->source.mapping && !member->source.mapping->inverted))
            continue;
        out->all[out->n_all++] = set->first + i;
        if (!wording->inverted) out->plain[out->n_plain++] = set->first + i;
    }
    if (out->n_plain == 0)
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": no wording of the templates \"%s\" fits; the field \"%s\" is "
                         "missing",
                         member->name, set_name, missing ? missing : "answer");
    return SAGO_OK;
}

static sago_status open_templates(sago_mixture *mixture, const sago_config_member *from,
                                  sago_member *member) {
    bool named = from->template_ && from->template_[0];
    member->category = "text";
    if (member->source.format == SAGO_FORMAT_IDS || member->text) return SAGO_OK;
    if (member->source.format == SAGO_FORMAT_TABLE) {
        member->category = member->source.mapping->category;
    } else if (named) {
        member->category = from->template_;
    } else if (member->source.format == SAGO_FORMAT_NIV2) {
        member->category = "instruction";
    } else if (member->source.format == SAGO_FORMAT_COT) {
        member->category = "direct";
    } else {
        return SAGO_OK; /* jsonl: finished text */
    }
    SAGO_TRY(list_wordings(mixture, member, member->category, &member->direct));
    if (!has_field(&member->source, "chain")) return SAGO_OK;
    SAGO_TRY(list_wordings(mixture, member, "cot_zero_shot", &member->chain_zero));
    return list_wordings(mixture, member, "cot_few_shot", &member->chain_few);
}

/* ---- opening ---- */

static sago_status open_source(sago_mixture *mixture, const sago_config_member *from, sago_source *source) {
    SAGO_TRY(sago_source_format_parse(from->format, &source->format));
    source->inputs_optional = mixture->decoder_only && source->format == SAGO_FORMAT_IDS;
    if (source->format == SAGO_FORMAT_TEXT) {
        source->tokenizer = mixture->tokenizer;
        source->whole_files = strcmp(from->document, "file") == 0;
        if (!mixture->tokenizer)
            return sago_fail(SAGO_E_CONFIG, "member \"%s\": format text needs data.tokenizer", from->name);
    }
    if (source->format != SAGO_FORMAT_TABLE) return SAGO_OK;
    if (!from->template_ || !from->template_[0])
        return sago_fail(SAGO_E_CONFIG,
                         "member \"%s\": format table needs template: the name of a mapping, or a file "
                         "that ends with .yaml",
                         from->name);
    sago_status status = sago_templates_mapping(mixture->templates, from->template_, &source->mapping);
    return sago_wrap(status, "member \"%s\"", from->name);
}

static int scan_threads(const sago_config *config) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t threads = config->threads > 0 ? config->threads : cores;
    return threads < 1 ? 1 : threads > 32 ? 32 : (int)threads;
}

static sago_status open_member(sago_mixture *mixture, const sago_config_member *from, sago_member *member) {
    const sago_config *config = mixture->config;
    member->name = sago_strdup(from->name);
    member->format = sago_strdup(from->format);
    member->share = from->share;
    member->cap = from->cap;
    SAGO_TRY(open_source(mixture, from, &member->source));
    SAGO_TRY(sago_index_open(&member->source, from->path, config->data.cache_dir, &from->include,
                             &from->exclude, scan_threads(config), &member->index));
    if (member->source.format == SAGO_FORMAT_TEXT) SAGO_TRY(sago_text_member_open(mixture, from, member));
    SAGO_TRY(open_templates(mixture, from, member));
    member->first_task = mixture->n_tasks;
    member->n_tasks = member->text ? sago_text_member_tasks(member) : sago_index_tasks(member->index);
    mixture->tasks =
        sago_realloc(mixture->tasks, (size_t)(mixture->n_tasks + member->n_tasks) * sizeof *mixture->tasks);
    for (int i = 0; i < member->n_tasks; i++)
        mixture->tasks[mixture->n_tasks++] =
            (sago_task){.member = (int)(member - mixture->members), .entry = i};
    return SAGO_OK;
}

/* Published sets hold tasks whose answers were withheld. They are kept as they are, but not without a word.
 */
static void tell_of_empty_tasks(const sago_mixture *mixture, const sago_member *member) {
    sago_str names = {0};
    int count = 0;
    for (int i = 0; i < member->n_tasks && !member->text; i++) {
        const sago_index_task *stored = sago_index_task_at(member->index, i);
        if (stored->n_empty < stored->n_examples || mixture->tasks[member->first_task + i].held_out) continue;
        if (count++ < 3)
            sago_str_printf(&names, "%s%s", count > 1 ? ", " : "",
                            sago_index_string(member->index, stored->name));
    }
    if (count)
        sago_info("member \"%s\": every target of %d of its tasks is empty (%s%s); exclude: leaves tasks out",
                  member->name, count, sago_str_text(&names), count > 3 ? ", ..." : "");
    sago_str_free(&names);
}

static void add_category(sago_task *task, const char *text, size_t length) {
    task->categories =
        sago_realloc(task->categories, (size_t)(task->n_categories + 1) * sizeof *task->categories);
    task->categories[task->n_categories++] = sago_strndup(text, length);
}

static void read_categories(const sago_mixture *mixture, sago_task *task) {
    const sago_member *member = &mixture->members[task->member];
    const char *at =
        member->text
            ? ""
            : sago_index_string(member->index, sago_index_task_at(member->index, task->entry)->categories);
    while (*at) {
        size_t n = strcspn(at, "\n");
        add_category(task, at, n);
        at += n + (at[n] == '\n');
    }
    const sago_mapping *mapping = member->source.mapping;
    for (int i = 0; mapping && i < mapping->n_categories; i++)
        add_category(task, mapping->categories[i], strlen(mapping->categories[i]));
    if (mapping && mapping->n_categories == 0)
        add_category(task, mapping->category, strlen(mapping->category));
    if (member->source.format == SAGO_FORMAT_COT) add_category(task, "chain_of_thought", 16);
    /* Finished texts say nothing of their kind: the member stands for it. */
    if (task->n_categories == 0) add_category(task, member->name, strlen(member->name));
}

/* The first line with an id that the vocabulary lacks; the index knows that there is one. */
static sago_status refuse_ids(const sago_mixture *mixture, const sago_task *task) {
    const sago_member *member = &mixture->members[task->member];
    const sago_index_task *stored = sago_index_task_at(member->index, task->entry);
    sago_fields fields = {0};
    sago_status status = SAGO_OK;
    for (uint32_t i = 0; i < stored->n_examples && status == SAGO_OK; i++) {
        status = sago_task_read(mixture, task, i, &fields);
        const sago_ids *lists[] = {&fields.input_ids, &fields.target_ids};
        for (int k = 0; k < 2 && status == SAGO_OK; k++)
            for (int64_t j = 0; j < lists[k]->length && status == SAGO_OK; j++)
                if (lists[k]->data[j] >= mixture->vocab_size)
                    status = sago_fail(SAGO_E_INPUT, "%s:%u: id %d is out of the vocabulary of %lld",
                                       sago_index_path(member->index, task->entry),
                                       sago_index_records(member->index, task->entry)[i].line,
                                       lists[k]->data[j], (long long)mixture->vocab_size);
    }
    sago_fields_free(&fields);
    return status;
}

static sago_status open_task(sago_mixture *mixture, int number) {
    sago_task *task = &mixture->tasks[number];
    const sago_member *member = &mixture->members[task->member];
    const sago_config *config = mixture->config;
    read_categories(mixture, task);
    for (int i = 0; i < config->data.holdout.count && !task->held_out; i++)
        task->held_out = sago_mixture_task_matches(mixture, number, config->data.holdout.items[i]);
    if (member->text) return SAGO_OK; /* split_texts */
    task->split = sago_split_task(member->index, task->entry, config->data.eval_fraction, task->held_out);
    if (!task->held_out) {
        task->weight = task->split.n_train;
        if (member->cap > 0 && task->weight > member->cap) task->weight = member->cap;
    }
    if (mixture->vocab_size > 0 &&
        sago_index_task_at(member->index, task->entry)->max_id >= mixture->vocab_size)
        return refuse_ids(mixture, task);
    return SAGO_OK;
}

static sago_status check_holdout(const sago_mixture *mixture) {
    const sago_string_list *patterns = &mixture->config->data.holdout;
    for (int i = 0; i < patterns->count; i++) {
        bool used = false;
        for (int t = 0; t < mixture->n_tasks && !used; t++)
            used = sago_mixture_task_matches(mixture, t, patterns->items[i]);
        if (!used)
            return sago_fail(SAGO_E_CONFIG, "data.holdout: \"%s\" matches no task, category or member",
                             patterns->items[i]);
    }
    return SAGO_OK;
}

bool sago_member_held_out(const sago_mixture *mixture, int m) {
    const sago_member *member = &mixture->members[m];
    int t = member->first_task, end = t + member->n_tasks;
    while (t < end && mixture->tasks[t].held_out) t++;
    return t == end;
}

/* Splits of text, and what the leak check says to all. Documents are dropped, instruction tasks refused. */
static sago_status split_texts(sago_mixture *mixture) {
    sago_leaks *leaks = NULL;
    sago_status status = SAGO_OK;
    if (mixture->config->data.leak_check) sago_leaks_open(mixture, &leaks);
    SAGO_TRY_TO(done, sago_leaks_check(mixture, leaks));
    for (int m = 0; m < mixture->n_members; m++)
        if (mixture->members[m].text) SAGO_TRY_TO(done, sago_text_member_split(mixture, m, leaks));
    for (int t = 0; t < mixture->n_tasks; t++) {
        sago_task *task = &mixture->tasks[t];
        const sago_member *member = &mixture->members[task->member];
        if (!member->text) continue;
        task->split.n_train = sago_text_task_pieces(member, task->entry, SAGO_SPLIT_TRAIN);
        task->split.n_eval = sago_text_task_pieces(member, task->entry, SAGO_SPLIT_EVAL);
        task->weight = task->held_out ? 0 : sago_text_task_weight(member, task->entry);
    }
done:
    sago_leaks_close(leaks);
    return status;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Sequential order needs the training examples in file order; only where some are kept for evaluation is that
 * a list. */
static void plan_sequential(sago_mixture *mixture) {
    mixture->sequential_start =
        sago_alloc_zero((size_t)mixture->n_tasks + 1, sizeof *mixture->sequential_start);
    for (int t = 0; t < mixture->n_tasks; t++) {
        sago_task *task = &mixture->tasks[t];
        int64_t count = task->held_out ? 0 : task->split.n_train;
        mixture->sequential_start[t + 1] = mixture->sequential_start[t] + count;
        if (count == 0 || task->split.n_eval == 0 || mixture->members[task->member].text) continue;
        task->train_order = sago_alloc((size_t)count * sizeof *task->train_order);
        for (int64_t i = 0; i < count; i++)
            task->train_order[i] = sago_task_example(mixture, task, SAGO_SPLIT_TRAIN, i);
        qsort(task->train_order, (size_t)count, sizeof *task->train_order, by_value);
    }
}

/* Weights of tasks within members, and members' shares as a chain of ratios: of what earlier members leave.
 */
static void plan_draws(sago_mixture *mixture) {
    double total = 0, left = 1;
    for (int m = 0; m < mixture->n_members; m++) {
        sago_member *member = &mixture->members[m];
        member->cumulative = sago_alloc_zero((size_t)member->n_tasks + 1, sizeof *member->cumulative);
        for (int i = 0; i < member->n_tasks; i++)
            member->cumulative[i + 1] =
                member->cumulative[i] + (uint64_t)mixture->tasks[member->first_task + i].weight;
        /* A member whose tasks are all held out is there for evaluation. */
        if (member->cumulative[member->n_tasks] == 0) member->share = 0;
        total += member->share;
    }
    /* Held-out tasks alone can still be evaluated; a draw is refused. */
    mixture->undrawable = total <= 0;
    if (mixture->undrawable) return;
    for (int m = 0; m < mixture->n_members; m++) {
        sago_member *member = &mixture->members[m];
        member->share /= total;
        double ratio = left > 0 ? member->share / left * 0x1p32 : 0;
        member->ratio = ratio < 1 ? 1 : ratio > 0xFFFFFFFFu ? 0xFFFFFFFFu : (uint32_t)ratio;
        member->takes_rest = true;
        for (int k = m + 1; k < mixture->n_members; k++)
            if (mixture->members[k].share > 0) member->takes_rest = false;
        left -= member->share;
    }
}

sago_status sago_mixture_open(const sago_config *config, const sago_tokenizer *tokenizer, int64_t vocab_size,
                              bool decoder_only, sago_mixture **out) {
    sago_mixture *mixture = sago_alloc_zero(1, sizeof *mixture);
    sago_status status = SAGO_OK;
    *out = NULL;
    mixture->config = config;
    mixture->tokenizer = tokenizer;
    mixture->vocab_size = vocab_size;
    mixture->decoder_only = decoder_only;
    mixture->sequential = config->data.order && strcmp(config->data.order, "sequential") == 0;
    mixture->n_members = config->data.n_mixture;
    mixture->members = sago_alloc_zero((size_t)mixture->n_members, sizeof *mixture->members);
    if (mixture->n_members == 0) {
        status =
            sago_fail(SAGO_E_CONFIG, "data.mixture has no members: name at least one with format and path");
        goto done;
    }
    SAGO_TRY_TO(done, sago_templates_open(config->data.templates, &mixture->templates));
    for (int m = 0; m < mixture->n_members; m++)
        SAGO_TRY_TO(done, open_member(mixture, &config->data.mixture[m], &mixture->members[m]));
    for (int t = 0; t < mixture->n_tasks; t++) SAGO_TRY_TO(done, open_task(mixture, t));
    for (int m = 0; m < mixture->n_members; m++) tell_of_empty_tasks(mixture, &mixture->members[m]);
    SAGO_TRY_TO(done, check_holdout(mixture));
    SAGO_TRY_TO(done, split_texts(mixture));
    plan_draws(mixture);
    if (mixture->sequential) plan_sequential(mixture);
    *out = mixture;
done:
    if (status != SAGO_OK) sago_mixture_close(mixture);
    return status;
}

static void free_list(sago_wording_list *list) {
    free(list->all);
    free(list->plain);
}

void sago_mixture_close(sago_mixture *mixture) {
    if (!mixture) return;
    for (int t = 0; t < mixture->n_tasks; t++) {
        for (int i = 0; i < mixture->tasks[t].n_categories; i++) free(mixture->tasks[t].categories[i]);
        free(mixture->tasks[t].categories);
        free(mixture->tasks[t].train_order);
    }
    for (int m = 0; m < mixture->n_members; m++) {
        sago_member *member = &mixture->members[m];
        free(member->name), free(member->format), free(member->cumulative);
        free_list(&member->direct), free_list(&member->chain_zero), free_list(&member->chain_few);
        sago_text_member_close(member);
        sago_index_close(member->index);
    }
    sago_templates_close(mixture->templates);
    free(mixture->sequential_start), free(mixture->tasks), free(mixture->members);
    free(mixture);
}

/* ---- what others ask ---- */

int64_t sago_mixture_length(const sago_mixture *mixture) {
    return mixture->sequential ? mixture->sequential_start[mixture->n_tasks] : -1;
}

int sago_mixture_members(const sago_mixture *mixture) {
    return mixture->n_members;
}

void sago_mixture_member_info(const sago_mixture *mixture, int member, sago_mixture_member *out) {
    const sago_member *from = &mixture->members[member];
    *out = (sago_mixture_member){.name = from->name,
                                 .format = from->format,
                                 .share = from->share,
                                 .first_task = from->first_task,
                                 .n_tasks = from->n_tasks};
    if (from->text) sago_text_member_counts(from, &out->documents);
}

int sago_mixture_tasks(const sago_mixture *mixture) {
    return mixture->n_tasks;
}

static const char *name_of(const sago_mixture *mixture, const sago_task *task) {
    const sago_member *member = &mixture->members[task->member];
    if (member->text) return sago_text_task_name(member, task->entry);
    return sago_index_string(member->index, sago_index_task_at(member->index, task->entry)->name);
}

void sago_mixture_task_info(const sago_mixture *mixture, int number, sago_mixture_task *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_member *member = &mixture->members[task->member];
    uint64_t weights = member->cumulative[member->n_tasks];
    const sago_index_task *stored = member->text ? NULL : sago_index_task_at(member->index, task->entry);
    *out = (sago_mixture_task){
        .name = name_of(mixture, task),
        .categories = (const char *const *)task->categories,
        .n_categories = task->n_categories,
        .member = task->member,
        .held_out = task->held_out,
        .is_text = member->text != NULL,
        .n_examples = stored ? stored->n_examples : task->split.n_train + task->split.n_eval,
        .n_train = task->split.n_train,
        .n_eval = task->split.n_eval,
        .proportion = weights ? member->share * (double)task->weight / (double)weights : 0,
        .category = member->category};
}

static bool matches(const char *pattern, const char *text) {
    char *small_pattern = sago_strdup(pattern), *small_text = sago_strdup(text);
    for (char *p = small_pattern; *p; p++) *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    for (char *p = small_text; *p; p++) *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    bool same = sago_glob_match(small_pattern, small_text);
    free(small_pattern), free(small_text);
    return same;
}

bool sago_mixture_task_matches(const sago_mixture *mixture, int number, const char *pattern) {
    const sago_task *task = &mixture->tasks[number];
    if (matches(pattern, name_of(mixture, task)) || matches(pattern, mixture->members[task->member].name))
        return true;
    for (int i = 0; i < task->n_categories; i++)
        if (matches(pattern, task->categories[i])) return true;
    return false;
}

const char *sago_mixture_template_name(const sago_mixture *mixture, int template_) {
    return sago_templates_name(mixture->templates, template_);
}

char *sago_mixture_example_where(const sago_mixture *mixture, int number, int64_t example) {
    const sago_task *task = &mixture->tasks[number];
    const sago_index *index = mixture->members[task->member].index;
    if (mixture->members[task->member].text)
        return sago_format("%s: piece %lld", mixture->members[task->member].name, (long long)example);
    return sago_format("%s:%u", sago_index_path(index, task->entry),
                       sago_index_records(index, task->entry)[example].line);
}
