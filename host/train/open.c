// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "file.h"
#include "hf.h"
#include "log.h"
#include "ops.h"
#include "precision.h"
#include "run_dir.h"
#include "steps.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Like a checkpoint's, a fresh run's shape goes back into the config: a key that follows from others, or from
 * the family, then holds in config.yaml what it came to. */
static sago_status shape_from_config(sago_config *config, sago_model_shape *shape) {
    if (config->model.vocab_size <= 0 || config->model.d_model <= 0)
        return sago_fail(SAGO_E_CONFIG,
                         "model: no shape; set model.init to a checkpoint, or model.vocab_size, "
                         "model.d_model and the other sizes (configs/ has examples)");
    SAGO_TRY(sago_model_shape_from_config(config, shape));
    return sago_model_shape_into_config(shape, "the model section", config);
}

/*
 * What the config states must agree with the checkpoint. Then the config says what the checkpoint is, so that
 * the run's config.yaml holds every fact of its model.
 */
static sago_status shape_from_checkpoint(sago_config *config, const sago_ckpt *ckpt,
                                         sago_model_shape *shape) {
    const char *from = sago_ckpt_dir(ckpt);
    SAGO_TRY(sago_wrap(sago_model_shape_from_json(json_object_get(sago_ckpt_meta(ckpt), "model"), shape),
                       "%s", from));
    return sago_model_shape_into_config(shape, from, config);
}

/* data.tokenizer where it is set, else the one that came with the weights; none where every source gives ids.
 */
static sago_status open_tokenizer(sago_trainer *t, sago_ckpt *source) {
    const char *path = t->config->data.tokenizer;
    bool text = false;
    for (int i = 0; i < t->config->data.n_mixture; i++)
        text |= strcmp(t->config->data.mixture[i].format, "ids") != 0;
    if (path[0]) {
        SAGO_TRY(sago_tokenizer_open(path, &t->tokenizer));
    } else if (source && sago_ckpt_has_file(source, SAGO_TOKENIZER_FILE)) {
        sago_str bytes = {0};
        sago_status status = sago_ckpt_read_file(source, SAGO_TOKENIZER_FILE, &bytes);
        if (status == SAGO_OK)
            status =
                sago_tokenizer_from_bytes(sago_ckpt_dir(source), bytes.data, bytes.length, &t->tokenizer);
        sago_str_free(&bytes);
        SAGO_TRY(status);
    } else if (text) {
        return sago_fail(SAGO_E_CONFIG,
                         "data.tokenizer: needed for sources of text; set it to a SentencePiece model "
                         "file or to bytes (model.init brings none)");
    }
    bool one = sago_model_decoder_only(&t->shape);
    int32_t least = t->tokenizer ? sago_tokenizer_least_vocabulary(t->tokenizer, one) : 0;
    if (least > t->shape.vocab_size)
        return sago_fail(SAGO_E_CONFIG, "data.tokenizer: has %d ids%s, but model.vocab_size is %lld", least,
                         one ? "" : " with its sentinels", (long long)t->shape.vocab_size);
    return SAGO_OK;
}

