// SPDX-License-Identifier: Apache-2.0
/**
 * Tensor parallelism over the model axis of the mesh (Shoeybi et al. 2019), with sequence parallelism
 * (Korthikanti et al. 2022) while training.
 *
 * Heads, MLP columns and the vocabulary are cut over the M ranks of the axis. What a sub-layer reads is whole
 * on every rank, what it leaves is a partial sum [N, D] on each; between sub-layers the residual stream, its
 * norms and its dropout are cut by tokens: rank r holds tokens [N r / M, N (r + 1) / M) of the N = B * S of a
 * pass. So a sub-layer is one all-gather and one reduce-scatter forward and as many backward, and PaLM's
 * parallel block is one of each for both of its halves. Backward gathers what the norm left a second time
 * instead of keeping all of it.
 *
 * Without backward (scores, generation) the residual stream is whole on every rank, and partial sums are
 * all-reduced. With one rank nothing of this happens: a gather gives back its argument, and a partial sum is
 * the sum.
 *
 * Sums travel in fp32 whatever the activations are, in rank order, so that a run repeats bit for bit.
 */
#ifndef SAGO_PARALLEL_H
#define SAGO_PARALLEL_H

#include "layer.h"

/** Tokens [*first, *first + *count) of n are this rank's; all n of them where the residual stream is whole.
 */
void sago_own_tokens(const sago_pass *pass, int64_t n, int64_t *first, int64_t *count);

/** A tensor of the residual stream over a buffer: [rows, tokens, width], or [1, own tokens, width] where it
 * is cut. */
sago_tensor sago_residual_tokens(const sago_pass *pass, void *data, int64_t rows, int64_t tokens,
                                 int64_t width);

/** *whole [rows, tokens, width] of the residual stream's `own`, in room (which own may be a part of). */
sago_status sago_gather_tokens(const sago_pass *pass, sago_tensor *whole, sago_tensor own, int64_t rows,
                               int64_t tokens, void *room) SAGO_MUST_CHECK;

/** A partial sum [rows, tokens, width] over a buffer: f32 where ranks share the model. */
sago_tensor sago_partial_sum(const sago_pass *pass, void *data, int64_t rows, int64_t tokens, int64_t width);

/** *own: the sum over ranks of `partial`, cut like the residual stream and of the pass's dtype; uses partial
 * up. */
sago_status sago_sum_partial(const sago_pass *pass, sago_tensor *own, sago_tensor partial) SAGO_MUST_CHECK;

/** Masks of a site over a tensor of the residual stream: those of the whole [rows, tokens, width]. */
sago_dropout sago_residual_dropout(const sago_pass *pass, int site, sago_tensor own, int64_t rows,
                                   int64_t tokens);

/** all [ranks, like own]: the tensors of this shape of every rank that shares the model. */
sago_status sago_gather_equal(const sago_pass *pass, sago_tensor own, void *all) SAGO_MUST_CHECK;

/**
 * stats [n, SAGO_CE_STATS] of the whole vocabulary, from those of this rank's slice in the same place
 * (loss.h). parts: room for those of all ranks.
 */
sago_status sago_combine_slices(const sago_pass *pass, sago_tensor stats, float *parts) SAGO_MUST_CHECK;

#endif
