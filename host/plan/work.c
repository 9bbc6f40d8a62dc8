// SPDX-License-Identifier: Apache-2.0
#include "work.h"

#include <math.h>

/* Adds up operations one after another. */
typedef struct meter {
    const sago_hardware *hardware;
    double product_rate; /* FLOP/s */
    double element;      /* bytes of an activation */
    sago_pass_cost cost;
} meter;

static double copy_rate(const sago_hardware *hardware) {
    return hardware->copy_gb_per_second.value * 1e9;
}

static void add(meter *m, double flops, double seconds) {
    m->cost.flops += flops;
    m->cost.seconds += seconds + m->hardware->operation_microseconds.value * 1e-6;
}

/* c[m, n] of a[m, k] and b[k, n]: as fast as arithmetic or memory lets it be. c_bytes: written, and read
 * where added to. */
static void add_product(meter *m, double rows, double columns, double depth, double c_bytes) {
    double flops = 2 * rows * columns * depth, smallest = fmin(rows, fmin(columns, depth));
    double bytes = (rows * depth + depth * columns) * m->element + rows * columns * c_bytes;
    double share =
        m->hardware->product_share.value * smallest / (smallest + m->hardware->product_half_size.value);
    add(m, flops, fmax(flops / (m->product_rate * share), bytes / copy_rate(m->hardware)));
}

static void add_linear_forward(meter *m, double tokens, double out, double in) {
    add_product(m, tokens, out, in, m->element);
}

/* The gradient of the input, and that of the weight, which is added to what is there in fp32. */
static void add_linear_backward(meter *m, double tokens, double out, double in) {
    add_product(m, tokens, in, out, m->element);
    add_product(m, out, in, tokens, 8);
}

static void add_elements(meter *m, double count, double passes) {
    add(m, 0, count * passes * m->element / copy_rate(m->hardware));
}

/* Pairs that may attend, width of all heads: two products forward, five backward (scores once more). */
static void add_attention(meter *m, double pairs, double width, bool backward) {
    double share =
        backward ? m->hardware->attention_backward_share.value : m->hardware->attention_forward_share.value;
    double flops = (backward ? 10 : 4) * pairs * width;
    add(m, flops, flops / (m->product_rate * share));
}

/* What a rank of the model axis computes. */
typedef struct cut {
    double d_model, width, kv_width, d_ff, vocabulary;
    double parts;
    bool gated;
} cut;

static cut cut_of(const sago_workload *work, const sago_layout *layout) {
    const sago_model_shape *shape = &work->shape;
    double parts = (double)layout->model, kv = (double)(shape->kv_heads * shape->head_dim);
    return (cut){.d_model = (double)shape->d_model,
                 .width = (double)(shape->n_heads * shape->head_dim) / parts,
                 .kv_width = shape->kv_heads > 1 ? kv / parts : kv,
                 .d_ff = (double)shape->d_ff / parts,
                 .vocabulary = (double)shape->vocab_size / parts,
                 .parts = parts,
                 .gated = shape->activation != SAGO_RELU};
}

/* --- sub-layers
 * -------------------------------------------------------------------------------------------------- */

/* Passes over memory of a norm and of the residual: x read, y written; residual and product read, sum
 * written. */
enum { NORM_FORWARD = 2, NORM_BACKWARD = 4, RESIDUAL_FORWARD = 3, RESIDUAL_BACKWARD = 2 };

static void add_norm(meter *m, const cut *c, double tokens, bool backward) {
    add_elements(m, tokens * c->d_model / c->parts, backward ? NORM_BACKWARD : NORM_FORWARD);
}

static void add_residual(meter *m, const cut *c, double tokens, bool backward) {
    add_elements(m, tokens * c->d_model / c->parts, backward ? RESIDUAL_BACKWARD : RESIDUAL_FORWARD);
}

