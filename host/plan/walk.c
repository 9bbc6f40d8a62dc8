// SPDX-License-Identifier: Apache-2.0
#include "walk.h"

#include "str.h"

#include <math.h>
#include <stdlib.h>

const char *sago_event_name(sago_event_kind kind) {
    static const char *const names[] = {"forward",   "forward again", "backward",       "loss",
                                        "optimizer", "gather",        "reduce-scatter", "sum"};
    return names[kind];
}

void sago_timeline_free(sago_timeline *timeline) {
    free(timeline->events);
    *timeline = (sago_timeline){0};
}

/* --- queues
 * ------------------------------------------------------------------------------------------------------ */

typedef struct link_rate {
    double bytes_per_second, latency;
    int64_t ranks;
} link_rate;

enum { BUFFERS = 2 }; /* of gathered parameters; as many of gradients on their way */

typedef struct buffer {
    int block;          /* whose parameters it holds or is about to; -1: none yet */
    double there_at;    /* when they are there */
    double needed_till; /* the end of the last visit that read them */
} buffer;

typedef struct walk {
    const sago_workload *work;
    const sago_layout *layout;
    const sago_shares *shares;
    link_rate model, data;
    double free_at[SAGO_QUEUES];
    buffer buffers[BUFFERS];      /* of gathered parameters */
    int current;                  /* the one that the present visit reads */
    double scatter_ends[BUFFERS]; /* of the gradients before */
    int64_t scatters;
    double bucket; /* elements whose gradients are final and not yet on their way */
    int micro_batch;
    sago_step_time time;
    sago_timeline *timeline;
} walk;

/* Begins when the queue and what it needs are ready; returns its end. */
static double run(walk *w, sago_queue queue, sago_event_kind kind, int block, double ready, double seconds) {
    double start = fmax(w->free_at[queue], ready), end = start + seconds;
    w->free_at[queue] = end;
    if (w->timeline && seconds > 0) {
        sago_timeline *t = w->timeline;
        if (t->count == t->room) {
            t->room = t->room ? 2 * t->room : 1024;
            t->events = sago_realloc(t->events, (size_t)t->room * sizeof *t->events);
        }
        t->events[t->count++] = (sago_event){queue, kind, block, w->micro_batch, start, end};
    }
    return end;
}

/* Every rank sends its part of `bytes` to all others, or gets its part of their sum. */
static double collective_seconds(const link_rate *link, double bytes) {
    double others = (double)(link->ranks - 1);
    if (others == 0) return 0;
    return bytes * others / (double)link->ranks / link->bytes_per_second + link->latency;
}

static double sent_bytes(const link_rate *link, double bytes) {
    return bytes * (double)(link->ranks - 1) / (double)link->ranks;
}

/* --- the model axis
 * ---------------------------------------------------------------------------------------------- */

/* Computing in as many pieces as it has collectives; each stands in the way of what follows it. */
static void compute(walk *w, const sago_pass_cost *cost, sago_event_kind kind, int block, double ready) {
    int pieces = cost->scatters > 0 ? cost->scatters : 1;
    double at = fmax(w->free_at[SAGO_QUEUE_COMPUTE], ready);
    double gather = collective_seconds(&w->model, cost->gather_bytes);
    double scatter = collective_seconds(&w->model, cost->scatter_bytes);
    for (int i = 0; i < pieces; i++) {
        int gathers = (cost->gathers + i) / pieces, scatters = (cost->scatters + i) / pieces;
        double began = at;
        for (int g = 0; g < gathers; g++) at = run(w, SAGO_QUEUE_MODEL, SAGO_EVENT_GATHER, block, at, gather);
        w->time.exposed_model += at - began;
        at = run(w, SAGO_QUEUE_COMPUTE, kind, block, at, cost->seconds / pieces);
        began = at;
        for (int s = 0; s < scatters; s++)
            at = run(w, SAGO_QUEUE_MODEL, SAGO_EVENT_SCATTER, block, at, scatter);
        w->time.exposed_model += at - began;
    }
    w->free_at[SAGO_QUEUE_COMPUTE] = at;
    w->time.compute += cost->seconds;
    w->time.flops += cost->flops;
    w->time.model_bytes += cost->gathers * sent_bytes(&w->model, cost->gather_bytes) +
                           cost->scatters * sent_bytes(&w->model, cost->scatter_bytes);
}

/* --- the data axis
 * ----------------------------------------------------------------------------------------------- */

static bool is_sharded(const walk *w) {
    return w->layout->sharded && w->layout->data > 1;
}

/* Asks for a block's parameters: in a buffer already, or into the one that the present visit does not read,
 * once the last visit that did has ended. Returns the buffer. */
