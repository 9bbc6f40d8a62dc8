// SPDX-License-Identifier: Apache-2.0
#include "prompt_lines.h"

#include "log.h"

#include <stdlib.h>

/* As many batches are read at once, to be put in order of length. */
enum { BATCHES_AT_ONCE = 16, MIN_AT_ONCE = 256, MAX_IDS = 1 << 16 };

typedef struct chunk {
    sago_ids *inputs, *targets; /* [most] */
    sago_prompt *prompts;
    int64_t n, most;
} chunk;

static sago_status read_ids(sago_prompt_lines *lines, const json_t *record, const char *ids_key,
                            const char *text_key, bool eos, sago_ids *out) {
    if (json_object_get(record, ids_key))
        return sago_jsonl_ids(&lines->jsonl, record, ids_key, lines->loaded.shape.vocab_size, out);
    sago_ids_clear(out);
    if (!json_object_get(record, text_key))
        return sago_jsonl_where(&lines->jsonl,
                                sago_fail(SAGO_E_INPUT, "needs \"%s\" or \"%s\"", ids_key, text_key));
    if (!lines->loaded.tokenizer)
        return sago_jsonl_where(&lines->jsonl,
                                sago_fail(SAGO_E_INPUT,
                                          "\"%s\" is text, and the checkpoint has no tokenizer: give %s",
                                          text_key, ids_key));
    SAGO_TRY(sago_jsonl_encode(&lines->jsonl, record, text_key, lines->loaded.tokenizer, eos, out));
    for (int64_t i = 0; i < out->length; i++)
        if (out->data[i] >= lines->loaded.shape.vocab_size)
            return sago_jsonl_where(&lines->jsonl,
                                    sago_fail(SAGO_E_INPUT,
                                              "the tokenizer gives id %d, and the model's vocabulary is %lld",
                                              (int)out->data[i], (long long)lines->loaded.shape.vocab_size));
    return SAGO_OK;
}

/* What an empty list points to: memory that is copied from, if only zero bytes, is never NULL. */
static const int32_t none = 0;

static sago_status check_length(const sago_prompt_lines *lines, const sago_ids *ids) {
    if (ids->length <= MAX_IDS) return SAGO_OK;
    return sago_jsonl_where(&lines->jsonl,
                            sago_fail(SAGO_E_INPUT, "%lld ids: a prompt or target has at most %d",
                                      (long long)ids->length, (int)MAX_IDS));
}

static sago_status read_chunk(sago_prompt_lines *lines, bool with_targets, chunk *c) {
    for (c->n = 0; c->n < c->most; c->n++) {
        const json_t *record;
        SAGO_TRY(sago_jsonl_next(&lines->jsonl, &record));
        if (!record) return SAGO_OK;
        sago_ids *inputs = &c->inputs[c->n], *targets = &c->targets[c->n];
        /* In one row with its targets a prompt goes on; an encoder's ends. */
        bool ends = !sago_model_decoder_only(&lines->loaded.shape);
        SAGO_TRY(read_ids(lines, record, "input_ids", "inputs", ends, inputs));
        if (with_targets) SAGO_TRY(read_ids(lines, record, "target_ids", "targets", true, targets));
        SAGO_TRY(check_length(lines, inputs));
        SAGO_TRY(check_length(lines, targets));
        c->prompts[c->n] =
            (sago_prompt){inputs->data ? inputs->data : &none, targets->data ? targets->data : &none,
                          inputs->length, targets->length};
    }
    return SAGO_OK;
}

static sago_status compute_chunk(sago_prompt_lines *lines, const sago_prompt_work *work, const chunk *c) {
    int64_t each = work->with_targets ? 1 : lines->args.samples;
    sago_prediction *predictions = NULL;
    SAGO_TRY(work->with_targets
                 ? sago_predict_score(&lines->loaded, c->prompts, c->n, &lines->args, &predictions)
                 : sago_predict_generate(&lines->loaded, c->prompts, c->n, &lines->args, &predictions));
    sago_str line = {0};
    sago_status status = SAGO_OK;
    for (int64_t i = 0; i < c->n && status == SAGO_OK; i++) {
        sago_str_clear(&line);
        status = work->write(lines, &c->prompts[i], predictions + i * each, &line);
        if (status == SAGO_OK) status = sago_jsonl_write(&lines->jsonl, &line);
    }
    lines->args.first_prompt += c->n;
    sago_str_free(&line);
    sago_predictions_free(predictions, c->n * each);
    return status;
}

sago_status sago_prompt_lines_run(const sago_arguments *arguments, const sago_prompt_work *work) {
    sago_config *config = NULL;
    sago_mesh *mesh = NULL;
    sago_prompt_lines lines = {.args = work->args};
    chunk c = {0};
    sago_status status;
    SAGO_TRY_TO(done, sago_argument_config(arguments, NULL, &config));
    SAGO_TRY_TO(done,
                sago_argument_int(arguments, "--batch", config->eval.batch, 1, 65536, &lines.args.batch));
    /* Ranks that share the model read the same lines; the first one writes. */
    SAGO_TRY_TO(done, sago_mesh_open(1, config->mesh.model, (double)config->mesh.timeout_seconds, &mesh));
    SAGO_TRY_TO(done, sago_agree(mesh, sago_loaded_model_open(sago_argument(arguments, "--checkpoint"), config, mesh,
                                                              &lines.loaded)));
    SAGO_TRY_TO(done, sago_agree(mesh, sago_jsonl_open(&lines.jsonl, sago_argument(arguments, "--input"),
                                                       mesh->rank == 0 ? sago_argument(arguments, "--output") : NULL)));
    c.most =
        BATCHES_AT_ONCE * lines.args.batch > MIN_AT_ONCE ? BATCHES_AT_ONCE * lines.args.batch : MIN_AT_ONCE;
    c.inputs = sago_alloc_zero((size_t)c.most, sizeof *c.inputs);
    c.targets = sago_alloc_zero((size_t)c.most, sizeof *c.targets);
    c.prompts = sago_alloc_zero((size_t)c.most, sizeof *c.prompts);
    do {
        SAGO_TRY_TO(done, read_chunk(&lines, work->with_targets, &c));
        SAGO_TRY_TO(done, compute_chunk(&lines, work, &c));
        sago_progress(arguments->command, sago_jsonl_fraction(&lines.jsonl), "%lld lines",
                      (long long)lines.args.first_prompt);
    } while (c.n == c.most);
    status = sago_jsonl_commit(&lines.jsonl);
done:
    for (int64_t i = 0; i < c.most && c.prompts; i++) {
        sago_ids_free(&c.inputs[i]);
        sago_ids_free(&c.targets[i]);
    }
    free(c.inputs);
    free(c.targets);
    free(c.prompts);
    sago_str_free(&lines.text);
    sago_jsonl_close(&lines.jsonl);
    sago_loaded_model_close(&lines.loaded);
    sago_mesh_close(mesh);
    sago_config_free(config);
    return status;
}
