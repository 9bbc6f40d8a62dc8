// SPDX-License-Identifier: Apache-2.0
#include "task.h"

#include "rng.h"

#include <stdlib.h>

typedef struct slot {
    uint64_t key; /* 0: free */
    int task;
    uint32_t record;
} slot;

typedef struct set {
    slot *slots;
    uint64_t mask;
} set;

/* What is compared: the input, and the instruction that goes with it, since one input under two instructions
 * is two questions. */
static uint64_t key_of(const sago_index_task *stored, const sago_record *record) {
    uint64_t key = stored->instruction_hash ? sago_mix(stored->instruction_hash, record->hash) : record->hash;
    return key ? key : 1;
}

static slot *find(const set *in, uint64_t key) {
    uint64_t i = key & in->mask;
    while (in->slots[i].key && in->slots[i].key != key) i = (i + 1) & in->mask;
    return &in->slots[i];
}

static void add_held_out(const sago_mixture *mixture, int number, set *to) {
    const sago_task *task = &mixture->tasks[number];
    const sago_index *index = mixture->members[task->member].index;
    const sago_index_task *stored = sago_index_task_at(index, task->entry);
    const sago_record *records = sago_index_records(index, task->entry);
    for (int64_t i = 0; i < task->split.n_eval; i++) {
        uint32_t example = sago_task_example(mixture, task, SAGO_SPLIT_EVAL, i);
        uint64_t key = key_of(stored, &records[example]);
        slot *at = find(to, key);
        if (!at->key) *at = (slot){key, number, example};
    }
}

static sago_status check_task(const sago_mixture *mixture, int number, const set *held_out) {
    const sago_task *task = &mixture->tasks[number];
    const sago_index *index = mixture->members[task->member].index;
    const sago_index_task *stored = sago_index_task_at(index, task->entry);
    const sago_record *records = sago_index_records(index, task->entry);
    double eval_fraction = mixture->config->data.eval_fraction;
    /* A task's own exemplars stand in training prompts with their answers, so they count as trained on. */
    for (uint32_t i = 0; i < stored->n_examples + stored->n_exemplars; i++) {
        if (i < stored->n_examples && sago_split_is_eval(records[i].hash, eval_fraction)) continue;
        const slot *at = find(held_out, key_of(stored, &records[i]));
        if (!at->key) continue;
        const sago_task *other = &mixture->tasks[at->task];
        const sago_index *other_index = mixture->members[other->member].index;
        return sago_fail(
            SAGO_E_INPUT,
            "leak: %s:%u (training) and %s:%u (held out) hold the same input; take one away, hold out "
            "both tasks, or set data.leak_check: false",
            sago_index_path(index, task->entry), records[i].line, sago_index_path(other_index, other->entry),
            sago_index_records(other_index, other->entry)[at->record].line);
    }
    return SAGO_OK;
}

sago_status sago_leak_check(const sago_mixture *mixture) {
    uint64_t count = 0, room = 16;
    for (int t = 0; t < mixture->n_tasks; t++)
        if (mixture->tasks[t].held_out) count += (uint64_t)mixture->tasks[t].split.n_eval;
    if (count == 0) return SAGO_OK;
    while (room < 2 * count) room *= 2;
    set held_out = {.slots = sago_alloc_zero(room, sizeof(slot)), .mask = room - 1};
    for (int t = 0; t < mixture->n_tasks; t++)
        if (mixture->tasks[t].held_out) add_held_out(mixture, t, &held_out);
    sago_status status = SAGO_OK;
    for (int t = 0; t < mixture->n_tasks && status == SAGO_OK; t++)
        if (!mixture->tasks[t].held_out && mixture->members[mixture->tasks[t].member].share > 0 &&
            !mixture->members[mixture->tasks[t].member].text)
            status = check_task(mixture, t, &held_out);
    free(held_out.slots);
    return status;
}
