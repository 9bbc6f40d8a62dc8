// SPDX-License-Identifier: Apache-2.0
#include "safetensors.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HEADER_BYTES = 100000000 }; /* as in the reference reader */

struct sago_safetensors {
    char *path;
    char *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
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
                               const char *data, size_t data_bytes, sago_safetensor *t) {
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
    t->data = data + from;
    if (!tensor_bytes(t, element_bytes(t->dtype), &t->bytes) || t->bytes != (size_t)(to - from))
        return wrong(file, name, "its dtype and shape do not give the number of bytes of its data_offsets");
    return SAGO_OK;
}

static int by_place(const void *a, const void *b) {
    const sago_safetensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const sago_safetensor *const *)a)->name, (*(const sago_safetensor *const *)b)->name);
}

/* Each byte of data belongs to one tensor. */
static sago_status check_places(const sago_safetensors *file, const char *data, size_t data_bytes) {
    const char *end = data;
    for (int i = 0; i < file->n_tensors; i++) {
        const sago_safetensor *t = &file->tensors[i];
        if (t->data < end) return wrong(file, t->name, "its bytes overlap another tensor's");
        if (t->data > end) return wrong(file, t->name, "bytes before it belong to no tensor");
        end = t->data + t->bytes;
    }
    if (end != data + data_bytes)
        return sago_fail(SAGO_E_INPUT, "%s: %zu bytes at its end belong to no tensor", file->path,
                         (size_t)(data + data_bytes - end));
    return SAGO_OK;
}

static sago_status parse(sago_safetensors *file, const char *bytes, size_t size) {
    uint64_t header_bytes;
    if (size < sizeof header_bytes)
        return sago_fail(SAGO_E_INPUT, "%s: %zu bytes are no safetensors file", file->path, size);
    memcpy(&header_bytes, bytes, sizeof header_bytes);
    if (header_bytes > MOST_HEADER_BYTES || header_bytes > size - sizeof header_bytes)
        return sago_fail(SAGO_E_INPUT,
                         "%s: its header would be %" PRIu64
                         " bytes long, more than the file or the format allows: "
                         "no safetensors file, or cut short",
                         file->path, header_bytes);
    const char *text = bytes + sizeof header_bytes, *data = text + header_bytes;
    size_t data_bytes = size - sizeof header_bytes - (size_t)header_bytes;
    if (header_bytes == 0 || text[0] != '{')
        return sago_fail(SAGO_E_INPUT, "%s: its header is no JSON object: no safetensors file", file->path);
    SAGO_TRY(sago_json_parse(text, (size_t)header_bytes, file->path, 0, &file->header));
    if (!json_is_object(file->header))
        return sago_fail(SAGO_E_INPUT, "%s: its header is no JSON object: no safetensors file", file->path);
    file->tensors = sago_alloc(json_object_size(file->header) * sizeof *file->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        SAGO_TRY(read_tensor(file, name, entry, data, data_bytes, &file->tensors[file->n_tensors]));
        file->n_tensors++;
    }
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_place);
    SAGO_TRY(check_places(file, data, data_bytes));
    file->by_name = sago_alloc((size_t)file->n_tensors * sizeof *file->by_name);
    for (int i = 0; i < file->n_tensors; i++) file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, by_name);
    return SAGO_OK;
}

sago_status sago_safetensors_parse(const char *name, const void *bytes, size_t size, sago_safetensors **out) {
    sago_safetensors *file = sago_alloc_zero(1, sizeof *file);
    file->path = sago_strdup(name);
    sago_status status = parse(file, bytes, size);
    *out = file;
    if (status != SAGO_OK) {
        sago_safetensors_close(file);
        *out = NULL;
    }
    return status;
}

sago_status sago_safetensors_open(const char *path, sago_safetensors **out) {
    *out = NULL;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sago_fail_errno(SAGO_E_IO, "%s: cannot open", path);
    sago_status status = SAGO_OK;
    void *map = NULL;
    if (fstat(fd, &info) != 0)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot look at it", path);
    else if (!S_ISREG(info.st_mode) || info.st_size == 0)
        status = sago_fail(SAGO_E_INPUT, "%s: %s", path,
                           S_ISREG(info.st_mode) ? "is empty: no safetensors file" : "is no plain file");
    else if ((map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot map", path);
    close(fd);
    SAGO_TRY(status);
    status = sago_safetensors_parse(path, map, (size_t)info.st_size, out);
    if (status != SAGO_OK) {
        munmap(map, (size_t)info.st_size);
        return status;
    }
    (*out)->map = map;
    (*out)->map_bytes = (size_t)info.st_size;
    return SAGO_OK;
}

void sago_safetensors_close(sago_safetensors *file) {
    if (!file) return;
    if (file->map) munmap(file->map, file->map_bytes);
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

sago_status sago_safetensors_to_f32(const sago_safetensors *file, const sago_safetensor *t, float *out) {
    size_t count = t->bytes / element_bytes(t->dtype);
    if (strcmp(t->dtype, "F32") == 0) {
        if (count) memcpy(out, t->data, t->bytes);
        return SAGO_OK;
    }
    bool bf16 = strcmp(t->dtype, "BF16") == 0;
    if (!bf16 && strcmp(t->dtype, "F16") != 0)
        return sago_fail(SAGO_E_INPUT, "%s: tensor %s is %s; weights are read from F32, F16 and BF16",
                         file->path, t->name, t->dtype);
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, t->data + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        if (bf16)
            memcpy(&out[i], &bits, sizeof bits);
        else
            out[i] = half_to_float(half);
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
