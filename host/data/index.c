// SPDX-License-Identifier: Apache-2.0
#include "index.h"

#include "file.h"
#include "index_build.h"
#include "log.h"
#include "rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct sago_index {
    char *path;
    sago_index_blob blob;
    bool mapped;
    int *selected; /* task of ours -> task of the blob: a cache may know more files than a config selects */
    char **paths;
    int n_tasks, scanned;
};

static void release_blob(sago_index *index) {
    if (index->mapped)
        munmap((void *)(uintptr_t)index->blob.bytes, index->blob.length);
    else
        free((void *)(uintptr_t)index->blob.bytes);
    index->blob = (sago_index_blob){0};
    index->mapped = false;
}

/* Maps a cache file. Anything odd about it makes it absent. */
static void map_cache(sago_index *index, const char *file, const char *key) {
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    struct stat info;
    void *bytes = MAP_FAILED;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0)
        bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED) return;
    if (sago_index_blob_check(bytes, (size_t)info.st_size, key, &index->blob)) {
        index->mapped = true;
        utimensat(AT_FDCWD, file, NULL, 0); /* in use: see remove_old; in a cache that is not ours it fails */
    } else {
        munmap(bytes, (size_t)info.st_size);
        index->blob = (sago_index_blob){0};
    }
}

static char *default_cache_dir(void) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/') return sago_path_join(cache, "sago");
    if (home && home[0] == '/') return sago_path_join(home, ".cache/sago");
    return NULL;
}

static bool selects(const sago_string_list *include, const sago_string_list *exclude, const char *name) {
    bool chosen = !include || include->count == 0;
    for (int i = 0; !chosen && i < include->count; i++) chosen = sago_glob_match(include->items[i], name);
    for (int i = 0; exclude && chosen && i < exclude->count; i++)
        chosen = !sago_glob_match(exclude->items[i], name);
    return chosen;
}

static char *task_name(const char *file) {
    const char *base = sago_path_base(file), *dot = strrchr(base, '.');
    return dot && dot > base ? sago_strndup(base, (size_t)(dot - base)) : sago_strdup(base);
}

/* The files of the set with their sizes and times. */
static sago_status list_files(const sago_source *source, const char *path, const sago_string_list *include,
                              const sago_string_list *exclude, sago_index_files *out) {
    sago_names names = {0};
    bool folder = sago_is_dir(path);
    sago_status status = SAGO_OK;
    size_t seen = 0;
    if (folder) SAGO_TRY(sago_dir_list(path, &names));
    size_t count = folder ? names.count : 1;
    for (size_t i = 0; i < count && status == SAGO_OK; i++) {
        if (folder && !sago_source_takes(source, names.names[i])) continue;
        seen++;
        char *full = folder ? sago_path_join(path, names.names[i]) : sago_strdup(path);
        char *name = task_name(full);
        struct stat info;
        if (!selects(include, exclude, name)) {
            free(full), free(name);
            continue;
        }
        if (stat(full, &info) != 0)
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot open", full);
        else if (!folder && !S_ISREG(info.st_mode))
            status = sago_fail(SAGO_E_IO, "%s: is not a regular file", full);
        if (status == SAGO_OK && S_ISREG(info.st_mode)) {
            sago_index_files_add(out, &(sago_index_file){.path = full,
                                                         .file = sago_strdup(folder ? names.names[i] : ""),
                                                         .name = name,
                                                         .size_bytes = info.st_size,
                                                         .mtime_ns = info.st_mtim.tv_sec * 1000000000ll +
                                                                     info.st_mtim.tv_nsec});
        } else {
            free(full), free(name);
        }
    }
    sago_names_free(&names);
    if (status == SAGO_OK && out->count == 0)
        status = sago_fail(SAGO_E_INPUT,
                           seen ? "%s: include and exclude leave none of its files"
                                : "%s: the folder holds no files of the member's format",
                           path);
    return status;
}

/* Finds each file in the blob; false when one is missing or has changed. */
static bool select_tasks(sago_index *index, const sago_index_files *files) {
    const sago_index_blob *blob = &index->blob;
    uint64_t at = 0;
    for (size_t i = 0; i < files->count; i++) {
        const sago_index_file *file = &files->items[i];
        /* Both lists are sorted by file name. */
        while (at < blob->n_tasks && strcmp(blob->strings + blob->tasks[at].file, file->file) < 0) at++;
        if (at == blob->n_tasks || !sago_index_same_file(blob, &blob->tasks[at], file)) return false;
        index->selected[i] = (int)at;
    }
    return true;
}

/* Removes cache files that no run has opened for long, and what a killed run left half written. */
static void remove_old(const char *cache) {
    char *dir = sago_path_dir(cache);
    sago_names names;
    if (sago_dir_list(dir, &names) != SAGO_OK) names.count = 0;
    time_t oldest = time(NULL) - (time_t)SAGO_INDEX_KEPT_DAYS * 86400;
    for (size_t i = 0; i < names.count; i++) {
        if (!sago_starts_with(names.names[i], "index-")) continue;
        char *path = sago_path_join(dir, names.names[i]);
        struct stat info;
        if (lstat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_mtim.tv_sec < oldest) unlink(path);
        free(path);
    }
    sago_names_free(&names);
    free(dir);
}

