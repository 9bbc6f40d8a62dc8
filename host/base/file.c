// SPDX-License-Identifier: Apache-2.0
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

sago_status sago_file_open(const char *path, const char *mode, FILE **out) {
    *out = fopen(path, mode);
    if (!*out) return sago_fail_errno(SAGO_E_IO, "%s: cannot %s", path, mode[0] == 'r' ? "open" : "write");
    struct stat info;
    if (mode[0] == 'r' && fstat(fileno(*out), &info) == 0 && S_ISDIR(info.st_mode)) {
        fclose(*out);
        *out = NULL;
        return sago_fail(SAGO_E_IO, "%s: is a folder, not a file", path);
    }
    return SAGO_OK;
}

sago_status sago_file_read(const char *path, size_t limit_bytes, sago_str *out) {
    FILE *file;
    SAGO_TRY(sago_file_open(path, "rb", &file));
    sago_str_clear(out);
    for (size_t block = 65536;;) {
        sago_str_reserve(out, block);
        size_t got = fread(out->data + out->length, 1, block, file);
        out->length += got;
        out->data[out->length] = '\0';
        if (limit_bytes && out->length > limit_bytes) {
            fclose(file);
            return sago_fail(SAGO_E_INPUT, "%s: larger than %zu bytes", path, limit_bytes);
        }
        if (got < block) break;
        if (block < (1u << 24)) block *= 2;
    }
    sago_status status = ferror(file) ? sago_fail_errno(SAGO_E_IO, "%s: cannot read", path) : SAGO_OK;
    fclose(file);
    return status;
}

sago_status sago_file_close_synced(FILE *file, const char *path) {
    bool failed = fflush(file) != 0 || fsync(fileno(file)) != 0;
    int error = errno;
    if (fclose(file) != 0 && !failed) failed = true, error = errno;
    errno = error;
    return failed ? sago_fail_errno(SAGO_E_IO, "%s: cannot write", path) : SAGO_OK;
}

sago_status sago_file_replaceable(const char *path) {
    struct stat info;
    char link[16];
    if (lstat(path, &info) != 0 || S_ISREG(info.st_mode)) return SAGO_OK;
    if (S_ISDIR(info.st_mode)) return sago_fail(SAGO_E_IO, "%s: is a folder; give the name of a file", path);
    /* /dev/stdout is a link into /proc, at whose end a regular file may be. */
    bool is_link = S_ISLNK(info.st_mode);
    ssize_t n = is_link ? readlink(path, link, sizeof link) : 0;
    bool special = n >= 6 && memcmp(link, "/proc/", 6) == 0;
    if (is_link && !special && (stat(path, &info) != 0 || S_ISREG(info.st_mode))) return SAGO_OK;
    return sago_fail(SAGO_E_IO, "%s: is no regular file, so it cannot be replaced; give the name of a file", path);
}

static bool is_left_behind(const char *path, const char *digits) {
    char *end;
    long pid = strtol(digits, &end, 10);
    struct stat info;
    if (end == digits || *end || pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH) return false;
    return lstat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_mtim.tv_sec + 60 < time(NULL);
}

char *sago_file_temporary(const char *path) {
    char *dir = sago_path_dir(path), *start = sago_format("%s.tmp-", sago_path_base(path));
    sago_names names = {0};
    /* A folder that cannot be listed shows when the file is made. */
    if (sago_dir_list(dir, &names) != SAGO_OK) names.count = 0;
    for (size_t i = 0; i < names.count; i++) {
        if (!sago_starts_with(names.names[i], start)) continue;
        char *other = sago_path_join(dir, names.names[i]);
        if (is_left_behind(other, names.names[i] + strlen(start))) unlink(other);
        free(other);
    }
    sago_names_free(&names);
    free(start);
    free(dir);
    return sago_format("%s.tmp-%ld", path, (long)getpid());
}

sago_status sago_file_replace(const char *path, const void *bytes, size_t length) {
    char *temporary = sago_format("%s.tmp-%ld", path, (long)getpid());
    char *dir = sago_path_dir(path);
    FILE *file = NULL;
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, sago_file_replaceable(path));
    SAGO_TRY_TO(done, sago_file_open(temporary, "wb", &file));
    if (length && fwrite(bytes, 1, length, file) != length) {
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", temporary);
        fclose(file);
        goto done;
    }
    SAGO_TRY_TO(done, sago_file_close_synced(file, temporary));
    if (rename(temporary, path) != 0) {
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot replace", path);
        goto done;
    }
    SAGO_TRY_TO(done, sago_dir_sync(dir));
done:
    if (status != SAGO_OK) unlink(temporary);
    free(temporary);
    free(dir);
    return status;
}

