// SPDX-License-Identifier: Apache-2.0
#include "log.h"
#include "rng.h"
#include "state.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

/* Rows being decoded stand in slots [0, decode->rows) of the caches. A row that ends leaves a slot that does
   nothing; when half of the slots do nothing, the others close ranks. */
typedef struct slot {
    int64_t row; /* of the caller */
    int32_t input_length;
    bool ended;
} slot;

typedef struct generation {
    sago_model *model;
    sago_pass pass;
    const sago_generate_args *args;
    slot *slots;
    uint64_t *draws;
    int64_t live;
    bool by_copy; /* only the best token is asked for, and the device finds it without all logits */
    bool copied;
    int64_t unsettled; /* steps that the copy left open, less those that it did not */
    bool by_graph;
    sago_graph *graph; /* a step of graph_rows slots */
    int64_t graph_rows, steps_alike;
} generation;

/* Steps before the copy is made, which takes about as long as it saves in three; and how many more of them
   may be left open than not before it is given up. */
enum { STEPS_BEFORE_COPY = 3, MOST_UNSETTLED = 4 };

/* Steps that must be left for a graph, whose recording takes the host about as long as two. */
enum { STEPS_OF_GRAPH = 4 };

static sago_status check(const sago_model *model, int64_t n_rows, int64_t input_length,
                         const sago_generate_args *args) {
    const sago_model_options *options = &model->options;
    if (n_rows >= 0 && n_rows <= options->generate_rows && input_length >= 0 &&
        input_length <= options->generate_inputs && args->max_new_tokens >= 0 &&
        args->max_new_tokens <= options->generate_tokens)
        return SAGO_OK;
    return sago_fail(
        SAGO_E_SHAPE,
        "generate: %lld rows of %lld inputs and %d new tokens do not fit into %lld rows of %lld and %lld",
        (long long)n_rows, (long long)input_length, args->max_new_tokens, (long long)options->generate_rows,
        (long long)options->generate_inputs, (long long)options->generate_tokens);
}

/* Ids of a row: given, or all up to the last one that is not padding. */
static int32_t length_of(const sago_generate_args *args, const int32_t *inputs, int64_t row,
                         int64_t input_length) {
    if (args->input_lengths) return args->input_lengths[row];
    int64_t length = input_length;
    while (length > 0 && inputs[row * input_length + length - 1] == 0) length--;
    return (int32_t)length;
}

/* Lengths of all rows, and how long the caches of prompts are. */
static sago_status measure_inputs(generation *run, const int32_t *inputs, int64_t n_rows,
                                  int64_t input_length) {
    sago_model *model = run->model;
    int64_t longest = 0;
    for (int64_t row = 0; row < n_rows; row++) {
        int32_t length = length_of(run->args, inputs, row, input_length);
        if (length < 0 || length > input_length)
            return sago_fail(SAGO_E_SHAPE, "generate: row %lld has %d inputs of at most %lld", (long long)row,
                             length, (long long)input_length);
        if (length == 0 && model->network.decoder_only)
            return sago_fail(
                SAGO_E_INPUT,
                "generate: row %lld has no inputs; a decoder alone goes on from the last of them",
                (long long)row);
        run->slots[row] = (slot){.row = row, .input_length = length};
        if (length > longest) longest = length;
    }
    model->decode.inputs = sago_model_round_length(longest, model->options.generate_inputs);
    if (model->network.decoder_only) model->decode.tokens += model->decode.inputs;
    return SAGO_OK;
}

