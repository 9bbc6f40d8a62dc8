// SPDX-License-Identifier: Apache-2.0
#include "safetensors.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HEADER_BYTES = 100000000 }; /* as in the reference reader */

struct sago_safetensors {
    char *path;
    const char *memory; /* the whole file as the caller's bytes; NULL: it is read through fd */
    int fd;             /* -1: at rest */
    struct stat info;   /* what was opened */
    json_t *header; /* owns names and dtypes */
    sago_safetensor *tensors;
    const sago_safetensor **by_name;
    int n_tensors;
};

static size_t element_bytes(const char *dtype) {
    static const struct {
        const char *name;
        size_t bytes;
    } known[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},     {"BF16", 2},    {"I64", 8},
                 {"I32", 4}, {"I16", 2}, {"I8", 1},      {"U64", 8},     {"U32", 4},
                 {"U16", 2}, {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(dtype, known[i].name) == 0) return known[i].bytes;
    return 0;
}

static sago_status wrong(const sago_safetensors *file, const char *tensor, const char *what) {
    return sago_fail(SAGO_E_INPUT, "%s: tensor %s: %s", file->path, tensor, what);
}

/* Bytes of a tensor; false when the product does not fit. */
static bool tensor_bytes(const sago_safetensor *t, size_t element, size_t *bytes) {
    *bytes = element;
    for (int d = 0; d < t->n_dims; d++)
        if (__builtin_mul_overflow(*bytes, (size_t)t->shape[d], bytes)) return false;
    return true;
}

static sago_status read_tensor(const sago_safetensors *file, const char *name, const json_t *entry,
                               int64_t data_at, size_t data_bytes, sago_safetensor *t) {
    *t = (sago_safetensor){.name = name, .dtype = json_string_value(json_object_get(entry, "dtype"))};
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    if (!t->dtype || element_bytes(t->dtype) == 0)
        return wrong(file, name, "its dtype is missing or unknown");
    if (!json_is_array(shape) || json_array_size(shape) > SAGO_SAFETENSORS_MAX_DIMS)
        return wrong(file, name, "its shape is missing, or has too many dimensions");
    t->n_dims = (int)json_array_size(shape);
    for (int d = 0; d < t->n_dims; d++) {
        const json_t *size = json_array_get(shape, (size_t)d);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return wrong(file, name, "its shape holds something that is no size");
        t->shape[d] = json_integer_value(size);
    }
    const json_t *first = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(end))
        return wrong(file, name, "its data_offsets are no pair of integers");
    int64_t from = json_integer_value(first), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return sago_fail(SAGO_E_INPUT,
                         "%s: tensor %s: its bytes %" PRId64 " to %" PRId64
                         " lie outside of the file's %zu bytes of data (was the file cut short?)",
                         file->path, name, from, to, data_bytes);
    t->at = data_at + from;
    if (!tensor_bytes(t, element_bytes(t->dtype), &t->bytes) || t->bytes != (size_t)(to - from))
        return wrong(file, name, "its dtype and shape do not give the number of bytes of its data_offsets");
    return SAGO_OK;
}

static int by_place(const void *a, const void *b) {
    const sago_safetensor *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const sago_safetensor *const *)a)->name, (*(const sago_safetensor *const *)b)->name);
}

/* Each byte of data belongs to one tensor. */
static sago_status check_places(const sago_safetensors *file, int64_t data_at, size_t data_bytes) {
    int64_t end = data_at;
    for (int i = 0; i < file->n_tensors; i++) {
        const sago_safetensor *t = &file->tensors[i];
        if (t->at < end) return wrong(file, t->name, "its bytes overlap another tensor's");
        if (t->at > end) return wrong(file, t->name, "bytes before it belong to no tensor");
        end = t->at + (int64_t)t->bytes;
    }
    if (end != data_at + (int64_t)data_bytes)
        return sago_fail(SAGO_E_INPUT, "%s: %" PRId64 " bytes at its end belong to no tensor", file->path,
                         data_at + (int64_t)data_bytes - end);
    return SAGO_OK;
}

