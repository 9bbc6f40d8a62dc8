// SPDX-License-Identifier: Apache-2.0
/**
 * Checkpoints: a directory a step, written by any number of ranks, loaded by any number.
 *
 *     DIR/step-000120/MANIFEST.json
 *                     shard-00000-of-00002.h5 ...      one serial HDF5 file a writer, contiguous datasets
 *                     tokenizer.model ...              small files that belong to the model
 *
 * MANIFEST.json: format version; step; meta (free JSON: data cursor, resolved config, model shape ...); a
 * list of tensors (name, dtype, global shape, pieces: file, dataset, offset, shape, xxh3); size and xxh3 of
 * every file of the directory; and a hash of its own bytes. docs/checkpoint-format.md has it in full.
 *
 * Commit: written to step-N.tmp-ID/, every HDF5 id closed and checked, files fsynced, all ranks agree, rank 0
 * writes and fsyncs MANIFEST.json and the directory, renames it to step-N/, fsyncs the parent. A reader
 * trusts only a directory whose MANIFEST holds; the newest one that does is the run's state.
 */
#ifndef SAGO_CKPT_H
#define SAGO_CKPT_H

#include "json.h"
#include "mesh.h"
#include "status.h"
#include "tensor.h"

#include <stdbool.h>
#include <stdint.h>

/** Memory that the host reaches by copies alone: elements of a piece's dtype, read after all work handed
 * over. */
typedef struct sago_remote {
    sago_status (*read)(const void *context, void *to_host, int64_t first, int64_t count);
    /* Each element once, in ascending order. */
    sago_status (*write)(void *context, int64_t first, const void *from_host, int64_t count);
    void *context;
} sago_remote;

/** One local piece of one global tensor. A replicated tensor is given by one rank alone. */
typedef struct sago_piece {
    const char *name; /* "param/encoder.0.attention.query", "adafactor/row/..." */
    sago_dtype dtype;
    int n_dims; /* 1 or 2 */
    int64_t global_shape[2], offset[2], shape[2];
    void *data; /* contiguous host memory; read by save, written by load */
    /* Instead of data: elements from first_remote on. Copies go block by block, and on the caller's thread.
     */
    const sago_remote *remote;
    int64_t first_remote;
    bool cut_over_data, cut_over_model; /* other ranks of that axis hold other elements, else the same ones */
} sago_piece;

/** Name of the side file that holds the model's tokenizer: a SentencePiece model, or the text "bytes". */
#define SAGO_TOKENIZER_FILE "tokenizer.model"

int64_t sago_piece_count(const sago_piece *piece); /* elements */
size_t sago_piece_bytes(const sago_piece *piece);

/** A small file that travels in the step directory, such as the tokenizer. */
typedef struct sago_side_file {
    const char *name;
    const void *bytes;
    size_t size;
} sago_side_file;

typedef struct sago_ckpt_save {
    const char *dir; /* the run's checkpoint folder; made if missing */
    int64_t step;
    const json_t *meta;       /* the same on every rank; rank 0's is written */
    const sago_piece *pieces; /* this rank's */
    int n_pieces;
    const sago_side_file *files; /* rank 0's */
    int n_files;
    int64_t keep, keep_every; /* keep 0: all. Old steps go only after this one has verified. */
} sago_ckpt_save;

/**
 * A writer saves in the background: start copies the pieces into its own memory (the only time training
 * waits) and returns; the write, the hashes, the agreement of ranks and the rename happen on another thread.
 * One save is in flight at a time: start waits for the one before. Memory: one copy of this rank's pieces,
 * kept between saves.
 */
typedef struct sago_ckpt_writer sago_ckpt_writer;
sago_status sago_ckpt_writer_open(sago_mesh *mesh, bool background, sago_ckpt_writer **out) SAGO_MUST_CHECK;
sago_status sago_ckpt_writer_start(sago_ckpt_writer *writer, const sago_ckpt_save *save) SAGO_MUST_CHECK;
/** Waits for the save in flight and reports how it ended. *step: the last step committed, -1 when none. */
sago_status sago_ckpt_writer_wait(sago_ckpt_writer *writer, int64_t *step) SAGO_MUST_CHECK;
void sago_ckpt_writer_close(sago_ckpt_writer *writer); /* waits */

/** An open checkpoint: its MANIFEST, verified. */
typedef struct sago_ckpt sago_ckpt;

/**
 * Opens a checkpoint given a step directory, a run's or checkpoints' folder (then its newest that verifies;
 * damaged newer ones are warned about, by file), or the folder made by import. MANIFEST and file sizes are
 * checked here, each tensor's hash when it is read; verify_all checks everything at once.
 */
sago_status sago_ckpt_open(const char *path, bool verify_all, sago_ckpt **out) SAGO_MUST_CHECK;
void sago_ckpt_close(sago_ckpt *ckpt);

int64_t sago_ckpt_step(const sago_ckpt *ckpt);
const char *sago_ckpt_dir(const sago_ckpt *ckpt); /* the step directory */
const json_t *sago_ckpt_meta(const sago_ckpt *ckpt);

/** Does path hold any committed checkpoint? Looks at names only. */
bool sago_ckpt_exists(const char *path);

/** The folder whose step-N/ are meant by path: path itself or its "checkpoints"; NULL when path is a step
 * directory. New memory. */
char *sago_ckpt_steps_folder(const char *path);

/** The global shape of a tensor; false if there is none of that name. */
bool sago_ckpt_find(const sago_ckpt *ckpt, const char *name, sago_dtype *dtype, int *n_dims,
                    int64_t shape[2]);

/** Calls visit for every tensor, in the order of the MANIFEST; stops at the first failure. */
typedef struct sago_ckpt_tensor {
    const char *name;
    sago_dtype dtype;
    int n_dims;
    int64_t shape[2];
    int n_pieces;
} sago_ckpt_tensor;
int sago_ckpt_count(const sago_ckpt *ckpt);
sago_ckpt_tensor sago_ckpt_at(const sago_ckpt *ckpt, int index);

/** Fills pieces (any cut of the global tensors) from whatever pieces the files hold; hashes of what is read
 * are checked. */
sago_status sago_ckpt_load(sago_ckpt *ckpt, sago_piece pieces[], int n_pieces) SAGO_MUST_CHECK;

/** Reads a side file into new bytes; SAGO_E_INPUT when the checkpoint has none of that name. */
sago_status sago_ckpt_read_file(sago_ckpt *ckpt, const char *name, sago_str *out) SAGO_MUST_CHECK;
bool sago_ckpt_has_file(const sago_ckpt *ckpt, const char *name);

/**
 * Checks every byte of a step directory: MANIFEST's own hash, no file missing or added, each file's size and
 * hash. Each damaged file is named once to report(text, context), with the tensor whose bytes are touched
 * where that is known.
 */
sago_status sago_ckpt_verify(const char *step_dir, void (*report)(const char *text, void *context),
                             void *context) SAGO_MUST_CHECK;

/** "1.10.8": the HDF5 that this process runs with, which need not be the one that it was built with. */
void sago_ckpt_hdf5_version(char text[32]);

#endif
