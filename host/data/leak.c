// SPDX-License-Identifier: Apache-2.0
#include "leak.h"

#include "rng.h"

#include <stdlib.h>

typedef struct slot {
    uint64_t key; /* 0: free */
    sago_leak_place place;
} slot;

struct sago_leaks {
    slot *slots;
    uint64_t mask;
};

/* What is compared: the input, and the instruction that goes with it, since one input under two instructions
 * is two questions. */
static uint64_t key_of(const sago_index_task *stored, const sago_record *record) {
    uint64_t key = stored->instruction_hash ? sago_mix(stored->instruction_hash, record->hash) : record->hash;
    return key ? key : 1;
}

static slot *find(const sago_leaks *in, uint64_t key) {
    uint64_t i = key & in->mask;
    while (in->slots[i].key && in->slots[i].key != key) i = (i + 1) & in->mask;
    return &in->slots[i];
}

const sago_leak_place *sago_leaks_find(const sago_leaks *leaks, const sago_index_task *stored,
                                       const sago_record *record) {
    const slot *at = leaks ? find(leaks, key_of(stored, record)) : NULL;
    return at && at->key ? &at->place : NULL;
}

static void add(sago_leaks *to, const sago_mixture *mixture, int member, int entry, uint32_t record) {
    const sago_index *index = mixture->members[member].index;
    uint64_t key = key_of(sago_index_task_at(index, entry), &sago_index_records(index, entry)[record]);
    slot *at = find(to, key);
    if (!at->key) *at = (slot){key, {member, entry, record}};
}

static uint64_t count_documents(const sago_member *member) {
    uint64_t count = 0;
    for (int f = 0; f < sago_index_tasks(member->index); f++)
        count += sago_index_task_at(member->index, f)->n_exemplars;
    return count;
}

void sago_leaks_open(const sago_mixture *mixture, sago_leaks **out) {
    uint64_t count = 0, room = 16;
    *out = NULL;
    for (int t = 0; t < mixture->n_tasks; t++)
        if (mixture->tasks[t].held_out) count += (uint64_t)mixture->tasks[t].split.n_eval;
    for (int m = 0; m < mixture->n_members; m++)
        if (sago_member_held_out(mixture, m) && mixture->members[m].text)
            count += count_documents(&mixture->members[m]);
    if (count == 0) return;
    while (room < 2 * count) room *= 2;
    sago_leaks *leaks = *out = sago_alloc_zero(1, sizeof *leaks);
    leaks->slots = sago_alloc_zero(room, sizeof *leaks->slots);
    leaks->mask = room - 1;
    for (int t = 0; t < mixture->n_tasks; t++) {
        const sago_task *task = &mixture->tasks[t];
        for (int64_t i = 0; task->held_out && i < task->split.n_eval; i++)
            add(leaks, mixture, task->member, task->entry,
                sago_task_example(mixture, task, SAGO_SPLIT_EVAL, i));
    }
    for (int m = 0; m < mixture->n_members; m++) {
        const sago_index *index = mixture->members[m].index;
        if (!mixture->members[m].text || !sago_member_held_out(mixture, m)) continue;
        for (int f = 0; f < sago_index_tasks(index); f++) {
            const sago_index_task *stored = sago_index_task_at(index, f);
            for (uint32_t d = 0; d < stored->n_exemplars; d++)
                add(leaks, mixture, m, f, stored->n_examples + d);
        }
    }
}

void sago_leaks_close(sago_leaks *leaks) {
    if (!leaks) return;
    free(leaks->slots);
    free(leaks);
}

char *sago_leak_where(const sago_mixture *mixture, const sago_leak_place *place) {
    const sago_index *index = mixture->members[place->member].index;
    return sago_format("%s:%u", sago_index_path(index, place->entry),
                       sago_index_records(index, place->entry)[place->record].line);
}

static sago_status check_task(const sago_mixture *mixture, int number, const sago_leaks *leaks) {
    const sago_task *task = &mixture->tasks[number];
    const sago_index *index = mixture->members[task->member].index;
    const sago_index_task *stored = sago_index_task_at(index, task->entry);
    const sago_record *records = sago_index_records(index, task->entry);
    double eval_fraction = mixture->config->data.eval_fraction;
    /* A task's own exemplars stand in training prompts with their answers, so they count as trained on. */
    for (uint32_t i = 0; i < stored->n_examples + stored->n_exemplars; i++) {
        if (i < stored->n_examples && sago_split_is_eval(records[i].hash, eval_fraction)) continue;
        const sago_leak_place *place = sago_leaks_find(leaks, stored, &records[i]);
        if (!place) continue;
        char *held_out = sago_leak_where(mixture, place);
        sago_status status =
            sago_fail(SAGO_E_INPUT,
                      "leak: %s:%u (training) and %s (held out) hold the same input; take one away, hold out "
                      "both tasks, or set data.leak_check: false",
                      sago_index_path(index, task->entry), records[i].line, held_out);
        free(held_out);
        return status;
    }
    return SAGO_OK;
}

sago_status sago_leaks_check(const sago_mixture *mixture, const sago_leaks *leaks) {
    for (int t = 0; leaks && t < mixture->n_tasks; t++) {
        const sago_member *member = &mixture->members[mixture->tasks[t].member];
        if (!mixture->tasks[t].held_out && member->share > 0 && !member->text)
            SAGO_TRY(check_task(mixture, t, leaks));
    }
    return SAGO_OK;
}
