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
 */
#ifndef SAGO_MIXTURE_TEXT_H
#define SAGO_MIXTURE_TEXT_H

#include "task.h"

/** Opens what a member of format text has beside its index, which is open. */
sago_status sago_text_member_open(const sago_mixture *mixture, const sago_config_member *from,
                                  sago_member *member) SAGO_MUST_CHECK;
void sago_text_member_close(sago_member *member);

/** Tasks of the member, and of each its name, weight among the draws and pieces a pass. */
int sago_text_member_tasks(const sago_member *member);
const char *sago_text_task_name(const sago_member *member, int entry);
int64_t sago_text_task_weight(const sago_member *member, int entry);
int64_t sago_text_task_pieces(const sago_member *member, int entry);

/** The example of a task's n-th draw; key: of the draw. */
sago_status sago_text_draw(const sago_mixture *mixture, int task, uint64_t n, uint64_t key,
                           sago_example *out) SAGO_MUST_CHECK;

#endif
