// SPDX-License-Identifier: Apache-2.0
/** What an open checkpoint is, for the files of this folder. */
#ifndef SAGO_OPEN_H
#define SAGO_OPEN_H

#include "ckpt.h"
#include "manifest.h"

struct sago_ckpt {
    char *dir;
    sago_manifest manifest;
    int *fds; /* by file of the manifest; -1: not open */
};

/** The size of a step's file is what the MANIFEST says; SAGO_E_CORRUPT names it when missing or of another
 * size. */
sago_status sago_step_check_size(const char *dir, const sago_manifest_file *file) SAGO_MUST_CHECK;

/** Reads exactly bytes at a place; SAGO_E_CORRUPT when the file ends before, SAGO_E_IO otherwise. */
sago_status sago_read_at(int fd, const char *path, void *out, size_t bytes, int64_t at) SAGO_MUST_CHECK;

#endif
