// SPDX-License-Identifier: Apache-2.0
/**
 * The greatest logit of each row without all logits: what greedy decoding asks of the output matrix.
 *
 *     ids[i] = the lowest j whose logit c[i, j] = fl(scale * fl(x[i] . w[j])) is the greatest of row i
 *
 * where c are the very floats that matmul leaves for up to SAGO_GREEDY_ROWS rows, bit for bit, so that the
 * ids are those of `matmul` followed by `sample` at temperature 0. A product of so few rows is as long as
 * reading w takes, and of w only a copy in 8 bits is read whole:
 *
 *     w[j] ~ s_j q_j        q_j integers of at most 127, s_j = max|w[j]| / 127
 *     e_j = |w[j] - s_j q_j|,  n_j = s_j |q_j|                 Euclidean norms, measured, rounded up
 *     x[i] ~ t y            y integers of at most Y = min(32767, (2^31 - 1) / (127 k)), t = max|x[i]| / Y
 *     d = |x[i] - t y|,  X = |x[i]|                            measured, rounded up
 *
 * The dot product q_j . y is exact in 32 bits. By Cauchy and Schwarz, with u = 2^-24 and g = (k + 4) u / (1 -
 * (k + 4) u), which bounds the rounding of a sum of k products in whatever order (Higham, Accuracy and
 * Stability, 3.1),
 *
 *     |w[j].x[i] - s_j t (q_j.y)| = |(w[j] - s_j q_j).x[i] + s_j q_j.(x[i] - t y)| <= e_j X + n_j d
 *     |c[i, j] - scale w[j].x[i]| <= scale g |w[j]| X <= scale g (n_j + e_j) X
 *     B_ij = scale (e_j X (1 + g) + n_j (d + g X + 8 u (X + d)))
 *
 * B_ij bounds the distance of c[i, j] from the approximation as it is computed (8 u covers the four roundings
 * of the approximation and the one of adding the bound), is rounded up itself, and has 1e-35 added for
 * results that underflow. A row j whose approximation plus bound is below the greatest approximation less
 * bound cannot be the answer, nor equal to it; all others are computed as matmul does.
 *
 * Nothing is decided, and the caller computes all logits, where a row of w or x is not finite or so large
 * that a sum could overflow, or so small that it could underflow, and where the bounds leave more than a
 * quarter of the rows.
 */
#ifndef SAGO_GREEDY_H
#define SAGO_GREEDY_H

#include "ops.h"

/** Most rows of x. */
#define SAGO_GREEDY_ROWS 8

/** The copy of one matrix. Filled by sago_greedy_prepare. */
typedef struct sago_greedy {
    const float *w; /* [n, k], not owned */
    int64_t n, k, padded;
    float scale;
    bool usable;                  /* false: w is out of range, and choose never decides */
    void *memory;                 /* of the device */
    int8_t *q;                    /* [n, padded], zeros from k on */
    float *step, *error, *length; /* [n]: s, e, n of the formulas */
} sago_greedy;

/** Whether the device has this for k columns and this scale: the cpu device, k up to 2^16, scale from 1e-6 to
 * 1e6. */
bool sago_greedy_possible(const sago_device *device, int64_t k, float scale);

/**
 * Makes the copy of w[n, k] (f32, device memory; it must stay as it is until the copy is made anew). *greedy
 * is zero or what an earlier call left, whose memory is used again for the same sizes. n k + 12 n bytes; one
 * reading of w. Errors: SAGO_E_MEMORY, SAGO_E_SHAPE.
 */
sago_status sago_greedy_prepare(sago_device *device, sago_greedy *greedy, sago_tensor w,
                                float scale) SAGO_MUST_CHECK;

/**
 * ids i32[m] (device memory) for x[m, k], m <= SAGO_GREEDY_ROWS, where *settled; else nothing. The same for
 * any number of threads. Scratch: 36 n bytes. Errors: SAGO_E_MEMORY, SAGO_E_SHAPE.
 */
sago_status sago_greedy_choose(sago_device *device, const sago_greedy *greedy, sago_tensor ids, sago_tensor x,
                               bool *settled) SAGO_MUST_CHECK;

/** Gives the memory back; zero is fine. */
void sago_greedy_release(sago_device *device, sago_greedy *greedy);

#endif
