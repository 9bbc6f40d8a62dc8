// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "hf.h"
#include "ops.h"
#include "run_dir.h"
#include "schedule.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sago_status shape_from_config(const sago_config *config, sago_model_shape *shape) {
    if (config->model.vocab_size <= 0 || config->model.d_model <= 0)
        return sago_fail(SAGO_E_CONFIG, "model: no shape; set model.init to a checkpoint, or model.vocab_size, "
                                        "model.d_model and the other sizes (configs/ has examples)");
    *shape = (sago_model_shape){
        .vocab_size = config->model.vocab_size,
        .d_model = config->model.d_model,
        .n_heads = config->model.n_heads,
        .head_dim = config->model.head_dim,
        .d_ff = config->model.d_ff,
        .encoder_layers = config->model.encoder_layers,
        .decoder_layers = config->model.decoder_layers,
        .gated_gelu = strcmp(config->model.activation, "relu") != 0,
        .tied_embeddings = config->model.tied_embeddings,
        .relative_buckets = config->model.relative_buckets,
        .relative_max_distance = config->model.relative_max_distance,
        .norm_epsilon = (float)config->model.norm_epsilon,
    };
    snprintf(shape->family, sizeof shape->family, "%s", config->model.family);
    return SAGO_OK;
}

/* Sizes that the config states as well as the checkpoint must agree; 0 states nothing. */
static sago_status check_against_config(const sago_config *config, const sago_model_shape *shape, const char *from) {
    const struct {
        const char *key;
        int64_t wanted, found;
    } sizes[] = {
        {"model.vocab_size", config->model.vocab_size, shape->vocab_size},
        {"model.d_model", config->model.d_model, shape->d_model},
        {"model.n_heads", config->model.n_heads, shape->n_heads},
        {"model.head_dim", config->model.head_dim, shape->head_dim},
        {"model.d_ff", config->model.d_ff, shape->d_ff},
        {"model.encoder_layers", config->model.encoder_layers, shape->encoder_layers},
        {"model.decoder_layers", config->model.decoder_layers, shape->decoder_layers},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].wanted > 0 && sizes[i].wanted != sizes[i].found)
            return sago_fail(SAGO_E_CONFIG, "%s: %lld in the configuration, %lld in %s; leave the key out or correct it",
                             sizes[i].key, (long long)sizes[i].wanted, (long long)sizes[i].found, from);
    return SAGO_OK;
}

static sago_status shape_from_checkpoint(const sago_config *config, const sago_ckpt *ckpt, sago_model_shape *shape) {
    SAGO_TRY(sago_wrap(sago_model_shape_from_json(json_object_get(sago_ckpt_meta(ckpt), "model"), shape), "%s",
                       sago_ckpt_dir(ckpt)));
    return check_against_config(config, shape, sago_ckpt_dir(ckpt));
}

/* data.tokenizer where it is set, else the one that came with the weights; none where every source gives ids. */
static sago_status open_tokenizer(sago_trainer *t, sago_ckpt *source) {
    const char *path = t->config->data.tokenizer;
    bool text = false;
    for (int i = 0; i < t->config->data.n_mixture; i++) text |= strcmp(t->config->data.mixture[i].format, "ids") != 0;
    if (path[0]) {
        SAGO_TRY(sago_tokenizer_open(path, &t->tokenizer));
    } else if (source && sago_ckpt_has_file(source, SAGO_TOKENIZER_FILE)) {
        sago_str bytes = {0};
        sago_status status = sago_ckpt_read_file(source, SAGO_TOKENIZER_FILE, &bytes);
        if (status == SAGO_OK)
            status = sago_tokenizer_from_bytes(sago_ckpt_dir(source), bytes.data, bytes.length, &t->tokenizer);
        sago_str_free(&bytes);
        SAGO_TRY(status);
    } else if (text) {
        return sago_fail(SAGO_E_CONFIG, "data.tokenizer: needed for sources of text; set it to a SentencePiece model "
                                        "file or to bytes (model.init brings none)");
    }
    if (t->tokenizer && sago_tokenizer_size(t->tokenizer) > t->shape.vocab_size)
        return sago_fail(SAGO_E_CONFIG, "data.tokenizer: has %d ids with its sentinels, but model.vocab_size is %lld",
                         sago_tokenizer_size(t->tokenizer), (long long)t->shape.vocab_size);
    return SAGO_OK;
}