/* Rows [first, first + rows) of the prompts, as the stack that reads them wants them. */
static sago_status stage_prompts(const generation *run, const int32_t *inputs, int64_t input_length,
                                 int64_t first, int64_t rows, sago_micro_inputs *host) {
    const sago_model *model = run->model;
    bool one = model->network.decoder_only;
    int64_t width = model->decode.inputs;
    int32_t *ids = one ? host->target_ids : host->input_ids,
            *segments = one ? host->target_segments : host->input_segments;
    for (int64_t row = 0; row < rows; row++) {
        int32_t length = run->slots[first + row].input_length;
        for (int64_t i = 0; i < width; i++) {
            bool used = i < length;
            int64_t at = row * width + i;
            int32_t id = used ? inputs[(first + row) * input_length + i] : -1;
            if (used && (id < 0 || id >= model->shape.vocab_size))
                return sago_fail(
                    SAGO_E_INPUT, "generate: row %lld, position %lld: id %d is not in the vocabulary of %lld",
                    (long long)(first + row), (long long)i, id, (long long)model->shape.vocab_size);
            ids[at] = used ? sago_model_own_id(model, id) : -1;
            segments[at] = used;
            if (one) host->prefix[at] = used, host->positions[at] = used ? (int32_t)i : -1;
        }
        if (one) host->places[row] = (int32_t)(row * width + length - 1);
    }
    return SAGO_OK;
}

/* Reads all prompts, as many at a time as there is room for, and fills the caches with what they leave. */
static sago_status read_inputs(generation *run, const int32_t *inputs, int64_t n_rows, int64_t input_length) {
    sago_model *model = run->model;
    const sago_network *network = &model->network;
    bool one = network->decoder_only;
    SAGO_TRY(measure_inputs(run, inputs, n_rows, input_length));
    const sago_decode *decode = &model->decode;
    int64_t at_once = (one ? model->decoder_tokens : model->encoder_tokens) / decode->inputs;
    for (int64_t first = 0; first < n_rows; first += at_once) {
        int64_t rows = n_rows - first < at_once ? n_rows - first : at_once;
        sago_micro_inputs *host;
        SAGO_TRY(sago_model_stage(model, &host));
        SAGO_TRY(stage_prompts(run, inputs, input_length, first, rows, host));
        SAGO_TRY(sago_model_send(model, one ? model->inputs_bytes : model->encoder_bytes));
        sago_block_inputs attended;
        if (one) {
            SAGO_TRY(sago_model_decoder_inputs(model, rows, decode->inputs, &attended));
            SAGO_TRY(
                sago_decode_read(network, &run->pass, decode, &model->decoder, first,
                                 sago_tensor_2d(model->inputs.target_ids, SAGO_I32, rows, decode->inputs),
                                 sago_tensor_1d(model->inputs.places, SAGO_I32, rows), &attended));
        } else {
            sago_tensor memory;
            SAGO_TRY(sago_model_encode(model, &run->pass, rows, decode->inputs, &attended, &memory));
            SAGO_TRY(sago_decode_remember(network, &run->pass, decode, first, memory));
        }
    }
    return SAGO_OK;
}

/* What the device needs to know before the step of new token number `token`; ids of slots hold those before
 * them. A decoder alone has its prompt in the cache, and the token before stands right behind it. */
static void tell(generation *run, const int32_t *ids, int64_t token) {
    sago_decode *decode = &run->model->decode;
    bool one = run->model->network.decoder_only;
    int64_t rows = decode->rows;
    for (int64_t s = 0; s < rows; s++) {
        const slot *at = &run->slots[s];
        int64_t position = one ? at->input_length + token - 1 : token;
        decode->host_step[SAGO_STEP_ID * rows + s] = at->ended ? -1 : sago_model_own_id(run->model, ids[s]);
        decode->host_step[SAGO_STEP_POSITION * rows + s] = (int32_t)position;
        decode->host_step[SAGO_STEP_LO * rows + s] = 0;
        decode->host_step[SAGO_STEP_SELF_HI * rows + s] = at->ended ? 0 : (int32_t)position + 1;
        decode->host_step[SAGO_STEP_CROSS_HI * rows + s] = at->ended ? 0 : at->input_length;
        uint64_t row_key = run->args->row_keys ? run->args->row_keys[at->row] : (uint64_t)at->row;
        run->draws[s] = sago_mix(row_key, (uint64_t)token);
    }
}

