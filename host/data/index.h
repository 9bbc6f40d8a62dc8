// SPDX-License-Identifier: Apache-2.0
/**
 * Index: what is known about a task set (a file, or a folder of files) without its texts: for each task its
 * name, categories, size and time of change, and for each example its place in the file and the hash of its
 * input.
 *
 * It lives in a cache file that is mapped, so it costs no memory of its own and opens in milliseconds. A file
 * whose size or time of change differs is scanned again alone; a damaged or foreign cache file is made anew
 * without a word. Where no cache can be written, the index is held in memory. Opening a cache file notes the
 * time on it; whoever writes one removes those that nobody opened for SAGO_INDEX_KEPT_DAYS.
 */
#ifndef SAGO_INDEX_H
#define SAGO_INDEX_H

#include "config.h"
#include "source.h"

typedef struct sago_index sago_index;

enum { SAGO_INDEX_KEPT_DAYS = 90 };

/** A task as stored; texts are offsets into the strings. */
typedef struct sago_index_task {
    uint64_t first_record;
    uint32_t n_examples, n_exemplars; /* exemplars follow the examples; of text, documents their parts */
    uint64_t instruction_hash;        /* of the note, where that is an instruction; 0: none */
    int64_t size_bytes, mtime_ns;
    uint64_t file, name, note, categories,
        labels;       /* file is relative to the set's folder; "" is the set itself */
    uint64_t n_empty; /* examples with an empty answer */
    int64_t max_id;
    uint64_t max_id_line;
} sago_index_task;

/**
 * Opens the index of path, scanning what the cache lacks. Tasks are the files that include and exclude select
 * (patterns over task names; empty include: all), by name. cache_dir "": $XDG_CACHE_HOME/sago, or
 * ~/.cache/sago. threads: for scanning. Errors: those of sago_source_scan; SAGO_E_IO; SAGO_E_INPUT when
 * nothing is selected.
 */
sago_status sago_index_open(const sago_source *source, const char *path, const char *cache_dir,
                            const sago_string_list *include, const sago_string_list *exclude, int threads,
                            sago_index **out) SAGO_MUST_CHECK;
void sago_index_close(sago_index *index);

int sago_index_tasks(const sago_index *index);
const sago_index_task *sago_index_task_at(const sago_index *index, int task);
const char *sago_index_string(const sago_index *index, uint64_t offset);

/** The file of a task, absolute. */
const char *sago_index_path(const sago_index *index, int task);

/** Records of a task in file order; exemplars from n_examples on. */
const sago_record *sago_index_records(const sago_index *index, int task);

/** Example numbers of a task sorted by hash (then number): the order that splits are cut from. */
const uint32_t *sago_index_by_hash(const sago_index *index, int task);

/** Reads a record's bytes. SAGO_E_INPUT when the file has changed since it was indexed. */
sago_status sago_index_read(const sago_index *index, int task, uint32_t record,
                            sago_str *out) SAGO_MUST_CHECK;

/** How many files the last opening of this index scanned; 0: all came from the cache. */
int sago_index_scanned(const sago_index *index);

#endif