/* Values, gradients, model and optimizer, in the registry's layout. */
static sago_status open_model(sago_trainer *t) {
    const sago_config *config = t->config;
    const sago_ops *ops = t->device->ops;
    SAGO_TRY(sago_model_shape_check(&t->shape, t->mesh->axis_size[SAGO_MODEL_AXIS]));
    SAGO_TRY(sago_model_declare(&t->shape, &t->registry));
    SAGO_TRY(sago_registry_shard(&t->registry, (const char *const *)config->mesh.rules.items, config->mesh.rules.count,
                                 t->mesh->axis_rank[SAGO_MODEL_AXIS], t->mesh->axis_size[SAGO_MODEL_AXIS]));
    int64_t ranks = t->mesh->axis_size[SAGO_DATA_AXIS];
    int64_t local_rows = (config->train.global_batch + ranks - 1) / ranks;
    t->micro_rows = config->train.micro_batch > 0 && config->train.micro_batch < local_rows ? config->train.micro_batch
                                                                                             : local_rows;
    sago_model_options options = {
        .max_rows = t->micro_rows,
        .input_length = config->data.input_length,
        .target_length = config->data.target_length,
        .training = true,
        .recompute = config->train.recompute,
        .bf16 = strcmp(config->train.precision, "bf16") == 0,
        .loss_chunk_tokens = config->train.loss_chunk,
    };
    if (options.bf16 && !t->device->has_bf16)
        return sago_fail(SAGO_E_CONFIG, "train.precision: bf16 is not faster than fp32 on this processor (%s); use fp32",
                         t->device->description);
    size_t bytes = (size_t)t->registry.n_elements * sizeof(float);
    SAGO_TRY(sago_wrap(ops->allocate(t->device, (void **)&t->values, bytes), "parameters"));
    SAGO_TRY(sago_wrap(ops->allocate(t->device, (void **)&t->gradients, bytes), "gradients"));
    SAGO_TRY(sago_model_open(&t->shape, &t->registry, t->device, t->mesh, &options, &t->model));
    SAGO_TRY(sago_optimizer_open(config, &t->registry, t->device, &t->optimizer));
    return sago_reducer_open(&t->registry, t->mesh, config->mesh.bucket_bytes, &t->reducer);
}

/* Imported weights come without optimizer state: then there is nothing to keep, and the moments start young. */
static bool has_moments(const sago_ckpt *ckpt) {
    for (int i = 0; i < sago_ckpt_count(ckpt); i++)
        if (sago_starts_with(sago_ckpt_at(ckpt, i).name, "adafactor/")) return true;
    return false;
}

static sago_status start_fresh(sago_trainer *t, sago_ckpt *init) {
    t->moment_age_offset = t->config->optimizer.step_offset;
    if (init) {
        bool keep = strcmp(t->config->optimizer.second_moments, "keep") == 0 && has_moments(init);
        SAGO_TRY(sago_trainer_load_weights(t, init, keep));
        /* Kept moments go on ageing from where they were: a young beta2 would wipe them in one step. */
        if (keep && t->moment_age_offset == 0) t->moment_age_offset = -sago_ckpt_step(init);
        return SAGO_OK;
    }
    float *host = sago_alloc((size_t)t->registry.n_elements * sizeof(float));
    sago_registry_initialise(&t->registry, (uint64_t)t->config->run.seed, host);
    sago_status status =
        t->device->ops->upload(t->device, t->values, host, (size_t)t->registry.n_elements * sizeof(float));
    free(host);
    return status;
}

