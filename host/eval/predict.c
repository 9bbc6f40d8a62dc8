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
    if (x->length != y->length)
        return x->length < y->length ? 1 : -1; /* longest first: the slow ones show early */
    return x->index < y->index ? -1 : x->index > y->index;
}

static ordered *sort_by_length(const sago_prompt prompts[], int64_t n, int64_t *longest_input,
                               int64_t *longest_target) {
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
    int64_t longest, unused, total = n * args->samples,
                             stride = args->prompt_stride ? args->prompt_stride : 1;
    *out = sago_alloc_zero((size_t)total, sizeof **out);
    if (n == 0) return SAGO_OK;
    ordered *order = sort_by_length(prompts, n, &longest, &unused);
    int64_t rows = args->batch < total ? args->batch : total;
    int32_t *inputs = sago_alloc((size_t)(rows * longest) * sizeof *inputs);
    int32_t *ids = sago_alloc((size_t)(rows * args->max_new_tokens) * sizeof *ids);
    int32_t *lengths = sago_alloc((size_t)rows * sizeof *lengths);
    double *logprobs = args->ids_alone ? NULL : sago_alloc((size_t)rows * sizeof *logprobs);
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
        sago_generate_args generate = {.max_new_tokens = args->max_new_tokens,
                                       .eos_id = SAGO_EOS_ID,
                                       .sample = args->sample,
                                       .row_keys = keys};
        status = sago_model_generate(m->model, m->weights.values, inputs, count, width, &generate, ids,
                                     lengths, logprobs);
        for (int64_t r = 0; r < count && status == SAGO_OK; r++) {
            int64_t p = order[(first + r) / args->samples].index, sample = (first + r) % args->samples;
            sago_prediction *one = &(*out)[p * args->samples + sample];
            one->n_ids = lengths[r];
            one->logprob = logprobs ? logprobs[r] : 0;
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

/* --- scoring
 * ---------------------------------------------------------------------------------------------------- */

/* A batch of one example a row with room for the longest of all; see batch.h. */
typedef struct score_batch {
    sago_batch batch;
    bool one;                      /* a decoder alone: inputs and targets in one row */
    int32_t *memory;               /* of all the batch's integers */
    int64_t rows, inputs, targets; /* the most that there is room for */
} score_batch;

static void open_batch(score_batch *b, bool one, int64_t rows, int64_t inputs, int64_t targets) {
    *b = (score_batch){.one = one, .rows = rows, .inputs = inputs, .targets = targets};
    int64_t length = one ? inputs + targets : targets, si = one ? 0 : inputs;
    b->memory = sago_alloc((size_t)(rows * (2 * si + 4 * length)) * sizeof *b->memory);
    int32_t *at = b->memory;
    b->batch.inputs = at, at += rows * si;
    b->batch.input_segments = at, at += rows * si;
    b->batch.targets = at, at += rows * length;
    b->batch.decoder_inputs = at, at += rows * length;
    b->batch.target_segments = at, at += rows * length;
    b->batch.prefix = one ? at : NULL;
    b->batch.weights = sago_alloc((size_t)(rows * length) * sizeof *b->batch.weights);
}

static void close_batch(score_batch *b) {
    free(b->memory);
    free(b->batch.weights);
}

/* Where the log-probability of the prompt's first target stands in its row. */
static int64_t first_target(const score_batch *b, const sago_prompt *p) {
    return b->one ? p->n_inputs - 1 : 0;
}

static void fill_pair(sago_batch *batch, const sago_prompt *p, int64_t row) {
    for (int64_t i = 0; i < p->n_inputs; i++) {
        batch->inputs[row * batch->input_length + i] = p->inputs[i];
        batch->input_segments[row * batch->input_length + i] = 1;
    }
    for (int64_t i = 0; i < p->n_targets; i++) {
        int64_t at = row * batch->target_length + i;
        batch->targets[at] = p->targets[i];
        batch->decoder_inputs[at] = i ? p->targets[i - 1] : SAGO_PAD_ID;
        batch->target_segments[at] = 1;
        batch->weights[at] = 1;
    }
}

static void fill_sequence(sago_batch *batch, const sago_prompt *p, int64_t row) {
    int64_t n = p->n_inputs, first = row * batch->target_length;
    for (int64_t i = 0; i < n + p->n_targets; i++) {
        batch->decoder_inputs[first + i] = i < n ? p->inputs[i] : p->targets[i - n];
        batch->target_segments[first + i] = 1;
        batch->prefix[first + i] = i < n;
    }
    for (int64_t i = 0; i < p->n_targets; i++) {
        batch->targets[first + n - 1 + i] = p->targets[i];
        batch->weights[first + n - 1 + i] = 1;
    }
}

/* Rows as long as the longest of them. */
static void fill_batch(score_batch *b, const sago_prompt prompts[], const ordered *order, int64_t rows) {
    sago_batch *batch = &b->batch;
    int64_t inputs = 1, targets = 1, both = 1;
    for (int64_t r = 0; r < rows; r++) {
        const sago_prompt *p = &prompts[order[r].index];
        if (p->n_inputs > inputs) inputs = p->n_inputs;
        if (p->n_targets > targets) targets = p->n_targets;
        if (p->n_inputs + p->n_targets > both) both = p->n_inputs + p->n_targets;
    }
    batch->n_rows = batch->global_rows = batch->n_examples = rows;
    batch->input_length = b->one ? 0 : inputs, batch->target_length = b->one ? both : targets;
    batch->n_input_tokens = batch->n_target_tokens = 0;
    size_t of_inputs = (size_t)(rows * batch->input_length) * sizeof(int32_t),
           of_targets = (size_t)(rows * batch->target_length) * sizeof(int32_t);
    memset(batch->inputs, 0, of_inputs);
    memset(batch->input_segments, 0, of_inputs);
    memset(batch->targets, 0, of_targets);
    memset(batch->decoder_inputs, 0, of_targets);
    memset(batch->target_segments, 0, of_targets);
    memset(batch->weights, 0, of_targets);
    if (b->one) memset(batch->prefix, 0, of_targets);
    for (int64_t r = 0; r < rows; r++) {
        const sago_prompt *p = &prompts[order[r].index];
        (b->one ? fill_sequence : fill_pair)(batch, p, r);
        batch->n_input_tokens += p->n_inputs;
        batch->n_target_tokens += p->n_targets;
    }
    batch->global_target_tokens = batch->n_target_tokens;
}

static sago_status check_prompts(bool one, const sago_prompt prompts[], int64_t n) {
    for (int64_t i = 0; one && i < n; i++)
        if (prompts[i].n_inputs == 0 && prompts[i].n_targets > 0)
            return sago_fail(
                SAGO_E_INPUT,
                "score: prompt %lld has no inputs; a decoder alone predicts its first target from the "
                "last of them",
                (long long)i + 1);
    return SAGO_OK;
}

sago_status sago_predict_score(sago_loaded_model *m, const sago_prompt prompts[], int64_t n,
                               const sago_predict_args *args, sago_prediction **out) {
    int64_t inputs, targets;
    bool one = sago_model_decoder_only(&m->shape);
    *out = NULL;
    SAGO_TRY(check_prompts(one, prompts, n));
    *out = sago_alloc_zero((size_t)n, sizeof **out);
    if (n == 0) return SAGO_OK;
    ordered *order = sort_by_length(prompts, n, &inputs, &targets);
    int64_t rows = args->batch < n ? args->batch : n;
    score_batch b;
    open_batch(&b, one, rows, inputs, targets);
    float *logprobs = sago_alloc((size_t)(rows * (inputs + targets)) * sizeof *logprobs);
    sago_status status = sago_loaded_model_room(m, rows, inputs, targets, 0);
    for (int64_t first = 0; first < n && status == SAGO_OK; first += rows) {
        int64_t count = n - first < rows ? n - first : rows;
        fill_batch(&b, prompts, order + first, count);
        status = sago_model_score(m->model, m->weights.values, &b.batch, logprobs);
        for (int64_t r = 0; r < count && status == SAGO_OK; r++) {
            int64_t p = order[first + r].index, length = prompts[p].n_targets;
            sago_prediction *scored = &(*out)[p];
            scored->n_targets = length;
            scored->logprobs = sago_alloc((size_t)length * sizeof *scored->logprobs);
            memcpy(scored->logprobs, logprobs + r * b.batch.target_length + first_target(&b, &prompts[p]),
                   (size_t)length * sizeof *scored->logprobs);
            for (int64_t i = 0; i < length; i++) scored->logprob += scored->logprobs[i];
        }
        tell(args, first + count, n);
    }
    close_batch(&b);
    free(logprobs);
    free(order);
    if (status != SAGO_OK) {
        sago_predictions_free(*out, n);
        *out = NULL;
    }
    return status;
}
