// SPDX-License-Identifier: Apache-2.0
#include "state.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_STEP = 16 };

int64_t sago_model_round_length(int64_t length, int64_t limit) {
    int64_t rounded = (length + LENGTH_STEP - 1) / LENGTH_STEP * LENGTH_STEP;
    if (rounded == 0) rounded = LENGTH_STEP;
    return rounded < limit ? rounded : limit;
}

/* --- open and close
 * ---------------------------------------------------------------------------------------------- */

static void plan_training(sago_model *model, const sago_plan *plan) {
    int64_t d_model = model->shape.d_model, inputs = model->encoder_tokens, targets = model->decoder_tokens;
    model->d_x = sago_plan_take(plan, (inputs > targets ? inputs : targets) * d_model);
    model->d_hidden = sago_plan_take(plan, targets * d_model);
    model->d_memory = sago_plan_take(plan, inputs * d_model);
}

static void plan_decoder(sago_model *model, const sago_plan *plan, sago_keep keep) {
    const sago_t5 *t5 = &model->t5;
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    sago_stack_plan(&t5->decoder, plan, targets, inputs, keep, &model->decoder_common, &model->decoder);
    if (model->options.training) plan_training(model, plan);
    /* The chunk's logits are done with before the first block's backward. */
    sago_overlap overlap = sago_overlap_begin(plan->arena);
    sago_loss_plan(&model->head, plan, model->options.training, &model->loss);
    sago_overlap_next(&overlap, plan->arena);
    if (model->options.training) {
        sago_block_plan_work(&t5->encoder.blocks[0], plan, inputs, 0, &model->encoder_work);
        sago_overlap_next(&overlap, plan->arena);
        sago_block_plan_work(&t5->decoder.blocks[0], plan, targets, inputs, &model->decoder_work);
    }
    sago_overlap_end(&overlap, plan->arena);
}

/* The same on the host and on the device, so that one copy carries all. */
static void plan_inputs(sago_model *model, sago_arena *arena, sago_micro_inputs *in) {
    const sago_plan plan = {arena, SAGO_F32};
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    size_t start = sago_arena_mark(arena);
    in->input_ids = sago_plan_ints(&plan, inputs);
    in->input_segments = sago_plan_ints(&plan, inputs);
    model->encoder_bytes = sago_arena_mark(arena) - start;
    in->target_ids = sago_plan_ints(&plan, targets);
    in->target_segments = sago_plan_ints(&plan, targets);
    in->places = sago_plan_ints(&plan, sago_loss_round_up(targets));
    in->targets = sago_plan_ints(&plan, sago_loss_round_up(targets));
    in->weights = sago_plan_floats(&plan, sago_loss_round_up(targets));
    model->inputs_bytes = sago_arena_mark(arena) - start;
}

static void plan(sago_model *model, sago_arena *arena) {
    const sago_t5 *t5 = &model->t5;
    const sago_model_options *options = &model->options;
    const sago_plan plan = {arena, options->dtype};
    int64_t inputs = model->encoder_tokens, targets = model->decoder_tokens;
    sago_keep keep = !options->training   ? SAGO_KEEP_NONE
                     : options->recompute ? SAGO_KEEP_INPUTS
                                          : SAGO_KEEP_ALL;
    plan_inputs(model, arena, &model->inputs);
    model->product = sago_plan_take(&plan, (inputs > targets ? inputs : targets) * model->shape.d_model);
    model->encoder_lo = sago_plan_ints(&plan, inputs);
    model->encoder_hi = sago_plan_ints(&plan, inputs);
    model->decoder_lo = sago_plan_ints(&plan, targets);
    model->decoder_hi = sago_plan_ints(&plan, targets);
    model->cross_lo = sago_plan_ints(&plan, targets);
    model->cross_hi = sago_plan_ints(&plan, targets);
    if (keep != SAGO_KEEP_ALL) {
        /* One block of one stack runs at a time, so that both stacks share the room too. */
        sago_overlap overlap = sago_overlap_begin(arena);
        sago_block_plan(&t5->encoder.blocks[0], &plan, inputs, 0, &model->encoder_common);
        sago_overlap_next(&overlap, arena);
        sago_block_plan(&t5->decoder.blocks[0], &plan, targets, inputs, &model->decoder_common);
        sago_overlap_end(&overlap, arena);
    }
    sago_stack_plan(&t5->encoder, &plan, inputs, 0, keep, &model->encoder_common, &model->encoder);
    /* Decoding token by token needs the encoder, and none of the decoder's other room. */
    sago_overlap overlap = sago_overlap_begin(arena);
    plan_decoder(model, &plan, keep);
    sago_overlap_next(&overlap, arena);
    if (options->generate_rows > 0)
        sago_decode_plan(t5, &plan, options->generate_rows, options->generate_inputs,
                         options->generate_tokens, model->shape.vocab_size, &model->decode);
    sago_overlap_end(&overlap, arena);
}

