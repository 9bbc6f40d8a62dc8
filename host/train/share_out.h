// SPDX-License-Identifier: Apache-2.0
/**
 * Which rank writes what of a checkpoint: ranks that hold the same pieces share them.
 */
#ifndef SAGO_SHARE_OUT_H
#define SAGO_SHARE_OUT_H

#include "ckpt.h"
#include "mesh.h"

/**
 * Keeps this rank's share of n pieces at the front and returns their number. A piece is held by all ranks
 * of the axes that its tensor is not cut over: by all, by those of one axis, or by this one alone. A matrix goes to those by rows, a vector or a matrix
 * of fewer rows than ranks as it is to them in turn. The shares of all ranks cover every element once.
 */
int sago_share_out(sago_piece *pieces, int n, const sago_mesh *mesh);

#endif
