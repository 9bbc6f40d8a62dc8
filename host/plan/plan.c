// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <string.h>

enum { MOST_DRAWN = 1024 }; /* micro-batches of a timeline */

static sago_sharing configured_sharing(const sago_planned *p, int64_t data) {
    bool keep = strcmp(p->work.config->mesh.gathered, "keep") == 0;
    if (p->options.data_axis == SAGO_ANY_AXIS) return sago_config_sharing(p->work.config, data);
    if (p->options.data_axis == SAGO_ONLY_REPLICATED || data == 1) return SAGO_REPLICATED;
    return keep ? SAGO_SHARDED_KEEP : SAGO_SHARDED_DROP;
}

/* The mesh that `sago train` would open over so many devices; a data axis of another length is the number of
 * devices'. */
static sago_status configured_layout(const sago_planned *p, sago_layout *out) {
    const sago_config *config = p->work.config;
    int64_t model = config->mesh.model > 0 ? config->mesh.model : 1;
    if (p->devices % model != 0)
        return sago_fail(SAGO_E_CONFIG, "mesh.model: %lld does not divide the %lld devices of %lld nodes",
                         (long long)model, (long long)p->devices, (long long)p->options.nodes);
    SAGO_TRY(sago_model_shape_check(&p->work.shape, (int)model));
    if (!sago_workload_can_cut(&p->work, model))
        return sago_fail(SAGO_E_SHAPE, "mesh.model: %lld does not divide model.vocab_size %lld",
                         (long long)model, (long long)p->work.shape.vocab_size);
    *out = (sago_layout){.data = p->devices / model, .model = model, .recompute = config->train.recompute};
    out->sharing = configured_sharing(p, out->data);
    int64_t rows = sago_layout_rows(&p->work, out);
    out->micro_batch =
        config->train.micro_batch > 0 && config->train.micro_batch < rows ? config->train.micro_batch : rows;
    return SAGO_OK;
}

void sago_project(const sago_planned *p, const sago_layout *layout, const sago_shares *shares,
                  int64_t activation_bytes, sago_projection *out) {
    *out = (sago_projection){.layout = *layout};
    sago_memory_plan(&p->work, layout, &p->hardware, shares, activation_bytes, &out->memory);
    sago_walk_step(&p->work, layout, &p->hardware, shares, &out->step, NULL);
    double devices = (double)(layout->data * layout->model);
    out->mfu =
        sago_step_flops(&p->work) / out->step.seconds / devices / sago_peak_flops(&p->work, &p->hardware);
    out->tokens_per_second =
        (double)p->work.rows * (double)(p->work.inputs + p->work.targets) / out->step.seconds;
}

static sago_status project_alone(const sago_planned *p, const sago_layout *layout, sago_projection *out) {
    sago_shares shares;
    int64_t activations;
    SAGO_TRY(sago_activation_bytes(&p->work, layout, &activations));
    SAGO_TRY(sago_shares_open(&p->work, layout, &shares));
    sago_project(p, layout, &shares, activations, out);
    sago_shares_close(&shares);
    return SAGO_OK;
}

static sago_status other_activations(const sago_planned *p, sago_projection *out) {
    sago_layout other = out->layout;
    other.recompute = !other.recompute;
    return sago_activation_bytes(&p->work, &other, &out->other_activation_bytes);
}

sago_status sago_plan_open(const sago_config *config, const sago_hardware *hardware,
                           const sago_plan_options *options, sago_planned *out) {
    *out = (sago_planned){.hardware = *hardware, .options = *options};
    if (options->devices_per_node > 0) out->hardware.devices_per_node = options->devices_per_node;
    out->devices = options->nodes * out->hardware.devices_per_node;
    SAGO_TRY(sago_workload_open(config, &out->hardware, &out->work));
    sago_layout layout;
    SAGO_TRY(configured_layout(out, &layout));
    SAGO_TRY(project_alone(out, &layout, &out->as_configured));
    SAGO_TRY(sago_plan_search(out));
    SAGO_TRY(other_activations(out, &out->as_configured));
    return out->has_best ? other_activations(out, &out->best) : SAGO_OK;
}

sago_status sago_plan_timeline(const sago_planned *p, const sago_projection *projection, sago_timeline *out) {
    sago_shares shares;
    sago_step_time time;
    *out = (sago_timeline){0};
    int64_t micro_batches = sago_layout_rows(&p->work, &projection->layout) / projection->layout.micro_batch;
    if (micro_batches > MOST_DRAWN)
        return sago_fail(SAGO_E_CONFIG,
                         "train.micro_batch: %lld makes %lld micro-batches of a step; up to %d can be drawn",
                         (long long)projection->layout.micro_batch, (long long)micro_batches, MOST_DRAWN);
    SAGO_TRY(sago_shares_open(&p->work, &projection->layout, &shares));
    sago_walk_step(&p->work, &projection->layout, &p->hardware, &shares, &time, out);
    sago_shares_close(&shares);
    return SAGO_OK;
}
