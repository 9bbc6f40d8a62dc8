// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "log.h"
#include "ops.h"
#include "rng.h"
#include "signals.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a decoder-only row: what comes before a token, and with prefix attention the inputs after it too. */
static double count_sequence_pairs(const sago_batch *batch, bool prefix) {
    double pairs = 0;
    for (int64_t row = 0; row < batch->n_rows; row++) {
        const int32_t *segments = batch->target_segments + row * batch->target_length;
        const int32_t *inputs = batch->prefix + row * batch->target_length;
        int64_t at = 0;
        for (int32_t segment = 1; at < batch->target_length && segments[at] == segment; segment++) {
            double n = 0, n_inputs = 0;
            for (; at < batch->target_length && segments[at] == segment; at++) n++, n_inputs += inputs[at];
            pairs += n * (n + 1) / 2 + (prefix ? n_inputs * (n_inputs - 1) / 2 : 0);
        }
    }
    return pairs;
}

/* Pairs of tokens that may attend to one another in a row, from the lengths of its segments. */
static void count_pairs(const sago_batch *batch, double *encoder, double *decoder, double *cross) {
    *encoder = *decoder = *cross = 0;
    for (int64_t row = 0; row < batch->n_rows; row++) {
        const int32_t *in = batch->input_segments + row * batch->input_length;
        const int32_t *out = batch->target_segments + row * batch->target_length;
        int64_t i = 0, o = 0;
        for (int32_t segment = 1; i < batch->input_length && in[i] == segment; segment++) {
            double n = 0, m = 0;
            for (; i < batch->input_length && in[i] == segment; i++) n++;
            for (; o < batch->target_length && out[o] == segment; o++) m++;
            *encoder += n * n;
            *decoder += m * (m + 1) / 2;
            *cross += n * m;
        }
    }
}

/* The first block is final last: what the loss is not, its gradient is not either, on every rank. */
static sago_status block_done(void *context, int block) {
    sago_trainer *t = context;
    sago_tensor first =
        sago_tensor_1d(t->fsdp ? sago_fsdp_gradient(t->fsdp, 0).data : t->gradients, SAGO_F32, 1);
    if (block == 0) SAGO_TRY(t->device->ops->carry_nonfinite(t->device, first, &t->device_step->sums));
    return t->fsdp ? sago_fsdp_block_done(t->fsdp, block) : sago_reducer_block_done(t->reducer, block);
}

static sago_status run_micro_batches(sago_trainer *t, const sago_batch *batch) {
    const sago_config *config = t->config;
    sago_loss_args args = {
        .dropout = (float)config->train.dropout,
        .dropout_key = sago_mix(sago_mix((uint64_t)config->run.seed, 0x64726f70), (uint64_t)t->step),
        .z_loss = (float)config->train.z_loss,
        .label_smoothing = (float)config->train.label_smoothing,
        .scale = batch->global_target_tokens > 0 ? 1.0 / (double)batch->global_target_tokens : 0,
        .context = t,
        .fsdp = t->fsdp,
    };
    const void *values = t->fsdp ? NULL : t->weights.values;
    float *gradients = t->fsdp ? NULL : t->gradients;
    bool every = t->fsdp && strcmp(config->mesh.gathered, "drop") == 0;
    int64_t own = (batch->n_rows + t->micro_rows - 1) / t->micro_rows, n = t->fsdp ? t->micro_batches : own;
    for (int64_t i = 0; i < n; i++) {
        int64_t first = i < own ? i * t->micro_rows : batch->n_rows;
        int64_t rows = batch->n_rows - first < t->micro_rows ? batch->n_rows - first : t->micro_rows;
        /* Where gradients accumulate in one buffer, only the last micro-batch leaves a block final. */
        args.block_done = every || i == n - 1 ? block_done : NULL;
        SAGO_TRY(
            sago_model_loss(t->model, values, gradients, batch, first, rows, &args, &t->device_step->sums));
    }
    return SAGO_OK;
}

static void describe_batch(sago_trainer *t, const sago_batch *batch, sago_step_record *record) {
    double encoder = 0, decoder = 0, cross = 0;
    if (batch->prefix)
        decoder = count_sequence_pairs(batch, strcmp(t->config->model.attention, "prefix") == 0);
    else
        count_pairs(batch, &encoder, &decoder, &cross);
    record->input_tokens = (double)batch->n_input_tokens;
    record->examples = (double)batch->n_examples;
    record->matmul_flops =
        sago_model_flops(&t->shape, batch->n_input_tokens, batch->n_target_tokens, encoder, decoder, cross);
    record->rows = (double)batch->n_rows;
}

