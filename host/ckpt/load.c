// SPDX-License-Identifier: Apache-2.0
#include "open.h"
#include "rng.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { REMOTE_BYTES = 64 << 20 }; /* of a piece that is not in the host's memory, at once */

/* The part that a wanted piece and a stored one share, in elements of the global tensor: rows [first[0],
 * end[0]) and columns [first[1], end[1]). */
typedef struct overlap {
    int64_t first[2], end[2];
} overlap;

static bool find_overlap(const sago_piece *wanted, const sago_manifest_piece *stored, overlap *out) {
    for (int d = 0; d < 2; d++) {
        int64_t first = d < wanted->n_dims ? wanted->offset[d] : 0,
                count = d < wanted->n_dims ? wanted->shape[d] : 1;
        out->first[d] = first > stored->offset[d] ? first : stored->offset[d];
        int64_t end = first + count, stored_end = stored->offset[d] + stored->shape[d];
        out->end[d] = end < stored_end ? end : stored_end;
        if (out->first[d] >= out->end[d]) return false;
    }
    return true;
}

/* Copies what bytes [from, from + count) of a stored piece hold of the overlap to their places in the wanted
 * one. */
static void scatter(const char *bytes, int64_t from, int64_t count, const sago_manifest_piece *stored,
                    const overlap *o, const sago_piece *wanted, int64_t element_bytes) {
    int64_t wanted_cols = wanted->n_dims == 2 ? wanted->shape[1] : 1,
            wanted_col = wanted->n_dims == 2 ? wanted->offset[1] : 0;
    int64_t row_bytes = stored->shape[1] * element_bytes;
    int64_t low_col = (o->first[1] - stored->offset[1]) * element_bytes,
            high_col = (o->end[1] - stored->offset[1]) * element_bytes;
    for (int64_t row = from / row_bytes; row * row_bytes < from + count; row++) {
        int64_t global_row = row + stored->offset[0];
        if (global_row < o->first[0] || global_row >= o->end[0]) continue;
        int64_t low = row * row_bytes + low_col,
                high = row * row_bytes + high_col; /* bytes of the stored piece */
        if (low < from) low = from;
        if (high > from + count) high = from + count;
        if (low >= high) continue;
        int64_t column_bytes = low - row * row_bytes + (stored->offset[1] - wanted_col) * element_bytes;
        int64_t to = (global_row - wanted->offset[0]) * wanted_cols * element_bytes + column_bytes;
        memcpy((char *)wanted->data + to, bytes + (low - from), (size_t)(high - low));
    }
}

static sago_status open_file(sago_ckpt *ckpt, int file, const char *path) {
    if (ckpt->fds[file] >= 0) return SAGO_OK;
    ckpt->fds[file] = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return ckpt->fds[file] < 0 ? sago_fail_errno(SAGO_E_IO, "%s: cannot open", path) : SAGO_OK;
}

static sago_status fail_hash(const char *path, const sago_manifest_tensor *t,
                             const sago_manifest_piece *stored, int64_t block) {
    int64_t first = stored->at + block * SAGO_HASH_BLOCK_BYTES,
            end = stored->at + sago_manifest_piece_bytes(t, stored);
    if (end > first + SAGO_HASH_BLOCK_BYTES) end = first + SAGO_HASH_BLOCK_BYTES;
    return sago_fail(SAGO_E_CORRUPT,
                     "%s: damaged: tensor %s, in bytes %" PRId64 " to %" PRId64 " of the file", path, t->name,
                     first, end);
}

/*
 * Blocks are the unit of reading: the hash of each is checked before a byte of it counts. A block that lies
 * whole in the wanted memory is read there at once, others through the buffer.
 */
static sago_status read_overlap(sago_ckpt *ckpt, const sago_manifest_tensor *t,
                                const sago_manifest_piece *stored, const overlap *o, const sago_piece *wanted,
                                char *buffer) {
    int64_t element = (int64_t)sago_dtype_bytes(t->dtype), row_bytes = stored->shape[1] * element;
    int64_t bytes = sago_manifest_piece_bytes(t, stored);
    int64_t first = (o->first[0] - stored->offset[0]) * row_bytes,
            end = (o->end[0] - stored->offset[0]) * row_bytes;
    bool whole_rows = wanted->n_dims == 1 ||
                      (stored->shape[1] == wanted->shape[1] && stored->offset[1] == wanted->offset[1]);
    char *path = sago_path_join(ckpt->dir, ckpt->manifest.files[stored->file].name);
    sago_status status = open_file(ckpt, stored->file, path);
    for (int64_t block = first / SAGO_HASH_BLOCK_BYTES;
         status == SAGO_OK && block * SAGO_HASH_BLOCK_BYTES < end; block++) {
        int64_t from = block * SAGO_HASH_BLOCK_BYTES, left = bytes - from;
        int64_t count = left < SAGO_HASH_BLOCK_BYTES ? left : SAGO_HASH_BLOCK_BYTES;
        bool direct = whole_rows && from >= first && from + count <= end;
        int64_t global_byte = from + stored->offset[0] * row_bytes;
        char *to = direct ? (char *)wanted->data + (global_byte - wanted->offset[0] * row_bytes) : buffer;
        status = sago_read_at(ckpt->fds[stored->file], path, to, (size_t)count, stored->at + from);
        if (status == SAGO_OK && sago_hash_bytes(to, (size_t)count) != stored->hashes[block])
            status = fail_hash(path, t, stored, block);
        if (status == SAGO_OK && !direct) scatter(buffer, from, count, stored, o, wanted, element);
    }
    free(path);
    return status;
}

