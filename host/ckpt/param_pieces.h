// SPDX-License-Identifier: Apache-2.0
/**
 * The parameters of a registry as pieces of a checkpoint, named "param/NAME".
 */
#ifndef SAGO_PARAM_PIECES_H
#define SAGO_PARAM_PIECES_H

#include "ckpt.h"
#include "weights.h"

typedef struct sago_param_pieces {
    sago_piece *pieces; /* one a row of the registry, in its order */
    int n;
    char *names;        /* what pieces[i].name points to */
    sago_remote *remote; /* where the device's memory is not the host's */
} sago_param_pieces;

/** The weights stay the caller's. room: entries to keep free after n. */
sago_param_pieces sago_param_pieces_make(sago_weights *weights, int room);
void sago_param_pieces_free(sago_param_pieces *p);

#endif
