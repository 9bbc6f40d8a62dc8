// SPDX-License-Identifier: Apache-2.0
/**
 * The folder that an export writes: every file is written beside its place, and all get their names at the
 * end.
 *
 * The file added first (config.json, which every program asks for before anything else) gets its name last,
 * and where other files are replaced it goes before they do: a folder that has it is whole.
 */
#ifndef SAGO_HF_FOLDER_H
#define SAGO_HF_FOLDER_H

#include "status.h"

#include <stdbool.h>

typedef struct sago_hf_folder {
    const char *dir; /* the caller's */
    bool made;       /* it was not there before */
    char **paths, **temporary;
    int n_files;
} sago_hf_folder;

/** Makes the folder if it is missing, and removes what killed exports left of weights in it. */
sago_status sago_hf_folder_open(const char *dir, sago_hf_folder *out) SAGO_MUST_CHECK;

/** A file that is to be called name: the path to write it at. */
const char *sago_hf_folder_add(sago_hf_folder *folder, const char *name);

/**
 * Gives all files their names. Weights of another export (a single file, an index, parts of another number)
 * go, since a reader might take them for this one's. SAGO_E_BUSY, and nothing is changed, where there are
 * such or a file of one of the names has other contents, unless `replace`.
 */
sago_status sago_hf_folder_commit(sago_hf_folder *folder, bool replace) SAGO_MUST_CHECK;

/** Removes what has no name yet, and the folder if it was made for nothing. */
void sago_hf_folder_close(sago_hf_folder *folder);

/** "model.safetensors", or "model-00002-of-00007.safetensors" for part 1 of 7. New memory. */
char *sago_hf_part_name(int part, int n_parts);

#endif
