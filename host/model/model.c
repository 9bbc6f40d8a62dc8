// SPDX-License-Identifier: Apache-2.0
#include "state.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

static void plan_training(sago_model *model, const sago_plan *plan) {
    int64_t d_model = model->shape.d_model, inputs = model->encoder_tokens, targets = model->decoder_tokens;
    model->d_x = sago_plan_take(plan, sago_plan_own(plan, inputs > targets ? inputs : targets) * d_model);
    model->d_hidden = sago_plan_partial(plan, targets * d_model);
    model->d_memory = sago_plan_partial(plan, inputs * d_model);
}

static void plan_decoder(sago_model *model, const sago_plan *plan, sago_keep keep) {
    const sago_network *network = &model->network;
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    sago_stack_plan(&network->decoder, plan, targets, inputs, keep, &model->decoder_common, &model->decoder);
    if (model->options.training) plan_training(model, plan);
    /* The chunk's logits are done with before the first block's backward. */
    sago_overlap overlap = sago_overlap_begin(plan->arena);
    sago_loss_plan(&model->head, plan, model->options.training, &model->loss);
    sago_overlap_next(&overlap, plan->arena);
    if (model->options.training) {
        if (!network->decoder_only)
            sago_block_plan_work(&network->encoder.blocks[0], plan, inputs, 0, &model->encoder_work);
        sago_overlap_next(&overlap, plan->arena);
        sago_block_plan_work(&network->decoder.blocks[0], plan, targets, inputs, &model->decoder_work);
    }
    sago_overlap_end(&overlap, plan->arena);
}

/* The same on the host and on the device, so that one copy carries all. */
static void plan_inputs(sago_model *model, sago_arena *arena, sago_micro_inputs *in) {
    const sago_plan plan = {.arena = arena, .dtype = SAGO_F32};
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    size_t start = sago_arena_mark(arena);
    in->input_ids = sago_plan_ints(&plan, inputs);
    in->input_segments = sago_plan_ints(&plan, inputs);
    model->encoder_bytes = sago_arena_mark(arena) - start;
    in->target_ids = sago_plan_ints(&plan, targets);
    in->target_segments = sago_plan_ints(&plan, targets);
    in->prefix = model->network.decoder_only ? sago_plan_ints(&plan, targets) : NULL;
    in->positions = model->network.decoder_only ? sago_plan_ints(&plan, targets) : NULL;
    in->places = sago_plan_ints(&plan, sago_loss_round_up(targets));
    in->targets = sago_plan_ints(&plan, sago_loss_round_up(targets));
    in->weights = sago_plan_floats(&plan, sago_loss_round_up(targets));
    model->inputs_bytes = sago_arena_mark(arena) - start;
}

/* What ranks that share the model need to hand each other (parallel.h). */
static void plan_sharing(sago_model *model, const sago_plan *plan, int64_t most) {
    int64_t d_model = model->shape.d_model;
    model->product = sago_plan_partial(plan, most * d_model);
    if (model->model_size <= 1) return;
    model->gathered[0] = sago_plan_take(plan, most * d_model);
    if (plan->dtype != SAGO_F32) model->narrow = sago_plan_take(plan, sago_plan_own(plan, most) * d_model);
    if (!plan->cut_tokens) return;
    model->gathered[1] = sago_plan_take(plan, most * d_model);
    model->memory_room = sago_plan_take(plan, model->encoder_tokens * d_model);
}

