// SPDX-License-Identifier: Apache-2.0
#include "batch_rows.h"
#include "data.h"
#include "mixture.h"
#include "pack.h"
#include "prefetch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What was drawn of one task so far. */
typedef struct drawn {
    int64_t examples, tokens;
} drawn;

/* A batch with the state of everything after it. */
typedef struct prepared {
    sago_batch batch;
    sago_pack_cursor cursor;
    drawn *drawn; /* [n_tasks] */
} prepared;

struct sago_data {
    sago_mixture *mixture;
    sago_packer *packer;
    int n_tasks;
    bool decoder_only;
    int64_t global_rows, first_row, n_rows; /* this rank's: [first_row, first_row + n_rows) */
    drawn *drawn;                           /* after the newest prepared batch; the prefetch thread's */
    prepared *ring;
    int n_ring;
    prepared before; /* the state that nothing was taken from yet: from open or restore; no batch */
    const prepared *current;
    sago_prefetch *prefetch;
    atomic_bool stopping; /* the thread is to leave its batch: nobody waits for it */
    double wait_seconds;
};

static void prepared_open(prepared *p, const sago_data *data, const sago_config *config) {
    sago_batch_open(&p->batch, data->n_rows, config->data.input_length, config->data.target_length,
                    data->decoder_only);
    p->batch.first_row = data->first_row;
    p->batch.global_rows = data->global_rows;
    p->drawn = sago_alloc_zero((size_t)data->n_tasks, sizeof *p->drawn);
}

static void prepared_close(prepared *p) {
    sago_batch_close(&p->batch);
    sago_pack_cursor_free(&p->cursor);
    free(p->drawn);
}

/* Between two draws the thread can leave a batch that takes long: the first one draws a whole window. */
static sago_status draw(const void *context, uint64_t number, sago_example *out, bool *end) {
    const sago_data *data = context;
    *end = false;
    if (atomic_load_explicit(&data->stopping, memory_order_relaxed))
        return sago_fail(SAGO_E_INTERRUPTED, "data: stopped");
    return sago_mixture_draw(data->mixture, number, out, end);
}

static void stop(sago_data *data) {
    if (!data->prefetch) return;
    atomic_store(&data->stopping, true);
    sago_prefetch_stop(data->prefetch);
    atomic_store(&data->stopping, false);
}

/* Walks the rows of one global batch and keeps those of this rank. Runs on the prefetch thread. */
static sago_status make(void *context, void *item, bool *end) {
    sago_data *data = context;
    prepared *p = item;
    sago_batch_clear(&p->batch, data->n_rows);
    int64_t global_targets = 0, n_filled = 0;
    for (; n_filled < data->global_rows; n_filled++) {
        sago_packed_row row;
        bool more;
        SAGO_TRY(sago_packer_next(data->packer, &row, &more));
        if (!more) break;
        int64_t local = n_filled - data->first_row, input_at = 0, target_at = 0;
        for (int64_t i = 0; i < row.n_examples; i++) {
            const sago_example *e = row.examples[i];
            data->drawn[e->task].examples++;
            data->drawn[e->task].tokens += e->inputs.length + e->targets.length;
            if (local >= 0 && local < data->n_rows)
                sago_batch_add(&p->batch, local, (int32_t)(i + 1), &e->inputs, &e->targets, &input_at,
                               &target_at);
        }
        global_targets += row.n_target_tokens;
    }
    p->batch.global_target_tokens = global_targets;
    *end = n_filled == 0;
    sago_packer_save(data->packer, &p->cursor);
    memcpy(p->drawn, data->drawn, (size_t)data->n_tasks * sizeof *p->drawn);
    return SAGO_OK;
}

sago_status sago_data_open(const sago_config *config, const sago_tokenizer *tokenizer, int64_t vocab_size,
                           bool decoder_only, int data_rank, int data_size, sago_data **out) {
    *out = NULL;
    if (tokenizer && vocab_size > 0 && sago_tokenizer_size(tokenizer) - SAGO_SENTINELS > vocab_size)
        return sago_fail(SAGO_E_CONFIG,
                         "data.tokenizer has %d pieces, more than the model's vocabulary of %lld",
                         (int)sago_tokenizer_size(tokenizer) - SAGO_SENTINELS, (long long)vocab_size);
    sago_data *data = sago_alloc_zero(1, sizeof *data);
    data->decoder_only = decoder_only;
    void **items = NULL;
    sago_status status = SAGO_OK;
    SAGO_TRY_TO(done, sago_mixture_open(config, tokenizer, vocab_size, decoder_only, &data->mixture));
    SAGO_TRY_TO(done, sago_mixture_drawable(data->mixture));
    const sago_pack_options options = sago_pack_options_of(config, decoder_only);
    SAGO_TRY_TO(done, sago_packer_open(&options, (sago_pack_source){draw, data}, &data->packer));
    data->n_tasks = sago_mixture_tasks(data->mixture);
    data->global_rows = config->train.global_batch;
    int64_t share = data->global_rows / data_size, longer = data->global_rows % data_size;
    data->n_rows = share + (data_rank < longer);
    data->first_row = data_rank * share + (data_rank < longer ? data_rank : longer);
    data->drawn = sago_alloc_zero((size_t)data->n_tasks, sizeof *data->drawn);
    data->before.drawn = sago_alloc_zero((size_t)data->n_tasks, sizeof *data->drawn);
    data->current = &data->before;
    data->n_ring = (int)config->data.prefetch + 1 > 2 ? (int)config->data.prefetch + 1 : 2;
    data->ring = sago_alloc_zero((size_t)data->n_ring, sizeof *data->ring);
    items = sago_alloc((size_t)data->n_ring * sizeof *items);
    for (int i = 0; i < data->n_ring; i++) {
        prepared_open(&data->ring[i], data, config);
        items[i] = &data->ring[i];
    }
    SAGO_TRY_TO(done, sago_prefetch_open(items, data->n_ring, make, data, &data->prefetch));
    /* The first batches are made while the caller prepares its model. */
    SAGO_TRY_TO(done, sago_prefetch_start(data->prefetch));
    *out = data;
    data = NULL;
done:
    free(items);
    sago_data_close(data);
    return status;
}