static sago_status parse_header(sago_safetensors *file, const char *text, size_t length, size_t data_bytes) {
    int64_t data_at = (int64_t)(sizeof(uint64_t) + length);
    if (length == 0 || text[0] != '{')
        return sago_fail(SAGO_E_INPUT, "%s: its header is no JSON object: no safetensors file", file->path);
    SAGO_TRY(sago_json_parse(text, length, file->path, 0, &file->header));
    if (!json_is_object(file->header))
        return sago_fail(SAGO_E_INPUT, "%s: its header is no JSON object: no safetensors file", file->path);
    file->tensors = sago_alloc(json_object_size(file->header) * sizeof *file->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        SAGO_TRY(read_tensor(file, name, entry, data_at, data_bytes, &file->tensors[file->n_tensors]));
        file->n_tensors++;
    }
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_place);
    SAGO_TRY(check_places(file, data_at, data_bytes));
    file->by_name = sago_alloc((size_t)file->n_tensors * sizeof *file->by_name);
    for (int i = 0; i < file->n_tensors; i++) file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, by_name);
    return SAGO_OK;
}

/* A file that was at rest is the one whose header was read, or nothing of it counts. */
static sago_status wake(sago_safetensors *file) {
    struct stat now;
    if (file->fd >= 0) return SAGO_OK;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open", file->path);
    if (fstat(file->fd, &now) != 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot look at it", file->path);
    bool same = now.st_dev == file->info.st_dev && now.st_ino == file->info.st_ino &&
                now.st_size == file->info.st_size && now.st_mtim.tv_sec == file->info.st_mtim.tv_sec &&
                now.st_mtim.tv_nsec == file->info.st_mtim.tv_nsec;
    return same ? SAGO_OK : sago_fail(SAGO_E_INPUT, "%s: changed while it was read", file->path);
}

static sago_status read_at(sago_safetensors *file, int64_t at, size_t count, void *out) {
    if (file->memory) {
        if (count) memcpy(out, file->memory + at, count);
        return SAGO_OK;
    }
    SAGO_TRY(wake(file));
    for (size_t done = 0; done < count;) {
        ssize_t got = pread(file->fd, (char *)out + done, count - done, (off_t)(at + (int64_t)done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot read", file->path);
        if (got == 0) return sago_fail(SAGO_E_INPUT, "%s: was cut short while it was read", file->path);
        done += (size_t)got;
    }
    return SAGO_OK;
}

static sago_status read_header(sago_safetensors *file, size_t size) {
    uint64_t header_bytes;
    if (size < sizeof header_bytes)
        return sago_fail(SAGO_E_INPUT, "%s: %zu bytes are no safetensors file", file->path, size);
    SAGO_TRY(read_at(file, 0, sizeof header_bytes, &header_bytes));
    if (header_bytes > MOST_HEADER_BYTES || header_bytes > size - sizeof header_bytes)
        return sago_fail(SAGO_E_INPUT,
                         "%s: its header would be %" PRIu64
                         " bytes long, more than the file or the format allows: "
                         "no safetensors file, or cut short",
                         file->path, header_bytes);
    char *text = sago_alloc((size_t)header_bytes);
    sago_status status = read_at(file, sizeof header_bytes, (size_t)header_bytes, text);
    if (status == SAGO_OK)
        status =
            parse_header(file, text, (size_t)header_bytes, size - sizeof header_bytes - (size_t)header_bytes);
    free(text);
    return status;
}

/* Takes the file, and closes it where its header is none. */
static sago_status finish_open(sago_safetensors *file, size_t size, sago_safetensors **out) {
    sago_status status = read_header(file, size);
    *out = file;
    if (status != SAGO_OK) {
        sago_safetensors_close(file);
        *out = NULL;
    }
    return status;
}

sago_status sago_safetensors_parse(const char *name, const void *bytes, size_t size, sago_safetensors **out) {
    sago_safetensors *file = sago_alloc_zero(1, sizeof *file);
    file->path = sago_strdup(name);
    file->memory = bytes;
    file->fd = -1;
    return finish_open(file, size, out);
}

sago_status sago_safetensors_open(const char *path, sago_safetensors **out) {
    *out = NULL;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open", path);
    sago_status status = SAGO_OK;
    if (fstat(fd, &info) != 0)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot look at it", path);
    else if (!S_ISREG(info.st_mode) || info.st_size == 0)
        status = sago_fail(SAGO_E_INPUT, "%s: %s", path,
                           S_ISREG(info.st_mode) ? "is empty: no safetensors file" : "is no plain file");
    if (status != SAGO_OK) {
        close(fd);
        return status;
    }
    sago_safetensors *file = sago_alloc_zero(1, sizeof *file);
    file->path = sago_strdup(path);
    file->fd = fd;
    file->info = info;
    return finish_open(file, (size_t)info.st_size, out);
}

void sago_safetensors_rest(sago_safetensors *file) {
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
}

void sago_safetensors_close(sago_safetensors *file) {
    if (!file) return;
    sago_safetensors_rest(file);
    json_decref(file->header);
    free(file->tensors);
    free(file->by_name);
    free(file->path);
    free(file);
}

const char *sago_safetensors_path(const sago_safetensors *file) {
    return file->path;
}
int sago_safetensors_count(const sago_safetensors *file) {
    return file->n_tensors;
}
const sago_safetensor *sago_safetensors_at(const sago_safetensors *file, int index) {
    return &file->tensors[index];
}

const sago_safetensor *sago_safetensors_find(const sago_safetensors *file, const char *name) {
    sago_safetensor wanted = {.name = name}, *key = &wanted;
    if (file->n_tensors == 0) return NULL;
    const sago_safetensor *const *found =
        bsearch(&key, file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, by_name);
    return found ? *found : NULL;
}

/* IEEE half to single, exactly: every half is a single. */
static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half >> 15) << 31, exponent = (half >> 10) & 31, mantissa = half & 1023u, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

sago_status sago_safetensors_read(sago_safetensors *file, const sago_safetensor *t, int64_t first,
                                  size_t count, void *out) {
    return read_at(file, t->at + first, count, out);
}

sago_status sago_safetensors_check_float(const sago_safetensors *file, const sago_safetensor *t) {
    if (strcmp(t->dtype, "F32") == 0 || strcmp(t->dtype, "BF16") == 0 || strcmp(t->dtype, "F16") == 0)
        return SAGO_OK;
    return sago_fail(SAGO_E_INPUT, "%s: tensor %s is %s; weights are read from F32, F16 and BF16", file->path,
                     t->name, t->dtype);
}

/* Halves are read into the second half of out and widened from the front: value i ends at byte 4 (i + 1), and
 * the half that is needed next begins at 2 count + 2 (i + 1), which is no earlier. */
sago_status sago_safetensors_read_f32(sago_safetensors *file, const sago_safetensor *t, int64_t first,
                                      int64_t count, float *out) {
    SAGO_TRY(sago_safetensors_check_float(file, t));
    size_t n = (size_t)count;
    if (strcmp(t->dtype, "F32") == 0) return read_at(file, t->at + 4 * first, 4 * n, out);
    bool bf16 = strcmp(t->dtype, "BF16") == 0;
    char *halves = (char *)out + 2 * n;
    SAGO_TRY(read_at(file, t->at + 2 * first, 2 * n, halves));
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, halves + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        float value;
        if (bf16)
            memcpy(&value, &bits, sizeof bits);
        else
            value = half_to_float(half);
        memcpy((char *)out + 4 * i, &value, sizeof value);
    }
    return SAGO_OK;
}

const char *sago_safetensor_text(const sago_safetensor *t, char *text, size_t bytes) {
    int at = snprintf(text, bytes, "%s[", t->dtype);
    for (int d = 0; d < t->n_dims && at > 0 && (size_t)at < bytes; d++)
        at += snprintf(text + at, bytes - (size_t)at, "%s%" PRId64, d ? ", " : "", t->shape[d]);
    if (at > 0 && (size_t)at < bytes) snprintf(text + at, bytes - (size_t)at, "]");
    return text;
}

void sago_safetensors_header(const sago_safetensor_entry entries[], int n, sago_str *out) {
    sago_str text = {0};
    int64_t at = 0;
    sago_str_puts(&text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < n; i++) {
        const sago_safetensor_entry *e = &entries[i];
        int64_t bytes = 4 * e->shape[0] * (e->n_dims == 2 ? e->shape[1] : 1);
        sago_str_putc(&text, ',');
        sago_json_quote(&text, e->name, strlen(e->name));
        sago_str_printf(&text, ":{\"dtype\":\"F32\",\"shape\":[%" PRId64, e->shape[0]);
        if (e->n_dims == 2) sago_str_printf(&text, ",%" PRId64, e->shape[1]);
        sago_str_printf(&text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, at + bytes);
        at += bytes;
    }
    sago_str_putc(&text, '}');
    while ((8 + text.length) % 64 != 0) sago_str_putc(&text, ' ');
    uint64_t length = text.length;
    sago_str_add(out, (const char *)&length, sizeof length);
    sago_str_add(out, text.data, text.length);
    sago_str_free(&text);
}
