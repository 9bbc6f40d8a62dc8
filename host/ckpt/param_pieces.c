// SPDX-License-Identifier: Apache-2.0
#include "param_pieces.h"

#include "str.h"

#include <stdlib.h>

enum { NAME_BYTES = SAGO_PARAM_NAME_BYTES + 8 };

static sago_status read_weights(const void *weights, void *to_host, int64_t first, int64_t count) {
    return sago_weights_read(weights, to_host, first, count);
}

static sago_status write_weights(void *weights, int64_t first, const void *from_host, int64_t count) {
    return sago_weights_write(weights, first, from_host, count);
}

sago_param_pieces sago_param_pieces_make(sago_weights *weights, int room) {
    const sago_registry *registry = weights->registry;
    sago_param_pieces out = {.n = registry->n_params};
    out.pieces = sago_alloc_zero((size_t)(out.n + room), sizeof *out.pieces);
    if (weights->device->asynchronous || weights->dtype != SAGO_F32) {
        out.remote = sago_alloc(sizeof *out.remote);
        *out.remote = (sago_remote){read_weights, write_weights, weights};
    }
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
                                     .cut_over_data = p->rows_are_cut,
                                     .cut_over_model = p->model_dim >= 0,
                                     .data = out.remote ? NULL : sago_weights_reach(weights, p),
                                     .remote = out.remote,
                                     .first_remote = p->offset};
    }
    return out;
}

void sago_param_pieces_free(sago_param_pieces *p) {
    free(p->pieces);
    free(p->names);
    free(p->remote);
    *p = (sago_param_pieces){0};
}
