// SPDX-License-Identifier: Apache-2.0
#include "parallel.h"
#include "state.h"

#include <string.h>

enum { LENGTH_STEP = 16 };

int64_t sago_model_round_length(int64_t length, int64_t limit) {
    int64_t rounded = (length + LENGTH_STEP - 1) / LENGTH_STEP * LENGTH_STEP;
    if (rounded == 0) rounded = LENGTH_STEP;
    return rounded < limit ? rounded : limit;
}

/* --- forward
 * ----------------------------------------------------------------------------------------------------- */

sago_pass sago_model_pass(const sago_model *model, const void *values) {
    return (sago_pass){.device = model->device,
                       .registry = model->registry,
                       .dtype = model->options.dtype,
                       .values = values,
                       .bf16 = model->options.bf16,
                       .product = model->product,
                       .mesh = model->mesh,
                       .model_rank = model->model_rank,
                       .model_size = model->model_size,
                       .cut_tokens = model->options.training && model->model_size > 1,
                       .gathered = {model->gathered[0], model->gathered[1]},
                       .narrow = model->narrow};
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

int32_t sago_model_own_id(const sago_model *model, int32_t id) {
    int64_t row = id - model->head.first_id;
    return row >= 0 && row < model->head.own_ids ? (int32_t)row : -1;
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
            to_ids[row * used + i] = segment ? sago_model_own_id(model, id) : -1;
            to_segments[row * used + i] = segment;
        }
    }
    return SAGO_OK;
}

static sago_status ranges_of(sago_model *model, int32_t *lo, int32_t *hi, sago_tensor queries,
                             sago_tensor keys, sago_tensor prefix, sago_attention_mode mode,
                             sago_ranges *out) {
    out->lo = sago_tensor_2d(lo, SAGO_I32, queries.shape[0], queries.shape[1]);
    out->hi = sago_tensor_2d(hi, SAGO_I32, queries.shape[0], queries.shape[1]);
    return model->device->ops->attention_ranges(model->device, out->lo, out->hi, queries, keys, prefix, mode);
}

sago_status sago_model_encode(sago_model *model, const sago_pass *pass, int64_t rows, int64_t length,
                              sago_block_inputs *inputs, sago_tensor *out) {
    sago_tensor segments = sago_tensor_2d(model->inputs.input_segments, SAGO_I32, rows, length);
    *inputs = (sago_block_inputs){.rows = rows, .tokens = length};
    SAGO_TRY(ranges_of(model, model->encoder_lo, model->encoder_hi, segments, segments, (sago_tensor){0},
                       SAGO_ATTEND_FULL, &inputs->self.ranges));
    sago_tensor own;
    SAGO_TRY(sago_stack_forward(&model->network.encoder, &model->network.embedding, pass, &model->encoder,
                                model->inputs.input_ids, inputs, &own));
    return sago_gather_tokens(pass, out, own, rows, length, model->memory_room);
}

sago_status sago_model_decoder_inputs(sago_model *model, int64_t rows, int64_t length,
                                      sago_block_inputs *inputs) {
    const sago_micro_inputs *in = &model->inputs;
    sago_tensor segments = sago_tensor_2d(in->target_segments, SAGO_I32, rows, length);
    bool prefix = model->network.decoder_only && model->options.prefix;
    *inputs = (sago_block_inputs){.rows = rows, .tokens = length};
    if (model->network.decoder_only)
        inputs->self.positions = sago_tensor_2d(in->positions, SAGO_I32, rows, length);
    return ranges_of(model, model->decoder_lo, model->decoder_hi, segments, segments,
                     prefix ? sago_tensor_2d(in->prefix, SAGO_I32, rows, length) : (sago_tensor){0},
                     prefix ? SAGO_ATTEND_PREFIX : SAGO_ATTEND_CAUSAL, &inputs->self.ranges);
}

/* What a decoder alone needs besides: which tokens are inputs, and positions that restart with each example.
 */
