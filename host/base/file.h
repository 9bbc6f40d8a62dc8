// SPDX-License-Identifier: Apache-2.0
/**
 * Files: the few operations over the file system that sago needs, each with a message that names the path.
 */
#ifndef SAGO_FILE_H
#define SAGO_FILE_H

#include "status.h"
#include "str.h"

#include <stdio.h>

/** Reads a whole file of at most limit_bytes (0: no limit). */
sago_status sago_file_read(const char *path, size_t limit_bytes, sago_str *out) SAGO_MUST_CHECK;

/** SAGO_E_IO for a folder, a device, a pipe, or a link such as /dev/stdout: a rename would put a file in its place. To be
 * asked before anything is computed for a named output. */
sago_status sago_file_replaceable(const char *path) SAGO_MUST_CHECK;

/** Replaces path by these bytes or leaves it as it was: temporary file beside it, fsync, rename, fsync of the
 * folder. */
sago_status sago_file_replace(const char *path, const void *bytes, size_t length) SAGO_MUST_CHECK;

/** "PATH.tmp-PID": a name for what will replace path. Free it. What killed writers of path left there is removed: files
 * of such names whose process is gone and that nobody wrote to for a minute (it may run on another node). */
char *sago_file_temporary(const char *path);

/** fopen with a message; mode as fopen's. */
sago_status sago_file_open(const char *path, const char *mode, FILE **out) SAGO_MUST_CHECK;

/** Flushes, fsyncs and closes; a full disk shows here. Closes in any case. */
sago_status sago_file_close_synced(FILE *file, const char *path) SAGO_MUST_CHECK;

/** Makes a folder and its parents. */
sago_status sago_dir_make(const char *path) SAGO_MUST_CHECK;

/** fsync of a folder, so that renames in it last. */
sago_status sago_dir_sync(const char *path) SAGO_MUST_CHECK;

/** Names in a folder without "." and "..", sorted by bytes. Free with sago_names_free. */
typedef struct sago_names {
    char **names;
    size_t count;
} sago_names;
sago_status sago_dir_list(const char *path, sago_names *out) SAGO_MUST_CHECK;
void sago_names_free(sago_names *names);

/** Removes a folder and all below it; links are removed, not followed. */
sago_status sago_dir_remove(const char *path) SAGO_MUST_CHECK;

bool sago_is_file(const char *path);
bool sago_is_dir(const char *path);

/** Lines of a file one by one, with memory bounded by the longest line. */
typedef struct sago_line_reader {
    FILE *file;
    char *path;
    sago_str line;  /* the present line without its "\n" or "\r\n"; may hold NUL bytes */
    int64_t number; /* from 1 */
    int64_t offset; /* of the present line's first byte */
    size_t limit_bytes;
    char *block; /* what was read ahead: bytes [block_at, block_end) of it come next, the first of them at
                    next_offset */
    size_t block_at, block_end;
    int64_t next_offset;
} sago_line_reader;
sago_status sago_lines_open(sago_line_reader *reader, const char *path, size_t limit_bytes) SAGO_MUST_CHECK;
/** Next line; *more is false at the end. SAGO_E_INPUT for a line over the limit, with file and line number.
 */
sago_status sago_lines_next(sago_line_reader *reader, bool *more) SAGO_MUST_CHECK;
void sago_lines_close(sago_line_reader *reader);

#endif
