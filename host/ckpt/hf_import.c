// SPDX-License-Identifier: Apache-2.0
#include "hf.h"

#include "ckpt.h"
#include "file.h"
#include "log.h"
#include "safetensors.h"
#include "steps.h"
#include "str.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MOST_CONFIG_BYTES = 1 << 20,
    MOST_INDEX_BYTES = 64 << 20,
    MOST_TOKENIZER_BYTES = 256 << 20,
    WINDOW_BYTES = 4 << 20, /* of a tensor, at once */
};

/* All tensors of a model's files. */
typedef struct weights {
    const char *dir;
    sago_safetensors **files;
    int n_files;
    json_t *map; /* name -> file, of the index; NULL for a single file */
} weights;

static void close_weights(weights *w) {
    for (int i = 0; i < w->n_files; i++) sago_safetensors_close(w->files[i]);
    free(w->files);
    json_decref(w->map);
}

static sago_status open_file(weights *w, const char *name) {
    char *path = sago_path_join(w->dir, name);
    w->files = sago_realloc(w->files, (size_t)(w->n_files + 1) * sizeof *w->files);
    sago_status status = sago_safetensors_open(path, &w->files[w->n_files]);
    if (status == SAGO_OK) sago_safetensors_rest(w->files[w->n_files++]);
    free(path);
    return status;
}

static bool is_open(const weights *w, const char *name) {
    for (int i = 0; i < w->n_files; i++)
        if (strcmp(sago_path_base(sago_safetensors_path(w->files[i])), name) == 0) return true;
    return false;
}

static sago_status open_index(weights *w, const char *path) {
    json_t *index = NULL;
    SAGO_TRY(sago_json_read(path, MOST_INDEX_BYTES, &index));
    w->map = json_incref(json_object_get(index, "weight_map"));
    json_decref(index);
    if (!json_is_object(w->map))
        return sago_fail(SAGO_E_INPUT, "%s: \"weight_map\" is missing, or is no object", path);
    const char *name;
    json_t *value;
    json_object_foreach(w->map, name, value) {
        const char *file = json_string_value(value);
        if (!file || !file[0] || file[0] == '.' || strchr(file, '/'))
            return sago_fail(SAGO_E_INPUT, "%s: tensor %s: its file is no name of a file in this folder",
                             path, name);
        if (is_open(w, file)) continue;
        if (w->n_files == SAGO_HF_MOST_FILES)
            return sago_fail(SAGO_E_INPUT, "%s: names more than %d files", path, SAGO_HF_MOST_FILES);
        SAGO_TRY(open_file(w, file));
    }
    return SAGO_OK;
}

static sago_status open_weights(const char *dir, weights *w) {
    *w = (weights){.dir = dir};
    char *single = sago_path_join(dir, "model.safetensors"),
         *index = sago_path_join(dir, "model.safetensors.index.json");
    sago_status status;
    if (sago_is_file(single))
        status = open_file(w, "model.safetensors");
    else if (sago_is_file(index))
        status = open_index(w, index);
    else
        status = sago_fail(
            SAGO_E_INPUT,
            "%s: holds neither model.safetensors nor model.safetensors.index.json (save_pretrained with "
            "safe_serialization=True writes it)",
            dir);
    free(single);
    free(index);
    return status;
}

/* The tensor of that name, in the file that the index gives for it. */
static const sago_safetensor *find(const weights *w, const char *name, sago_safetensors **file) {
    const char *wanted = json_string_value(json_object_get(w->map, name));
    for (int i = 0; i < w->n_files; i++) {
        if (w->map && (!wanted || strcmp(sago_path_base(sago_safetensors_path(w->files[i])), wanted) != 0))
            continue;
        const sago_safetensor *t = sago_safetensors_find(w->files[i], name);
        *file = w->files[i];
        if (t) return t;
    }
    return NULL;
}

