// SPDX-License-Identifier: Apache-2.0
#include "hf.h"

#include "ckpt.h"
#include "file.h"
#include "log.h"
#include "safetensors.h"
#include "str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The files of an export, each written beside its place and renamed at the end. */
enum { CONFIG, GENERATION, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, N_FILES };
static const char *const file_names[N_FILES] = {"config.json", "generation_config.json", "model.safetensors",
                                                "spiece.model", "tokenizer_config.json"};

typedef struct export {
    sago_ckpt *ckpt;
    sago_model_shape shape;
    sago_registry registry;
    const json_t *config, *second_names; /* of the imported model, or NULL */
    const char *dir;
    char *temporary[N_FILES]; /* NULL: not part of this export */
    sago_safetensor_entry *entries;
    const sago_param **sources; /* by entry */
    char(*names)[SAGO_HF_NAME_BYTES];
    int n_entries;
}
export;

static char *begin_file(export *out, int file) {
    char *path = sago_path_join(out->dir, file_names[file]);
    out->temporary[file] = sago_file_temporary(path);
    free(path);
    return out->temporary[file];
}

static sago_status write_bytes(export *out, int file, const void *bytes, size_t size) {
    FILE *stream;
    const char *path = begin_file(out, file);
    SAGO_TRY(sago_file_open(path, "wb", &stream));
    sago_status status = SAGO_OK;
    if (size && fwrite(bytes, 1, size, stream) != size)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    sago_status closed = status == SAGO_OK ? sago_file_close_synced(stream, path) : SAGO_OK;
    if (status != SAGO_OK) fclose(stream);
    return status != SAGO_OK ? status : closed;
}

static sago_status write_json(export *out, int file, json_t *value) {
    sago_str text = {0};
    char *dumped = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    sago_str_puts(&text, dumped ? dumped : "{}");
    sago_str_putc(&text, '\n');
    sago_status status = write_bytes(out, file, text.data, text.length);
    free(dumped);
    sago_str_free(&text);
    return status;
}

/* --- weights --- */

static void add_entry(export *out, const sago_param *p, const char *name) {
    int i = out->n_entries++;
    snprintf(out->names[i], sizeof out->names[i], "%s", name);
    out->sources[i] = p;
    out->entries[i] =
        (sago_safetensor_entry){out->names[i], p->n_dims, {p->global_shape[0], p->global_shape[1]}};
}

/* Names are those of the imported model where there was one: the same matrix under several names stays that.
 */
static sago_status list_entries(export *out) {
    size_t most = (size_t)out->registry.n_params + json_array_size(out->second_names);
    out->entries = sago_alloc_zero(most, sizeof *out->entries);
    out->sources = sago_alloc_zero(most, sizeof *out->sources);
    out->names = sago_alloc_zero(most, sizeof *out->names);
    for (int i = 0; i < out->registry.n_params; i++) {
        char name[SAGO_HF_NAME_BYTES];
        SAGO_TRY(sago_hf_name(&out->shape, out->registry.params[i].name, name));
        add_entry(out, &out->registry.params[i], name);
    }
    size_t i;
    const json_t *value;
    json_array_foreach(out->second_names, i, value) {
        const char *name = json_string_value(value);
        const char *param = name ? sago_hf_second_name_of(&out->shape, name) : NULL;
        const sago_param *p = param ? sago_registry_find(&out->registry, param) : NULL;
        if (!p)
            return sago_fail(SAGO_E_INPUT, "%s: meta.hf_names: entry %zu is no second name of a tensor",
                             sago_ckpt_dir(out->ckpt), i);
        add_entry(out, p, name);
    }
    return SAGO_OK;
}

static sago_status write_tensor(export *out, const sago_param *p, FILE *stream, const char *path) {
    int64_t count = p->global_shape[0] * p->global_shape[1];
    char *name = sago_format("param/%s", p->name);
    float *values = sago_alloc((size_t)count * sizeof *values);
    sago_piece piece = {.name = name,
                        .dtype = SAGO_F32,
                        .n_dims = p->n_dims,
                        .global_shape = {p->global_shape[0], p->global_shape[1]},
                        .shape = {p->global_shape[0], p->global_shape[1]},
                        .data = values};
    sago_status status = sago_ckpt_load(out->ckpt, &piece, 1);
    if (status == SAGO_OK && fwrite(values, sizeof *values, (size_t)count, stream) != (size_t)count)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    free(values);
    free(name);
    return status;
}

static sago_status write_weights(export *out) {
    SAGO_TRY(list_entries(out));
    sago_str header = {0};
    FILE *stream = NULL;
    const char *path = begin_file(out, WEIGHTS);
    SAGO_TRY(sago_file_open(path, "wb", &stream));
    sago_safetensors_header(out->entries, out->n_entries, &header);
    sago_status status = SAGO_OK;
    if (fwrite(header.data, 1, header.length, stream) != header.length)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    for (int i = 0; i < out->n_entries && status == SAGO_OK; i++)
        status = write_tensor(out, out->sources[i], stream, path);
    if (status == SAGO_OK)
        status = sago_file_close_synced(stream, path);
    else
        fclose(stream);
    sago_str_free(&header);
    return status;
}

/* --- tokenizer --- */