static void plan(sago_model *model, sago_arena *arena) {
    const sago_network *network = &model->network;
    const sago_model_options *options = &model->options;
    const sago_plan plan = {arena, options->dtype, model->model_size, options->training};
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    sago_keep keep = !options->training   ? SAGO_KEEP_NONE
                     : options->recompute ? SAGO_KEEP_INPUTS
                                          : SAGO_KEEP_ALL;
    plan_inputs(model, arena, &model->inputs);
    plan_sharing(model, &plan, inputs > targets ? inputs : targets);
    model->encoder_lo = sago_plan_ints(&plan, inputs);
    model->encoder_hi = sago_plan_ints(&plan, inputs);
    model->decoder_lo = sago_plan_ints(&plan, targets);
    model->decoder_hi = sago_plan_ints(&plan, targets);
    model->cross_lo = sago_plan_ints(&plan, targets);
    model->cross_hi = sago_plan_ints(&plan, targets);
    if (keep != SAGO_KEEP_ALL) {
        /* One block of one stack runs at a time, so that both stacks share the room too. */
        sago_overlap overlap = sago_overlap_begin(arena);
        if (!network->decoder_only)
            sago_block_plan(&network->encoder.blocks[0], &plan, inputs, 0, &model->encoder_common);
        sago_overlap_next(&overlap, arena);
        sago_block_plan(&network->decoder.blocks[0], &plan, targets, inputs, &model->decoder_common);
        sago_overlap_end(&overlap, arena);
    }
    if (!network->decoder_only)
        sago_stack_plan(&network->encoder, &plan, inputs, 0, keep, &model->encoder_common, &model->encoder);
    /* Decoding token by token needs the encoder and none of the decoder's other room, if there is an encoder.
     */
    sago_overlap overlap = sago_overlap_begin(arena);
    plan_decoder(model, &plan, keep);
    if (!network->decoder_only) sago_overlap_next(&overlap, arena);
    if (options->generate_rows > 0)
        sago_decode_plan(network, &plan, options->generate_rows, options->generate_inputs,
                         options->generate_tokens, &model->head, &model->decode);
    sago_overlap_end(&overlap, arena);
}

static void plan_host(sago_model *model, sago_arena *arena) {
    const sago_plan host = {.arena = arena, .dtype = SAGO_F32};
    model->host_logprobs = sago_plan_floats(&host, model->decoder_tokens);
    sago_loss_plan_host(&model->head, &host, &model->loss);
    if (model->options.generate_rows > 0)
        sago_decode_plan_host(&host, model->options.generate_rows, &model->decode);
}

static sago_status open_stages(sago_model *model) {
    const sago_ops *ops = model->device->ops;
    for (int i = 0; i < SAGO_STAGES; i++) {
        SAGO_TRY(ops->allocate_host(model->device, &model->stages[i].memory, model->inputs_bytes));
        sago_arena arena;
        sago_arena_over(&arena, model->stages[i].memory, model->inputs_bytes);
        plan_inputs(model, &arena, &model->stages[i].inputs);
    }
    return SAGO_OK;
}

/* The layers know their rows by index, so the registry must be the one that the same shape declares. */
static sago_status check_registry(const sago_registry *registry, const sago_registry *declared) {
    bool same = registry->n_params == declared->n_params;
    for (int i = 0; same && i < declared->n_params; i++)
        same = strcmp(registry->params[i].name, declared->params[i].name) == 0 &&
               memcmp(registry->params[i].global_shape, declared->params[i].global_shape,
                      sizeof declared->params[i].global_shape) == 0 &&
               memcmp(registry->params[i].local_shape, declared->params[i].local_shape,
                      sizeof declared->params[i].local_shape) == 0;
    return same ? SAGO_OK
                : sago_fail(SAGO_E_INTERNAL, "model: the registry was declared for another shape, or cut for "
                                             "another mesh");
}

static sago_status check_options(const sago_model_options *options, const sago_model_shape *shape,
                                 sago_device *device) {
    if (options->max_rows < 1 || options->input_length < 1 || options->target_length < 1 ||
        options->loss_chunk_tokens < 1)
        return sago_fail(
            SAGO_E_SHAPE,
            "model: %lld rows of %lld inputs and %lld targets, %lld tokens a loss chunk: all must be at "
            "least 1",
            (long long)options->max_rows, (long long)options->input_length, (long long)options->target_length,
            (long long)options->loss_chunk_tokens);
    if (options->generate_rows > 0 && (options->generate_inputs < 1 || options->generate_tokens < 1))
        return sago_fail(SAGO_E_SHAPE,
                         "model: generation of %lld tokens from %lld inputs: both must be at least 1",
                         (long long)options->generate_tokens, (long long)options->generate_inputs);
    if (options->dtype != SAGO_F32 && !(options->dtype == SAGO_BF16 && device->stores_bf16))
        return sago_fail(SAGO_E_SHAPE, "model: the device %s does not store %s", device->name,
                         sago_dtype_name(options->dtype));
    if (!device->fits_heads) return SAGO_OK;
    return device->fits_heads(device, shape->head_dim, options->dtype == SAGO_BF16, options->training);
}

