// SPDX-License-Identifier: Apache-2.0
/* Examples as questions of an evaluation: the prompt, every right answer, and the answers to choose from. */
#include "mixture_text.h"
#include "rng.h"
#include "task.h"

#include <stdlib.h>
#include <string.h>

static void clear(sago_question *question) {
    for (int i = 0; i < question->n_references; i++) free(question->references[i]);
    for (int i = 0; i < question->n_options; i++) free(question->options[i]);
    free(question->references);
    free(question->options);
    question->references = question->options = NULL;
    question->n_references = question->n_options = 0;
    question->right_option = -1;
    question->answer_marker = "";
}

void sago_question_free(sago_question *question) {
    clear(question);
    sago_example_free(&question->example);
    *question = (sago_question){0};
}

static char *target_of(const sago_wording *wording, const sago_fields *fields, sago_answer answer) {
    sago_str text = {0};
    if (wording) {
        sago_pattern_render(wording->targets, fields, answer, &text);
    } else {
        const sago_field *field = sago_fields_find(fields, "answer");
        sago_str_puts(&text, sago_str_text(sago_field_value(fields, field, answer.value)));
    }
    return text.data ? text.data : sago_strdup("");
}

static void add_references(const sago_wording *wording, bool chain, const sago_fields *fields,
                           sago_question *out) {
    const sago_field *answer = sago_fields_find(fields, "answer");
    int count = answer ? answer->count : 0;
    out->references = sago_alloc_zero((size_t)count, sizeof *out->references);
    /* With a chain the target holds reasoning too, so the reference is the bare answer after the marker. */
    for (int i = 0; i < count; i++)
        out->references[out->n_references++] =
            chain ? sago_strdup(sago_str_text(sago_field_value(fields, answer, i)))
                  : target_of(wording, fields, (sago_answer){.value = i, .option = -1});
}

/* Options of the record itself. */
static void add_options(const sago_wording *wording, const sago_fields *fields, const sago_field *options,
                        sago_question *out) {
    out->options = sago_alloc_zero((size_t)options->count, sizeof *out->options);
    for (int i = 0; i < options->count; i++)
        out->options[out->n_options++] = target_of(wording, fields, (sago_answer){.option = i});
    out->right_option = fields->right_option;
}

/* The few answers that a whole task has stand as options where records bring none. */
static void add_labels(const sago_wording *wording, const char *labels, sago_fields *fields,
                       sago_question *out) {
    const sago_field *answer = sago_fields_find(fields, "answer");
    if (!answer || !labels[0]) return;
    sago_str *text = &fields->texts[answer->first];
    char *right = sago_strdup(sago_str_text(text));
    out->options = sago_alloc_zero(SAGO_MAX_LABELS, sizeof *out->options);
    for (const char *at = labels; *at && out->n_options < SAGO_MAX_LABELS;) {
        size_t n = strcspn(at, "\n");
        if (strlen(right) == n && memcmp(right, at, n) == 0) out->right_option = out->n_options;
        sago_str_clear(text);
        sago_str_add(text, at, n);
        out->options[out->n_options++] = target_of(wording, fields, (sago_answer){.value = 0, .option = -1});
        at += n + (at[n] == '\n');
    }
    sago_str_clear(text);
    sago_str_puts(text, right);
    free(right);
}

sago_status sago_mixture_question(const sago_mixture *mixture, int number, sago_split split, int64_t index,
                                  const sago_render_options *options, sago_question *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_member *member = &mixture->members[task->member];
    int64_t count = split == SAGO_SPLIT_TRAIN ? task->split.n_train : task->split.n_eval;
    clear(out);
    if (index < 0 || index >= count)
        return sago_fail(SAGO_E_INTERNAL, "question %lld of %lld", (long long)index, (long long)count);
    if (member->text) return sago_text_question(mixture, number, split, index, &out->example);
    /* Splits are cut from the order by hash; a fixed permutation of it would serve as well, so it is used as
     * it is. */
    uint32_t record = sago_task_example(mixture, task, split, index);
    sago_fields fields = {0};
    sago_status status = sago_task_read(mixture, task, record, &fields);
    if (status == SAGO_OK) {
        uint64_t key = sago_mix(sago_mix(options->seed, (uint64_t)number), record);
        sago_rendering how = {.wording = -1,
                              .chain = options->chain_of_thought && sago_render_has_chain(member, &fields),
                              .n_exemplars = options->n_exemplars > 16 ? 16 : options->n_exemplars,
                              .exemplar_key = sago_mix(key, 1),
                              .style_key = sago_mix(key, 2)};
        const sago_wording_list *list = !how.chain                 ? &member->direct
                                        : options->n_exemplars > 0 ? &member->chain_few
                                                                   : &member->chain_zero;
        if (list->n_plain > 0)
            how.wording = list->plain[(unsigned)options->wording % (unsigned)list->n_plain];
        status = sago_render(mixture, number, record, &fields, &how, &out->example);
        const sago_template_set *set;
        const sago_wording *wording = NULL;
        if (how.wording >= 0) sago_templates_find(mixture->templates, how.wording, &set, &wording);
        if (status == SAGO_OK) {
            add_references(wording, how.chain, &fields, out);
            const sago_field *choices = sago_fields_find(&fields, "options");
            const sago_index_task *stored = sago_index_task_at(member->index, task->entry);
            if (how.chain)
                out->answer_marker = wording->marker;
            else if (choices && choices->count > 1)
                add_options(wording, &fields, choices, out);
            else
                add_labels(wording, sago_index_string(member->index, stored->labels), &fields, out);
        }
    }
    sago_fields_free(&fields);
    return status;
}