void sago_data_close(sago_data *data) {
    if (!data) return;
    stop(data);
    sago_prefetch_close(data->prefetch);
    for (int i = 0; data->ring && i < data->n_ring; i++) prepared_close(&data->ring[i]);
    prepared_close(&data->before);
    free(data->ring);
    free(data->drawn);
    sago_packer_close(data->packer);
    sago_mixture_close(data->mixture);
    free(data);
}

/* The current state outlives the ring's item that it stands in, which the thread fills again. */
static void keep_current(sago_data *data) {
    if (data->current == &data->before) return;
    sago_pack_cursor_copy(&data->before.cursor, &data->current->cursor);
    memcpy(data->before.drawn, data->current->drawn, (size_t)data->n_tasks * sizeof *data->drawn);
    data->current = &data->before;
}

sago_status sago_data_next(sago_data *data, const sago_batch **batch) {
    *batch = NULL;
    keep_current(data);
    void *item;
    SAGO_TRY(sago_prefetch_take(data->prefetch, &item, &data->wait_seconds));
    if (!item) return SAGO_OK;
    data->current = item;
    *batch = &data->current->batch;
    return SAGO_OK;
}

double sago_data_wait_seconds(const sago_data *data) {
    return data->wait_seconds;
}

json_t *sago_data_cursor(const sago_data *data) {
    json_t *counts = json_array();
    for (int t = 0; t < data->n_tasks; t++) {
        const drawn *d = &data->current->drawn[t];
        if (d->examples > 0)
            json_array_append_new(counts,
                                  json_pack("[i,I,I]", t, (json_int_t)d->examples, (json_int_t)d->tokens));
    }
    json_t *cursor = sago_pack_cursor_to_json(&data->current->cursor);
    json_object_set_new(cursor, "tasks", json_integer(data->n_tasks));
    json_object_set_new(cursor, "drawn", counts);
    return cursor;
}

static sago_status restore_drawn(const json_t *cursor, drawn *counts, int n_tasks) {
    json_int_t tasks;
    json_t *list;
    if (json_unpack((json_t *)cursor, "{s:I,s:o}", "tasks", &tasks, "drawn", &list) != 0)
        return sago_fail(SAGO_E_CORRUPT, "data cursor: tasks and drawn are needed");
    if (tasks != n_tasks)
        return sago_fail(SAGO_E_CONFIG, "data.mixture has %d tasks now and had %lld when the run was saved",
                         n_tasks, (long long)tasks);
    memset(counts, 0, (size_t)n_tasks * sizeof *counts);
    for (size_t i = 0; i < json_array_size(list); i++) {
        int task;
        json_int_t examples, tokens;
        if (json_unpack(json_array_get(list, i), "[i,I,I]", &task, &examples, &tokens) != 0 || task < 0 ||
            task >= n_tasks)
            return sago_fail(SAGO_E_CORRUPT, "data cursor: entry %zu of drawn is wrong", i);
        counts[task] = (drawn){examples, tokens};
    }
    return SAGO_OK;
}

sago_status sago_data_restore(sago_data *data, const json_t *cursor) {
    stop(data);
    data->current = &data->before;
    SAGO_TRY(restore_drawn(cursor, data->before.drawn, data->n_tasks));
    SAGO_TRY(sago_pack_cursor_from_json(cursor, &data->before.cursor));
    memcpy(data->drawn, data->before.drawn, (size_t)data->n_tasks * sizeof *data->drawn);
    SAGO_TRY(sago_packer_restore(data->packer, &data->before.cursor));
    return sago_prefetch_start(data->prefetch);
}

json_t *sago_data_drawn(const sago_data *data) {
    json_t *members = json_array();
    for (int m = 0; m < sago_mixture_members(data->mixture); m++) {
        sago_mixture_member member;
        sago_mixture_member_info(data->mixture, m, &member);
        json_t *tasks = json_array();
        drawn sum = {0};
        for (int t = member.first_task; t < member.first_task + member.n_tasks; t++) {
            const drawn *d = &data->current->drawn[t];
            if (d->examples == 0) continue;
            sago_mixture_task task;
            sago_mixture_task_info(data->mixture, t, &task);
            json_array_append_new(tasks, json_pack("{s:s,s:I,s:I}", "name", task.name, "examples",
                                                   (json_int_t)d->examples, "tokens", (json_int_t)d->tokens));
            sum.examples += d->examples;
            sum.tokens += d->tokens;
        }
        json_array_append_new(members, json_pack("{s:s,s:I,s:I,s:o}", "name", member.name, "examples",
                                                 (json_int_t)sum.examples, "tokens", (json_int_t)sum.tokens,
                                                 "tasks", tasks));
    }
    return json_pack("{s:o}", "members", members);
}
