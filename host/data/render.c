// SPDX-License-Identifier: Apache-2.0
/* From fields to prompt and target, as text and as ids. */
#include "task.h"

#include "rng.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EXEMPLARS = 16 };

typedef struct rendered {
    sago_str inputs[MAX_EXEMPLARS], targets[MAX_EXEMPLARS];
    int64_t numbers[MAX_EXEMPLARS];
    int count;
} rendered;

/* A wording's part, or the source's own text where it is finished. */
static void add_inputs(const sago_wording *wording, const sago_fields *fields, sago_answer answer,
                       sago_str *out) {
    const sago_field *finished = sago_fields_find(fields, "inputs");
    if (wording)
        sago_pattern_render(wording->inputs, fields, answer, out);
    else if (finished)
        sago_str_puts(out, sago_str_text(sago_field_value(fields, finished, 0)));
}

static void add_targets(const sago_wording *wording, const sago_fields *fields, sago_answer answer,
                        sago_str *out) {
    const sago_field *right = sago_fields_find(fields, "answer");
    if (wording)
        sago_pattern_render(wording->targets, fields, answer, out);
    else if (right)
        sago_str_puts(out, sago_str_text(sago_field_value(fields, right, answer.value % right->count)));
}

bool sago_render_has_chain(const sago_member *member, const sago_fields *fields) {
    return member->chain_zero.n_all > 0 && sago_fields_find(fields, "chain") != NULL;
}

/* The j-th candidate of the task's exemplars: first those that came with the task, in an order that key
 * names, then training examples in such an order. -1: no more. */
static int64_t candidate(const sago_mixture *mixture, const sago_task *task, int64_t j, uint64_t key) {
    const sago_index_task *stored = sago_index_task_at(mixture->members[task->member].index, task->entry);
    if (j < stored->n_exemplars)
        return (int64_t)stored->n_examples + (int64_t)sago_permute((uint64_t)j, stored->n_exemplars, key);
    j -= stored->n_exemplars;
    if (j >= task->split.n_train) return -1;
    uint64_t place = sago_permute((uint64_t)j, (uint64_t)task->split.n_train, sago_mix(key, 1));
    return sago_task_example(mixture, task, SAGO_SPLIT_TRAIN, (int64_t)place);
}

static sago_status render_exemplars(const sago_mixture *mixture, const sago_task *task, uint32_t query,
                                    const sago_wording *wording, const sago_rendering *how, rendered *out) {
    const sago_index *index = mixture->members[task->member].index;
    const sago_record *records = sago_index_records(index, task->entry);
    const uint32_t n_examples = sago_index_task_at(index, task->entry)->n_examples;
    uint64_t used[MAX_EXEMPLARS + 1] = {records[query].hash};
    sago_fields fields = {0};
    sago_status status = SAGO_OK;
    /* Some candidates fall away (the query itself, doubles, no chain), so a few more than wanted are looked
     * at. */
    for (int64_t j = 0; out->count < how->n_exemplars && j < 2 * how->n_exemplars + 8; j++) {
        int64_t record = candidate(mixture, task, j, how->exemplar_key);
        if (record < 0) break;
        bool seen = record >= n_examples && !task->held_out &&
                    sago_split_is_eval(records[record].hash, mixture->config->data.eval_fraction);
        for (int i = 0; i <= out->count && !seen; i++) seen = used[i] == records[record].hash;
        if (seen) continue;
        SAGO_TRY_TO(done, sago_task_read(mixture, task, (uint32_t)record, &fields));
        if (how->chain && !sago_fields_find(&fields, "chain")) continue;
        sago_answer answer = {.value = 0, .option = -1};
        add_inputs(wording, &fields, answer, &out->inputs[out->count]);
        add_targets(wording, &fields, answer, &out->targets[out->count]);
        out->numbers[out->count] = record < n_examples ? record : -1 - (record - n_examples);
        used[++out->count] = records[record].hash;
    }
done:
    sago_fields_free(&fields);
    return status;
}

static void add_numbered(sago_str *out, const char *text, int number) {
    for (const char *mark; (mark = strstr(text, "{number}")); text = mark + 8) {
        sago_str_add(out, text, (size_t)(mark - text));
        sago_str_printf(out, "%d", number);
    }
    sago_str_puts(out, text);
}

static void trim_end(sago_str *text) {
    while (text->length && isspace((unsigned char)text->data[text->length - 1])) text->length--;
    if (text->data) text->data[text->length] = '\0';
}

/* instruction + exemplars and query in the style. */
static void lay_out(const sago_style *style, const sago_str *instruction, const rendered *exemplars,
                    int count, const sago_str *query, sago_str *out) {
    sago_str_clear(out);
    sago_str_puts(out, sago_str_text(instruction));
    if (out->length && out->data[out->length - 1] != '\n') {
        trim_end(out);
        sago_str_puts(out, "\n\n");
    }
    for (int i = 0; i <= count; i++) {
        add_numbered(out, style->before, i + 1);
        sago_str_puts(out, sago_str_text(i < count ? &exemplars->inputs[i] : query));
        add_numbered(out, style->between, i + 1);
        if (i == count) break;
        sago_str_puts(out, sago_str_text(&exemplars->targets[i]));
        add_numbered(out, style->after, i + 1);
    }
    trim_end(out);
}

