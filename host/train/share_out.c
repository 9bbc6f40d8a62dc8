// SPDX-License-Identifier: Apache-2.0
#include "share_out.h"

/* How many ranks hold the piece, and which of them this one is. */
static void find_holders(const sago_piece *p, const sago_mesh *mesh, int *rank, int *ranks) {
    *rank = 0, *ranks = 1;
    if (p->cut_over_data && p->cut_over_model) return;
    sago_mesh_axis axis = p->cut_over_data    ? SAGO_MODEL_AXIS
                          : p->cut_over_model ? SAGO_DATA_AXIS
                                              : SAGO_WORLD_AXIS;
    *rank = mesh->axis_rank[axis], *ranks = mesh->axis_size[axis];
}

int sago_share_out(sago_piece *pieces, int n, const sago_mesh *mesh) {
    int mine = 0;
    for (int i = 0; i < n; i++) {
        sago_piece p = pieces[i];
        int64_t rows = p.shape[0];
        int rank, ranks;
        find_holders(&p, mesh, &rank, &ranks);
        if (p.n_dims == 2 && rows >= ranks) {
            int64_t first = rows * rank / ranks, end = rows * (rank + 1) / ranks;
            if (p.data) p.data = (char *)p.data + (size_t)(first * p.shape[1]) * sago_dtype_bytes(p.dtype);
            p.first_remote += first * p.shape[1];
            p.offset[0] += first;
            p.shape[0] = end - first;
        } else if (i % ranks != rank) {
            continue;
        }
        pieces[mine++] = p;
    }
    return mine;
}
