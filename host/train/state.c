// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

/* Whole tensors of this run: parameters, then optimizer state. */
static int count_tensors(const sago_trainer *t) {
    return t->registry.n_params + sago_optimizer_count_pieces(t->optimizer);
}

static void param_pieces(const sago_trainer *t, sago_piece *out, char (*names)[SAGO_PARAM_NAME_BYTES + 8]) {
    for (int i = 0; i < t->registry.n_params; i++) {
        const sago_param *p = &t->registry.params[i];
        snprintf(names[i], sizeof names[i], "param/%s", p->name);
        out[i] = (sago_piece){.name = names[i],
                              .dtype = SAGO_F32,
                              .n_dims = p->n_dims,
                              .global_shape = {p->global_shape[0], p->global_shape[1]},
                              .offset = {p->global_offset[0], p->global_offset[1]},
                              .shape = {p->local_shape[0], p->local_shape[1]},
                              .data = sago_param_tensor(p, t->values).data};
    }
}

/*
 * Every data rank holds everything, so the writing is shared out: a matrix by rows, a vector or a matrix of fewer rows
 * than ranks as a whole to the ranks in turn. Returns the number of pieces that are this rank's.
 */
static int share_out(sago_piece *pieces, int n, int rank, int ranks) {
    int mine = 0;
    for (int i = 0; i < n; i++) {
        sago_piece p = pieces[i];
        int64_t rows = p.shape[0];
        if (p.n_dims == 2 && rows >= ranks) {
            int64_t first = rows * rank / ranks, end = rows * (rank + 1) / ranks;
            p.data = (char *)p.data + (size_t)(first * p.shape[1]) * sago_dtype_bytes(p.dtype);
            p.offset[0] += first;
            p.shape[0] = end - first;
        } else if (i % ranks != rank) {
            continue;
        }
        pieces[mine++] = p;
    }
    return mine;
}

static json_t *make_meta(const sago_trainer *t) {
    sago_str config = {0};
    sago_config_write(t->config, &config);
    json_t *losses = json_array();
    for (int i = 0; i < SAGO_SPIKE_WINDOW; i++) json_array_append_new(losses, json_real(t->spikes.losses[i]));
    json_t *meta = json_pack("{s:o, s:s, s:I, s:I, s:I, s:o, s:I, s:o}", "model", sago_model_shape_to_json(&t->shape),
                             "config", sago_str_text(&config), "step", (json_int_t)t->step, "seed",
                             (json_int_t)t->config->run.seed, "moment_age_offset", (json_int_t)t->moment_age_offset,
                             "recent_losses", losses, "losses_seen", (json_int_t)t->spikes.seen, "cursor",
                             sago_data_cursor(t->data));
    sago_str_free(&config);
    return meta;
}

sago_status sago_trainer_save(sago_trainer *t) {
    int n = count_tensors(t);
    sago_piece *pieces = sago_alloc_zero((size_t)n, sizeof *pieces);
    char(*names)[SAGO_PARAM_NAME_BYTES + 8] = sago_alloc_zero((size_t)t->registry.n_params, sizeof *names);
    param_pieces(t, pieces, names);
    sago_optimizer_pieces(t->optimizer, pieces + t->registry.n_params);
    json_t *meta = make_meta(t);
    sago_side_file tokenizer = {.name = SAGO_TOKENIZER_FILE};
    if (t->tokenizer) tokenizer.bytes = sago_tokenizer_bytes(t->tokenizer, &tokenizer.size);
    sago_ckpt_save save = {
        .dir = t->checkpoints,
        .step = t->step,
        .meta = meta,
        .pieces = pieces,
        .n_pieces = share_out(pieces, n, t->mesh->rank, t->mesh->size),
        .files = &tokenizer,
        .n_files = t->tokenizer ? 1 : 0,
        .keep = t->config->checkpoint.keep,
        .keep_every = t->config->checkpoint.keep_every,
    };
    sago_status status = t->device->ops->synchronize(t->device);
    if (status == SAGO_OK) status = sago_ckpt_writer_start(t->writer, &save);
    if (status == SAGO_OK) t->saved_step = t->step;
    json_decref(meta);
    free(pieces);
    free(names);
    return status;
}

sago_status sago_trainer_load_weights(sago_trainer *t, sago_ckpt *ckpt, bool keep_moments) {
    int n = keep_moments ? count_tensors(t) : t->registry.n_params;
    sago_piece *pieces = sago_alloc_zero((size_t)n, sizeof *pieces);
    char(*names)[SAGO_PARAM_NAME_BYTES + 8] = sago_alloc_zero((size_t)t->registry.n_params, sizeof *names);
    param_pieces(t, pieces, names);
    if (keep_moments) sago_optimizer_pieces(t->optimizer, pieces + t->registry.n_params);
    sago_status status = sago_ckpt_load(ckpt, pieces, n);
    free(pieces);
    free(names);
    return status;
}

sago_status sago_trainer_load(sago_trainer *t, sago_ckpt *ckpt) {
    const json_t *meta = sago_ckpt_meta(ckpt);
    const json_t *losses = json_object_get(meta, "recent_losses"), *cursor = json_object_get(meta, "cursor");
    if (!cursor)
        return sago_fail(SAGO_E_INPUT, "%s: holds weights but no training state; name it as model.init of a new run",
                         sago_ckpt_dir(ckpt));
    SAGO_TRY(sago_trainer_load_weights(t, ckpt, true));
    t->step = t->saved_step = sago_ckpt_step(ckpt);
    t->moment_age_offset = json_integer_value(json_object_get(meta, "moment_age_offset"));
    t->spikes.seen = json_integer_value(json_object_get(meta, "losses_seen"));
    for (size_t i = 0; i < SAGO_SPIKE_WINDOW; i++)
        t->spikes.losses[i] = json_number_value(json_array_get(losses, i));
    return sago_data_restore(t->data, cursor);
}
