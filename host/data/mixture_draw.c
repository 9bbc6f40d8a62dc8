// SPDX-License-Identifier: Apache-2.0
/* From a draw number to an example: every choice is a function of (run.seed, draw number). */
#include "mixture_text.h"
#include "rng.h"
#include "task.h"

#include <stdlib.h>

/* What a hash of a draw is for; each choice has a key of its own. */
enum {
    FOR_PASS = 1, /* order of tasks in a pass of a member */
    FOR_EPOCH,    /* order of examples in an epoch of a task */
    FOR_PHASE,    /* where a member's line starts */
    FOR_WORDING,
    FOR_SHOTS,
    FOR_COUNT,
    FOR_CHAIN,
    FOR_EXEMPLARS,
    FOR_STYLE,
    FOR_ANSWER,
    FOR_OBJECTIVE
};

uint32_t sago_task_example(const sago_mixture *mixture, const sago_task *task, sago_split split, int64_t i) {
    bool low = (split == SAGO_SPLIT_TRAIN) == task->split.low_is_train;
    const uint32_t *order = sago_index_by_hash(mixture->members[task->member].index, task->entry);
    return order[(low ? 0 : (int64_t)task->split.n_low) + i];
}

sago_status sago_task_read(const sago_mixture *mixture, const sago_task *task, uint32_t record,
                           sago_fields *fields) {
    const sago_member *member = &mixture->members[task->member];
    const sago_index_task *stored = sago_index_task_at(member->index, task->entry);
    const char *note = sago_index_string(member->index, stored->note);
    sago_where where = {sago_index_path(member->index, task->entry),
                        sago_index_records(member->index, task->entry)[record].line};
    sago_str bytes = {0};
    sago_status status = sago_index_read(member->index, task->entry, record, &bytes);
    if (status == SAGO_OK)
        status = sago_source_parse(&member->source, where, note, sago_str_text(&bytes), bytes.length, fields);
    if (status == SAGO_OK && member->source.format == SAGO_FORMAT_NIV2)
        sago_str_puts(sago_fields_add(fields, "definition"), note);
    sago_str_free(&bytes);
    return status;
}

/* Member of draw d and its count of earlier draws. Each member takes its ratio of what the ones before leave:
 * of the first d numbers, floor(d * ratio + phase) exactly, so no run of draws strays from the shares. */
static int choose_member(const sago_mixture *mixture, uint64_t draw, uint64_t *within) {
    uint64_t left = draw, seed = (uint64_t)mixture->config->run.seed;
    int chosen = -1;
    for (int m = 0; m < mixture->n_members; m++) {
        const sago_member *member = &mixture->members[m];
        if (member->share <= 0) continue;
        chosen = m;
        if (member->takes_rest) break;
        uint64_t phase = sago_mix(sago_mix(seed, FOR_PHASE), (uint64_t)m) >> 32;
        uint64_t before = (uint64_t)(((unsigned __int128)left * member->ratio + phase) >> 32);
        uint64_t after = (uint64_t)(((unsigned __int128)(left + 1) * member->ratio + phase) >> 32);
        if (after > before) {
            left = before;
            break;
        }
        left -= before;
    }
    *within = left;
    return chosen;
}

