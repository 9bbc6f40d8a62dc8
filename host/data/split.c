// SPDX-License-Identifier: Apache-2.0
#include "split.h"

/* The cut is on the hash itself, in whose order by_hash stands; XXH3 spreads it evenly. */
static uint64_t cut_of(double fraction) {
    return fraction >= 1 ? UINT64_MAX : fraction <= 0 ? 0 : (uint64_t)(fraction * 0x1p64);
}

bool sago_split_is_eval(uint64_t hash, double eval_fraction) {
    return hash < cut_of(eval_fraction);
}

static uint32_t count_below(const sago_index *index, int task, uint64_t cut) {
    const sago_record *records = sago_index_records(index, task);
    const uint32_t *order = sago_index_by_hash(index, task);
    uint32_t low = 0, high = sago_index_task_at(index, task)->n_examples;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (records[order[middle]].hash < cut)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sago_split_counts sago_split_task(const sago_index *index, int task, double eval_fraction, bool held_out) {
    const sago_index_task *stored = sago_index_task_at(index, task);
    sago_split_counts counts = {.low_is_train = held_out};
    double fraction = eval_fraction;
    if (held_out) {
        fraction = stored->n_exemplars ? 0 : 16.0 / stored->n_examples;
        if (fraction > 0.125) fraction = 0.125;
    }
    counts.n_low = count_below(index, task, cut_of(fraction));
    int64_t rest = (int64_t)stored->n_examples - counts.n_low;
    counts.n_train = held_out ? counts.n_low : rest;
    counts.n_eval = held_out ? rest : counts.n_low;
    return counts;
}