/* Shared matrices: files may hold them under any of their names, or under several. */
static const sago_safetensor *find_param(const weights *w, const char *param, const sago_model_shape *shape,
                                         sago_safetensors **file) {
    char name[SAGO_HF_NAME_BYTES];
    if (sago_hf_name(shape, param, name) != SAGO_OK) return NULL;
    const sago_safetensor *t = find(w, name, file);
    for (int i = 0; i < w->n_files && !t; i++)
        for (int k = 0; k < sago_safetensors_count(w->files[i]) && !t; k++) {
            const sago_safetensor *other = sago_safetensors_at(w->files[i], k);
            const char *same_as = sago_hf_second_name_of(shape, other->name);
            *file = w->files[i];
            if (same_as && strcmp(same_as, param) == 0) t = other;
        }
    return t;
}

/* Compares two tensors, a window of each at a time. */
static sago_status compare(sago_safetensors *file_a, const sago_safetensor *a, sago_safetensors *file_b,
                           const sago_safetensor *b, bool *same) {
    *same = a->bytes == b->bytes && strcmp(a->dtype, b->dtype) == 0;
    char *left = sago_alloc(WINDOW_BYTES), *right = sago_alloc(WINDOW_BYTES);
    sago_status status = SAGO_OK;
    for (size_t at = 0; status == SAGO_OK && *same && at < a->bytes; at += WINDOW_BYTES) {
        size_t count = a->bytes - at < WINDOW_BYTES ? a->bytes - at : WINDOW_BYTES;
        status = sago_safetensors_read(file_a, a, (int64_t)at, count, left);
        if (status == SAGO_OK) status = sago_safetensors_read(file_b, b, (int64_t)at, count, right);
        if (status == SAGO_OK) *same = memcmp(left, right, count) == 0;
    }
    free(left);
    free(right);
    return status;
}

/* Tensor t of a file, which is no parameter's first name, must be a second name with the same contents. */
static sago_status check_second_name(const weights *w, const sago_model_shape *shape, sago_safetensors *file,
                                     const sago_safetensor *t, json_t *second_names) {
    const char *path = sago_safetensors_path(file), *same_as = sago_hf_second_name_of(shape, t->name);
    if (sago_hf_is_unread(t->name)) {
        sago_info("%s: tensor %s is left out: T5 does not read it", path, t->name);
        return SAGO_OK;
    }
    if (!same_as)
        return sago_fail(SAGO_E_INPUT, "%s: tensor %s belongs to no model of this config.json", path,
                         t->name);
    sago_safetensors *first_file = NULL;
    const sago_safetensor *first = find_param(w, same_as, shape, &first_file);
    bool same = false;
    SAGO_TRY(compare(file, t, first_file, first, &same));
    if (first_file != file) sago_safetensors_rest(first_file);
    if (!same)
        return sago_fail(SAGO_E_INPUT, "%s: tensor %s differs from the embedding, whose second name it is",
                         path, t->name);
    json_array_append_new(second_names, json_string(t->name));
    return SAGO_OK;
}

/* Every tensor of the files is a parameter, another name of one, or known to be unread. Collects the other
 * names. */
static sago_status check_names(const weights *w, const sago_registry *registry, const sago_model_shape *shape,
                               json_t *second_names) {
    json_t *known = json_object();
    char name[SAGO_HF_NAME_BYTES];
    sago_status status = SAGO_OK;
    for (int i = 0; i < registry->n_params && status == SAGO_OK; i++) {
        status = sago_hf_name(shape, registry->params[i].name, name);
        if (status == SAGO_OK) json_object_set_new(known, name, json_true());
    }
    for (int i = 0; i < w->n_files && status == SAGO_OK; i++) {
        for (int k = 0; k < sago_safetensors_count(w->files[i]) && status == SAGO_OK; k++) {
            const sago_safetensor *t = sago_safetensors_at(w->files[i], k);
            if (!json_object_get(known, t->name))
                status = check_second_name(w, shape, w->files[i], t, second_names);
        }
        sago_safetensors_rest(w->files[i]);
    }
    json_decref(known);
    return status;
}