/* Task of a member's n-th draw, and that task's count of earlier draws. */
static int choose_task(const sago_mixture *mixture, int m, uint64_t n, uint64_t *within) {
    const sago_member *member = &mixture->members[m];
    uint64_t total = member->cumulative[member->n_tasks], pass = n / total;
    uint64_t key =
        sago_mix(sago_mix(sago_mix((uint64_t)mixture->config->run.seed, FOR_PASS), (uint64_t)m), pass);
    uint64_t place = sago_permute(n % total, total, key);
    int low = 0, high = member->n_tasks;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (member->cumulative[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    uint64_t weight = member->cumulative[low + 1] - member->cumulative[low];
    *within = pass * weight + (place - member->cumulative[low]);
    return member->first_task + low;
}

static uint32_t choose_example(const sago_mixture *mixture, int number, uint64_t n) {
    const sago_task *task = &mixture->tasks[number];
    uint64_t count = (uint64_t)task->split.n_train, epoch = n / count;
    uint64_t key =
        sago_mix(sago_mix(sago_mix((uint64_t)mixture->config->run.seed, FOR_EPOCH), (uint64_t)number), epoch);
    return sago_task_example(mixture, task, SAGO_SPLIT_TRAIN, (int64_t)sago_permute(n % count, count, key));
}

/* The draw's task and place among its examples in sequential order. */
static uint64_t next_in_order(const sago_mixture *mixture, uint64_t draw, int *number) {
    int low = 0, high = mixture->n_tasks;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (mixture->sequential_start[middle] <= (int64_t)draw)
            low = middle;
        else
            high = middle;
    }
    *number = low;
    return draw - (uint64_t)mixture->sequential_start[low];
}

/* How to render a training example: wording, exemplars, chain of thought. */
static sago_rendering choose_rendering(const sago_mixture *mixture, const sago_member *member,
                                       const sago_fields *fields, uint64_t draw) {
    const sago_config *config = mixture->config;
    uint64_t key = sago_mix(sago_mix((uint64_t)config->run.seed, 0x5a60), draw);
    sago_rendering how = {
        .wording = -1, .exemplar_key = sago_mix(key, FOR_EXEMPLARS), .style_key = sago_mix(key, FOR_STYLE)};
    bool few_shot =
        config->data.max_exemplars > 0 && sago_unit(sago_mix(key, FOR_SHOTS)) < config->data.few_shot;
    if (few_shot)
        how.n_exemplars = 1 + (int)sago_below(sago_mix(key, FOR_COUNT), (uint64_t)config->data.max_exemplars);
    how.chain =
        sago_render_has_chain(member, fields) && sago_unit(sago_mix(key, FOR_CHAIN)) < config->data.cot;
    const sago_wording_list *list = !how.chain ? &member->direct
                                    : few_shot ? &member->chain_few
                                               : &member->chain_zero;
    if (list->n_all > 0)
        how.wording = list->all[sago_below(sago_mix(key, FOR_WORDING), (uint64_t)list->n_all)];
    const sago_field *answer = sago_fields_find(fields, "answer");
    if (answer) how.answer = (int)sago_below(sago_mix(key, FOR_ANSWER), (uint64_t)answer->count);
    return how;
}

sago_status sago_mixture_drawable(const sago_mixture *mixture) {
    if (!mixture->undrawable) return SAGO_OK;
    return sago_fail(SAGO_E_CONFIG, "data.mixture: nothing is left to train on: every member's share is 0 or all "
                                    "of its tasks are held out");
}

sago_status sago_mixture_draw(const sago_mixture *mixture, uint64_t draw, sago_example *out, bool *end) {
    int number;
    uint64_t within = 0;
    if (end) *end = false;
    SAGO_TRY(sago_mixture_drawable(mixture));
    if (mixture->sequential) {
        if (draw >= (uint64_t)mixture->sequential_start[mixture->n_tasks]) {
            if (end) *end = true;
            return SAGO_OK;
        }
        within = next_in_order(mixture, draw, &number);
    } else {
        int m = choose_member(mixture, draw, &within);
        number = choose_task(mixture, m, within, &within);
    }
    const sago_task *task = &mixture->tasks[number];
    if (mixture->members[task->member].text) {
        uint64_t key = sago_mix(sago_mix((uint64_t)mixture->config->run.seed, FOR_OBJECTIVE), draw);
        return sago_text_draw(mixture, number, within, key, out);
    }
    uint32_t record = !mixture->sequential ? choose_example(mixture, number, within)
                      : task->train_order  ? task->train_order[within]
                                           : (uint32_t)within;
    sago_fields fields = {0};
    sago_status status = sago_task_read(mixture, task, record, &fields);
    if (status == SAGO_OK) {
        sago_rendering how = choose_rendering(mixture, &mixture->members[task->member], &fields, draw);
        status = sago_render(mixture, number, record, &fields, &how, out);
    }
    sago_fields_free(&fields);
    return status;
}

void sago_example_free(sago_example *example) {
    sago_ids_free(&example->inputs);
    sago_ids_free(&example->targets);
    sago_str_free(&example->input_text);
    sago_str_free(&example->target_text);
    *example = (sago_example){0};
}
