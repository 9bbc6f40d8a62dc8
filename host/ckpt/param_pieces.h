// SPDX-License-Identifier: Apache-2.0
/**
 * The parameters of a registry as pieces of a checkpoint, named "param/NAME".
 */
#ifndef SAGO_PARAM_PIECES_H
#define SAGO_PARAM_PIECES_H

#include "ckpt.h"
#include "registry.h"

typedef struct sago_param_pieces {
    sago_piece *pieces; /* one a row of the registry, in its order, pointing into the flat buffer */
    int n;
    char *names;        /* what pieces[i].name points to */
} sago_param_pieces;

/** values: the registry's flat fp32 buffer, in memory that the host can read. room: entries to keep free after n. */
sago_param_pieces sago_param_pieces_make(const sago_registry *registry, float *values, int room);
void sago_param_pieces_free(sago_param_pieces *p);

#endif