/* The prompt has left the logits of a decoder's first token. */
static bool has_step(const generation *run, int64_t token) {
    return token > 0 || !run->model->network.decoder_only;
}

/* The copy of the output matrix may find this token without all logits. */
static bool copy_may_do(const generation *run, int64_t token) {
    return run->by_copy && token >= STEPS_BEFORE_COPY && run->model->decode.rows <= SAGO_GREEDY_ROWS;
}

/* decode->host_chosen from the copy of the output matrix, where *settled. */
static sago_status choose_by_copy(generation *run, bool *settled) {
    sago_model *model = run->model;
    sago_decode *decode = &model->decode;
    const sago_network *network = &model->network;
    if (!run->copied)
        SAGO_TRY(sago_greedy_prepare(model->device, &model->greedy,
                                     sago_pass_value(&run->pass, network->output), network->logit_scale));
    run->copied = true;
    SAGO_TRY(sago_greedy_choose(model->device, &model->greedy,
                                sago_tensor_1d(decode->chosen, SAGO_I32, decode->rows),
                                sago_decode_output(network, &run->pass, decode), settled));
    run->unsettled += *settled ? -1 : 1;
    if (run->unsettled > MOST_UNSETTLED) run->by_copy = false;
    return *settled ? model->device->ops->download(model->device, decode->host_chosen, decode->chosen,
                                                   (size_t)decode->rows * sizeof(int32_t))
                    : SAGO_OK;
}

/* The decoder's work for a token, and the product with the output matrix unless the copy may do without. */
static sago_status run_step(generation *run, int64_t token) {
    const sago_network *network = &run->model->network;
    const sago_decode *decode = &run->model->decode;
    SAGO_TRY(sago_decode_step(network, &run->pass, decode));
    return copy_may_do(run, token) ? SAGO_OK : sago_decode_product(network, &run->pass, decode);
}

static void forget_graph(generation *run) {
    if (run->graph) run->model->device->graphs->close(run->model->device, run->graph);
    run->graph = NULL;
}

/* run->graph, or, where the device can't, none from now on. */
static void record_step(generation *run, int64_t token) {
    sago_device *device = run->model->device;
    sago_error recorded;
    sago_status status = device->graphs->begin(device);
    if (status == SAGO_OK) {
        sago_error_take(run_step(run, token), &recorded);
        status = device->graphs->end(device, &run->graph);
        if (status == SAGO_OK && recorded.status != SAGO_OK) status = sago_error_give(&recorded);
    }
    run->graph_rows = run->model->decode.rows;
    if (status == SAGO_OK) return;
    sago_warn("generation goes on without a graph: %s", sago_message());
    forget_graph(run);
    run->by_graph = false;
}

/* A step: operation by operation, or, as soon as it repeats, all of it by one launch. */
static sago_status step(generation *run, int64_t token) {
    sago_device *device = run->model->device;
    if (!run->by_graph) return run_step(run, token);
    if (run->graph_rows != run->model->decode.rows) {
        forget_graph(run);
        run->graph_rows = run->model->decode.rows, run->steps_alike = 0;
    }
    if (!run->graph && run->steps_alike++ > 0 && run->args->max_new_tokens - token >= STEPS_OF_GRAPH)
        record_step(run, token);
    return run->graph ? device->graphs->launch(device, run->graph) : run_step(run, token);
}

/* Chooses the next token of every slot, number `token`; decode->host_chosen, and host_logprobs where they are
   asked for. */
static sago_status choose(generation *run, int64_t token) {
    sago_device *device = run->model->device;
    sago_decode *decode = &run->model->decode;
    bool settled = false;
    if (has_step(run, token) && copy_may_do(run, token)) {
        SAGO_TRY(choose_by_copy(run, &settled));
        if (settled) return SAGO_OK;
        SAGO_TRY(sago_decode_product(&run->model->network, &run->pass, decode));
    }
    sago_tensor logits;
    SAGO_TRY(sago_decode_logits(&run->model->head, &run->pass, decode, &logits));
    size_t bytes = (size_t)decode->rows * sizeof(int32_t);
    SAGO_TRY(device->ops->sample(device, sago_tensor_1d(decode->chosen, SAGO_I32, decode->rows),
                                 sago_tensor_1d(decode->logprobs, SAGO_F32, decode->rows), logits, run->draws,
                                 &run->args->sample));
    SAGO_TRY(device->ops->download_async(device, decode->host_logprobs, decode->logprobs, bytes));
    return device->ops->download(device, decode->host_chosen, decode->chosen, bytes);
}

