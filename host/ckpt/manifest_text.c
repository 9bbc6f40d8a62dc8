// SPDX-License-Identifier: Apache-2.0
#include "file.h"
#include "manifest.h"
#include "rng.h"
#include "str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_NAME "sago checkpoint"
#define HASH_KEY    "\"xxh3\": \""
#define TAIL        "\"\n}\n"

enum {
    HASH_DIGITS = 16,
    MOST_PIECES = 1 << 16,
    MOST_MANIFEST_BYTES = 1 << 30,
};
static const int64_t most_elements = INT64_C(1) << 48; /* a bound under which no product of sizes overflows */

/* --- writing --- */

static void quote(sago_str *out, const char *text) {
    sago_json_quote(out, text, strlen(text));
}

static void write_dims(sago_str *out, const char *key, const int64_t dims[2], int n_dims) {
    sago_str_printf(out, "\"%s\": [%" PRId64, key, dims[0]);
    if (n_dims == 2) sago_str_printf(out, ", %" PRId64, dims[1]);
    sago_str_puts(out, "]");
}

static void write_piece(sago_str *out, const sago_manifest *m, const sago_manifest_tensor *t,
                        const sago_manifest_piece *p) {
    sago_str_puts(out, "{\"file\": ");
    quote(out, m->files[p->file].name);
    sago_str_puts(out, ", \"dataset\": ");
    quote(out, p->dataset);
    sago_str_puts(out, ", ");
    write_dims(out, "offset", p->offset, t->n_dims);
    sago_str_puts(out, ", ");
    write_dims(out, "shape", p->shape, t->n_dims);
    sago_str_printf(out, ", \"at\": %" PRId64 ", \"xxh3\": [", p->at);
    for (int64_t i = 0; i < p->n_hashes; i++)
        sago_str_printf(out, "%s\"%016" PRIx64 "\"", i ? ", " : "", p->hashes[i]);
    sago_str_puts(out, "]}");
}

void sago_manifest_write(const sago_manifest *m, sago_str *out) {
    size_t start = out->length;
    sago_str_printf(out,
                    "{\n\"format\": \"" FORMAT_NAME "\",\n\"version\": %d,\n\"step\": %" PRId64
                    ",\n\"hash_block_bytes\": %d,\n\"meta\": ",
                    SAGO_MANIFEST_VERSION, m->step, SAGO_HASH_BLOCK_BYTES);
    if (m->meta)
        sago_json_add(out, m->meta, 17);
    else
        sago_str_puts(out, "{}");
    sago_str_puts(out, ",\n\"files\": [");
    for (int i = 0; i < m->n_files; i++) {
        sago_str_puts(out, i ? ",\n{\"name\": " : "\n{\"name\": ");
        quote(out, m->files[i].name);
        sago_str_printf(out, ", \"bytes\": %" PRId64 ", \"xxh3\": \"%016" PRIx64 "\"}", m->files[i].bytes,
                        m->files[i].hash);
    }
    sago_str_puts(out, "],\n\"tensors\": [");
    for (int i = 0; i < m->n_tensors; i++) {
        const sago_manifest_tensor *t = &m->tensors[i];
        sago_str_puts(out, i ? ",\n{\"name\": " : "\n{\"name\": ");
        quote(out, t->name);
        sago_str_printf(out, ", \"dtype\": \"%s\", ", sago_dtype_name(t->dtype));
        write_dims(out, "shape", t->shape, t->n_dims);
        sago_str_puts(out, ", \"pieces\": [");
        for (int k = 0; k < t->n_pieces; k++) {
            if (k) sago_str_puts(out, ",\n  ");
            write_piece(out, m, t, &t->pieces[k]);
        }
        sago_str_puts(out, "]}");
    }
    sago_str_puts(out, "],\n" HASH_KEY);
    size_t at = out->length;
    sago_str_puts(out, "0000000000000000" TAIL);
    char digits[HASH_DIGITS + 1];
    snprintf(digits, sizeof digits, "%016" PRIx64, sago_hash_bytes(out->data + start, out->length - start));
    memcpy(out->data + at, digits, HASH_DIGITS);
}

/* --- reading --- */

static sago_status check_hash(const char *text, size_t length, const char *name) {
    size_t end = HASH_DIGITS + strlen(TAIL);
    char *copy = NULL;
    bool good = length > end && memcmp(text + length - strlen(TAIL), TAIL, strlen(TAIL)) == 0;
    if (good) {
        char digits[HASH_DIGITS + 1];
        copy = sago_alloc(length);
        memcpy(copy, text, length);
        memset(copy + length - end, '0', HASH_DIGITS);
        snprintf(digits, sizeof digits, "%016" PRIx64, sago_hash_bytes(copy, length));
        good = memcmp(digits, text + length - end, HASH_DIGITS) == 0;
    }
    free(copy);
    if (good) return SAGO_OK;
    return sago_fail(SAGO_E_CORRUPT, "%s: damaged: its own hash does not hold", name);
}