/* Rank 0 looks once and tells the others, so that all ranks agree on what they continue. */
static sago_status find_run(sago_trainer *t, bool *resume) {
    int64_t found = 0;
    sago_status status = SAGO_OK;
    if (t->mesh->rank == 0) {
        found = sago_ckpt_exists(t->checkpoints);
        char *before_path = sago_path_join(t->config->run.dir, "config.yaml");
        if (found && access(before_path, R_OK) == 0) {
            sago_config *before = NULL;
            status = sago_config_load(before_path, NULL, 0, &before);
            if (status == SAGO_OK) status = sago_config_check_resume(before, t->config);
            sago_config_free(before);
        }
        if (status == SAGO_OK) status = sago_run_prepare(t->config);
        free(before_path);
    }
    SAGO_TRY(sago_agree(t->mesh, status));
    SAGO_TRY(sago_broadcast(t->mesh, SAGO_WORLD_AXIS, &found, sizeof found, 0));
    *resume = found != 0;
    return SAGO_OK;
}

static sago_status open_all(sago_trainer *t, sago_ckpt **source) {
    sago_config *config = t->config;
    bool resume;
    SAGO_TRY(find_run(t, &resume));
    /* From here a rank may fail alone; the caller agrees on the outcome. */
    SAGO_TRY(sago_schedule_check(config));
    int threads = config->threads > 0 ? (int)config->threads : sago_mesh_cores(t->mesh);
    SAGO_TRY(sago_device_open(config->device, threads, &t->device));
    if (resume)
        SAGO_TRY(sago_ckpt_open(t->checkpoints, true, source));
    else if (config->model.init[0])
        SAGO_TRY(sago_wrap(sago_ckpt_open(config->model.init, false, source), "model.init"));
    t->origin = json_object();
    if (*source) sago_hf_carry_meta(sago_ckpt_meta(*source), t->origin);
    if (*source)
        SAGO_TRY(shape_from_checkpoint(config, *source, &t->shape));
    else
        SAGO_TRY(shape_from_config(config, &t->shape));
    SAGO_TRY(open_tokenizer(t, *source));
    SAGO_TRY(open_model(t));
    SAGO_TRY(sago_data_open(config, t->tokenizer, t->shape.vocab_size, t->mesh->axis_rank[SAGO_DATA_AXIS],
                            t->mesh->axis_size[SAGO_DATA_AXIS], &t->data));
    SAGO_TRY(resume ? sago_trainer_load(t, *source) : start_fresh(t, *source));
    if (t->mesh->rank == 0) SAGO_TRY(sago_metrics_open(config->run.dir, t->step, &t->metrics));
    return SAGO_OK;
}

sago_status sago_trainer_open(sago_trainer *t) {
    sago_ckpt *source = NULL;
    t->saved_step = -1;
    t->checkpoints = sago_run_checkpoints(t->config->run.dir);
    sago_status status = sago_agree(t->mesh, open_all(t, &source));
    sago_ckpt_close(source);
    if (status == SAGO_OK) status = sago_ckpt_writer_open(t->mesh, t->config->checkpoint.background, &t->writer);
    return status;
}

void sago_trainer_close(sago_trainer *t) {
    sago_ckpt_writer_close(t->writer);
    sago_data_close(t->data);
    sago_tokenizer_close(t->tokenizer);
    sago_reducer_close(t->reducer);
    sago_optimizer_close(t->optimizer);
    sago_model_close(t->model);
    if (t->device) {
        if (t->values) t->device->ops->release(t->device, t->values);
        if (t->gradients) t->device->ops->release(t->device, t->gradients);
    }
    sago_registry_free(&t->registry);
    sago_device_close(t->device);
    if (t->metrics) fclose(t->metrics);
    free(t->checkpoints);
    json_decref(t->origin);
}