static sago_status write_tokenizer(export *out) {
    if (!sago_ckpt_has_file(out->ckpt, SAGO_TOKENIZER_FILE)) return SAGO_OK;
    sago_str bytes = {0};
    sago_status status = sago_ckpt_read_file(out->ckpt, SAGO_TOKENIZER_FILE, &bytes);
    bool byte_ids = bytes.length == 5 && memcmp(bytes.data, "bytes", 5) == 0;
    if (status == SAGO_OK && !byte_ids) status = write_bytes(out, TOKENIZER, bytes.data, bytes.length);
    if (status == SAGO_OK) {
        json_t *config =
            json_pack("{s:s, s:i, s:s, s:s, s:s}", "tokenizer_class",
                      byte_ids ? "ByT5Tokenizer" : "T5Tokenizer", "extra_ids", byte_ids ? 125 : 100,
                      "eos_token", "</s>", "pad_token", "<pad>", "unk_token", "<unk>");
        status = write_json(out, TOKENIZER_CONFIG, config);
        json_decref(config);
    }
    sago_str_free(&bytes);
    return status;
}

/* --- the whole --- */

static sago_status read_model(export *out) {
    const json_t *meta = sago_ckpt_meta(out->ckpt);
    const char *dir = sago_ckpt_dir(out->ckpt);
    SAGO_TRY(sago_wrap(sago_model_shape_from_json(json_object_get(meta, "model"), &out->shape), "%s", dir));
    SAGO_TRY(sago_wrap(sago_model_declare(&out->shape, &out->registry), "%s", dir));
    if (sago_model_decoder_only(&out->shape) && !out->shape.rope_interleaved)
        return sago_fail(SAGO_E_INPUT,
                         "%s: model.rope is half, and Cohere's format has the rotary pairs of interleaved alone", dir);
    out->config = json_object_get(meta, "hf_config");
    if (!json_is_object(out->config)) out->config = NULL;
    out->second_names = json_object_get(meta, "hf_names");
    if (!json_is_array(out->second_names)) out->second_names = NULL;
    return SAGO_OK;
}

static sago_status write_all(export *out) {
    SAGO_TRY(sago_dir_make(out->dir));
    json_t *config = sago_hf_write_config(&out->shape, out->config);
    json_t *generation = json_pack("{s:i, s:i}", "eos_token_id", 1, "pad_token_id", 0);
    if (!sago_model_decoder_only(&out->shape))
        json_object_set_new(generation, "decoder_start_token_id", json_integer(0));
    sago_status status = write_json(out, CONFIG, config);
    if (status == SAGO_OK) status = write_json(out, GENERATION, generation);
    json_decref(config);
    json_decref(generation);
    SAGO_TRY(status);
    SAGO_TRY(write_weights(out));
    return write_tokenizer(out);
}

/* False when either cannot be read: then the rename says why. */
static bool differ(const char *a, const char *b) {
    static char left[1 << 16], right[sizeof left];
    FILE *first = fopen(a, "rb"), *second = fopen(b, "rb");
    bool other = false;
    for (size_t n = sizeof left; first && second && !other && n == sizeof left;) {
        n = fread(left, 1, sizeof left, first);
        other = fread(right, 1, sizeof right, second) != n || memcmp(left, right, n) != 0;
    }
    if (first) fclose(first);
    if (second) fclose(second);
    return other;
}

/* What is there and says something else is somebody's work; the same export again changes nothing. */
static sago_status check_free(const export *out) {
    sago_status status = SAGO_OK;
    for (int i = 0; i < N_FILES && status == SAGO_OK; i++) {
        char *path = sago_path_join(out->dir, file_names[i]);
        if (out->temporary[i] && sago_is_file(path) && differ(path, out->temporary[i]))
            status = sago_fail(SAGO_E_BUSY, "%s: belongs to another model; give another folder, or --force", path);
        free(path);
    }
    return status;
}

static sago_status rename_all(export *out) {
    for (int i = 0; i < N_FILES; i++) {
        if (!out->temporary[i]) continue;
        char *path = sago_path_join(out->dir, file_names[i]);
        sago_status status = rename(out->temporary[i], path) == 0
                                 ? SAGO_OK
                                 : sago_fail_errno(SAGO_E_IO, "%s: cannot replace", path);
        free(path);
        SAGO_TRY(status);
    }
    return sago_dir_sync(out->dir);
}

sago_status sago_hf_export(const char *path, const char *out_dir, bool replace) {
    export out = {.dir = out_dir};
    sago_status status = sago_ckpt_open(path, true, &out.ckpt);
    if (status == SAGO_OK) status = read_model(&out);
    if (status == SAGO_OK) status = write_all(&out);
    if (status == SAGO_OK && !replace) status = check_free(&out);
    if (status == SAGO_OK) status = rename_all(&out);
    if (status == SAGO_OK)
        sago_info("%s: step %" PRId64 ", %d tensors, as %s/model.safetensors", sago_ckpt_dir(out.ckpt),
                  sago_ckpt_step(out.ckpt), out.n_entries, out_dir);
    for (int i = 0; i < N_FILES; i++) {
        if (out.temporary[i] && status != SAGO_OK) unlink(out.temporary[i]);
        free(out.temporary[i]);
    }
    free(out.entries);
    free(out.sources);
    free(out.names);
    sago_registry_free(&out.registry);
    sago_ckpt_close(out.ckpt);
    return status;
}
