// SPDX-License-Identifier: Apache-2.0
/**
 * Splits: which examples are trained on and which are kept for evaluation. Cut from the order by hash of the
 * normalised input, so equal inputs land on one side in every task, a split is found without looking at the
 * examples, and neither run.seed nor the order of files matters.
 */
#ifndef SAGO_SPLIT_H
#define SAGO_SPLIT_H

#include "index.h"

typedef struct sago_split_counts {
    uint32_t n_low;    /* examples whose hash is below the cut */
    bool low_is_train; /* for held-out tasks the low side serves as exemplars, the rest is evaluated */
    int64_t n_train, n_eval;
} sago_split_counts;

/**
 * Not held out: evaluation gets the hashes below eval_fraction. Held out: the low side are exemplars, about
 * 16 examples but at most an eighth, or none where the task brings exemplars of its own.
 */
sago_split_counts sago_split_task(const sago_index *index, int task, double eval_fraction, bool held_out);

/** True if the hash falls to evaluation in tasks that are not held out. */
bool sago_split_is_eval(uint64_t hash, double eval_fraction);

#endif