sago_status sago_dir_make(const char *path) {
    char *copy = sago_strdup(path);
    sago_status status = SAGO_OK;
    for (char *p = copy + 1; status == SAGO_OK; p++) {
        if (*p != '/' && *p != '\0') continue;
        char end = *p;
        *p = '\0';
        if (copy[0] && mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot make the folder", copy);
        *p = end;
        if (end == '\0') break;
    }
    free(copy);
    if (status == SAGO_OK && !sago_is_dir(path)) {
        return sago_fail(SAGO_E_IO, "%s: is in the way: a folder is needed there", path);
    }
    return status;
}

sago_status sago_dir_sync(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open the folder", path);
    int result = fsync(fd);
    int error = errno;
    close(fd);
    errno = error;
    /* Some network file systems cannot fsync a folder and say EINVAL; their renames last anyway. */
    if (result != 0 && error != EINVAL) return sago_fail_errno(SAGO_E_IO, "%s: cannot sync the folder", path);
    return SAGO_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

sago_status sago_dir_list(const char *path, sago_names *out) {
    *out = (sago_names){0};
    DIR *dir = opendir(path);
    if (!dir) return sago_fail_errno(SAGO_E_IO, "%s: cannot list the folder", path);
    size_t room = 0;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(dir)); errno = 0) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (out->count == room) {
            room = room ? 2 * room : 16;
            out->names = sago_realloc(out->names, room * sizeof *out->names);
        }
        out->names[out->count++] = sago_strdup(entry->d_name);
    }
    sago_status status = errno ? sago_fail_errno(SAGO_E_IO, "%s: cannot list the folder", path) : SAGO_OK;
    closedir(dir);
    if (status != SAGO_OK) {
        sago_names_free(out);
        return status;
    }
    if (out->count) qsort(out->names, out->count, sizeof *out->names, by_name);
    return SAGO_OK;
}

void sago_names_free(sago_names *names) {
    for (size_t i = 0; i < names->count; i++) free(names->names[i]);
    free(names->names);
    *names = (sago_names){0};
}

sago_status sago_dir_remove(const char *path) {
    struct stat itself;
    if (lstat(path, &itself) == 0 && S_ISLNK(itself.st_mode))
        return unlink(path) == 0 ? SAGO_OK : sago_fail_errno(SAGO_E_IO, "%s: cannot remove", path);
    sago_names inside;
    SAGO_TRY(sago_dir_list(path, &inside));
    sago_status status = SAGO_OK;
    for (size_t i = 0; i < inside.count && status == SAGO_OK; i++) {
        char *name = sago_path_join(path, inside.names[i]);
        struct stat info;
        if (lstat(name, &info) == 0 && S_ISDIR(info.st_mode))
            status = sago_dir_remove(name);
        else if (unlink(name) != 0)
            status = sago_fail_errno(SAGO_E_IO, "%s: cannot remove", name);
        free(name);
    }
    sago_names_free(&inside);
    if (status == SAGO_OK && rmdir(path) != 0) status = sago_fail_errno(SAGO_E_IO, "%s: cannot remove", path);
    return status;
}

bool sago_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool sago_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum { BLOCK_BYTES = 1 << 16 };

sago_status sago_lines_open(sago_line_reader *reader, const char *path, size_t limit_bytes) {
    *reader = (sago_line_reader){.limit_bytes = limit_bytes};
    SAGO_TRY(sago_file_open(path, "rb", &reader->file));
    reader->path = sago_strdup(path);
    reader->block = sago_alloc(BLOCK_BYTES);
    return SAGO_OK;
}

/* Reads the next block; an empty one at the end of the file. */
static sago_status fill_block(sago_line_reader *reader) {
    reader->block_at = 0;
    reader->block_end = fread(reader->block, 1, BLOCK_BYTES, reader->file);
    if (ferror(reader->file)) return sago_fail_errno(SAGO_E_IO, "%s: cannot read", reader->path);
    return SAGO_OK;
}

sago_status sago_lines_next(sago_line_reader *reader, bool *more) {
    reader->offset = reader->next_offset;
    reader->number++;
    sago_str_clear(&reader->line);
    *more = false;
    for (bool ended = false; !ended;) {
        if (reader->block_at == reader->block_end) SAGO_TRY(fill_block(reader));
        size_t left = reader->block_end - reader->block_at;
        if (left == 0) break;
        *more = true;
        const char *from = reader->block + reader->block_at, *newline = memchr(from, '\n', left);
        size_t length = newline ? (size_t)(newline - from) : left;
        if (reader->limit_bytes && reader->line.length + length > reader->limit_bytes)
            return sago_fail(SAGO_E_INPUT, "%s:%lld: the line is longer than %zu bytes", reader->path,
                             (long long)reader->number, reader->limit_bytes);
        sago_str_add(&reader->line, from, length);
        ended = newline != NULL;
        reader->block_at += length + ended;
        reader->next_offset += (int64_t)length + ended;
    }
    if (reader->line.length && reader->line.data[reader->line.length - 1] == '\r')
        reader->line.data[--reader->line.length] = '\0';
    return SAGO_OK;
}

void sago_lines_close(sago_line_reader *reader) {
    if (reader->file) fclose(reader->file);
    free(reader->path);
    free(reader->block);
    sago_str_free(&reader->line);
    *reader = (sago_line_reader){0};
}
