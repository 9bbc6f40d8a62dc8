// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include "precision.h"

#include <stdio.h>

static const double gib = 1024.0 * 1024 * 1024;

/* "1.72e+09" reads badly: 3 digits and a word. */
static const char *count_text(double n, char *out, size_t size) {
    static const char *const words[] = {"", " thousand", " million", " billion", " trillion"};
    int i = 0;
    while (n >= 1000 && i < 4) n /= 1000, i++;
    snprintf(out, size, i > 0 ? "%.2f%s" : "%.0f%s", n, words[i]);
    return out;
}

static const char *bytes_text(double bytes, char *out, size_t size) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    int i = 0;
    while (bytes >= 1000 && i < 4) bytes /= 1000, i++;
    snprintf(out, size, bytes < 100 && i > 0 ? "%.2f %s" : "%.0f %s", bytes, units[i]);
    return out;
}

static void add_head(const sago_planned *p, sago_str *out) {
    const sago_workload *w = &p->work;
    char parameters[48], tokens[48];
    double step_tokens = (double)w->rows * (double)(w->inputs + w->targets);
    sago_str_printf(out, "%lld node%s of %lld: %s\n", (long long)p->options.nodes,
                    p->options.nodes == 1 ? "" : "s", (long long)p->hardware.devices_per_node,
                    p->hardware.name);
    sago_str_printf(out, "%s, %s parameters, %s\n", w->shape.family,
                    count_text((double)w->n_parameters, parameters, sizeof parameters),
                    sago_precision_name(w->bf16));
    sago_str_printf(out, "%lld rows of ", (long long)w->rows);
    if (w->inputs > 0)
        sago_str_printf(out, "%lld + %lld", (long long)w->inputs, (long long)w->targets);
    else
        sago_str_printf(out, "%lld", (long long)w->targets);
    sago_str_printf(out, " tokens a step, %lld steps: %s tokens\n", (long long)w->config->run.steps,
                    count_text(step_tokens * (double)w->config->run.steps, tokens, sizeof tokens));
}

static void add_layout(const sago_layout *l, sago_str *out) {
    sago_str_printf(out, "  mesh          data %lld, model %lld; micro-batch %lld, recompute %s\n",
                    (long long)l->data, (long long)l->model, (long long)l->micro_batch,
                    l->recompute ? "true" : "false");
    if (l->data == 1) return;
    static const char *const kinds[] = {
        [SAGO_REPLICATED] = "replicated: every rank keeps all of its model slice, and sums gradients",
        [SAGO_SHARDED_DROP] =
            "sharded: a rank keeps a share of parameters, gradients and optimizer state, and gathers a "
            "block for each pass over it",
        [SAGO_SHARDED_KEEP] =
            "sharded: a rank keeps a share of parameters, gradients and optimizer state, and gathers a "
            "block once a step",
    };
    sago_str_printf(out, "  data axis     %s\n", kinds[l->sharing]);
}

static void add_memory(const sago_planned *p, const sago_projection *x, sago_str *out) {
    const sago_memory *m = &x->memory;
    sago_str_printf(out, "  memory of a device, GiB\n");
    for (int kind = 0; kind < SAGO_MEMORY_KINDS; kind++) {
        bool host = kind == SAGO_MEMORY_HOST;
        sago_str_printf(out, "    %-12s %8.2f", sago_memory_name((sago_memory_kind)kind),
                        (double)m->bytes[kind] / gib);
        if (kind == SAGO_MEMORY_ACTIVATIONS)
            sago_str_printf(out, "   (%.2f %s recomputation)", (double)x->other_activation_bytes / gib,
                            x->layout.recompute ? "without" : "with");
        if (host && !p->hardware.memory_is_host)
            sago_str_printf(out, "   (of the host's, a rank; not in the sum)");
        sago_str_puts(out, "\n");
    }
    sago_str_printf(out, "    in all       %8.2f   of %.2f: %s\n", (double)m->device_bytes / gib,
                    (double)m->room_bytes / gib, sago_memory_fits(m) ? "fits" : "does not fit");
}