sago_status sago_trainer_gradients(sago_trainer *t, sago_step_record *record, bool *ended) {
    const sago_batch *batch = NULL;
    const sago_ops *ops = t->device->ops;
    sago_step_state *on_device = t->device_step;
    *record = (sago_step_record){.number = t->step + 1, .started_ns = sago_now_ns()};
    SAGO_TRY(sago_agree(t->mesh, sago_data_next(t->data, &batch)));
    *ended = batch == NULL;
    if (*ended) return SAGO_OK;
    record->device_waits = -t->device->host_waits;
    describe_batch(t, batch, record);
    record->data_wait_seconds = sago_data_wait_seconds(t->data);

    sago_tensor gradients = sago_tensor_1d(t->gradients, SAGO_F32, t->held.n_elements);
    sago_tensor sums = sago_tensor_1d(&on_device->sums, SAGO_F32, sizeof on_device->sums / sizeof(float));
    SAGO_TRY(ops->fill(t->device, gradients, 0));
    SAGO_TRY(ops->fill(t->device, sums, 0)); /* all bits 0 are 0 in double, too */
    if (t->fsdp)
        SAGO_TRY(sago_fsdp_begin(t->fsdp, t->weights.values, t->gradients));
    else
        sago_reducer_begin(t->reducer, t->gradients);
    SAGO_TRY(run_micro_batches(t, batch));
    SAGO_TRY(t->fsdp ? sago_fsdp_finish(t->fsdp) : sago_reducer_finish(t->reducer));
    SAGO_TRY(sago_gradient_sums_join(t->gradient_sums, t->gradients));
    record->comm_wait_seconds = sago_mesh_exposed_seconds(t->mesh) + sago_mesh_exposed_seconds(t->model_mesh);

    /* The norm of the summed gradient is the same bytes on every rank: all decide alike. */
    SAGO_TRY(sago_gradient_sums_squares(t->gradient_sums, t->gradients, &on_device->squares));
    SAGO_TRY(ops->step_control(t->device, &on_device->control, &on_device->squares, &on_device->sums,
                               t->config->optimizer.clip_norm));
    record->state = &t->host_steps[record->number % 2];
    SAGO_TRY(ops->download_async(t->device, record->state, on_device, sizeof *on_device));
    return ops->mark(t->device, &record->done);
}

enum { NLL, Z, CORRECT, TARGETS, INPUTS, EXAMPLES, FLOPS, STOP, N_SUMS };

/* One small sum over the data axis carries everything a step reports; rows of each rank stand in slots of
 * their own. */
sago_status sago_trainer_collect(sago_trainer *t, const sago_step_record *record, sago_step_sums *out) {
    int n = t->mesh->axis_size[SAGO_DATA_AXIS], rank = t->mesh->axis_rank[SAGO_DATA_AXIS];
    SAGO_TRY(t->device->ops->await(t->device, record->done));
    const sago_loss_sums *loss = &record->state->sums;
    const sago_step_control *control = &record->state->control;
    int count = N_SUMS + 3 * n;
    double *v = sago_alloc_zero((size_t)count, sizeof *v);
    v[NLL] = loss->nll, v[Z] = loss->z, v[CORRECT] = loss->correct, v[TARGETS] = loss->tokens;
    v[INPUTS] = record->input_tokens, v[EXAMPLES] = record->examples, v[FLOPS] = record->matmul_flops;
    v[STOP] = sago_signal_received() ? 1 : 0;
    v[N_SUMS + rank] = record->rows;
    v[N_SUMS + n + rank] = record->data_wait_seconds;
    v[N_SUMS + 2 * n + rank] = record->comm_wait_seconds;
    sago_status status = sago_all_reduce_f64(t->mesh, SAGO_DATA_AXIS, v, count);
    /* Ranks that share a model have the same numbers; only a signal may have come to some of them. */
    if (status == SAGO_OK) status = sago_all_reduce_f64(t->mesh, SAGO_MODEL_AXIS, &v[STOP], 1);
    if (status == SAGO_OK) {
        out->nll = v[NLL], out->z = v[Z], out->correct = v[CORRECT], out->target_tokens = v[TARGETS];
        out->input_tokens = v[INPUTS], out->examples = v[EXAMPLES], out->matmul_flops = v[FLOPS];
        out->stop_requested = v[STOP];
        out->data_wait_seconds = out->comm_wait_seconds = 0;
        for (int i = 0; i < n; i++) {
            out->rows_by_rank[i] = v[N_SUMS + i];
            out->data_wait_seconds = fmax(out->data_wait_seconds, v[N_SUMS + n + i]);
            out->comm_wait_seconds = fmax(out->comm_wait_seconds, v[N_SUMS + 2 * n + i]);
        }
        out->gradient_norm = sqrt(control->gradient_squares);
        out->finite = control->apply;
    }
    free(v);
    return status;
}
