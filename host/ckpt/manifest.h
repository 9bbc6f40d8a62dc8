// SPDX-License-Identifier: Apache-2.0
/**
 * MANIFEST.json: the index of a step directory, and the hashes that make it trustworthy.
 * docs/checkpoint-format.md.
 *
 * The text ends with `"xxh3": "0123456789abcdef"\n}\n`: XXH3 (64 bits) of the whole text with these sixteen
 * digits replaced by zeros. It is checked before the text is parsed.
 */
#ifndef SAGO_MANIFEST_H
#define SAGO_MANIFEST_H

#include "json.h"
#include "status.h"
#include "tensor.h"

#include <stdint.h>

enum {
    SAGO_MANIFEST_VERSION = 1,
    SAGO_HASH_BLOCK_BYTES =
        4 << 20, /* a piece has one hash for each so many bytes: a cut reads little more than itself */
};

typedef struct sago_manifest_file {
    char *name;
    int64_t bytes;
    uint64_t hash;
} sago_manifest_file;

typedef struct sago_manifest_piece {
    int file;
    char *dataset;
    int64_t offset[2], shape[2]; /* in the global tensor; entry 1 is 0, 1 for vectors */
    int64_t at;                  /* of its first byte in the file */
    int64_t n_hashes;
    uint64_t *hashes;
} sago_manifest_piece;

typedef struct sago_manifest_tensor {
    char *name;
    sago_dtype dtype;
    int n_dims;
    int64_t shape[2];
    sago_manifest_piece *pieces;
    int n_pieces, room;
} sago_manifest_tensor;

typedef struct sago_manifest {
    int64_t step;
    json_t *meta;
    sago_manifest_file *files;
    int n_files;
    sago_manifest_tensor *tensors;
    int n_tensors, room;
} sago_manifest;

void sago_manifest_free(sago_manifest *manifest);
void sago_manifest_file_free(sago_manifest_file *file);
void sago_manifest_piece_free(sago_manifest_piece *piece);

/** Adds a file and returns its number. */
int sago_manifest_add_file(sago_manifest *manifest, const char *name, int64_t bytes, uint64_t hash);

/** Adds a piece (whose memory becomes the manifest's) to the tensor of that name, which is made if new.
 * SAGO_E_SHAPE when the tensor is there with another dtype or shape. */
sago_status sago_manifest_add_piece(sago_manifest *manifest, const char *name, sago_dtype dtype, int n_dims,
                                    const int64_t shape[2], sago_manifest_piece piece) SAGO_MUST_CHECK;

/** Moves all files and tensors of part into manifest. */
sago_status sago_manifest_merge(sago_manifest *manifest, sago_manifest *part) SAGO_MUST_CHECK;

/** Do the pieces of every tensor cover it, each element once? SAGO_E_SHAPE names the tensor. */
sago_status sago_manifest_check_cover(const sago_manifest *manifest) SAGO_MUST_CHECK;

void sago_manifest_write(const sago_manifest *manifest, sago_str *out);

/**
 * Checks the hash, parses, checks every field; name is for messages. Errors: SAGO_E_CORRUPT, or SAGO_E_INPUT
 * for another version of the format. *out is to be freed in any case. whole: pieces must cover their tensors.
 */
sago_status sago_manifest_parse(const char *text, size_t length, const char *name, bool whole,
                                sago_manifest *out) SAGO_MUST_CHECK;
sago_status sago_manifest_read(const char *path, sago_manifest *out) SAGO_MUST_CHECK;

/** Number of the tensor of that name, or -1. Binary search when the manifest was parsed; tensors are sorted
 * by name. */
int sago_manifest_find(const sago_manifest *manifest, const char *name);

/** Bytes of a piece. */
int64_t sago_manifest_piece_bytes(const sago_manifest_tensor *tensor, const sago_manifest_piece *piece);

#endif