static void add_step(const sago_planned *p, const sago_projection *x, sago_str *out) {
    const sago_step_time *s = &x->step;
    char model[32], data[32];
    double devices = (double)p->devices;
    sago_str_printf(out,
                    "  a step        %.4g s: computing %.4g, optimizer %.3g, waiting for the model axis "
                    "%.3g, for the data "
                    "axis %.3g\n",
                    s->seconds, s->compute, s->optimizer, s->exposed_model, s->exposed_data);
    sago_str_printf(
        out, "  FLOPs         %.3g of the model, %.3g computed (recomputation, pairs of attention again)\n",
        sago_step_flops(&p->work), s->flops * devices);
    sago_str_printf(out, "  sent          by a device, %s on the model axis, %s on the data axis\n",
                    bytes_text(s->model_bytes, model, sizeof model),
                    bytes_text(s->data_bytes, data, sizeof data));
    sago_str_printf(out, "  speed         %.3g tokens/s, MFU %.1f %%\n", x->tokens_per_second, 100 * x->mfu);
    double hours = (double)p->work.config->run.steps * s->seconds / 3600;
    sago_str_printf(out, "  training      %.3g days, %.3g device-hours", hours / 24, hours * devices);
    if (p->options.price > 0)
        sago_str_printf(out, ", %.4g at %g an hour", hours * devices * p->options.price, p->options.price);
    sago_str_puts(out, "\n");
}

static void add_projection(const sago_planned *p, const sago_projection *x, sago_str *out) {
    add_layout(&x->layout, out);
    add_memory(p, x, out);
    add_step(p, x, out);
}

static bool same_layout(const sago_layout *a, const sago_layout *b) {
    return a->data == b->data && a->model == b->model && a->sharing == b->sharing &&
           a->micro_batch == b->micro_batch && a->recompute == b->recompute;
}

/* What makes the layout the configured one. */
static void add_settings(const sago_layout *l, sago_str *out) {
    sago_str_printf(out, "  --set mesh.data=%lld --set mesh.model=%lld", (long long)l->data,
                    (long long)l->model);
    if (l->data > 1)
        sago_str_printf(out, " --set mesh.data_axis=%s",
                        l->sharing == SAGO_REPLICATED ? "replicated" : "sharded");
    if (l->sharing != SAGO_REPLICATED)
        sago_str_printf(out, " --set mesh.gathered=%s", l->sharing == SAGO_SHARDED_KEEP ? "keep" : "drop");
    sago_str_printf(out, " --set train.micro_batch=%lld --set train.recompute=%s\n",
                    (long long)l->micro_batch, l->recompute ? "true" : "false");
}

static void add_assumptions(const sago_planned *p, sago_str *out) {
    const sago_figure *figure;
    const char *key;
    sago_str_puts(out, "\nRates (docs/plan.md says what is done with them)\n");
    for (int i = 0; (key = sago_hardware_figure(&p->hardware, i, &figure)); i++)
        sago_str_printf(out, "  %-26s %8.6g  %s\n", key, figure->value, sago_basis_name(figure->basis));
    sago_str_printf(out, "  rows are full, with one segment each; MFU is a share of %.4g TFLOP/s\n",
                    sago_peak_flops(&p->work, &p->hardware) * 1e-12);
}

void sago_plan_text(const sago_planned *p, sago_str *out) {
    const sago_config *config = p->work.config;
    add_head(p, out);
    double steps = (double)config->run.steps;
    sago_str_printf(out, "the whole run takes %.3g FLOPs at 6 a parameter and token, %.3g of the model\n",
                    sago_step_flops_by_parameters(&p->work) * steps, sago_step_flops(&p->work) * steps);
    sago_str_puts(out, "\nAs configured\n");
    if (config->mesh.data > 0 && config->mesh.data != p->as_configured.layout.data)
        sago_str_printf(out, "  (mesh.data is %lld in the configuration; %lld devices make it %lld)\n",
                        (long long)config->mesh.data, (long long)p->devices,
                        (long long)p->as_configured.layout.data);
    add_projection(p, &p->as_configured, out);
    sago_str_printf(out, "\nThe fastest that fits, of %d layouts tried, %d that fit\n", p->tried, p->fitting);
    if (!p->has_best) {
        sago_str_puts(
            out,
            "  none: more devices, a larger --gpu, train.precision bf16, or a smaller train.loss_chunk\n");
    } else if (same_layout(&p->best.layout, &p->as_configured.layout)) {
        sago_str_puts(out, "  the one that is configured\n");
    } else {
        add_projection(p, &p->best, out);
        add_settings(&p->best.layout, out);
    }
    add_assumptions(p, out);
}