static void add_heads(meter *m, const cut *c, double tokens, double key_tokens, double pairs, bool backward,
                      bool with_output) {
    void (*linear)(meter *, double, double, double) = backward ? add_linear_backward : add_linear_forward;
    linear(m, tokens, c->width, c->d_model);
    linear(m, key_tokens, c->kv_width, c->d_model);
    linear(m, key_tokens, c->kv_width, c->d_model);
    add_attention(m, pairs, c->width, backward);
    if (with_output) linear(m, tokens, c->d_model, c->width);
}

static void add_mlp(meter *m, const cut *c, double tokens, bool backward, bool with_output) {
    void (*linear)(meter *, double, double, double) = backward ? add_linear_backward : add_linear_forward;
    linear(m, tokens, c->d_ff, c->d_model);
    if (c->gated) linear(m, tokens, c->d_ff, c->d_model);
    add_elements(m, tokens * c->d_ff, (c->gated ? 3 : 2) + (backward ? 2 : 0));
    if (with_output) linear(m, tokens, c->d_model, c->d_ff);
}

typedef struct row_tokens {
    double inputs, targets, encoder_pairs, decoder_pairs, cross_pairs;
} row_tokens;

static row_tokens tokens_of(const sago_workload *work, double rows) {
    double in = (double)work->inputs, out = (double)work->targets;
    return (row_tokens){rows * in, rows * out, rows * in * in, rows * out * (out + 1) / 2, rows * in * out};
}

/* With skip_last, what backward needs of a forward that is run again: all but the last product. */
static void add_layer(meter *m, const cut *c, sago_visit_kind kind, const row_tokens *t, bool backward,
                      bool skip_last) {
    double tokens = kind == SAGO_VISIT_ENCODER ? t->inputs : t->targets;
    double pairs = kind == SAGO_VISIT_ENCODER ? t->encoder_pairs : t->decoder_pairs;
    int residuals = kind == SAGO_VISIT_PARALLEL ? 1 : kind == SAGO_VISIT_DECODER ? 3 : 2;
    add_heads(m, c, tokens, tokens, pairs, backward, true);
    if (kind == SAGO_VISIT_PARALLEL) /* rotary positions of queries and keys, read and written */
        add_elements(m, tokens * (c->width + c->kv_width), 2);
    if (kind == SAGO_VISIT_DECODER) add_heads(m, c, tokens, t->inputs, t->cross_pairs, backward, true);
    add_mlp(m, c, tokens, backward, !skip_last);
    for (int i = 0; i < residuals; i++) {
        add_norm(m, c, tokens, backward);
        add_residual(m, c, tokens, backward);
    }
}

/* Logits of a chunk at a time: forward and backward at once. Logits in fp32 are written, read twice, their
 * gradient written. */
static void add_head(meter *m, const cut *c, double tokens, double chunk) {
    double chunks = ceil(tokens / fmin(chunk, tokens)), n = tokens / chunks;
    for (double i = 0; i < chunks; i++) {
        add_product(m, n, c->vocabulary, c->d_model, 4);
        add_linear_backward(m, n, c->vocabulary, c->d_model);
        add(m, 0, 4 * n * c->vocabulary * 4 / copy_rate(m->hardware));
    }
}

/* --- blocks
 * ------------------------------------------------------------------------------------------------------ */

static double product_rate(const sago_workload *work, const sago_hardware *hardware) {
    return (work->bf16 ? hardware->bf16_tflops.value : hardware->fp32_tflops.value) * 1e12;
}

/* A gather before a sub-layer and a scatter behind it; in backward the sub-layer's input is gathered once
 * more, for its weights' gradients, unless it has just been for forward's second run. */
static void add_collectives(sago_block_cost *cost, sago_visit_kind kind, const sago_layout *layout,
                            double elements, double element) {
    int sublayers = kind == SAGO_VISIT_PARALLEL ? 1 : kind == SAGO_VISIT_DECODER ? 3 : 2;
    if (layout->model == 1) return;
    cost->forward.gathers = cost->forward.scatters = sublayers;
    cost->again.gathers = sublayers, cost->again.scatters = sublayers - 1;
    cost->backward.gathers = layout->recompute ? sublayers : 2 * sublayers;
    cost->backward.scatters = sublayers;
    /* What is summed travels in fp32. */
    cost->forward.gather_bytes = cost->again.gather_bytes = cost->backward.gather_bytes = elements * element;
    cost->forward.scatter_bytes = cost->again.scatter_bytes = cost->backward.scatter_bytes =
        elements * sizeof(float);
}