static void stage_places(sago_micro_inputs *to, const int32_t *prefix, const int32_t *segments, int64_t rows,
                         int64_t length, int64_t used) {
    for (int64_t row = 0; row < rows; row++) {
        const int32_t *segment = segments + row * length;
        int32_t position = -1;
        for (int64_t i = 0; i < used; i++) {
            position = i > 0 && segment[i] == segment[i - 1] ? position + 1 : 0;
            to->positions[row * used + i] = segment[i] ? position : -1;
            to->prefix[row * used + i] = prefix[row * length + i];
        }
    }
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

/* A micro-batch through the stacks. */
typedef struct forward_state {
    sago_block_inputs encoder, decoder;
    sago_tensor hidden; /* of the residual stream */
    int64_t input_length, target_length;
    const int32_t *places; /* of the loss's tokens, on the host; until the next micro-batch but one */
    sago_loss_tokens tokens;
} forward_state;

static sago_status send_batch(sago_model *model, const sago_batch *batch, int64_t first_row, int64_t rows,
                              bool trim, forward_state *state) {
    bool encoder = !model->network.decoder_only;
    int64_t si = batch->input_length, st = batch->target_length;
    const int32_t *targets = batch->decoder_inputs + first_row * st;
    const int32_t *target_segments = batch->target_segments + first_row * st;
    state->target_length = trim ? sago_model_round_length(used_length(target_segments, rows, st), st) : st;
    sago_micro_inputs *to;
    SAGO_TRY(sago_model_stage(model, &to));
    if (encoder) {
        const int32_t *inputs = batch->inputs + first_row * si,
                      *segments = batch->input_segments + first_row * si;
        state->input_length = trim ? sago_model_round_length(used_length(segments, rows, si), si) : si;
        SAGO_TRY(
            stage(model, to->input_ids, to->input_segments, inputs, segments, rows, si, state->input_length));
    } else {
        stage_places(to, batch->prefix + first_row * st, target_segments, rows, st, state->target_length);
    }
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
    const sago_network *network = &model->network;
    *state = (forward_state){0};
    /* Masks are drawn over whole rows, so only a pass without dropout may leave out the padding at their end.
     */
    SAGO_TRY(send_batch(model, batch, first_row, rows, pass->dropout_rate == 0, state));
    SAGO_TRY(sago_pass_enter(pass, 0, SAGO_FORWARD));
    SAGO_TRY(sago_model_decoder_inputs(model, rows, state->target_length, &state->decoder));
    if (!network->decoder_only) {
        sago_attention_inputs *cross = &state->decoder.cross;
        SAGO_TRY(sago_model_encode(model, pass, rows, state->input_length, &state->encoder, &cross->memory));
        sago_tensor keys = sago_tensor_2d(in->input_segments, SAGO_I32, rows, state->input_length);
        sago_tensor queries = sago_tensor_2d(in->target_segments, SAGO_I32, rows, state->target_length);
        SAGO_TRY(ranges_of(model, model->cross_lo, model->cross_hi, queries, keys, (sago_tensor){0},
                           SAGO_ATTEND_FULL, &cross->ranges));
    }
    return sago_stack_forward(&network->decoder, &network->embedding, pass, &model->decoder, in->target_ids,
                              &state->decoder, &state->hidden);
}

static sago_status check_batch(const sago_model *model, const sago_batch *batch, int64_t first_row,
                               int64_t rows) {
    const sago_model_options *options = &model->options;
    bool one = model->network.decoder_only;
    int64_t inputs = one ? 0 : options->input_length,
            targets = one ? options->input_length + options->target_length : options->target_length;
    if (one && !batch->prefix)
        return sago_fail(SAGO_E_INTERNAL, "model: the batch was made for a model with an encoder");
    if (first_row < 0 || rows < 0 || first_row + rows > batch->n_rows || rows > options->max_rows ||
        batch->input_length > inputs || batch->target_length > targets)
        return sago_fail(
            SAGO_E_SHAPE,
            "model: rows %lld to %lld of %lld rows of %lld + %lld tokens do not fit into %lld rows of "
            "%lld + %lld",
            (long long)first_row, (long long)(first_row + rows), (long long)batch->n_rows,
            (long long)batch->input_length, (long long)batch->target_length, (long long)options->max_rows,
            (long long)inputs, (long long)targets);
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

/* Nothing to compute here, but other ranks may wait for this one's share of each block. */
static sago_status pass_by(const sago_model *model, const sago_pass *pass, const sago_block_done *done) {
    int n = model->registry->n_blocks;
    for (int block = 0; block < n; block++) SAGO_TRY(sago_pass_enter(pass, block, SAGO_FORWARD));
    for (int block = n - 1; block > 0; block--) {
        SAGO_TRY(sago_pass_enter(pass, block, SAGO_BACKWARD));
        SAGO_TRY(finish(done, block));
    }
    return finish(done, 0);
}

sago_status sago_model_loss(sago_model *model, const void *values, float *gradients, const sago_batch *batch,
                            int64_t first_row, int64_t n_rows, const sago_loss_args *args,
                            sago_loss_sums *sums) {
    const sago_network *network = &model->network;
    const sago_ops *ops = model->device->ops;
    const sago_block_done done = {args->block_done, args->context};
    int last_block = network->decoder.first_block + network->decoder.n_blocks;
    if (!model->options.training) return sago_fail(SAGO_E_INTERNAL, "model: opened without training");
    SAGO_TRY(check_batch(model, batch, first_row, n_rows));
    sago_pass pass = sago_model_pass(model, values);
    pass.gradients = gradients;
    pass.fsdp = args->fsdp;
    if (!has_targets(batch, first_row, n_rows)) return pass_by(model, &pass, &done);
    pass.dropout_rate = args->dropout;
    pass.dropout_key = args->dropout_key;
    pass.first_row = batch->first_row + first_row;
    forward_state state;
    SAGO_TRY(forward(model, &pass, batch, first_row, n_rows, &state));

    int64_t rows = n_rows, tokens = state.target_length, d = model->shape.d_model;
    sago_tensor hidden, d_hidden = sago_partial_sum(&pass, model->d_hidden, rows, tokens, d),
                        d_x = state.hidden;
    sago_tensor d_memory =
        sago_partial_sum(&pass, network->decoder_only ? NULL : model->d_memory, rows, state.input_length, d);
    d_x.data = model->d_x;
    if (last_block < model->registry->n_blocks) SAGO_TRY(sago_pass_enter(&pass, last_block, SAGO_FORWARD));
    SAGO_TRY(sago_pass_enter(&pass, model->registry->n_blocks - 1, SAGO_BACKWARD));
    SAGO_TRY(sago_gather_tokens(&pass, &hidden, state.hidden, rows, tokens, pass.gathered[0]));
    SAGO_TRY(sago_loss_run(&model->head, &pass, &model->loss, d_hidden, hidden, &state.tokens, args, sums));
    SAGO_TRY(sago_sum_partial(&pass, &d_hidden, d_hidden));
    if (model->registry->n_blocks > last_block)
        SAGO_TRY(finish(&done, last_block)); /* the untied output matrix */
    if (d_memory.data) SAGO_TRY(ops->fill(model->device, d_memory, 0));
    SAGO_TRY(sago_stack_backward(&network->decoder, &network->embedding, &pass, &model->decoder,
                                 &model->decoder_work, d_hidden, d_x, d_memory, model->inputs.target_ids,
                                 &state.decoder, &done));
    if (d_memory.data) {
        SAGO_TRY(sago_sum_partial(&pass, &d_memory, d_memory));
        d_x = sago_residual_tokens(&pass, model->d_x, rows, state.input_length, d);
        SAGO_TRY(sago_stack_backward(&network->encoder, &network->embedding, &pass, &model->encoder,
                                     &model->encoder_work, d_memory, d_x, (sago_tensor){0},
                                     model->inputs.input_ids, &state.encoder, &done));
    }
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