/* Live rows close ranks when half of the slots have ended: a step's cost goes with the number of slots. */
static sago_status close_ranks(generation *run) {
    sago_decode *decode = &run->model->decode;
    if (run->live == 0 || 2 * run->live > decode->rows) return SAGO_OK;
    int64_t to = 0;
    for (int64_t from = 0; from < decode->rows; from++) {
        if (run->slots[from].ended) continue;
        if (to != from) {
            SAGO_TRY(sago_decode_move(&run->model->network, &run->pass, decode, to, from));
            run->slots[to] = run->slots[from];
            decode->host_chosen[to] = decode->host_chosen[from];
        }
        to++;
    }
    decode->rows = to;
    return SAGO_OK;
}

static sago_status decode_all(generation *run, int32_t *out, int32_t *lengths, double *logprobs) {
    sago_decode *decode = &run->model->decode;
    const sago_generate_args *args = run->args;
    memset(decode->host_chosen, 0,
           (size_t)decode->rows * sizeof *decode->host_chosen); /* T5 starts from id 0 */
    for (int64_t token = 0; token < args->max_new_tokens && run->live > 0; token++) {
        SAGO_TRY(close_ranks(run));
        tell(run, decode->host_chosen, token);
        if (has_step(run, token)) SAGO_TRY(step(run, token));
        SAGO_TRY(choose(run, token));
        for (int64_t s = 0; s < decode->rows; s++) {
            slot *at = &run->slots[s];
            if (at->ended) continue;
            out[at->row * args->max_new_tokens + token] = decode->host_chosen[s];
            lengths[at->row] = (int32_t)token + 1;
            if (logprobs) logprobs[at->row] += (double)decode->host_logprobs[s];
            at->ended = decode->host_chosen[s] == args->eos_id;
            run->live -= at->ended;
        }
    }
    return SAGO_OK;
}

sago_status sago_model_generate(sago_model *model, const void *values, const int32_t *inputs, int64_t n_rows,
                                int64_t input_length, const sago_generate_args *args, int32_t *out,
                                int32_t *lengths, double *logprobs) {
    SAGO_TRY(check(model, n_rows, input_length, args));
    memset(out, 0, (size_t)(n_rows * args->max_new_tokens) * sizeof *out);
    memset(lengths, 0, (size_t)n_rows * sizeof *lengths);
    if (logprobs) memset(logprobs, 0, (size_t)n_rows * sizeof *logprobs);
    if (n_rows == 0) return SAGO_OK;
    generation run = {.model = model,
                      .pass = sago_model_pass(model, values),
                      .args = args,
                      .slots = sago_alloc_zero((size_t)n_rows, sizeof *run.slots),
                      .draws = sago_alloc_zero((size_t)n_rows, sizeof *run.draws),
                      .live = n_rows};
    run.by_copy = !logprobs && args->sample.temperature == 0 && !run.pass.bf16 && model->model_size <= 1 &&
                  sago_greedy_possible(model->device, model->shape.d_model, model->network.logit_scale);
    /* Collectives of ranks that share a model are no part of a graph. */
    run.by_graph = model->device->graphs && model->model_size <= 1 && !run.by_copy;
    model->decode.rows = n_rows;
    model->decode.tokens = args->max_new_tokens;
    sago_status status = read_inputs(&run, inputs, n_rows, input_length);
    if (status == SAGO_OK) status = decode_all(&run, out, lengths, logprobs);
    forget_graph(&run);
    free(run.slots);
    free(run.draws);
    return status;
}
