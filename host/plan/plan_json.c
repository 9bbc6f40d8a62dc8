// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include "precision.h"

static json_t *layout_json(const sago_layout *l) {
    bool sharded = l->sharing != SAGO_REPLICATED;
    json_t *out = json_pack("{s:I, s:I, s:s, s:I, s:b}", "data", (json_int_t)l->data, "model",
                            (json_int_t)l->model, "data_axis", sharded ? "sharded" : "replicated",
                            "micro_batch", (json_int_t)l->micro_batch, "recompute", l->recompute);
    if (sharded)
        json_object_set_new(out, "gathered", json_string(l->sharing == SAGO_SHARDED_KEEP ? "keep" : "drop"));
    return out;
}

static json_t *memory_json(const sago_projection *x) {
    const sago_memory *m = &x->memory;
    json_t *out = json_object();
    for (int kind = 0; kind < SAGO_MEMORY_KINDS; kind++)
        json_object_set_new(out, sago_memory_name((sago_memory_kind)kind), json_integer(m->bytes[kind]));
    json_object_set_new(
        out, x->layout.recompute ? "activations_without_recomputation" : "activations_with_recomputation",
        json_integer(x->other_activation_bytes));
    json_object_set_new(out, "device", json_integer(m->device_bytes));
    json_object_set_new(out, "room", json_integer(m->room_bytes));
    return out;
}

static json_t *step_json(const sago_step_time *s) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "seconds", s->seconds, "compute_seconds",
                     s->compute, "optimizer_seconds", s->optimizer, "exposed_model_seconds", s->exposed_model,
                     "exposed_data_seconds", s->exposed_data, "model_axis_bytes", s->model_bytes,
                     "data_axis_bytes", s->data_bytes, "device_flops", s->flops);
}

static json_t *projection_json(const sago_planned *p, const sago_projection *x) {
    double steps = (double)p->work.config->run.steps, hours = steps * x->step.seconds / 3600;
    json_t *out = json_pack("{s:o, s:o, s:b, s:o, s:f, s:f, s:f, s:f}", "mesh", layout_json(&x->layout),
                            "memory_bytes", memory_json(x), "fits", sago_memory_fits(&x->memory), "step",
                            step_json(&x->step), "mfu", x->mfu, "tokens_per_second", x->tokens_per_second,
                            "days", hours / 24, "device_hours", hours * (double)p->devices);
    if (p->options.price > 0)
        json_object_set_new(out, "cost", json_real(hours * (double)p->devices * p->options.price));
    return out;
}

static json_t *hardware_json(const sago_planned *p) {
    const sago_hardware *h = &p->hardware;
    json_t *out = json_pack("{s:s, s:I, s:I, s:f, s:f}", "name", h->name, "nodes",
                            (json_int_t)p->options.nodes, "devices_per_node", (json_int_t)h->devices_per_node,
                            "memory_gib", h->memory_gib, "reserved_gib", h->reserved_gib);
    const sago_figure *figure;
    const char *key;
    for (int i = 0; (key = sago_hardware_figure(h, i, &figure)); i++)
        json_object_set_new(
            out, key,
            json_pack("{s:f, s:s}", "value", figure->value, "basis", sago_basis_name(figure->basis)));
    return out;
}

json_t *sago_plan_to_json(const sago_planned *p) {
    const sago_workload *w = &p->work;
    json_t *work = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s}", "family", w->shape.family, "parameters",
                             (json_int_t)w->n_parameters, "rows", (json_int_t)w->rows, "input_tokens",
                             (json_int_t)w->inputs, "target_tokens", (json_int_t)w->targets, "steps",
                             (json_int_t)w->config->run.steps, "precision", sago_precision_name(w->bf16));
    json_object_set_new(work, "step_flops", json_real(sago_step_flops(w)));
    json_object_set_new(work, "step_flops_by_parameters", json_real(sago_step_flops_by_parameters(w)));
    json_t *out = json_pack("{s:o, s:o, s:o, s:i, s:i}", "workload", work, "hardware", hardware_json(p),
                            "as_configured", projection_json(p, &p->as_configured), "tried", p->tried,
                            "fitting", p->fitting);
    json_object_set_new(out, "fastest_that_fits", p->has_best ? projection_json(p, &p->best) : json_null());
    return out;
}
