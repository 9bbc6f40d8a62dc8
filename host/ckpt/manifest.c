// SPDX-License-Identifier: Apache-2.0
#include "manifest.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

void sago_manifest_file_free(sago_manifest_file *file) {
    free(file->name);
    *file = (sago_manifest_file){0};
}

void sago_manifest_piece_free(sago_manifest_piece *piece) {
    free(piece->dataset);
    free(piece->hashes);
    *piece = (sago_manifest_piece){0};
}

void sago_manifest_free(sago_manifest *m) {
    for (int i = 0; i < m->n_files; i++) sago_manifest_file_free(&m->files[i]);
    for (int i = 0; i < m->n_tensors; i++) {
        for (int k = 0; k < m->tensors[i].n_pieces; k++) sago_manifest_piece_free(&m->tensors[i].pieces[k]);
        free(m->tensors[i].pieces);
        free(m->tensors[i].name);
    }
    free(m->files);
    free(m->tensors);
    json_decref(m->meta);
    *m = (sago_manifest){0};
}

int sago_manifest_add_file(sago_manifest *m, const char *name, int64_t bytes, uint64_t hash) {
    m->files = sago_realloc(m->files, (size_t)(m->n_files + 1) * sizeof *m->files);
    m->files[m->n_files] = (sago_manifest_file){sago_strdup(name), bytes, hash};
    return m->n_files++;
}

/* Where the name is among the sorted tensors, or where it would go. */
static int place_of(const sago_manifest *m, const char *name, bool *found) {
    int low = 0, high = m->n_tensors;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(m->tensors[middle].name, name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

int sago_manifest_find(const sago_manifest *m, const char *name) {
    bool found;
    int at = place_of(m, name, &found);
    return found ? at : -1;
}

static sago_manifest_tensor *insert_tensor(sago_manifest *m, int at, sago_manifest_tensor tensor) {
    if (m->n_tensors == m->room) {
        m->room = m->room ? 2 * m->room : 64;
        m->tensors = sago_realloc(m->tensors, (size_t)m->room * sizeof *m->tensors);
    }
    memmove(m->tensors + at + 1, m->tensors + at, (size_t)(m->n_tensors - at) * sizeof *m->tensors);
    m->n_tensors++;
    m->tensors[at] = tensor;
    return &m->tensors[at];
}

sago_status sago_manifest_add_piece(sago_manifest *m, const char *name, sago_dtype dtype, int n_dims,
                                    const int64_t shape[2], sago_manifest_piece piece) {
    bool found;
    int at = place_of(m, name, &found);
    sago_manifest_tensor *tensor = &m->tensors[at];
    if (!found)
        tensor = insert_tensor(
            m, at,
            (sago_manifest_tensor){
                .name = sago_strdup(name), .dtype = dtype, .n_dims = n_dims, .shape = {shape[0], shape[1]}});
    if (tensor->dtype != dtype || tensor->n_dims != n_dims || tensor->shape[0] != shape[0] ||
        tensor->shape[1] != shape[1]) {
        sago_manifest_piece_free(&piece);
        return sago_fail(SAGO_E_SHAPE, "checkpoint: two pieces of tensor %s disagree on its dtype or shape",
                         name);
    }
    if (tensor->n_pieces == tensor->room) {
        tensor->room = tensor->room ? 2 * tensor->room : 1;
        tensor->pieces = sago_realloc(tensor->pieces, (size_t)tensor->room * sizeof *tensor->pieces);
    }
    tensor->pieces[tensor->n_pieces++] = piece;
    return SAGO_OK;
}

sago_status sago_manifest_merge(sago_manifest *m, sago_manifest *part) {
    int first = m->n_files;
    for (int i = 0; i < part->n_files; i++)
        sago_manifest_add_file(m, part->files[i].name, part->files[i].bytes, part->files[i].hash);
    for (int i = 0; i < part->n_tensors; i++) {
        sago_manifest_tensor *t = &part->tensors[i];
        for (int k = 0; k < t->n_pieces; k++) {
            sago_manifest_piece piece = t->pieces[k];
            t->pieces[k] = (sago_manifest_piece){0};
            piece.file += first;
            SAGO_TRY(sago_manifest_add_piece(m, t->name, t->dtype, t->n_dims, t->shape, piece));
        }
    }
    return SAGO_OK;
}

int64_t sago_manifest_piece_bytes(const sago_manifest_tensor *tensor, const sago_manifest_piece *piece) {
    return piece->shape[0] * piece->shape[1] * (int64_t)sago_dtype_bytes(tensor->dtype);
}

static bool overlap(const sago_manifest_piece *a, const sago_manifest_piece *b) {
    for (int d = 0; d < 2; d++)
        if (a->offset[d] + a->shape[d] <= b->offset[d] || b->offset[d] + b->shape[d] <= a->offset[d])
            return false;
    return true;
}

static int by_first_row(const void *a, const void *b) {
    int64_t x = (*(sago_manifest_piece *const *)a)->offset[0],
            y = (*(sago_manifest_piece *const *)b)->offset[0];
    return (x > y) - (x < y);
}

static sago_status check_tensor_cover(const sago_manifest_tensor *t) {
    int64_t covered = 0;
    sago_manifest_piece **sorted = sago_alloc((size_t)t->n_pieces * sizeof *sorted);
    for (int i = 0; i < t->n_pieces; i++) {
        sorted[i] = &t->pieces[i];
        covered += t->pieces[i].shape[0] *
                   t->pieces[i].shape[1]; /* each at most the tensor's count: no overflow soon */
        if (covered > t->shape[0] * t->shape[1]) break;
    }
    bool good = covered == t->shape[0] * t->shape[1];
    if (good) qsort(sorted, (size_t)t->n_pieces, sizeof *sorted, by_first_row);
    for (int i = 0; good && i < t->n_pieces; i++)
        for (int k = i + 1;
             good && k < t->n_pieces && sorted[k]->offset[0] < sorted[i]->offset[0] + sorted[i]->shape[0];
             k++)
            good = !overlap(sorted[i], sorted[k]);
    free(sorted);
    if (good) return SAGO_OK;
    return sago_fail(SAGO_E_SHAPE,
                     "checkpoint: the pieces of tensor %s do not cover each of its elements once", t->name);
}

sago_status sago_manifest_check_cover(const sago_manifest *m) {
    for (int i = 0; i < m->n_tensors; i++) SAGO_TRY(check_tensor_cover(&m->tensors[i]));
    return SAGO_OK;
}