/* Values, gradients, model and optimizer, in the registry's layout. */
static sago_status open_model(sago_trainer *t) {
    const sago_config *config = t->config;
    const sago_ops *ops = t->device->ops;
    SAGO_TRY(sago_model_shape_check(&t->shape, t->mesh->axis_size[SAGO_MODEL_AXIS]));
    SAGO_TRY(sago_model_declare(&t->shape, &t->registry));
    SAGO_TRY(sago_model_shard(&t->shape, &t->registry, (const char *const *)config->mesh.rules.items,
                              config->mesh.rules.count, t->mesh->axis_rank[SAGO_MODEL_AXIS],
                              t->mesh->axis_size[SAGO_MODEL_AXIS]));
    int64_t ranks = t->mesh->axis_size[SAGO_DATA_AXIS];
    int64_t local_rows = (config->train.global_batch + ranks - 1) / ranks;
    t->micro_rows = config->train.micro_batch > 0 && config->train.micro_batch < local_rows
                        ? config->train.micro_batch
                        : local_rows;
    t->micro_batches = (local_rows + t->micro_rows - 1) / t->micro_rows;
    bool sharded = ranks > 1 && strcmp(config->mesh.data_axis, "sharded") == 0;
    sago_registry_cut_rows(&t->registry, sharded ? t->mesh->axis_rank[SAGO_DATA_AXIS] : 0,
                           sharded ? (int)ranks : 1, &t->held);
    sago_model_options options = {
        .max_rows = t->micro_rows,
        .input_length = config->data.input_length,
        .target_length = config->data.target_length,
        .prefix = strcmp(config->model.attention, "prefix") == 0,
        .training = true,
        .recompute = config->train.recompute,
        .bf16 = sago_precision_bf16(config, t->device),
        .loss_chunk_tokens = config->train.loss_chunk,
    };
    if (options.bf16 && t->device->stores_bf16) options.dtype = SAGO_BF16;
    if (options.bf16 && !t->device->has_bf16)
        return sago_fail(SAGO_E_CONFIG,
                         "train.precision: bf16 is not faster than fp32 on this processor (%s); use fp32 in "
                         "a run of its own, "
                         "or a device that stores bf16 (device: cuda), where a run begun in it goes on",
                         t->device->description);
    size_t bytes = (size_t)t->held.n_elements * sizeof(float);
    SAGO_TRY(sago_weights_open(&t->held, t->device, options.dtype, true, &t->weights));
    t->device->purpose = "gradients";
    SAGO_TRY(sago_wrap(ops->allocate(t->device, (void **)&t->gradients, bytes), "gradients"));
    SAGO_TRY(ops->allocate(t->device, (void **)&t->device_step, sizeof *t->device_step));
    SAGO_TRY(ops->allocate_host(t->device, (void **)&t->host_steps, 2 * sizeof *t->host_steps));
    SAGO_TRY(sago_model_open(&t->shape, &t->registry, t->device, t->model_mesh, &options, &t->model));
    SAGO_TRY(sago_optimizer_open(config, &t->held, t->mesh, t->device, &t->optimizer));
    SAGO_TRY(sago_gradient_sums_open(&t->held, t->mesh, t->device, &t->gradient_sums));
    if (sharded)
        return sago_fsdp_open(&t->registry, &t->held, t->mesh, t->device, options.dtype,
                              strcmp(config->mesh.gathered, "keep") == 0, &t->fsdp);
    return sago_reducer_open(&t->registry, t->mesh, config->mesh.bucket_bytes, &t->reducer);
}

/* Imported weights come without optimizer state: then there is nothing to keep, and the moments start young.
 */
static bool has_moments(const sago_ckpt *ckpt) {
    for (int i = 0; i < sago_ckpt_count(ckpt); i++)
        if (sago_starts_with(sago_ckpt_at(ckpt, i).name, "adafactor/")) return true;
    return false;
}

static sago_status start_fresh(sago_trainer *t, sago_ckpt *init) {
    /* Kept moments go on ageing from where they were: a young beta2 would wipe them in one step. */
    int64_t age = 0;
    bool keep = init && strcmp(t->config->optimizer.second_moments, "keep") == 0 && has_moments(init);
    if (keep)
        age = sago_ckpt_step(init) -
              json_integer_value(json_object_get(sago_ckpt_meta(init), "moment_age_offset"));
    t->moment_age_offset = t->config->optimizer.step_offset - age;
    if (t->moment_age_offset > 0)
        return sago_fail(SAGO_E_CONFIG,
                         "optimizer.step_offset: %lld, but the second moments that the run begins with are "
                         "%lld steps old; at most that many can be taken off",
                         (long long)t->config->optimizer.step_offset, (long long)age);
    if (init) return sago_trainer_load_weights(t, init, keep);
    return sago_weights_initialise(&t->weights, (uint64_t)t->config->run.seed);
}

/*
 * Does the run hold steps? Metrics are cut and steps replaced when a run begins anew, so what can't be looked
 * at or has lost its MANIFEST is an error, not a reason to begin.
 */
static sago_status look_for_steps(const char *dir, bool *found) {
    sago_names names;
    *found = false;
    if (access(dir, F_OK) != 0 && errno == ENOENT) return SAGO_OK;
    SAGO_TRY(sago_dir_list(dir, &names));
    int64_t step;
    bool any = false;
    for (size_t i = 0; i < names.count; i++) any |= sago_step_parse(names.names[i], &step);
    sago_names_free(&names);
    *found = sago_ckpt_exists(dir);
    if (any && !*found)
        return sago_fail(SAGO_E_CORRUPT,
                         "%s: no step there has a MANIFEST.json that can be seen; move the folder away to "
                         "begin anew, or choose another run.dir",
                         dir);
    return SAGO_OK;
}

