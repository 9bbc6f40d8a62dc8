// SPDX-License-Identifier: Apache-2.0
#include "param_pieces.h"

#include "str.h"

#include <stdlib.h>

enum { NAME_BYTES = SAGO_PARAM_NAME_BYTES + 8 };

sago_param_pieces sago_param_pieces_make(const sago_registry *registry, float *values, int room) {
    sago_param_pieces out = {.n = registry->n_params};
    out.pieces = sago_alloc_zero((size_t)(out.n + room), sizeof *out.pieces);
    out.names = sago_alloc((size_t)out.n * NAME_BYTES);
    for (int i = 0; i < out.n; i++) {
        const sago_param *p = &registry->params[i];
        char *name = out.names + (size_t)i * NAME_BYTES;
        snprintf(name, NAME_BYTES, "param/%s", p->name);
        out.pieces[i] = (sago_piece){.name = name,
                                     .dtype = SAGO_F32,
                                     .n_dims = p->n_dims,
                                     .global_shape = {p->global_shape[0], p->global_shape[1]},
                                     .offset = {p->global_offset[0], p->global_offset[1]},
                                     .shape = {p->local_shape[0], p->local_shape[1]},
                                     .data = sago_param_tensor(p, values).data};
    }
    return out;
}

void sago_param_pieces_free(sago_param_pieces *p) {
    free(p->pieces);
    free(p->names);
    *p = (sago_param_pieces){0};
}
