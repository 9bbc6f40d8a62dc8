// SPDX-License-Identifier: Apache-2.0
/**
 * Text members of a mixture: a corpus under an objective. Each denoiser of the objective is a task, which
 * takes pieces of its own length from passes over the whole corpus.
 *
 * The n-th draw of a task, with P = tokens / length pieces a pass: pass n / P, and of it the piece n mod P of
 * a permutation of the pieces. A pass has its own order of documents; all tasks of a member have the same in
 * the same pass. So what a draw holds is a function of (seed, n), and what it does to the piece one of (seed,
 * draw number). Less than one piece a pass, at its end, is left out. In sequential order there is one pass,
 * in file order.
 *
 * Split: a document whose hash is below data.eval_fraction of all is kept for evaluation, and every document
 * of a member whose every task is held out; the others are trained on, but for copies of what is held out
 * elsewhere (leak.h). Two corpora over one index hold the two sides. Evaluation reads its side once, in an
 * order that is no choice of run.seed, in pieces as long as those of training; its last piece may be shorter.
 */
#ifndef SAGO_MIXTURE_TEXT_H
#define SAGO_MIXTURE_TEXT_H

#include "leak.h"
#include "task.h"

/** Opens what a member of format text has beside its index, which is open. */
sago_status sago_text_member_open(const sago_mixture *mixture, const sago_config_member *from,
                                  sago_member *member) SAGO_MUST_CHECK;
void sago_text_member_close(sago_member *member);

/** Splits its documents; tasks know whether they are held out. Says which copies of held-out documents it
 * drops. SAGO_E_INPUT where too little is left to train on. */
sago_status sago_text_member_split(const sago_mixture *mixture, int member,
                                   const sago_leaks *leaks) SAGO_MUST_CHECK;
void sago_text_member_counts(const sago_member *member, sago_text_counts *out);

/** Tasks of the member, and of each its name, weight among the draws and pieces (of training, a pass). */
int sago_text_member_tasks(const sago_member *member);
const char *sago_text_task_name(const sago_member *member, int entry);
int64_t sago_text_task_weight(const sago_member *member, int entry);
int64_t sago_text_task_pieces(const sago_member *member, int entry, sago_split split);

/** The example of a task's n-th draw; key: of the draw. */
sago_status sago_text_draw(const sago_mixture *mixture, int task, uint64_t n, uint64_t key,
                           sago_example *out) SAGO_MUST_CHECK;

/** Piece number index of a split, to be scored. A causal piece has its first id for inputs, since nothing
 * comes before it that could predict it; it is the last one of the piece before, so that all but the first id
 * of the split are targets once. */
sago_status sago_text_question(const sago_mixture *mixture, int task, sago_split split, int64_t index,
                               sago_example *out) SAGO_MUST_CHECK;

#endif
