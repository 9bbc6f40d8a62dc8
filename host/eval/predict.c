// SPDX-License-Identifier: Apache-2.0
#include "predict.h"

#include "log.h"
#include "rng.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>

void sago_predictions_free(sago_prediction *predictions, int64_t n) {
    for (int64_t i = 0; predictions && i < n; i++) {
        free(predictions[i].ids);
        free(predictions[i].logprobs);
    }
    free(predictions);
}

/* Prompts by length, so that a batch holds little padding; equal lengths keep their order. */
typedef struct ordered {
    int64_t length, index;
} ordered;

static int by_length(const void *a, const void *b) {
    const ordered *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1; /* longest first: the slow ones show early */
    return x->index < y->index ? -1 : x->index > y->index;
}

static ordered *sort_by_length(const sago_prompt prompts[], int64_t n, int64_t *longest_input, int64_t *longest_target) {
    ordered *order = sago_alloc_zero((size_t)n, sizeof *order);
    *longest_input = *longest_target = 1;
    for (int64_t i = 0; i < n; i++) {
        order[i] = (ordered){prompts[i].n_inputs + prompts[i].n_targets, i};
        if (prompts[i].n_inputs > *longest_input) *longest_input = prompts[i].n_inputs;
        if (prompts[i].n_targets > *longest_target) *longest_target = prompts[i].n_targets;
    }
    if (n) qsort(order, (size_t)n, sizeof *order, by_length);
    return order;
}

static void tell(const sago_predict_args *args, int64_t done, int64_t n) {
    if (args->stage)
        sago_progress(args->stage, (double)done / (double)n, "%lld of %lld", (long long)done, (long long)n);
}

sago_status sago_predict_generate(sago_loaded_model *m, const sago_prompt prompts[], int64_t n,
                                  const sago_predict_args *args, sago_prediction **out) {
    int64_t longest, unused, total = n * args->samples, stride = args->prompt_stride ? args->prompt_stride : 1;
    *out = sago_alloc_zero((size_t)total, sizeof **out);
    if (n == 0) return SAGO_OK;
    ordered *order = sort_by_length(prompts, n, &longest, &unused);
    int64_t rows = args->batch < total ? args->batch : total;
    int32_t *inputs = sago_alloc((size_t)(rows * longest) * sizeof *inputs);
    int32_t *ids = sago_alloc((size_t)(rows * args->max_new_tokens) * sizeof *ids);
    int32_t *lengths = sago_alloc((size_t)rows * sizeof *lengths);
    double *logprobs = sago_alloc((size_t)rows * sizeof *logprobs);
    uint64_t *keys = sago_alloc((size_t)rows * sizeof *keys);
    sago_status status = sago_loaded_model_room(m, rows, longest, 1, args->max_new_tokens);
    for (int64_t first = 0; first < total && status == SAGO_OK; first += rows) {
        int64_t count = total - first < rows ? total - first : rows;
        int64_t width = 1;
        for (int64_t r = 0; r < count; r++) {
            int64_t length = prompts[order[(first + r) / args->samples].index].n_inputs;
            if (length > width) width = length;
        }
        memset(inputs, 0, (size_t)(count * width) * sizeof *inputs);
        for (int64_t r = 0; r < count; r++) {
            int64_t p = order[(first + r) / args->samples].index, sample = (first + r) % args->samples;
            memcpy(inputs + r * width, prompts[p].inputs, (size_t)prompts[p].n_inputs * sizeof *inputs);
            keys[r] = sago_mix((uint64_t)(args->first_prompt + p * stride), (uint64_t)sample);
        }
        sago_generate_args generate = {
            .max_new_tokens = args->max_new_tokens, .eos_id = SAGO_EOS_ID, .sample = args->sample, .row_keys = keys};
        status = sago_model_generate(m->model, m->weights.values, inputs, count, width, &generate, ids, lengths, logprobs);
        for (int64_t r = 0; r < count && status == SAGO_OK; r++) {
            int64_t p = order[(first + r) / args->samples].index, sample = (first + r) % args->samples;
            sago_prediction *one = &(*out)[p * args->samples + sample];
            one->n_ids = lengths[r];
            one->logprob = logprobs[r];
            one->ids = sago_alloc((size_t)lengths[r] * sizeof *one->ids);
            memcpy(one->ids, ids + r * args->max_new_tokens, (size_t)lengths[r] * sizeof *one->ids);
        }
        tell(args, first + count, total);
    }
    free(order);
    free(inputs);
    free(ids);
    free(lengths);
    free(logprobs);
    free(keys);
    if (status != SAGO_OK) {
        sago_predictions_free(*out, total);
        *out = NULL;
    }
    return status;
}

