// SPDX-License-Identifier: Apache-2.0
#include "share_out.h"

int sago_share_out(sago_piece *pieces, int n, const sago_mesh *mesh) {
    int mine = 0;
    for (int i = 0; i < n; i++) {
        sago_piece p = pieces[i];
        int64_t rows = p.shape[0];
        bool whole = rows == p.global_shape[0] && p.shape[1] == p.global_shape[1];
        sago_mesh_axis axis = whole ? SAGO_WORLD_AXIS : SAGO_DATA_AXIS;
        int rank = mesh->axis_rank[axis], ranks = mesh->axis_size[axis];
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