static sago_status check_shape(const weights *w, const sago_model_shape *shape, const sago_param *p,
                               const sago_safetensor *t, const sago_safetensors *file) {
    char name[SAGO_HF_NAME_BYTES], got[128], want[128];
    SAGO_TRY(sago_hf_name(shape, p->name, name));
    if (!t) return sago_fail(SAGO_E_INPUT, "%s: tensor %s is missing; config.json asks for it", w->dir, name);
    bool same = t->n_dims == p->n_dims;
    for (int d = 0; d < p->n_dims && same; d++) same = t->shape[d] == p->global_shape[d];
    if (same) return SAGO_OK;
    int at = snprintf(want, sizeof want, "[%" PRId64, p->global_shape[0]);
    snprintf(want + at, sizeof want - (size_t)at, p->n_dims == 2 ? ", %" PRId64 "]" : "]",
             p->global_shape[1]);
    return sago_fail(SAGO_E_SHAPE, "%s: tensor %s is %s; config.json asks for %s",
                     sago_safetensors_path(file), t->name, sago_safetensor_text(t, got, sizeof got), want);
}

/* The pieces of step 0, each read from its file when the writer comes to it. */
typedef struct import {
    weights weights;
    sago_model_shape shape;
    sago_registry registry;
    json_t *config, *second_names;
    sago_piece *pieces;
    struct tensor_source *sources; /* by piece, as remotes */
    char (*names)[SAGO_PARAM_NAME_BYTES + 8];
    sago_safetensors *awake; /* the file that was read last */
    sago_str tokenizer;
} import;

typedef struct tensor_source {
    import *in;
    sago_safetensors *file;
    const sago_safetensor *tensor;
    sago_remote remote;
} tensor_source;

/* A NaN or an infinity among the weights would spread over every output, and no step of training could be
 * taken. */
static sago_status check_finite(const tensor_source *from, int64_t first, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return sago_fail(SAGO_E_INPUT, "%s: tensor %s: element %" PRId64 " is %s",
                             sago_safetensors_path(from->file), from->tensor->name, first + i,
                             isnan(values[i]) ? "not a number" : "infinite");
    return SAGO_OK;
}

/* What the writer asks for, block by block: it fails, and nothing is committed, at the first value that is
 * not finite. */
static sago_status read_source(const void *context, void *to_host, int64_t first, int64_t count) {
    const tensor_source *from = context;
    if (from->in->awake && from->in->awake != from->file) sago_safetensors_rest(from->in->awake);
    from->in->awake = from->file;
    SAGO_TRY(sago_safetensors_read_f32(from->file, from->tensor, first, count, to_host));
    return check_finite(from, first, to_host, count);
}

static sago_status make_pieces(import *in) {
    int n = in->registry.n_params;
    in->pieces = sago_alloc_zero((size_t)n, sizeof *in->pieces);
    in->names = sago_alloc_zero((size_t)n, sizeof *in->names);
    in->sources = sago_alloc_zero((size_t)n, sizeof *in->sources);
    for (int i = 0; i < n; i++) {
        const sago_param *p = &in->registry.params[i];
        tensor_source *from = &in->sources[i];
        from->in = in;
        from->tensor = find_param(&in->weights, p->name, &in->shape, &from->file);
        from->remote = (sago_remote){.read = read_source, .context = from};
        SAGO_TRY(check_shape(&in->weights, &in->shape, p, from->tensor, from->file));
        SAGO_TRY(sago_safetensors_check_float(from->file, from->tensor));
        snprintf(in->names[i], sizeof in->names[i], "param/%s", p->name);
        in->pieces[i] = (sago_piece){.name = in->names[i],
                                     .dtype = SAGO_F32,
                                     .n_dims = p->n_dims,
                                     .global_shape = {p->global_shape[0], p->global_shape[1]},
                                     .shape = {p->global_shape[0], p->global_shape[1]},
                                     .remote = &from->remote};
    }
    return SAGO_OK;
}

static sago_status read_tokenizer(const char *dir, sago_str *out) {
    static const char *const names[] = {"spiece.model", "tokenizer.model"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = sago_path_join(dir, names[i]);
        bool there = sago_is_file(path);
        sago_status status = there ? sago_file_read(path, MOST_TOKENIZER_BYTES, out) : SAGO_OK;
        if (status == SAGO_OK && there && out->length == 0)
            status = sago_fail(SAGO_E_INPUT, "%s: is empty: no SentencePiece model", path);
        free(path);
        if (status != SAGO_OK || there) return status;
    }
    return SAGO_OK;
}