static sago_status encode(const sago_mixture *mixture, const sago_str *text, bool ends, sago_ids *ids) {
    sago_ids_clear(ids);
    if (!mixture->tokenizer) return SAGO_OK;
    SAGO_TRY(sago_tokenizer_encode(mixture->tokenizer, sago_str_text(text), text->length, ids));
    if (ends) sago_ids_add(ids, SAGO_EOS_ID);
    return SAGO_OK;
}

/* A decoder-only model reads on from the inputs to the targets: only these end. */
static sago_status encode_inputs(const sago_mixture *mixture, sago_example *out) {
    return encode(mixture, &out->input_text, !mixture->decoder_only, &out->inputs);
}

/* Cuts to the limit and keeps a final EOS. */
static bool cut(sago_ids *ids, int64_t limit) {
    if (limit <= 0 || ids->length <= limit) return false;
    bool ended = ids->data[ids->length - 1] == SAGO_EOS_ID;
    ids->length = limit;
    if (ended) ids->data[limit - 1] = SAGO_EOS_ID;
    return true;
}

static sago_status make_prompt(const sago_mixture *mixture, const sago_task *task, uint32_t record,
                               const sago_fields *fields, const sago_wording *wording,
                               const sago_rendering *how, sago_example *out) {
    sago_str instruction = {0}, query = {0};
    rendered exemplars = {0};
    sago_answer answer = {.value = how->answer, .option = -1};
    sago_status status = SAGO_OK;
    int64_t limit = mixture->config->data.input_length;
    if (wording) sago_pattern_render(wording->instruction, fields, answer, &instruction);
    add_inputs(wording, fields, answer, &query);
    if (how->n_exemplars > 0)
        SAGO_TRY_TO(done, render_exemplars(mixture, task, record, wording, how, &exemplars));
    int styles = sago_templates_styles(mixture->templates), count = exemplars.count;
    const sago_style *style =
        sago_templates_style(mixture->templates, (int)sago_below(how->style_key, (uint64_t)styles));
    for (; count > 0; count--) {
        lay_out(style, &instruction, &exemplars, count, &query, &out->input_text);
        SAGO_TRY_TO(done, encode_inputs(mixture, out));
        if (limit <= 0 || out->inputs.length <= limit) break;
    }
    if (count == 0) {
        sago_str_clear(&out->input_text);
        sago_str_puts(&out->input_text, sago_str_text(&instruction));
        if (wording) sago_pattern_render(wording->lead, fields, answer, &out->input_text);
        sago_str_puts(&out->input_text, sago_str_text(&query));
        if (wording) sago_pattern_render(wording->cue, fields, answer, &out->input_text);
        SAGO_TRY_TO(done, encode_inputs(mixture, out));
    }
    out->n_exemplars = count;
    memcpy(out->exemplars, exemplars.numbers, (size_t)count * sizeof *out->exemplars);
done:
    for (int i = 0; i < MAX_EXEMPLARS; i++)
        sago_str_free(&exemplars.inputs[i]), sago_str_free(&exemplars.targets[i]);
    sago_str_free(&instruction);
    sago_str_free(&query);
    return status;
}

static sago_status copy_ids(const sago_mixture *mixture, const sago_task *task, uint32_t record,
                            const sago_ids *from, sago_ids *to) {
    sago_ids_clear(to);
    for (int64_t i = 0; i < from->length; i++) {
        if (mixture->vocab_size > 0 && from->data[i] >= mixture->vocab_size) {
            const sago_index *index = mixture->members[task->member].index;
            return sago_fail(SAGO_E_INPUT, "%s:%u: id %d is out of the vocabulary of %lld",
                             sago_index_path(index, task->entry),
                             sago_index_records(index, task->entry)[record].line, from->data[i],
                             (long long)mixture->vocab_size);
        }
        sago_ids_add(to, from->data[i]);
    }
    return SAGO_OK;
}

sago_status sago_render(const sago_mixture *mixture, int number, uint32_t record, sago_fields *fields,
                        const sago_rendering *how, sago_example *out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_member *member = &mixture->members[task->member];
    const sago_template_set *set;
    const sago_wording *wording = NULL;
    out->member = task->member;
    out->task = number;
    out->index = record;
    out->template_ = how->wording;
    out->chain_of_thought = how->chain;
    out->n_exemplars = 0;
    sago_str_clear(&out->input_text);
    sago_str_clear(&out->target_text);
    if (member->source.format == SAGO_FORMAT_IDS) {
        SAGO_TRY(copy_ids(mixture, task, record, &fields->input_ids, &out->inputs));
        SAGO_TRY(copy_ids(mixture, task, record, &fields->target_ids, &out->targets));
    } else {
        if (how->wording >= 0) sago_templates_find(mixture->templates, how->wording, &set, &wording);
        SAGO_TRY(make_prompt(mixture, task, record, fields, wording, how, out));
        add_targets(wording, fields, (sago_answer){.value = how->answer, .option = -1}, &out->target_text);
        SAGO_TRY(encode(mixture, &out->target_text, true, &out->targets));
    }
    bool inputs_cut = cut(&out->inputs, mixture->config->data.input_length);
    bool targets_cut = cut(&out->targets, mixture->config->data.target_length);
    out->truncated = inputs_cut || targets_cut;
    out->prompt_cut = inputs_cut;
    return SAGO_OK;
}