static void plan_host(sago_model *model, sago_arena *arena) {
    const sago_plan host = {arena, SAGO_F32};
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
                      sizeof declared->params[i].global_shape) == 0;
    return same ? SAGO_OK : sago_fail(SAGO_E_INTERNAL, "model: the registry was declared for another shape");
}

static sago_status check_options(const sago_model_options *options, const sago_device *device) {
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
    return SAGO_OK;
}

sago_status sago_model_open(const sago_model_shape *shape, const sago_registry *registry, sago_device *device,
                            const sago_mesh *mesh, const sago_model_options *options, sago_model **out) {
    *out = NULL;
    int model_axis = mesh ? mesh->axis_size[SAGO_MODEL_AXIS] : 1;
    if (model_axis != 1)
        return sago_fail(SAGO_E_CONFIG,
                         "mesh.model is %d: T5 runs with mesh.model 1; use the ranks as mesh.data",
                         model_axis);
    SAGO_TRY(check_options(options, device));
    sago_model *model = sago_alloc_zero(1, sizeof *model);
    *model = (sago_model){.shape = *shape, .registry = registry, .device = device, .options = *options};
    sago_registry declared = {0};
    sago_status status = sago_t5_declare(&model->t5, shape, &declared);
    if (status == SAGO_OK) status = check_registry(registry, &declared);
    if (status != SAGO_OK) goto done;
    const sago_t5 *t5 = &model->t5;
    int64_t generate_inputs = options->generate_rows > 0 ? options->generate_inputs : 0;
    model->encoder_tokens = options->max_rows * options->input_length;
    if (generate_inputs > model->encoder_tokens) model->encoder_tokens = generate_inputs;
    model->decoder_tokens = options->max_rows * options->target_length;
    int64_t chunk = options->loss_chunk_tokens < model->decoder_tokens ? options->loss_chunk_tokens
                                                                       : model->decoder_tokens;
    model->head = (sago_loss_head){t5->output, t5->logit_scale, shape->vocab_size, shape->d_model, chunk};
    sago_stack_saved_open(&t5->encoder, &model->encoder);
    sago_stack_saved_open(&t5->decoder, &model->decoder);
    model->decode.caches = sago_alloc_zero((size_t)t5->decoder.n_blocks, sizeof *model->decode.caches);

    sago_arena arena = sago_arena_measure();
    plan(model, &arena);
    model->memory_bytes = arena.peak_bytes;
    device->purpose = "activations";
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
    SAGO_TRY_TO(done, sago_arena_open(&model->host, host.peak_bytes));
    plan_host(model, &model->host);
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
    sago_arena_close(&model->host);
    sago_stack_saved_close(&model->encoder);
    sago_stack_saved_close(&model->decoder);
    free(model->decode.caches);
    sago_t5_free(&model->t5);
    free(model);
}

size_t sago_model_bytes(const sago_model *model) {
    return model->memory_bytes;
}

/* --- forward
 * ----------------------------------------------------------------------------------------------------- */

sago_pass sago_model_pass(const sago_model *model, const void *values) {
    return (sago_pass){.device = model->device,
                       .registry = model->registry,
                       .dtype = model->options.dtype,
                       .values = values,
                       .bf16 = model->options.bf16,
                       .product = model->product};
}

