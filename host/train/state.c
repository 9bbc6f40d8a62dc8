// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "hf.h"
#include "ops.h"
#include "param_pieces.h"
#include "share_out.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

static json_t *make_meta(const sago_trainer *t) {
    sago_str config = {0};
    sago_config_write(t->config, &config);
    json_t *losses = json_array();
    for (int i = 0; i < SAGO_SPIKE_WINDOW; i++) json_array_append_new(losses, json_real(t->spikes.losses[i]));
    json_t *meta = json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:o, s:I, s:I, s:o}", "model",
                             sago_model_shape_to_json(&t->shape), "config", sago_str_text(&config),
                             "precision", t->config->train.precision, "step", (json_int_t)t->step, "seed", (json_int_t)t->config->run.seed,
                             "moment_age_offset", (json_int_t)t->moment_age_offset, "recent_losses", losses,
                             "losses_seen", (json_int_t)t->spikes.seen, "skipped_in_a_row",
                             (json_int_t)t->skipped_in_a_row, "cursor", sago_data_cursor(t->data));
    /* What the weights were trained with; score and generate know it from here. */
    if (sago_model_decoder_only(&t->shape))
        json_object_set_new(meta, "attention", json_string(t->config->model.attention));
    sago_hf_carry_meta(t->origin, meta);
    sago_str_free(&config);
    return meta;
}

sago_status sago_trainer_save(sago_trainer *t) {
    int n_state = sago_optimizer_count_pieces(t->optimizer);
    sago_param_pieces whole = sago_param_pieces_make(&t->weights, n_state);
    sago_optimizer_pieces(t->optimizer, whole.pieces + whole.n);
    json_t *meta = make_meta(t);
    sago_side_file tokenizer = {.name = SAGO_TOKENIZER_FILE};
    if (t->tokenizer) tokenizer.bytes = sago_tokenizer_bytes(t->tokenizer, &tokenizer.size);
    sago_ckpt_save save = {
        .dir = t->checkpoints,
        .step = t->step,
        .meta = meta,
        .pieces = whole.pieces,
        .n_pieces = sago_share_out(whole.pieces, whole.n + n_state, t->mesh),
        .files = &tokenizer,
        .n_files = t->tokenizer ? 1 : 0,
        .keep = t->config->checkpoint.keep,
        .keep_every = t->config->checkpoint.keep_every,
    };
    sago_status status = t->device->ops->synchronize(t->device);
    if (status == SAGO_OK) status = sago_ckpt_writer_start(t->writer, &save);
    if (status == SAGO_OK) t->saved_step = t->step;
    json_decref(meta);
    sago_param_pieces_free(&whole);
    return status;
}

/*
 * Keeps the pieces of the optimizer's state that the checkpoint has. A momentum that it lacks begins at zero,
 * as all do; second moments can't, since their age is one for the whole model.
 */
static sago_status choose_state(sago_trainer *t, const sago_ckpt *ckpt, sago_piece *pieces, int *n) {
    int kept = 0;
    for (int i = 0; i < *n; i++) {
        const sago_piece p = pieces[i];
        sago_dtype dtype;
        int n_dims;
        int64_t shape[2];
        if (sago_ckpt_find(ckpt, p.name, &dtype, &n_dims, shape)) {
            pieces[kept++] = p;
        } else if (sago_starts_with(p.name, "adafactor/momentum/")) {
            SAGO_TRY(sago_optimizer_clear(t->optimizer, &p));
        } else {
            return sago_fail(SAGO_E_CONFIG,
                             "%s: has no %s: optimizer.factored, min_factored_dim and the frozen groups must "
                             "be what they were there (a new run may begin with "
                             "optimizer.second_moments=reset)",
                             sago_ckpt_dir(ckpt), p.name);
        }
    }
    *n = kept;
    return SAGO_OK;
}

sago_status sago_trainer_load_weights(sago_trainer *t, sago_ckpt *ckpt, bool keep_moments) {
    int n_state = keep_moments ? sago_optimizer_count_pieces(t->optimizer) : 0;
    sago_param_pieces whole = sago_param_pieces_make(&t->weights, n_state);
    sago_status status = SAGO_OK;
    if (keep_moments) {
        sago_optimizer_pieces(t->optimizer, whole.pieces + whole.n);
        status = choose_state(t, ckpt, whole.pieces + whole.n, &n_state);
    }
    if (status == SAGO_OK) status = sago_ckpt_load(ckpt, whole.pieces, whole.n + n_state);
    sago_param_pieces_free(&whole);
    return status;
}

sago_status sago_trainer_load(sago_trainer *t, sago_ckpt *ckpt) {
    const json_t *meta = sago_ckpt_meta(ckpt);
    const json_t *losses = json_object_get(meta, "recent_losses"), *cursor = json_object_get(meta, "cursor");
    if (!cursor)
        return sago_fail(SAGO_E_INPUT,
                         "%s: holds weights but no training state; name it as model.init of a new run",
                         sago_ckpt_dir(ckpt));
    SAGO_TRY(sago_trainer_load_weights(t, ckpt, true));
    t->step = t->saved_step = sago_ckpt_step(ckpt);
    t->moment_age_offset = json_integer_value(json_object_get(meta, "moment_age_offset"));
    t->skipped_in_a_row = json_integer_value(json_object_get(meta, "skipped_in_a_row"));
    t->spikes.seen = json_integer_value(json_object_get(meta, "losses_seen"));
    for (size_t i = 0; i < SAGO_SPIKE_WINDOW; i++)
        t->spikes.losses[i] = json_number_value(json_array_get(losses, i));
    return sago_data_restore(t->data, cursor);
}