/* Where in the MANIFEST the parser is, for messages. */
typedef struct reader {
    const char *name, *tensor;
} reader;

static sago_status wrong(const reader *r, const char *what) {
    if (r->tensor) return sago_fail(SAGO_E_CORRUPT, "%s: tensor %s: %s", r->name, r->tensor, what);
    return sago_fail(SAGO_E_CORRUPT, "%s: %s", r->name, what);
}

static bool read_int(const json_t *object, const char *key, int64_t low, int64_t high, int64_t *out) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) return false;
    *out = json_integer_value(value);
    return *out >= low && *out <= high;
}

static bool parse_hash(const json_t *value, uint64_t *out) {
    const char *text = json_string_value(value);
    if (!text || strlen(text) != HASH_DIGITS || strspn(text, "0123456789abcdef") != HASH_DIGITS) return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

/* A name that stays inside the step directory. */
static bool plain_file_name(const char *name) {
    return name && name[0] && name[0] != '.' && !strchr(name, '/') && strcmp(name, "MANIFEST.json") != 0;
}

static sago_status read_files(const reader *r, const json_t *list, sago_manifest *m) {
    if (!json_is_array(list)) return wrong(r, "\"files\" is missing, or is no list");
    size_t i;
    const json_t *entry;
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        int64_t bytes;
        uint64_t hash;
        if (!plain_file_name(name) || !read_int(entry, "bytes", 0, INT64_MAX, &bytes) ||
            !parse_hash(json_object_get(entry, "xxh3"), &hash))
            return wrong(r, "an entry of \"files\" is malformed");
        for (int k = 0; k < m->n_files; k++)
            if (strcmp(m->files[k].name, name) == 0) return wrong(r, "\"files\" names one file twice");
        sago_manifest_add_file(m, name, bytes, hash);
    }
    return SAGO_OK;
}

static bool read_dims(const json_t *object, const char *key, int n_dims, int64_t low, int64_t out[2]) {
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)n_dims) return false;
    out[1] = low; /* what a vector's second dim counts as: shape 1, offset 0 */
    for (int d = 0; d < n_dims; d++) {
        const json_t *value = json_array_get(list, (size_t)d);
        if (!json_is_integer(value)) return false;
        out[d] = json_integer_value(value);
        if (out[d] < low || out[d] > most_elements) return false;
    }
    return true;
}

static sago_status read_piece(const reader *r, const json_t *entry, const sago_manifest *m,
                              const sago_manifest_tensor *t, sago_manifest_piece *p) {
    *p = (sago_manifest_piece){0};
    const char *file = json_string_value(json_object_get(entry, "file"));
    const char *dataset = json_string_value(json_object_get(entry, "dataset"));
    for (p->file = 0; file && p->file < m->n_files && strcmp(m->files[p->file].name, file) != 0;) p->file++;
    if (!file || p->file == m->n_files) return wrong(r, "a piece lies in a file that \"files\" lacks");
    if (!dataset || !read_dims(entry, "offset", t->n_dims, 0, p->offset) ||
        !read_dims(entry, "shape", t->n_dims, 1, p->shape))
        return wrong(r, "a piece's dataset, offset or shape is malformed");
    for (int d = 0; d < 2; d++)
        if (p->shape[d] > t->shape[d] || p->offset[d] > t->shape[d] - p->shape[d])
            return wrong(r, "a piece lies outside of its tensor");
    int64_t bytes = sago_manifest_piece_bytes(t, p);
    if (!read_int(entry, "at", 0, INT64_MAX, &p->at) || m->files[p->file].bytes < bytes ||
        p->at > m->files[p->file].bytes - bytes)
        return wrong(r, "a piece lies outside of its file");
    const json_t *hashes = json_object_get(entry, "xxh3");
    p->n_hashes = (bytes + SAGO_HASH_BLOCK_BYTES - 1) / SAGO_HASH_BLOCK_BYTES;
    if (!json_is_array(hashes) || json_array_size(hashes) != (size_t)p->n_hashes)
        return wrong(r, "a piece has the wrong number of hashes");
    p->hashes = sago_alloc((size_t)p->n_hashes * sizeof *p->hashes);
    p->dataset = sago_strdup(dataset);
    for (int64_t i = 0; i < p->n_hashes; i++)
        if (!parse_hash(json_array_get(hashes, (size_t)i), &p->hashes[i]))
            return wrong(r, "a piece's hash is malformed");
    return SAGO_OK;
}

