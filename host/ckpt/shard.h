// SPDX-License-Identifier: Apache-2.0
/**
 * Shard: one HDF5 file with one contiguous dataset a piece. shard.c is the only file that includes hdf5.h.
 *
 * HDF5 lays the file out: groups, datasets, attributes and, because space is allocated early, the place of
 * every dataset's bytes. Once HDF5 has closed the file, one pass in the order of its bytes puts the tensors
 * into their places and hashes everything on the way, with write-back started early and errors that are the
 * system's own. Any HDF5 reader opens the result; sago itself reads pieces at the places that the MANIFEST
 * gives, so that bytes are hashed before anything interprets them.
 */
#ifndef SAGO_SHARD_H
#define SAGO_SHARD_H

#include "ckpt.h"
#include "manifest.h"

/**
 * Writes path (which must not exist) with fsync. Fills the file's size and hash, and each piece's dataset,
 * place and hashes; pieces of no elements are left out. The entries' memory belongs to the caller
 * (sago_manifest_free). SAGO_E_IO names the path and the cause; what was written so far is then removed.
 */
sago_status sago_shard_write(const char *path, int64_t step, const sago_piece pieces[], int n_pieces,
                             sago_manifest_file *file, sago_manifest_piece entries[]) SAGO_MUST_CHECK;

/**
 * Does HDF5 see in path the datasets that the manifest lists for its file number `file`: name, type, shape
 * and place? Only for files whose hash holds: libhdf5 is not made for hostile bytes. SAGO_E_CORRUPT names
 * what differs.
 */
sago_status sago_shard_check(const char *path, const sago_manifest *manifest, int file) SAGO_MUST_CHECK;

#endif
