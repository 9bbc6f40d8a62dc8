// SPDX-License-Identifier: Apache-2.0
#include "workload.h"

#include "precision.h"

#include <string.h>

sago_status sago_workload_registry(const sago_workload *work, int64_t model, sago_registry *out) {
    const sago_string_list *rules = &work->config->mesh.rules;
    *out = (sago_registry){0};
    SAGO_TRY(sago_model_declare(&work->shape, out));
    return sago_model_shard(&work->shape, out, (const char *const *)rules->items, rules->count, 0,
                            (int)model);
}

bool sago_workload_can_cut(const sago_workload *work, int64_t model) {
    return model <= INT32_MAX && sago_model_shape_check(&work->shape, (int)model) == SAGO_OK &&
           work->shape.vocab_size % model == 0;
}

sago_sharing sago_config_sharing(const sago_config *config, int64_t data) {
    if (data == 1 || strcmp(config->mesh.data_axis, "sharded") != 0) return SAGO_REPLICATED;
    return strcmp(config->mesh.gathered, "keep") == 0 ? SAGO_SHARDED_KEEP : SAGO_SHARDED_DROP;
}

int64_t sago_layout_rows(const sago_workload *work, const sago_layout *layout) {
    return (work->rows + layout->data - 1) / layout->data;
}

/* Members of instruction tasks have a loss on their targets; plain text has one on what its objective
 * predicts. */
static int64_t count_loss_tokens(const sago_workload *work) {
    const sago_config *config = work->config;
    bool text = false;
    for (int i = 0; i < config->data.n_mixture; i++)
        text |= strcmp(config->data.mixture[i].format, "text") == 0;
    return text ? work->targets : config->data.target_length;
}

sago_status sago_workload_open(const sago_config *config, const sago_hardware *hardware, sago_workload *out) {
    *out = (sago_workload){.config = config,
                           .rows = config->train.global_batch,
                           .inputs = config->data.input_length,
                           .targets = config->data.target_length};
    const sago_device device = {.name = hardware->name, .stores_bf16 = hardware->stores_bf16};
    out->bf16 = sago_precision_bf16(config, &device);
    out->dtype = out->bf16 && hardware->stores_bf16 ? SAGO_BF16 : SAGO_F32;
    if (config->model.vocab_size <= 0 || config->model.d_model <= 0)
        return sago_fail(SAGO_E_CONFIG,
                         "model: no shape to plan for; state model.vocab_size, model.d_model and the "
                         "other sizes, or a model.init that is there");
    SAGO_TRY(sago_model_shape_from_config(config, &out->shape));
    SAGO_TRY(sago_model_shape_check(&out->shape, 1));
    if (sago_model_decoder_only(&out->shape)) {
        out->targets += out->inputs;
        out->inputs = 0;
    }
    out->loss_tokens = count_loss_tokens(out);
    sago_registry registry;
    sago_status status = sago_workload_registry(out, 1, &registry);
    out->n_parameters = registry.n_global_elements;
    out->n_multiplied = out->n_parameters;
    if (!out->shape.tied_embeddings) out->n_multiplied -= out->shape.vocab_size * out->shape.d_model;
    sago_registry_free(&registry);
    return status;
}
