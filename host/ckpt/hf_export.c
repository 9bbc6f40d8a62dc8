// SPDX-License-Identifier: Apache-2.0
#include "hf.h"

#include "ckpt.h"
#include "file.h"
#include "hf_folder.h"
#include "log.h"
#include "safetensors.h"
#include "str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct export {
    sago_ckpt *ckpt;
    sago_model_shape shape;
    sago_registry registry;
    const json_t *config, *second_names; /* of the imported model, or NULL */
    sago_hf_folder folder;
    sago_safetensor_entry *entries;
    const sago_param **sources; /* by entry */
    char(*names)[SAGO_HF_NAME_BYTES];
    int n_entries;
    int *parts; /* by entry: the file of weights that it goes to, ascending */
    int n_parts;
}
export;

static sago_status write_bytes(export *out, const char *name, const void *bytes, size_t size) {
    FILE *stream;
    const char *path = sago_hf_folder_add(&out->folder, name);
    SAGO_TRY(sago_file_open(path, "wb", &stream));
    sago_status status = SAGO_OK;
    if (size && fwrite(bytes, 1, size, stream) != size)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    sago_status closed = status == SAGO_OK ? sago_file_close_synced(stream, path) : SAGO_OK;
    if (status != SAGO_OK) fclose(stream);
    return status != SAGO_OK ? status : closed;
}