/* The most tokens of a micro-batch, which are also read in one piece before generation. */
static void plan_tokens(sago_model *model) {
    const sago_model_options *options = &model->options;
    int64_t prompt = options->generate_rows > 0 ? options->generate_inputs : 0;
    int64_t inputs = options->max_rows * options->input_length,
            targets = options->max_rows * options->target_length;
    if (model->network.decoder_only) {
        model->encoder_tokens = 0;
        model->decoder_tokens = inputs + targets > prompt ? inputs + targets : prompt;
    } else {
        model->encoder_tokens = inputs > prompt ? inputs : prompt;
        model->decoder_tokens = targets;
    }
}

sago_status sago_model_open(const sago_model_shape *shape, const sago_registry *registry, sago_device *device,
                            sago_mesh *mesh, const sago_model_options *options, sago_model **out) {
    *out = NULL;
    SAGO_TRY(check_options(options, shape, device));
    sago_model *model = sago_alloc_zero(1, sizeof *model);
    *model = (sago_model){.shape = *shape, .registry = registry, .device = device, .options = *options};
    model->mesh = mesh;
    model->model_rank = mesh ? mesh->axis_rank[SAGO_MODEL_AXIS] : 0;
    model->model_size = mesh ? mesh->axis_size[SAGO_MODEL_AXIS] : 1;
    sago_registry declared = {0};
    sago_status status =
        sago_network_declare(&model->network, shape, model->model_rank, model->model_size, &declared);
    if (status == SAGO_OK)
        status = sago_model_shard(shape, &declared, NULL, 0, model->model_rank, model->model_size);
    if (status == SAGO_OK) status = check_registry(registry, &declared);
    if (status != SAGO_OK) goto done;
    const sago_network *network = &model->network;
    plan_tokens(model);
    int64_t chunk = options->loss_chunk_tokens < model->decoder_tokens ? options->loss_chunk_tokens
                                                                       : model->decoder_tokens;
    const sago_param *output = &registry->params[network->output];
    model->head = (sago_loss_head){.output = network->output,
                                   .logit_scale = network->logit_scale,
                                   .vocab_size = shape->vocab_size,
                                   .first_id = output->global_offset[0],
                                   .own_ids = output->local_shape[0],
                                   .d_model = shape->d_model,
                                   .chunk = chunk};
    if (!network->decoder_only) sago_stack_saved_open(&network->encoder, &model->encoder);
    sago_stack_saved_open(&network->decoder, &model->decoder);
    model->decode.caches = sago_alloc_zero((size_t)network->decoder.n_blocks, sizeof *model->decode.caches);

    sago_arena arena = sago_arena_measure();
    plan(model, &arena);
    model->memory_bytes = arena.peak_bytes;
    device->purpose = "activations";
    status = sago_wrap(device->ops->allocate(device, &model->memory, model->memory_bytes),
                       "model: activations of %lld rows of %lld + %lld tokens take %.0f MiB; a smaller "
                       "train.micro_batch or train.loss_chunk, or train.recompute, needs less",
                       (long long)options->max_rows, (long long)options->input_length,
                       (long long)options->target_length, (double)model->memory_bytes / 1048576.0);
    if (status != SAGO_OK) goto done;
    sago_arena_over(&arena, model->memory, model->memory_bytes);
    plan(model, &arena);
    SAGO_TRY_TO(done, open_stages(model));

    sago_arena host = sago_arena_measure();
    plan_host(model, &host);
    SAGO_TRY_TO(done, device->ops->allocate_host(device, &model->host, host.peak_bytes));
    size_t host_bytes = host.peak_bytes;
    sago_arena_over(&host, model->host, host_bytes);
    plan_host(model, &host);
done:
    sago_registry_free(&declared);
    if (status == SAGO_OK)
        *out = model;
    else
        sago_model_close(model);
    return status;
}

void sago_model_close(sago_model *model) {
    if (!model) return;
    for (int i = 0; i < SAGO_STAGES; i++)
        if (model->stages[i].memory) model->device->ops->release_host(model->device, model->stages[i].memory);
    if (model->memory) model->device->ops->release(model->device, model->memory);
    sago_greedy_release(model->device, &model->greedy);
    if (model->host) model->device->ops->release_host(model->device, model->host);
    sago_stack_saved_close(&model->encoder);
    sago_stack_saved_close(&model->decoder);
    free(model->decode.caches);
    sago_network_free(&model->network);
    free(model);
}

size_t sago_model_bytes(const sago_model *model) {
    return model->memory_bytes;
}