/* The longest row's used length, up to its last token. */
static int64_t used_length(const int32_t *segments, int64_t rows, int64_t length) {
    int64_t used = 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = length - 1; i >= used; i--)
            if (segments[row * length + i] != 0) used = i + 1;
    return used;
}

sago_status sago_model_stage(sago_model *model, sago_micro_inputs **out) {
    *out = &model->stages[model->stage].inputs;
    return model->device->ops->await(model->device, model->stages[model->stage].sent);
}

sago_status sago_model_send(sago_model *model, size_t bytes) {
    const sago_ops *ops = model->device->ops;
    int at = model->stage;
    model->stage = (at + 1) % SAGO_STAGES;
    SAGO_TRY(
        ops->upload_async(model->device, model->inputs.input_ids, model->stages[at].inputs.input_ids, bytes));
    return ops->mark(model->device, &model->stages[at].sent);
}

/* Rows of `length` tokens as rows of `used`; padding gets id -1. */
static sago_status stage(const sago_model *model, int32_t *to_ids, int32_t *to_segments, const int32_t *ids,
                         const int32_t *segments, int64_t rows, int64_t length, int64_t used) {
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < used; i++) {
            int32_t segment = segments[row * length + i], id = segment ? ids[row * length + i] : -1;
            if (segment && (id < 0 || id >= model->shape.vocab_size))
                return sago_fail(SAGO_E_INPUT,
                                 "model: row %lld, position %lld: id %d is not in the vocabulary of %lld",
                                 (long long)row, (long long)i, id, (long long)model->shape.vocab_size);
            to_ids[row * used + i] = id;
            to_segments[row * used + i] = segment;
        }
    }
    return SAGO_OK;
}

static sago_status ranges_of(sago_model *model, int32_t *lo, int32_t *hi, sago_tensor queries,
                             sago_tensor keys, sago_attention_mode mode, sago_ranges *out) {
    const sago_tensor no_prefix = {0};
    out->lo = sago_tensor_2d(lo, SAGO_I32, queries.shape[0], queries.shape[1]);
    out->hi = sago_tensor_2d(hi, SAGO_I32, queries.shape[0], queries.shape[1]);
    return model->device->ops->attention_ranges(model->device, out->lo, out->hi, queries, keys, no_prefix,
                                                mode);
}

sago_status sago_model_encode(sago_model *model, const sago_pass *pass, int64_t rows, int64_t length,
                              sago_block_inputs *inputs, sago_tensor *out) {
    sago_tensor segments = sago_tensor_2d(model->inputs.input_segments, SAGO_I32, rows, length);
    *inputs = (sago_block_inputs){0};
    SAGO_TRY(ranges_of(model, model->encoder_lo, model->encoder_hi, segments, segments, SAGO_ATTEND_FULL,
                       &inputs->self));
    return sago_stack_forward(&model->t5.encoder, &model->t5.embedding, pass, &model->encoder, rows, length,
                              model->inputs.input_ids, inputs, out);
}

/* Lists the targets with weight; their places count in rows of `used` tokens. */
static sago_status list_targets(sago_model *model, sago_micro_inputs *to, const sago_batch *batch,
                                int64_t first_row, int64_t rows, int64_t used, int64_t *count) {
    int64_t n = 0;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < batch->target_length; i++) {
            int64_t at = (first_row + row) * batch->target_length + i;
            if (batch->weights[at] == 0) continue;
            int32_t id = batch->targets[at];
            if (i >= used || id < 0 || id >= model->shape.vocab_size)
                return sago_fail(SAGO_E_INPUT,
                                 "model: row %lld, target %lld: id %d is not in the vocabulary of %lld, or "
                                 "is padding with a weight",
                                 (long long)(first_row + row), (long long)i, id,
                                 (long long)model->shape.vocab_size);
            to->places[n] = (int32_t)(row * used + i);
            to->targets[n] = id;
            to->weights[n++] = batch->weights[at];
        }
    }
    *count = n;
    for (int64_t end = sago_loss_round_up(n); n < end; n++)
        to->places[n] = -1, to->targets[n] = 0, to->weights[n] = 0;
    return SAGO_OK;
}