static int gather(walk *w, int block) {
    for (int i = 0; i < BUFFERS; i++)
        if (w->buffers[i].block == block) return i;
    int other = (w->current + 1) % BUFFERS;
    buffer *to = &w->buffers[other];
    double bytes = (double)(w->shares->block_elements[block] * (int64_t)sago_dtype_bytes(w->work->dtype));
    to->block = block;
    to->there_at = run(w, SAGO_QUEUE_DATA, SAGO_EVENT_GATHER, block, to->needed_till,
                       collective_seconds(&w->data, bytes));
    w->time.data_bytes += sent_bytes(&w->data, bytes);
    return other;
}

static void send_bucket(walk *w, int block) {
    double bytes = w->bucket * (double)sizeof(float);
    double seconds = 2 * collective_seconds(&w->data, bytes);
    run(w, SAGO_QUEUE_DATA, SAGO_EVENT_SUM, block, w->free_at[SAGO_QUEUE_COMPUTE], seconds);
    w->time.data_bytes += 2 * sent_bytes(&w->data, bytes);
    w->bucket = 0;
}

/* A block's gradients of this micro-batch are there. */
static void reduce(walk *w, int block, bool last_micro_batch) {
    if (w->layout->data == 1) return;
    double elements = (double)w->shares->block_elements[block];
    if (is_sharded(w)) {
        double bytes = elements * (double)sizeof(float);
        w->scatter_ends[w->scatters++ % BUFFERS] =
            run(w, SAGO_QUEUE_DATA, SAGO_EVENT_SCATTER, block, w->free_at[SAGO_QUEUE_COMPUTE],
                collective_seconds(&w->data, bytes));
        w->time.data_bytes += sent_bytes(&w->data, bytes);
    } else if (last_micro_batch) {
        w->bucket += elements;
        if (block == 0 || w->bucket * (double)sizeof(float) >= (double)w->work->config->mesh.bucket_bytes)
            send_bucket(w, block);
    }
}

/* --- visits of blocks
 * -------------------------------------------------------------------------------------------- */

typedef struct visit {
    int block;     /* whose parameters must be there */
    bool finishes; /* the block's gradients of this micro-batch are final after it */
    sago_visit_kind kind;
    bool backward;
} visit;

/* The gradient of an embedding is rows added to: its parameters are not read. */
static bool reads_parameters(const visit *v) {
    return !(v->kind == SAGO_VISIT_EMBEDDING && v->backward);
}

static void visit_block(walk *w, const visit *v, const visit *next, const sago_block_cost costs[],
                        bool last_micro) {
    const sago_block_cost *cost = &costs[v->kind];
    double now = w->free_at[SAGO_QUEUE_COMPUTE], ready = now;
    bool gathers = is_sharded(w);
    if (gathers && reads_parameters(v)) {
        w->current = gather(w, v->block);
        ready = fmax(ready, w->buffers[w->current].there_at);
    }
    /* Where the gradients of two blocks are still on their way, there is no room for a third's. */
    if (gathers && v->finishes && w->scatters >= BUFFERS)
        ready = fmax(ready, w->scatter_ends[w->scatters % BUFFERS]);
    w->time.exposed_data += ready - now;
    if (gathers && next && reads_parameters(next)) gather(w, next->block);
    if (v->kind == SAGO_VISIT_HEAD) {
        compute(w, &cost->forward, SAGO_EVENT_LOSS, v->block, ready);
    } else if (v->backward) {
        if (w->layout->recompute && v->kind != SAGO_VISIT_EMBEDDING)
            compute(w, &cost->again, SAGO_EVENT_AGAIN, v->block, ready);
        compute(w, &cost->backward, SAGO_EVENT_BACKWARD, v->block, ready);
    } else {
        compute(w, &cost->forward, SAGO_EVENT_FORWARD, v->block, ready);
    }
    if (reads_parameters(v)) w->buffers[w->current].needed_till = w->free_at[SAGO_QUEUE_COMPUTE];
    if (v->finishes) reduce(w, v->block, last_micro);
}

/* Forward order of the registry's blocks, the loss, and back. */
static int list_visits(const sago_workload *work, visit *out) {
    int encoder = (int)work->shape.encoder_layers, layers = encoder + (int)work->shape.decoder_layers, n = 0;
    bool tied = work->shape.tied_embeddings;
    sago_visit_kind decoder = work->inputs > 0 ? SAGO_VISIT_DECODER : SAGO_VISIT_PARALLEL;
    out[n++] = (visit){0, false, SAGO_VISIT_EMBEDDING, false};
    for (int b = 1; b <= layers; b++)
        out[n++] = (visit){b, false, b <= encoder ? SAGO_VISIT_ENCODER : decoder, false};
    out[n++] = (visit){tied ? 0 : layers + 1, !tied, SAGO_VISIT_HEAD, true};
    for (int b = layers; b >= 1; b--)
        out[n++] = (visit){b, true, b <= encoder ? SAGO_VISIT_ENCODER : decoder, true};
    out[n++] = (visit){0, true, SAGO_VISIT_EMBEDDING, true};
    return n;
}