/* Rank 0 chooses the newest step whose every byte verifies, so that all ranks continue the same; -1: a new
 * run. */
static sago_status find_run(sago_trainer *t, int64_t *step) {
    sago_status status = SAGO_OK;
    *step = -1;
    if (t->mesh->rank == 0) {
        bool found;
        sago_ckpt *newest = NULL;
        status = look_for_steps(t->checkpoints, &found);
        if (status == SAGO_OK && found) status = sago_ckpt_open(t->checkpoints, true, &newest);
        if (newest) *step = sago_ckpt_step(newest);
        sago_ckpt_close(newest);
    }
    SAGO_TRY(sago_agree(t->mesh, status));
    return sago_broadcast(t->mesh, SAGO_WORLD_AXIS, step, sizeof *step, 0);
}

/* The keys of the model that an older config.yaml leaves to follow from others. */
static sago_status state_shape(sago_config *config, const sago_ckpt *ckpt) {
    sago_model_shape shape;
    return shape_from_checkpoint(config, ckpt, &shape);
}

static void set_precision(sago_config *config, const char *name) {
    char *copy = sago_strdup(name);
    free(config->train.precision);
    config->train.precision = copy;
}

/* Under auto a run goes on in what it began with: what its config.yaml says, or where someone set that back
 * to auto, its checkpoint. */
static void keep_precision(sago_config *before, sago_config *now, const sago_ckpt *ckpt) {
    const char *began = json_string_value(json_object_get(sago_ckpt_meta(ckpt), "precision"));
    if (began && strcmp(before->train.precision, "auto") == 0) set_precision(before, began);
    if (strcmp(now->train.precision, "auto") != 0) return;
    set_precision(now, before->train.precision);
}

/* A run that is continued keeps what its results depend on. A config.yaml that is gone comes back from the
 * checkpoint. */
static sago_status check_continued(const sago_trainer *t, const sago_ckpt *ckpt) {
    char *path = sago_path_join(t->config->run.dir, "config.yaml");
    const char *saved = json_string_value(json_object_get(sago_ckpt_meta(ckpt), "config"));
    sago_config *before = NULL;
    sago_status status = SAGO_OK;
    if (access(path, F_OK) != 0 && saved) status = sago_file_replace(path, saved, strlen(saved));
    if (status == SAGO_OK) status = sago_config_load(path, NULL, 0, &before);
    bool automatic = strcmp(t->config->train.precision, "auto") == 0;
    if (before) {
        keep_precision(before, t->config, ckpt);
        status = state_shape(before, ckpt);
    }
    if (status == SAGO_OK) status = sago_config_check_resume(before, t->config);
    if (status == SAGO_OK && automatic)
        sago_info("train.precision auto: %s, as this run began", t->config->train.precision);
    sago_config_free(before);
    free(path);
    return status;
}

/* Where the weights come from, and what model they make. */
static sago_status choose_model(sago_trainer *t, int64_t step, sago_ckpt **source) {
    sago_config *config = t->config;
    if (step >= 0) {
        char *dir = sago_step_path(t->checkpoints, step);
        sago_status status = sago_ckpt_open(dir, false, source);
        free(dir);
        SAGO_TRY(status);
    } else if (config->model.init[0]) {
        SAGO_TRY(sago_wrap(sago_ckpt_open(config->model.init, false, source), "model.init"));
    }
    SAGO_TRY(*source ? shape_from_checkpoint(config, *source, &t->shape)
                     : shape_from_config(config, &t->shape));
    return t->mesh->rank == 0 && step >= 0 ? check_continued(t, *source) : SAGO_OK;
}

static sago_status open_device(sago_trainer *t) {
    const sago_config *config = t->config;
    int threads = config->threads > 0 ? (int)config->threads : sago_mesh_cores(t->mesh);
    SAGO_TRY(sago_device_open_local(config->device, threads, t->mesh->local_rank, &t->device));
    if (!config->graphs) t->device->graphs = NULL;
    return SAGO_OK;
}

/* What rank 0 kept or chose; the config then says it, and with it config.yaml and the checkpoints. */
static sago_status agree_on_precision(sago_trainer *t) {
    bool bf16;
    SAGO_TRY(sago_precision_agree(t->config, t->device, t->mesh, &bf16));
    set_precision(t->config, sago_precision_name(bf16));
    return SAGO_OK;
}