static sago_status check_wanted(const sago_ckpt *ckpt, const sago_piece *wanted,
                                const sago_manifest_tensor *t) {
    bool same = t->n_dims == wanted->n_dims && t->shape[0] == wanted->global_shape[0] &&
                (t->n_dims == 1 || t->shape[1] == wanted->global_shape[1]);
    char here[64], there[64];
    if (t->dtype == wanted->dtype && same) return SAGO_OK;
    sago_tensor_text((sago_tensor){NULL, t->dtype, t->n_dims, {t->shape[0], t->shape[1], 1, 1}}, there,
                     sizeof there);
    sago_tensor_text(
        (sago_tensor){
            NULL, wanted->dtype, wanted->n_dims, {wanted->global_shape[0], wanted->global_shape[1], 1, 1}},
        here, sizeof here);
    return sago_fail(SAGO_E_SHAPE, "%s: tensor %s is %s in the checkpoint, %s in the model", ckpt->dir,
                     wanted->name, there, here);
}

static sago_status load_piece(sago_ckpt *ckpt, const sago_piece *wanted, char *buffer) {
    int at = sago_manifest_find(&ckpt->manifest, wanted->name);
    if (at < 0)
        return sago_fail(SAGO_E_INPUT, "%s: the checkpoint has no tensor %s", ckpt->dir, wanted->name);
    const sago_manifest_tensor *t = &ckpt->manifest.tensors[at];
    SAGO_TRY(check_wanted(ckpt, wanted, t));
    /* A MANIFEST's pieces cover their tensor, so a piece inside of the tensor is filled whole. */
    for (int d = 0; d < wanted->n_dims; d++)
        if (wanted->offset[d] < 0 || wanted->shape[d] < 0 ||
            wanted->offset[d] + wanted->shape[d] > t->shape[d])
            return sago_fail(SAGO_E_INTERNAL, "checkpoint: a wanted piece lies outside of tensor %s",
                             wanted->name);
    for (int i = 0; i < t->n_pieces; i++) {
        overlap o;
        if (find_overlap(wanted, &t->pieces[i], &o))
            SAGO_TRY(read_overlap(ckpt, t, &t->pieces[i], &o, wanted, buffer));
    }
    return SAGO_OK;
}

int64_t sago_piece_count(const sago_piece *p) {
    return p->shape[0] * (p->n_dims == 2 ? p->shape[1] : 1);
}

size_t sago_piece_bytes(const sago_piece *p) {
    return (size_t)sago_piece_count(p) * sago_dtype_bytes(p->dtype);
}

/* Rows at a time through the host's memory. */
static sago_status load_remote(sago_ckpt *ckpt, const sago_piece *wanted, char *buffer) {
    int64_t columns = wanted->n_dims == 2 ? wanted->shape[1] : 1;
    int64_t row_bytes = columns * (int64_t)sago_dtype_bytes(wanted->dtype);
    int64_t at_once = row_bytes > 0 ? REMOTE_BYTES / row_bytes : 0;
    if (at_once < 1) at_once = 1;
    if (at_once > wanted->shape[0]) at_once = wanted->shape[0];
    char *rows = sago_alloc((size_t)(at_once * row_bytes));
    sago_status status = SAGO_OK;
    for (int64_t first = 0; first < wanted->shape[0] && status == SAGO_OK; first += at_once) {
        sago_piece part = *wanted;
        part.data = rows;
        part.offset[0] += first;
        part.shape[0] = wanted->shape[0] - first < at_once ? wanted->shape[0] - first : at_once;
        status = load_piece(ckpt, &part, buffer);
        if (status == SAGO_OK)
            status = wanted->remote->write(wanted->remote->context, wanted->first_remote + first * columns,
                                           rows, sago_piece_count(&part));
    }
    free(rows);
    return status;
}

sago_status sago_ckpt_load(sago_ckpt *ckpt, sago_piece pieces[], int n_pieces) {
    char *buffer = sago_alloc(SAGO_HASH_BLOCK_BYTES);
    sago_status status = SAGO_OK;
    for (int i = 0; i < n_pieces && status == SAGO_OK; i++)
        status =
            pieces[i].remote ? load_remote(ckpt, &pieces[i], buffer) : load_piece(ckpt, &pieces[i], buffer);
    free(buffer);
    return status;
}