static sago_status rebuild(sago_index *index, const sago_source *source, const char *key,
                           const sago_index_files *files, const char *cache, int threads) {
    sago_str bytes = {0};
    SAGO_TRY(sago_index_build(source, key, files, &index->blob, threads, &bytes, &index->scanned));
    release_blob(index);
    if (cache) {
        sago_status status = sago_file_replace(cache, bytes.data, bytes.length);
        if (status == SAGO_OK) map_cache(index, cache, key);
        if (status != SAGO_OK) sago_warn("the index of %s is not kept: %s", index->path, sago_message());
        remove_old(cache);
    }
    if (index->blob.bytes) {
        sago_str_free(&bytes);
        return SAGO_OK;
    }
    if (!sago_index_blob_check(bytes.data, bytes.length, key, &index->blob)) {
        sago_str_free(&bytes);
        return sago_fail(SAGO_E_INTERNAL, "%s: the index that was just made does not hold", index->path);
    }
    return SAGO_OK;
}

sago_status sago_index_open(const sago_source *source, const char *path, const char *cache_dir,
                            const sago_string_list *include, const sago_string_list *exclude, int threads,
                            sago_index **out) {
    sago_index *index = sago_alloc_zero(1, sizeof *index);
    sago_index_files files = {0};
    char *key = sago_index_key(source, path), *cache = NULL, *lock_name = NULL;
    char *dir = cache_dir && cache_dir[0] ? sago_strdup(cache_dir) : default_cache_dir();
    int lock = -1;
    sago_status status = SAGO_OK;
    *out = NULL;
    index->path = sago_strdup(path);
    SAGO_TRY_TO(done, list_files(source, path, include, exclude, &files));
    index->n_tasks = (int)files.count;
    index->selected = sago_alloc_zero(files.count, sizeof *index->selected);
    if (dir && sago_dir_make(dir) != SAGO_OK) {
        sago_warn("no index cache: %s", sago_message());
        free(dir);
        dir = NULL;
    }
    if (dir) {
        char *name = sago_format("index-%016llx", (unsigned long long)sago_hash_bytes(key, strlen(key)));
        cache = sago_path_join(dir, name);
        lock_name = sago_path_join(dir, "index.lock");
        free(name);
        map_cache(index, cache, key);
    }
    if (!select_tasks(index, &files)) {
        /* Ranks of one node would all scan the same files; the others wait for the first, then find its
         * cache. */
        if (cache) lock = open(lock_name, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
        if (lock >= 0 && flock(lock, LOCK_EX) == 0) {
            release_blob(index);
            map_cache(index, cache, key);
        }
        if (!select_tasks(index, &files))
            SAGO_TRY_TO(done, rebuild(index, source, key, &files, cache, threads));
        if (!select_tasks(index, &files))
            status = sago_fail(SAGO_E_INPUT, "%s: its files change while they are read", path);
    }
    index->paths = sago_alloc_zero(files.count, sizeof *index->paths);
    for (size_t i = 0; i < files.count; i++) index->paths[i] = sago_strdup(files.items[i].path);
done:
    if (lock >= 0) close(lock);
    sago_index_files_free(&files);
    free(key), free(cache), free(lock_name), free(dir);
    if (status != SAGO_OK) {
        index->n_tasks = index->paths ? index->n_tasks : 0;
        sago_index_close(index);
        return status;
    }
    *out = index;
    return SAGO_OK;
}

void sago_index_close(sago_index *index) {
    if (!index) return;
    for (int i = 0; i < index->n_tasks; i++) free(index->paths[i]);
    release_blob(index);
    free(index->paths);
    free(index->selected);
    free(index->path);
    free(index);
}

int sago_index_tasks(const sago_index *index) {
    return index->n_tasks;
}

const sago_index_task *sago_index_task_at(const sago_index *index, int task) {
    return &index->blob.tasks[index->selected[task]];
}

const char *sago_index_string(const sago_index *index, uint64_t offset) {
    return index->blob.strings + offset;
}

const char *sago_index_path(const sago_index *index, int task) {
    return index->paths[task];
}

const sago_record *sago_index_records(const sago_index *index, int task) {
    return index->blob.records + sago_index_task_at(index, task)->first_record;
}

const uint32_t *sago_index_by_hash(const sago_index *index, int task) {
    return index->blob.by_hash + sago_index_task_at(index, task)->first_record;
}

int sago_index_scanned(const sago_index *index) {
    return index->scanned;
}

sago_status sago_index_read(const sago_index *index, int task, uint32_t record, sago_str *out) {
    const sago_index_task *stored = sago_index_task_at(index, task);
    const sago_record *place = &sago_index_records(index, task)[record];
    const char *path = index->paths[task];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open", path);
    struct stat info;
    sago_status status = SAGO_OK;
    if (fstat(fd, &info) != 0 || info.st_size != stored->size_bytes ||
        info.st_mtim.tv_sec * 1000000000ll + info.st_mtim.tv_nsec != stored->mtime_ns) {
        status = sago_fail(SAGO_E_INPUT,
                           "%s: the file has changed since this run indexed it; start the run again", path);
    } else {
        sago_str_clear(out);
        sago_str_reserve(out, place->length);
        for (size_t got = 0; got < place->length && status == SAGO_OK;) {
            ssize_t n = pread(fd, out->data + got, place->length - got, (off_t)(place->offset + got));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0)
                status = sago_fail_errno(SAGO_E_IO, "%s:%u: cannot read", path, place->line);
            else
                got += (size_t)n;
        }
        out->length = status == SAGO_OK ? place->length : 0;
        out->data[out->length] = '\0';
    }
    close(fd);
    return status;
}