/* A micro-batch through both stacks. */
typedef struct forward_state {
    sago_block_inputs encoder, decoder;
    sago_tensor hidden; /* [rows, target tokens, D] */
    int64_t input_length, target_length;
    const int32_t *places; /* of the loss's tokens, on the host; until the next micro-batch but one */
    sago_loss_tokens tokens;
} forward_state;

static sago_status send_batch(sago_model *model, const sago_batch *batch, int64_t first_row, int64_t rows,
                              bool trim, forward_state *state) {
    int64_t si = batch->input_length, st = batch->target_length;
    const int32_t *inputs = batch->inputs + first_row * si,
                  *input_segments = batch->input_segments + first_row * si;
    const int32_t *targets = batch->decoder_inputs + first_row * st;
    const int32_t *target_segments = batch->target_segments + first_row * st;
    state->input_length = trim ? sago_model_round_length(used_length(input_segments, rows, si), si) : si;
    state->target_length = trim ? sago_model_round_length(used_length(target_segments, rows, st), st) : st;
    sago_micro_inputs *to;
    SAGO_TRY(sago_model_stage(model, &to));
    SAGO_TRY(stage(model, to->input_ids, to->input_segments, inputs, input_segments, rows, si,
                   state->input_length));
    SAGO_TRY(stage(model, to->target_ids, to->target_segments, targets, target_segments, rows, st,
                   state->target_length));
    SAGO_TRY(list_targets(model, to, batch, first_row, rows, state->target_length, &state->tokens.count));
    state->places = to->places;
    state->tokens.places = model->inputs.places;
    state->tokens.targets = model->inputs.targets;
    state->tokens.weights = model->inputs.weights;
    return sago_model_send(model, model->inputs_bytes);
}

static sago_status forward(sago_model *model, const sago_pass *pass, const sago_batch *batch,
                           int64_t first_row, int64_t rows, forward_state *state) {
    const sago_micro_inputs *in = &model->inputs;
    /* Masks are drawn over whole rows, so only a pass without dropout may leave out the padding at their end.
     */
    SAGO_TRY(send_batch(model, batch, first_row, rows, pass->dropout_rate == 0, state));
    SAGO_TRY(
        sago_model_encode(model, pass, rows, state->input_length, &state->encoder, &state->decoder.memory));
    sago_tensor keys = sago_tensor_2d(in->input_segments, SAGO_I32, rows, state->input_length);
    sago_tensor queries = sago_tensor_2d(in->target_segments, SAGO_I32, rows, state->target_length);
    SAGO_TRY(ranges_of(model, model->decoder_lo, model->decoder_hi, queries, queries, SAGO_ATTEND_CAUSAL,
                       &state->decoder.self));
    SAGO_TRY(ranges_of(model, model->cross_lo, model->cross_hi, queries, keys, SAGO_ATTEND_FULL,
                       &state->decoder.cross));
    return sago_stack_forward(&model->t5.decoder, &model->t5.embedding, pass, &model->decoder, rows,
                              state->target_length, in->target_ids, &state->decoder, &state->hidden);
}

static sago_status check_batch(const sago_model *model, const sago_batch *batch, int64_t first_row,
                               int64_t rows) {
    const sago_model_options *options = &model->options;
    if (first_row < 0 || rows < 0 || first_row + rows > batch->n_rows || rows > options->max_rows ||
        batch->input_length > options->input_length || batch->target_length > options->target_length)
        return sago_fail(
            SAGO_E_SHAPE,
            "model: rows %lld to %lld of %lld rows of %lld + %lld tokens do not fit into %lld rows of "
            "%lld + %lld",
            (long long)first_row, (long long)(first_row + rows), (long long)batch->n_rows,
            (long long)batch->input_length, (long long)batch->target_length, (long long)options->max_rows,
            (long long)options->input_length, (long long)options->target_length);
    return SAGO_OK;
}

