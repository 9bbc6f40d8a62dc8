// SPDX-License-Identifier: Apache-2.0
#include "text_loss.h"

#include "interval.h"
#include "predict.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Batches of pieces that are in memory at once. */
enum { BATCHES_AT_ONCE = 16 };

/* Reads and scores n pieces: first, and every step-th after it. */
static sago_status score_pieces(const sago_eval_args *args, sago_loaded_model *loaded,
                                const sago_mixture *mixture, int task, int64_t first, int64_t step, int64_t n,
                                sago_prediction **out) {
    sago_question *pieces = sago_alloc_zero((size_t)n, sizeof *pieces);
    sago_prompt *prompts = sago_alloc_zero((size_t)n, sizeof *prompts);
    sago_status status = SAGO_OK;
    for (int64_t i = 0; i < n && status == SAGO_OK; i++) {
        status = sago_mixture_question(mixture, task, args->split, first + i * step,
                                       &(sago_render_options){0}, &pieces[i]);
        const sago_ids *inputs = &pieces[i].example.inputs, *targets = &pieces[i].example.targets;
        prompts[i] = (sago_prompt){inputs->data, targets->data, inputs->length, targets->length};
    }
    sago_predict_args predict = {.batch = args->config->eval.batch, .stage = "text loss"};
    if (status == SAGO_OK) status = sago_predict_score(loaded, prompts, n, &predict, out);
    for (int64_t i = 0; i < n; i++) sago_question_free(&pieces[i]);
    free(pieces);
    free(prompts);
    return status;
}

sago_status sago_text_loss(const sago_eval_args *args, sago_loaded_model *loaded, const sago_mixture *mixture,
                           int task, const char *name, int64_t *item, json_t *records) {
    sago_mixture_task info;
    sago_mixture_task_info(mixture, task, &info);
    int64_t n = args->split == SAGO_SPLIT_EVAL ? info.n_eval : info.n_train,
            most = args->config->eval.examples_per_task;
    int64_t ranks = args->mesh->axis_size[SAGO_DATA_AXIS], chunk = BATCHES_AT_ONCE * args->config->eval.batch;
    if (most > 0 && n > most) n = most;
    /* Piece i is item *item + i, and items go round the ranks as questions do. */
    int64_t first = (args->mesh->axis_rank[SAGO_DATA_AXIS] - *item % ranks + ranks) % ranks;
    for (int64_t count; first < n; first += count * ranks) {
        sago_prediction *scored = NULL;
        count = (n - first + ranks - 1) / ranks;
        if (count > chunk) count = chunk;
        SAGO_TRY(score_pieces(args, loaded, mixture, task, first, ranks, count, &scored));
        for (int64_t i = 0; i < count; i++)
            json_array_append_new(records,
                                  json_pack("{s:I, s:s, s:s, s:b, s:I, s:I, s:f}", "item",
                                            (json_int_t)(*item + first + i * ranks), "task", name, "category",
                                            info.n_categories ? info.categories[0] : info.category,
                                            "held_out", (int)info.held_out, "index",
                                            (json_int_t)(first + i * ranks), "target_tokens",
                                            (json_int_t)scored[i].n_targets, "logprob", scored[i].logprob));
        sago_predictions_free(scored, count);
    }
    *item += n;
    return SAGO_OK;
}

sago_status sago_text_record_check(const json_t *record, bool *is_text) {
    const json_t *tokens = json_object_get(record, "target_tokens"),
                 *logprob = json_object_get(record, "logprob");
    *is_text = tokens != NULL;
    if (!tokens) return SAGO_OK;
    if (!json_is_integer(tokens) || json_integer_value(tokens) < 1 || json_integer_value(tokens) > INT32_MAX)
        return sago_fail(SAGO_E_INPUT, "\"target_tokens\" is no number of tokens");
    if (!json_is_number(logprob) || !(json_number_value(logprob) <= 0))
        return sago_fail(SAGO_E_INPUT, "\"logprob\" is no log-probability");
    return SAGO_OK;
}

/* --- scores.json
 * --------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *record, const char *key) {
    const char *text = json_string_value(json_object_get(record, key));
    return text ? text : "all";
}

static int by_task(const void *a, const void *b) {
    const json_t *x = *(const json_t *const *)a, *y = *(const json_t *const *)b;
    int order = strcmp(text_of(x, "category"), text_of(y, "category"));
    if (order == 0) order = strcmp(text_of(x, "task"), text_of(y, "task"));
    json_int_t i = json_integer_value(json_object_get(x, "index")),
               k = json_integer_value(json_object_get(y, "index"));
    return order ? order : (i > k) - (i < k);
}

static json_t *three(double mean, double low, double high) {
    return json_pack("{s:f, s:f, s:f}", "mean", mean, "low", low, "high", high);
}

/* Pieces differ in length, so the loss is a ratio of sums, R. The interval is that of the mean of its linear
 * form, R + (nll - R n) / mean n, whose mean is R itself (Efron and Tibshirani 1993, section 6.5). */
static json_t *summarise_task(const json_t *const pieces[], int64_t n, int resamples, uint64_t seed) {
    double nll = 0, tokens = 0;
    double *values = sago_alloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) {
        nll -= json_number_value(json_object_get(pieces[i], "logprob"));
        tokens += (double)json_integer_value(json_object_get(pieces[i], "target_tokens"));
    }
    double ratio = nll / tokens, length = tokens / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double its = (double)json_integer_value(json_object_get(pieces[i], "target_tokens"));
        values[i] =
            ratio + (-json_number_value(json_object_get(pieces[i], "logprob")) - ratio * its) / length;
    }
    sago_interval loss = sago_bootstrap(&(sago_scores){values, n}, 1, resamples, seed);
    free(values);
    return json_pack("{s:s, s:s, s:b, s:I, s:I, s:o, s:o}", "name", text_of(pieces[0], "task"), "category",
                     text_of(pieces[0], "category"), "held_out",
                     json_is_true(json_object_get(pieces[0], "held_out")), "pieces", (json_int_t)n,
                     "target_tokens", (json_int_t)tokens, "loss", three(ratio, loss.low, loss.high),
                     "perplexity", three(exp(ratio), exp(loss.low), exp(loss.high)));
}

json_t *sago_text_summarise(const json_t *records, int resamples, uint64_t seed) {
    size_t n = 0, room = json_array_size(records);
    const json_t **pieces = sago_alloc((room + 1) * sizeof *pieces);
    json_t *out = json_array();
    for (size_t i = 0; i < room; i++)
        if (json_object_get(json_array_get(records, i), "target_tokens"))
            pieces[n++] = json_array_get(records, i);
    if (n > 0) qsort(pieces, n, sizeof *pieces, by_task);
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n &&
                              !strcmp(text_of(pieces[end], "category"), text_of(pieces[first], "category")) &&
                              !strcmp(text_of(pieces[end], "task"), text_of(pieces[first], "task"));)
            end++;
        json_array_append_new(out, summarise_task(pieces + first, (int64_t)(end - first), resamples, seed));
    }
    free(pieces);
    return out;
}
