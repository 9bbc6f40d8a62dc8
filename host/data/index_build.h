// SPDX-License-Identifier: Apache-2.0
/**
 * Building an index: the form of its cache file, and the scan that fills it.
 *
 * Form, in the machine's byte order (a cache is never carried between machines): header, tasks, records,
 * numbers by hash, strings. The first string is the key (sago_index_key). A hash over all after the
 * header guards it.
 */
#ifndef SAGO_INDEX_BUILD_H
#define SAGO_INDEX_BUILD_H

#include "index.h"

typedef struct sago_index_blob {
    const char *bytes;
    size_t length;
    const sago_index_task *tasks;
    uint64_t n_tasks;
    const sago_record *records;
    const uint32_t *by_hash;
    const char *strings;
} sago_index_blob;

typedef struct sago_index_file {
    char *path, *file, *name;
    int64_t size_bytes, mtime_ns;
} sago_index_file;

typedef struct sago_index_files {
    sago_index_file *items;
    size_t count, capacity;
} sago_index_files;

void sago_index_files_add(sago_index_files *files, const sago_index_file *file); /* takes its strings */
void sago_index_files_free(sago_index_files *files);

/** What names an index: path, format, mapping, and of text the tokenizer that counted it. New memory. */
char *sago_index_key(const sago_source *source, const char *path);

/** True when the bytes are a whole index with this key; fills *out, which points into them. */
bool sago_index_blob_check(const void *bytes, size_t length, const char *key, sago_index_blob *out);

bool sago_index_same_file(const sago_index_blob *blob, const sago_index_task *task,
                          const sago_index_file *file);

/** Makes the bytes of an index of files, taking what has not changed from old; *scanned counts the rest. */
sago_status sago_index_build(const sago_source *source, const char *key, const sago_index_files *files,
                             const sago_index_blob *old, int threads, sago_str *out,
                             int *scanned) SAGO_MUST_CHECK;

#endif