static void walk_micro_batch(walk *w, const visit *visits, int n, const sago_hardware *hardware, int64_t rows,
                             bool last) {
    sago_block_cost costs[SAGO_VISIT_KINDS];
    for (int kind = 0; kind < SAGO_VISIT_KINDS; kind++)
        costs[kind] = sago_block_cost_of(w->work, w->layout, hardware, (sago_visit_kind)kind, rows);
    for (int i = 0; i < n; i++) visit_block(w, &visits[i], i + 1 < n ? &visits[i + 1] : NULL, costs, last);
}

/* A ring of ranks goes through the network where they do not all fit in a node; the rings of a node's devices
 * that lie beside one another share its cards. */
static link_rate link_of(const sago_hardware *hardware, int64_t ranks, int64_t beside) {
    double node = hardware->node_gb_per_second.value * 1e9, net = hardware->network_gb_per_second.value * 1e9;
    if (ranks * beside <= hardware->devices_per_node)
        return (link_rate){node, hardware->node_microseconds.value * 1e-6, ranks};
    double rings = (double)(beside < hardware->devices_per_node ? beside : hardware->devices_per_node);
    return (link_rate){fmin(node, net / rings), hardware->network_microseconds.value * 1e-6, ranks};
}

/* The step of a rank with so many rows. */
static void walk_rows(const sago_workload *work, const sago_layout *layout, const sago_hardware *hardware,
                      const sago_shares *shares, int64_t rows, sago_step_time *out, sago_timeline *timeline) {
    walk w = {.work = work,
              .layout = layout,
              .shares = shares,
              .model = link_of(hardware, layout->model, 1),
              .data = link_of(hardware, layout->data, layout->model),
              .buffers = {{.block = -1}, {.block = -1}},
              .timeline = timeline};
    int64_t layers = work->shape.encoder_layers + work->shape.decoder_layers;
    visit *visits = sago_alloc((size_t)(2 * layers + 3) * sizeof *visits);
    int n = list_visits(work, visits);
    for (; rows > 0; rows -= layout->micro_batch, w.micro_batch++)
        walk_micro_batch(&w, visits, n, hardware, rows < layout->micro_batch ? rows : layout->micro_batch,
                         rows <= layout->micro_batch);
    free(visits);
    double computed = w.free_at[SAGO_QUEUE_COMPUTE], reduced = fmax(computed, w.free_at[SAGO_QUEUE_DATA]);
    w.time.exposed_data += reduced - computed;
    /* Norm and Adafactor's sums go over both axes, a few numbers a row and column each. */
    double sums = 2 * ((layout->model > 1 ? w.model.latency : 0) + (layout->data > 1 ? w.data.latency : 0));
    w.time.optimizer = sago_optimizer_seconds(work, hardware, shares->held_elements) + sums;
    w.time.seconds = run(&w, SAGO_QUEUE_COMPUTE, SAGO_EVENT_OPTIMIZER, -1, reduced, w.time.optimizer);
    *out = w.time;
}

/* a + times * (a - b) */
static double further(double a, double b, double times) {
    return a + times * (a - b);
}

/* Micro-batches in the middle of a step are all alike: of very many, some are walked and the rest reckoned
 * from them. */
enum { WALKED_MOST = 256 };

void sago_walk_step(const sago_workload *work, const sago_layout *layout, const sago_hardware *hardware,
                    const sago_shares *shares, sago_step_time *out, sago_timeline *timeline) {
    int64_t rows = sago_layout_rows(work, layout), most = WALKED_MOST * layout->micro_batch;
    if (rows <= most || timeline) {
        walk_rows(work, layout, hardware, shares, rows, out, timeline);
        return;
    }
    sago_step_time all, half;
    walk_rows(work, layout, hardware, shares, most, &all, NULL);
    walk_rows(work, layout, hardware, shares, most / 2, &half, NULL);
    double times = (double)(rows - most) / (double)(most - most / 2);
    *out = (sago_step_time){.seconds = further(all.seconds, half.seconds, times),
                            .compute = further(all.compute, half.compute, times),
                            .optimizer = all.optimizer,
                            .exposed_model = further(all.exposed_model, half.exposed_model, times),
                            .exposed_data = further(all.exposed_data, half.exposed_data, times),
                            .model_bytes = further(all.model_bytes, half.model_bytes, times),
                            .data_bytes = further(all.data_bytes, half.data_bytes, times),
                            .flops = further(all.flops, half.flops, times)};
}