static sago_status refuse_runs(const char *ckpt_dir) {
    int64_t *steps = NULL;
    int n_steps = 0;
    if (!sago_is_dir(ckpt_dir)) return SAGO_OK;
    char *inside = sago_path_join(ckpt_dir, "checkpoints");
    bool is_run = sago_is_dir(inside);
    free(inside);
    if (is_run) return sago_fail(SAGO_E_BUSY, "%s: is a run's folder; import into another one", ckpt_dir);
    sago_status status = sago_steps_list(ckpt_dir, &steps, &n_steps);
    if (status == SAGO_OK && n_steps && steps[n_steps - 1] > 0)
        status = sago_fail(SAGO_E_BUSY, "%s: holds the steps of a run; import into another folder", ckpt_dir);
    free(steps);
    return status;
}

static sago_status write_step(const import *in, const char *model_dir, const char *ckpt_dir) {
    char *source = sago_path_absolute(model_dir);
    json_t *meta =
        json_pack("{s:o, s:{s:s, s:s}, s:O, s:O}", "model", sago_model_shape_to_json(&in->shape), "source",
                  "format", "hf", "path", source, "hf_config", in->config, "hf_names", in->second_names);
    free(source);
    if (!meta) return sago_fail(SAGO_E_INPUT, "%s: its path is not UTF-8", model_dir);
    const sago_side_file tokenizer = {SAGO_TOKENIZER_FILE, in->tokenizer.data, in->tokenizer.length};
    const sago_ckpt_save save = {.dir = ckpt_dir,
                                 .step = 0,
                                 .meta = meta,
                                 .pieces = in->pieces,
                                 .n_pieces = in->registry.n_params,
                                 .files = &tokenizer,
                                 .n_files = in->tokenizer.length ? 1 : 0};
    sago_ckpt_writer *writer = NULL;
    sago_status status = sago_ckpt_writer_open(NULL, false, &writer);
    if (status == SAGO_OK) status = sago_ckpt_writer_start(writer, &save);
    sago_ckpt_writer_close(writer);
    json_decref(meta);
    return status;
}

static sago_status import_all(import *in, const char *model_dir, const char *ckpt_dir) {
    char *config_path = sago_path_join(model_dir, "config.json");
    sago_status status = sago_json_read(config_path, MOST_CONFIG_BYTES, &in->config);
    if (status == SAGO_OK) status = sago_hf_read_config(in->config, config_path, &in->shape);
    free(config_path);
    SAGO_TRY(status);
    SAGO_TRY(refuse_runs(ckpt_dir));
    SAGO_TRY(sago_model_declare(&in->shape, &in->registry));
    SAGO_TRY(open_weights(model_dir, &in->weights));
    SAGO_TRY(make_pieces(in));
    in->second_names = json_array();
    SAGO_TRY(check_names(&in->weights, &in->registry, &in->shape, in->second_names));
    SAGO_TRY(read_tokenizer(model_dir, &in->tokenizer));
    return write_step(in, model_dir, ckpt_dir);
}

sago_status sago_hf_import(const char *model_dir, const char *ckpt_dir) {
    import in = {0};
    bool made = !sago_is_dir(ckpt_dir);
    sago_status status = import_all(&in, model_dir, ckpt_dir);
    if (status != SAGO_OK && made) rmdir(ckpt_dir); /* empty: a save that fails leaves nothing in it */
    int64_t n_elements = 0;
    for (int i = 0; i < in.registry.n_params; i++)
        n_elements += in.registry.params[i].global_shape[0] * in.registry.params[i].global_shape[1];
    if (status == SAGO_OK)
        sago_info("%s: %" PRId64 " parameters in %d tensors%s, as step 0 of %s", model_dir, n_elements,
                  in.registry.n_params, in.tokenizer.length ? ", with tokenizer" : "", ckpt_dir);
    free(in.sources);
    free(in.pieces);
    free(in.names);
    sago_str_free(&in.tokenizer);
    json_decref(in.config);
    json_decref(in.second_names);
    close_weights(&in.weights);
    sago_registry_free(&in.registry);
    return status;
}

void sago_hf_carry_meta(const json_t *from, json_t *to) {
    static const char *const keys[] = {"source", "hf_config", "hf_names"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = json_object_get(from, keys[i]);
        if (value) json_object_set(to, keys[i], value);
    }
}