static sago_status write_json(export *out, const char *name, json_t *value) {
    sago_str text = {0};
    char *dumped = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    sago_str_puts(&text, dumped ? dumped : "{}");
    sago_str_putc(&text, '\n');
    sago_status status = write_bytes(out, name, text.data, text.length);
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

static int64_t entry_bytes(const sago_safetensor_entry *e) {
    return (int64_t)sizeof(float) * e->shape[0] * (e->n_dims == 2 ? e->shape[1] : 1);
}

/* Fills files in the order of the tensors; one that is larger than a file may be has a file of its own. */
static sago_status plan_parts(export *out, int64_t part_bytes) {
    int64_t used = 0;
    out->parts = sago_alloc((size_t)out->n_entries * sizeof *out->parts);
    out->n_parts = 1;
    for (int i = 0; i < out->n_entries; i++) {
        int64_t bytes = entry_bytes(&out->entries[i]);
        if (used > 0 && bytes > part_bytes - used) {
            out->n_parts++;
            used = 0;
        }
        used += bytes;
        out->parts[i] = out->n_parts - 1;
    }
    if (out->n_parts <= SAGO_HF_MOST_FILES) return SAGO_OK;
    return sago_fail(SAGO_E_USAGE,
                     "--shard-bytes %" PRId64 ": would make %d files of weights, and %d is the most",
                     part_bytes, out->n_parts, SAGO_HF_MOST_FILES);
}

typedef struct sink {
    FILE *stream;
    const char *path;
} sink;

static sago_status write_values(void *context, int64_t first, const void *values, int64_t count) {
    const sink *to = context;
    (void)first; /* they come in order */
    if (fwrite(values, sizeof(float), (size_t)count, to->stream) == (size_t)count) return SAGO_OK;
    return sago_fail_errno(SAGO_E_IO, "%s: cannot write", to->path);
}

static sago_status write_tensor(export *out, const sago_param *p, sink *to) {
    char *name = sago_format("param/%s", p->name);
    const sago_remote remote = {.write = write_values, .context = to};
    sago_piece piece = {.name = name,
                        .dtype = SAGO_F32,
                        .n_dims = p->n_dims,
                        .global_shape = {p->global_shape[0], p->global_shape[1]},
                        .shape = {p->global_shape[0], p->global_shape[1]},
                        .remote = &remote};
    sago_status status = sago_ckpt_load(out->ckpt, &piece, 1);
    free(name);
    return status;
}

/* The entries [first, end) as one file. */
static sago_status write_part(export *out, const char *name, int first, int end) {
    sago_str header = {0};
    sink to = {.path = sago_hf_folder_add(&out->folder, name)};
    SAGO_TRY(sago_file_open(to.path, "wb", &to.stream));
    sago_safetensors_header(out->entries + first, end - first, &header);
    sago_status status = SAGO_OK;
    if (fwrite(header.data, 1, header.length, to.stream) != header.length)
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", to.path);
    for (int i = first; i < end && status == SAGO_OK; i++) status = write_tensor(out, out->sources[i], &to);
    if (status == SAGO_OK)
        status = sago_file_close_synced(to.stream, to.path);
    else
        fclose(to.stream);
    sago_str_free(&header);
    return status;
}

static sago_status write_weights(export *out) {
    json_t *map = json_object();
    int64_t total = 0;
    sago_status status = SAGO_OK;
    for (int first = 0, end; first < out->n_entries && status == SAGO_OK; first = end) {
        char *name = sago_hf_part_name(out->parts[first], out->n_parts);
        for (end = first; end < out->n_entries && out->parts[end] == out->parts[first]; end++) {
            json_object_set_new(map, out->names[end], json_string(name));
            total += entry_bytes(&out->entries[end]);
        }
        status = write_part(out, name, first, end);
        free(name);
    }
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (status == SAGO_OK && out->n_parts > 1)
        status = write_json(out, "model.safetensors.index.json", index);
    json_decref(index);
    return status;
}

/* --- tokenizer --- */

/* T5's class puts EOS behind every text and sentinels behind the pieces, which a decoder's prompt has not.
 * BertGenerationTokenizer is the class of transformers that gives what SentencePiece gives and nothing else,
 * under every normaliser; Llama's makes the pieces anew by its own rules. */
static json_t *tokenizer_config(bool byte_ids, bool decoder_only) {
    json_t *config =
        json_pack("{s:s, s:s, s:s}", "eos_token", "</s>", "pad_token", "<pad>", "unk_token", "<unk>");
    const char *class = byte_ids ? "ByT5Tokenizer" : decoder_only ? "BertGenerationTokenizer" : "T5Tokenizer";
    json_object_set_new(config, "tokenizer_class", json_string(class));
    if (byte_ids || !decoder_only) {
        json_object_set_new(config, "extra_ids", json_integer(byte_ids ? 125 : 100));
        return config;
    }
    json_object_set_new(config, "bos_token", json_null());
    json_object_set_new(config, "sep_token", json_null());
    json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    return config;
}

static sago_status write_tokenizer(export *out) {
    if (!sago_ckpt_has_file(out->ckpt, SAGO_TOKENIZER_FILE)) return SAGO_OK;
    sago_str bytes = {0};
    sago_status status = sago_ckpt_read_file(out->ckpt, SAGO_TOKENIZER_FILE, &bytes);
    bool byte_ids = bytes.length == 5 && memcmp(bytes.data, "bytes", 5) == 0;
    if (status == SAGO_OK && !byte_ids) status = write_bytes(out, "spiece.model", bytes.data, bytes.length);
    if (status == SAGO_OK) {
        json_t *config = tokenizer_config(byte_ids, sago_model_decoder_only(&out->shape));
        status = write_json(out, "tokenizer_config.json", config);
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
        return sago_fail(
            SAGO_E_INPUT,
            "%s: model.rope is half, and Cohere's format has the rotary pairs of interleaved alone", dir);
    out->config = json_object_get(meta, "hf_config");
    if (!json_is_object(out->config)) out->config = NULL;
    out->second_names = json_object_get(meta, "hf_names");
    if (!json_is_array(out->second_names)) out->second_names = NULL;
    return SAGO_OK;
}

/* config.json is first: hf_folder.h says why. */
static sago_status write_all(export *out) {
    json_t *config = sago_hf_write_config(&out->shape, out->config);
    json_t *generation = json_pack("{s:i, s:i}", "eos_token_id", 1, "pad_token_id", 0);
    if (!sago_model_decoder_only(&out->shape))
        json_object_set_new(generation, "decoder_start_token_id", json_integer(0));
    sago_status status = write_json(out, "config.json", config);
    if (status == SAGO_OK) status = write_json(out, "generation_config.json", generation);
    json_decref(config);
    json_decref(generation);
    SAGO_TRY(status);
    SAGO_TRY(write_weights(out));
    return write_tokenizer(out);
}

static sago_status export_all(export *out, const char *path, const char *out_dir, int64_t part_bytes,
                              bool replace) {
    SAGO_TRY(sago_ckpt_open(path, true, &out->ckpt));
    SAGO_TRY(read_model(out));
    SAGO_TRY(list_entries(out));
    SAGO_TRY(plan_parts(out, part_bytes));
    SAGO_TRY(sago_hf_folder_open(out_dir, &out->folder));
    SAGO_TRY(write_all(out));
    SAGO_TRY(sago_hf_folder_commit(&out->folder, replace));
    char *first = sago_hf_part_name(0, out->n_parts);
    if (out->n_parts == 1)
        sago_info("%s: step %" PRId64 ", %d tensors, as %s/%s", sago_ckpt_dir(out->ckpt),
                  sago_ckpt_step(out->ckpt), out->n_entries, out_dir, first);
    else
        sago_info("%s: step %" PRId64 ", %d tensors in %d files, as %s/%s ...", sago_ckpt_dir(out->ckpt),
                  sago_ckpt_step(out->ckpt), out->n_entries, out->n_parts, out_dir, first);
    free(first);
    return SAGO_OK;
}

sago_status sago_hf_export_parts(const char *path, const char *out_dir, int64_t part_bytes, bool replace) {
    export out = {0};
    sago_status status = export_all(&out, path, out_dir, part_bytes, replace);
    sago_hf_folder_close(&out.folder);
    free(out.entries);
    free(out.sources);
    free(out.names);
    free(out.parts);
    sago_registry_free(&out.registry);
    sago_ckpt_close(out.ckpt);
    return status;
}

sago_status sago_hf_export(const char *path, const char *out_dir, bool replace) {
    return sago_hf_export_parts(path, out_dir, SAGO_HF_PART_BYTES, replace);
}