sago_block_cost sago_block_cost_of(const sago_workload *work, const sago_layout *layout,
                                   const sago_hardware *hardware, sago_visit_kind kind, int64_t rows) {
    const cut c = cut_of(work, layout);
    const row_tokens t = tokens_of(work, (double)rows);
    meter forward = {.hardware = hardware,
                     .product_rate = product_rate(work, hardware),
                     .element = (double)sago_dtype_bytes(work->dtype)};
    meter again = forward, backward = forward;
    sago_block_cost cost = {0};
    if (kind == SAGO_VISIT_EMBEDDING) {
        add_elements(&forward, (t.inputs + t.targets) * c.d_model / c.parts, 2);
        add_elements(&backward, (t.inputs + t.targets) * c.d_model / c.parts, 3);
    } else if (kind == SAGO_VISIT_HEAD) {
        add_head(&forward, &c, (double)(rows * work->loss_tokens), (double)work->config->train.loss_chunk);
    } else {
        add_layer(&forward, &c, kind, &t, false, false);
        add_layer(&again, &c, kind, &t, false, true);
        add_layer(&backward, &c, kind, &t, true, false);
        double tokens = kind == SAGO_VISIT_ENCODER ? t.inputs : t.targets;
        add_collectives(&cost, kind, layout, tokens * c.d_model, forward.element);
    }
    cost.forward.flops = forward.cost.flops, cost.forward.seconds = forward.cost.seconds;
    cost.again.flops = again.cost.flops, cost.again.seconds = again.cost.seconds;
    cost.backward.flops = backward.cost.flops, cost.backward.seconds = backward.cost.seconds;
    return cost;
}

double sago_optimizer_seconds(const sago_workload *work, const sago_hardware *hardware, int64_t elements) {
    const sago_config *config = work->config;
    /* Zeroed, and read for the norm; read three times, the parameter read and written; then what is kept
     * whole. */
    double bytes = 4 + 4 + 3 * 4 + 2 * 4;
    if (!config->optimizer.factored) bytes += 3 * 4;
    if (config->optimizer.momentum > 0) bytes += 2 * 4;
    return (double)elements * bytes / copy_rate(hardware);
}

/* --- FLOPs of a step
 * ---------------------------------------------------------------------------------------------- */

double sago_step_flops(const sago_workload *work) {
    const sago_layout whole = {.data = 1, .model = 1, .micro_batch = work->rows};
    const cut c = cut_of(work, &whole);
    const row_tokens t = tokens_of(work, (double)work->rows);
    double mlp = (c.gated ? 3 : 2) * c.d_ff, heads = 2 * c.width + 2 * c.kv_width;
    double encoder = t.inputs * c.d_model * (heads + mlp) + 2 * t.encoder_pairs * c.width;
    double decoder = t.targets * c.d_model * (heads + mlp) + 2 * t.decoder_pairs * c.width;
    if (work->inputs > 0)
        decoder +=
            (t.targets * 2 * c.width + t.inputs * 2 * c.kv_width) * c.d_model + 2 * t.cross_pairs * c.width;
    double logits = (double)(work->rows * work->loss_tokens) * c.d_model * c.vocabulary;
    return 6 * ((double)work->shape.encoder_layers * encoder + (double)work->shape.decoder_layers * decoder +
                logits);
}

double sago_step_flops_by_parameters(const sago_workload *work) {
    double tokens = (double)work->rows * (double)(work->inputs + work->targets);
    return 6 * tokens * (double)work->n_multiplied / (work->inputs > 0 ? 2 : 1);
}

double sago_peak_flops(const sago_workload *work, const sago_hardware *hardware) {
    const sago_figure *rate = work->bf16 ? &hardware->bf16_tflops : &hardware->fp32_tflops;
    return (rate->datasheet > 0 ? rate->datasheet : rate->value) * 1e12;
}