/* A batch of one example a row, over buffers of rows x (inputs, targets). */
static void fill_batch(sago_batch *batch, const sago_prompt prompts[], const ordered *order, int64_t rows,
                       int64_t inputs, int64_t targets) {
    batch->n_rows = batch->global_rows = rows;
    batch->input_length = inputs, batch->target_length = targets;
    batch->n_examples = rows;
    batch->n_input_tokens = batch->n_target_tokens = 0;
    memset(batch->inputs, 0, (size_t)(rows * inputs) * sizeof(int32_t));
    memset(batch->input_segments, 0, (size_t)(rows * inputs) * sizeof(int32_t));
    memset(batch->targets, 0, (size_t)(rows * targets) * sizeof(int32_t));
    memset(batch->decoder_inputs, 0, (size_t)(rows * targets) * sizeof(int32_t));
    memset(batch->target_segments, 0, (size_t)(rows * targets) * sizeof(int32_t));
    memset(batch->weights, 0, (size_t)(rows * targets) * sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        const sago_prompt *p = &prompts[order[r].index];
        for (int64_t i = 0; i < p->n_inputs; i++) {
            batch->inputs[r * inputs + i] = p->inputs[i];
            batch->input_segments[r * inputs + i] = 1;
        }
        for (int64_t i = 0; i < p->n_targets; i++) {
            int64_t at = r * targets + i;
            batch->targets[at] = p->targets[i];
            batch->decoder_inputs[at] = i ? p->targets[i - 1] : SAGO_PAD_ID;
            batch->target_segments[at] = 1;
            batch->weights[at] = 1;
        }
        batch->n_input_tokens += p->n_inputs;
        batch->n_target_tokens += p->n_targets;
    }
    batch->global_target_tokens = batch->n_target_tokens;
}

sago_status sago_predict_score(sago_loaded_model *m, const sago_prompt prompts[], int64_t n,
                               const sago_predict_args *args, sago_prediction **out) {
    int64_t inputs, targets;
    *out = sago_alloc_zero((size_t)n, sizeof **out);
    if (n == 0) return SAGO_OK;
    ordered *order = sort_by_length(prompts, n, &inputs, &targets);
    int64_t rows = args->batch < n ? args->batch : n;
    sago_batch batch = {
        .inputs = sago_alloc((size_t)(rows * inputs) * sizeof(int32_t)),
        .input_segments = sago_alloc((size_t)(rows * inputs) * sizeof(int32_t)),
        .targets = sago_alloc((size_t)(rows * targets) * sizeof(int32_t)),
        .decoder_inputs = sago_alloc((size_t)(rows * targets) * sizeof(int32_t)),
        .target_segments = sago_alloc((size_t)(rows * targets) * sizeof(int32_t)),
        .weights = sago_alloc((size_t)(rows * targets) * sizeof(float)),
    };
    float *logprobs = sago_alloc((size_t)(rows * targets) * sizeof *logprobs);
    sago_status status = sago_loaded_model_room(m, rows, inputs, targets, 0);
    for (int64_t first = 0; first < n && status == SAGO_OK; first += rows) {
        int64_t count = n - first < rows ? n - first : rows, width = 1, height = 1;
        for (int64_t r = 0; r < count; r++) {
            const sago_prompt *p = &prompts[order[first + r].index];
            if (p->n_inputs > width) width = p->n_inputs;
            if (p->n_targets > height) height = p->n_targets;
        }
        fill_batch(&batch, prompts, order + first, count, width, height);
        status = sago_model_score(m->model, m->weights.values, &batch, logprobs);
        for (int64_t r = 0; r < count && status == SAGO_OK; r++) {
            int64_t p = order[first + r].index, length = prompts[p].n_targets;
            sago_prediction *one = &(*out)[p];
            one->logprobs = sago_alloc((size_t)length * sizeof *one->logprobs);
            memcpy(one->logprobs, logprobs + r * height, (size_t)length * sizeof *one->logprobs);
            for (int64_t i = 0; i < length; i++) one->logprob += one->logprobs[i];
        }
        tell(args, first + count, n);
    }
    free(batch.inputs);
    free(batch.input_segments);
    free(batch.targets);
    free(batch.decoder_inputs);
    free(batch.target_segments);
    free(batch.weights);
    free(logprobs);
    free(order);
    if (status != SAGO_OK) {
        sago_predictions_free(*out, n);
        *out = NULL;
    }
    return status;
}
