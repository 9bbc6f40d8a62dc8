// SPDX-License-Identifier: Apache-2.0
/**
 * Which rank writes what of a checkpoint, when every rank holds all of it.
 */
#ifndef SAGO_SHARE_OUT_H
#define SAGO_SHARE_OUT_H

#include "ckpt.h"

/**
 * Keeps this rank's share of n whole pieces at the front and returns their number: a matrix goes to all ranks
 * by rows, a vector or a matrix of fewer rows than ranks as a whole to the ranks in turn. The shares of all
 * ranks cover every element once.
 */
int sago_share_out(sago_piece *pieces, int n, int rank, int ranks);

#endif