static sago_status read_tensor(reader *r, const json_t *entry, sago_manifest *m) {
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *pieces = json_object_get(entry, "pieces");
    if (!name || !name[0]) return wrong(r, "a tensor has no name");
    if (m->n_tensors && strcmp(m->tensors[m->n_tensors - 1].name, name) >= 0)
        return wrong(r, "tensors are not sorted by name");
    r->tensor = name;
    sago_manifest_tensor t = {.dtype = SAGO_DTYPE_COUNT, .n_dims = (int)json_array_size(shape)};
    for (int d = 0; d < SAGO_DTYPE_COUNT; d++)
        if (dtype && strcmp(dtype, sago_dtype_name((sago_dtype)d)) == 0) t.dtype = (sago_dtype)d;
    if (t.dtype == SAGO_DTYPE_COUNT) return wrong(r, "unknown dtype");
    if (t.n_dims < 1 || t.n_dims > 2 || !read_dims(entry, "shape", t.n_dims, 1, t.shape) ||
        t.shape[0] > most_elements / t.shape[1])
        return wrong(r, "its shape is malformed");
    size_t n = json_array_size(pieces), i;
    if (n == 0 || n > MOST_PIECES) return wrong(r, "it has no pieces, or too many");
    const json_t *value;
    json_array_foreach(pieces, i, value) {
        sago_manifest_piece piece;
        sago_status status = read_piece(r, value, m, &t, &piece);
        if (status != SAGO_OK) {
            sago_manifest_piece_free(&piece);
            return status;
        }
        SAGO_TRY(sago_manifest_add_piece(m, name, t.dtype, t.n_dims, t.shape, piece));
    }
    r->tensor = NULL;
    return SAGO_OK;
}

static sago_status read_all(reader *r, const json_t *root, bool whole, sago_manifest *m) {
    const char *format = json_string_value(json_object_get(root, "format"));
    int64_t version, block;
    if (!format || strcmp(format, FORMAT_NAME) != 0) return wrong(r, "is no MANIFEST of a sago checkpoint");
    if (!read_int(root, "version", 1, INT64_MAX, &version))
        return wrong(r, "\"version\" is missing or malformed");
    if (version != SAGO_MANIFEST_VERSION)
        return sago_fail(SAGO_E_INPUT,
                         "%s: format version %" PRId64
                         "; this sago reads version %d: use the sago that wrote it",
                         r->name, version, SAGO_MANIFEST_VERSION);
    if (!read_int(root, "step", 0, INT64_C(999999999999999999), &m->step))
        return wrong(r, "\"step\" is missing or malformed");
    if (!read_int(root, "hash_block_bytes", SAGO_HASH_BLOCK_BYTES, SAGO_HASH_BLOCK_BYTES, &block))
        return wrong(r, "\"hash_block_bytes\" is not that of this version");
    json_t *meta = json_object_get(root, "meta");
    if (!json_is_object(meta)) return wrong(r, "\"meta\" is missing, or is no object");
    m->meta = json_incref(meta);
    SAGO_TRY(read_files(r, json_object_get(root, "files"), m));
    const json_t *tensors = json_object_get(root, "tensors"), *entry;
    if (!json_is_array(tensors)) return wrong(r, "\"tensors\" is missing, or is no list");
    size_t i;
    json_array_foreach(tensors, i, entry) SAGO_TRY(read_tensor(r, entry, m));
    if (whole && sago_manifest_check_cover(m) != SAGO_OK) return sago_wrap(SAGO_E_CORRUPT, "%s", r->name);
    return SAGO_OK;
}

sago_status sago_manifest_parse(const char *text, size_t length, const char *name, bool whole,
                                sago_manifest *out) {
    *out = (sago_manifest){0};
    SAGO_TRY(check_hash(text, length, name));
    json_t *root;
    SAGO_TRY(sago_json_parse(text, length, name, 1, &root));
    reader r = {.name = name};
    sago_status status = read_all(&r, root, whole, out);
    json_decref(root);
    return status;
}

sago_status sago_manifest_read(const char *path, sago_manifest *out) {
    sago_str text = {0};
    *out = (sago_manifest){0};
    sago_status status = sago_file_read(path, MOST_MANIFEST_BYTES, &text);
    if (status == SAGO_OK) status = sago_manifest_parse(sago_str_text(&text), text.length, path, true, out);
    sago_str_free(&text);
    return status;
}