/* --- loss and score
 * ---------------------------------------------------------------------------------------------- */

static bool has_targets(const sago_batch *batch, int64_t first_row, int64_t rows) {
    for (int64_t i = first_row * batch->target_length; i < (first_row + rows) * batch->target_length; i++)
        if (batch->weights[i] != 0) return true;
    return false;
}

static sago_status finish(const sago_block_done *done, int block) {
    return done->call ? done->call(done->context, block) : SAGO_OK;
}

sago_status sago_model_loss(sago_model *model, const void *values, float *gradients, const sago_batch *batch,
                            int64_t first_row, int64_t n_rows, const sago_loss_args *args,
                            sago_loss_sums *sums) {
    const sago_t5 *t5 = &model->t5;
    const sago_ops *ops = model->device->ops;
    const sago_block_done done = {args->block_done, args->context};
    int last_block = t5->decoder.first_block + t5->decoder.n_blocks;
    if (!model->options.training) return sago_fail(SAGO_E_INTERNAL, "model: opened without training");
    SAGO_TRY(check_batch(model, batch, first_row, n_rows));
    if (!has_targets(batch, first_row, n_rows)) {
        for (int block = model->registry->n_blocks - 1; block >= 0; block--) SAGO_TRY(finish(&done, block));
        return SAGO_OK;
    }
    sago_pass pass = sago_model_pass(model, values);
    pass.gradients = gradients;
    pass.dropout_rate = args->dropout;
    pass.dropout_key = args->dropout_key;
    pass.first_row = batch->first_row + first_row;
    forward_state state;
    SAGO_TRY(forward(model, &pass, batch, first_row, n_rows, &state));

    sago_tensor d_hidden = state.hidden, d_memory = state.decoder.memory, d_x = state.hidden;
    d_hidden.data = model->d_hidden;
    d_memory.data = model->d_memory;
    d_x.data = model->d_x;
    SAGO_TRY(
        sago_loss_run(&model->head, &pass, &model->loss, d_hidden, state.hidden, &state.tokens, args, sums));
    if (model->registry->n_blocks > last_block)
        SAGO_TRY(finish(&done, last_block)); /* the untied output matrix */
    SAGO_TRY(ops->fill(model->device, d_memory, 0));
    SAGO_TRY(sago_stack_backward(&t5->decoder, &t5->embedding, &pass, &model->decoder, &model->decoder_work,
                                 d_hidden, d_x, d_memory, model->inputs.target_ids, &state.decoder, &done));
    d_x = d_memory;
    d_x.data = model->d_x;
    SAGO_TRY(sago_stack_backward(&t5->encoder, &t5->embedding, &pass, &model->encoder, &model->encoder_work,
                                 d_memory, d_x, (sago_tensor){0}, model->inputs.input_ids, &state.encoder,
                                 &done));
    return finish(&done, 0);
}

sago_status sago_model_score(sago_model *model, const void *values, const sago_batch *batch,
                             float *logprobs) {
    int64_t most = model->options.max_rows, length = batch->target_length;
    sago_pass pass = sago_model_pass(model, values);
    memset(logprobs, 0, (size_t)(batch->n_rows * length) * sizeof *logprobs);
    for (int64_t first = 0; first < batch->n_rows; first += most) {
        int64_t rows = batch->n_rows - first < most ? batch->n_rows - first : most;
        SAGO_TRY(check_batch(model, batch, first, rows));
        if (!has_targets(batch, first, rows)) continue;
        forward_state state;
        SAGO_TRY(forward(model, &pass, batch, first, rows, &state));
        SAGO_TRY(sago_loss_score(&model->head, &pass, &model->loss, state.hidden, &state.tokens,
                                 model->host_logprobs));
        for (int64_t i = 0; i < state.tokens.count; i++) {
            int64_t row = state.places[i] / state.target_length, at = state.places[i] % state.target_length;
            logprobs[(first + row) * length + at] = model->host_logprobs[i];
        }
    }
    return SAGO_OK;
}