static sago_status open_all(sago_trainer *t, int64_t step, sago_ckpt *source) {
    sago_config *config = t->config;
    SAGO_TRY(open_tokenizer(t, source));
    SAGO_TRY(open_model(t));
    SAGO_TRY(sago_data_open(config, t->tokenizer, t->shape.vocab_size, sago_model_decoder_only(&t->shape),
                            t->mesh->axis_rank[SAGO_DATA_AXIS], t->mesh->axis_size[SAGO_DATA_AXIS],
                            &t->data));
    SAGO_TRY(step >= 0 ? sago_trainer_load(t, source) : start_fresh(t, source));
    if (t->mesh->rank != 0) return SAGO_OK;
    /* Only a run that can go on changes what is in its folder. */
    SAGO_TRY(sago_run_prepare(config));
    return sago_metrics_open(config->run.dir, t->step, &t->metrics);
}

sago_status sago_trainer_whole_weights(sago_trainer *t, sago_weights *whole) {
    *whole = t->weights;
    if (!t->fsdp) return SAGO_OK;
    sago_status status = sago_weights_open(&t->registry, t->device, t->weights.dtype, false, whole);
    status = sago_agree(t->mesh, sago_wrap(status, "an evaluation gathers all parameters of a model rank"));
    if (status == SAGO_OK) status = sago_fsdp_gather_all(t->fsdp, t->weights.values, whole->values);
    if (status != SAGO_OK) sago_weights_close(whole);
    return status;
}

void sago_trainer_release_weights(sago_trainer *t, sago_weights *whole) {
    if (t->fsdp) sago_weights_close(whole);
}

sago_status sago_trainer_open(sago_trainer *t) {
    sago_ckpt *source = NULL;
    int64_t step;
    t->saved_step = -1;
    t->checkpoints = sago_run_checkpoints(t->config->run.dir);
    SAGO_TRY(find_run(t, &step));
    /* From here a rank may fail alone: all agree on the outcome. */
    sago_status status = sago_agree(t->mesh, choose_model(t, step, &source));
    if (status == SAGO_OK) status = sago_agree(t->mesh, open_device(t));
    if (status == SAGO_OK) status = sago_model_mesh_open(t->mesh, t->device, &t->model_mesh);
    if (status == SAGO_OK) status = agree_on_precision(t);
    if (status == SAGO_OK) status = sago_agree(t->mesh, open_all(t, step, source));
    sago_ckpt_close(source);
    if (status == SAGO_OK) status = sago_mesh_use_device(t->mesh, t->device);
    if (status == SAGO_OK)
        status = sago_ckpt_writer_open(t->mesh, t->config->checkpoint.background, &t->writer);
    return status;
}

/* Nothing may be under way any more; only after a failure anything is, and that is the one to tell. */
static void come_to_rest(sago_trainer *t) {
    sago_error failure;
    sago_error_take(SAGO_E_INTERNAL, &failure);
    sago_reducer_close(t->reducer);
    sago_fsdp_close(t->fsdp);
    if (sago_model_mesh_close(t->model_mesh) != SAGO_OK || sago_mesh_use_device(t->mesh, NULL) != SAGO_OK ||
        t->device->ops->synchronize(t->device) != SAGO_OK)
        (void)sago_error_give(&failure);
}

void sago_trainer_close(sago_trainer *t) {
    sago_ckpt_writer_close(t->writer);
    if (t->device) come_to_rest(t);
    sago_data_close(t->data);
    sago_tokenizer_close(t->tokenizer);
    sago_optimizer_close(t->optimizer);
    sago_gradient_sums_close(t->gradient_sums);
    sago_model_close(t->model);
    if (t->device) {
        sago_weights_close(&t->weights);
        if (t->gradients) t->device->ops->release(t->device, t->gradients);
        if (t->device_step) t->device->ops->release(t->device, t->device_step);
        if (t->host_steps) t->device->ops->release_host(t->device, t->host_steps);
    }
    sago_registry_free(&t->registry);
    sago_registry_free(&t->held);
    sago_device_close(t->device);
    if (t->metrics) fclose(t->metrics);
    free(t->checkpoints);
    json_decref(t->origin);
}
