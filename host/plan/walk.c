// SPDX-License-Identifier: Apache-2.0
#include "walk.h"

#include "str.h"

#include <math.h>
#include <stdlib.h>

const char *sago_event_name(sago_event_kind kind) {
    static const char *const names[] = {"forward", "forward again",   "backward",
                                        "loss",    "gradients added", "optimizer",
                                        "gather",  "reduce-scatter",  "sum"};
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

enum { NONE = -1 };

/* Where a block's values and gradients are while it is worked on, as host/model/fsdp.h has them. */
typedef struct slot {
    int block;        /* whose values it holds or is about to */
    double there_at;  /* when they are there */
    int travelling;   /* whose gradients are on their way */
    double summed_at; /* when they are summed */
} slot;

typedef struct walk {
    const sago_workload *work;
    const sago_layout *layout;
    const sago_hardware *hardware;
    const sago_shares *shares;
    link_rate model, data;
    double free_at[SAGO_QUEUES];
    slot *slots; /* [n_blocks], of which those in use */
    int entered; /* the block of the present visit */
    bool backward;
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
static void compute(walk *w, const sago_pass_cost *cost, sago_event_kind kind, int block) {
    int pieces = cost->scatters > 0 ? cost->scatters : 1;
    double at = w->free_at[SAGO_QUEUE_COMPUTE];
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

/* Gradients of what all ranks of the axis hold: norms, one key/value head. */
static void sum_over_model_axis(walk *w) {
    double bytes = (double)w->shares->packed_elements * (double)sizeof(float),
           at = w->free_at[SAGO_QUEUE_COMPUTE];
    if (bytes == 0) return;
    w->free_at[SAGO_QUEUE_COMPUTE] =
        run(w, SAGO_QUEUE_MODEL, SAGO_EVENT_SUM, NONE, at, 2 * collective_seconds(&w->model, bytes));
    w->time.exposed_model += w->free_at[SAGO_QUEUE_COMPUTE] - at;
    w->time.model_bytes += 2 * sent_bytes(&w->model, bytes);
}

/* --- the data axis
 * ----------------------------------------------------------------------------------------------- */

static bool is_sharded(const walk *w) {
    return w->layout->sharing != SAGO_REPLICATED;
}

static slot *slot_of(const walk *w, int block) {
    bool own = w->layout->sharing == SAGO_SHARDED_KEEP || block == 0;
    return &w->slots[own ? block : 1 + (block - 1) % 2];
}

/* Computing stands still until then. */
static void wait_until(walk *w, double then) {
    double waits = then - w->free_at[SAGO_QUEUE_COMPUTE];
    if (waits <= 0) return;
    w->time.exposed_data += waits;
    w->free_at[SAGO_QUEUE_COMPUTE] = then;
}

/* Each of a block's parameters travels by itself. */
static double block_seconds(const walk *w, int block, double element) {
    const sago_block_share *b = &w->shares->blocks[block];
    return collective_seconds(&w->data, (double)b->elements * element) +
           (double)(b->params - 1) * w->data.latency;
}

/* A transfer on the data axis, beside computing that it slows. */
static double transfer(walk *w, sago_event_kind kind, int block, double seconds) {
    double stolen = seconds * w->hardware->link_compute_share.value, now = w->free_at[SAGO_QUEUE_COMPUTE];
    w->free_at[SAGO_QUEUE_COMPUTE] = now + stolen;
    w->time.exposed_data += stolen;
    return run(w, SAGO_QUEUE_DATA, kind, block, now, seconds);
}

/* Asks for a block's values. The last visit that read its slot is the one before the present one, and has
 * ended. */
static void gather(walk *w, int block) {
    slot *to = slot_of(w, block);
    double element = (double)sago_dtype_bytes(w->work->dtype);
    if (to->block == block) return;
    to->block = block;
    to->there_at = transfer(w, SAGO_EVENT_GATHER, block, block_seconds(w, block, element));
    w->time.data_bytes += sent_bytes(&w->data, (double)w->shares->blocks[block].elements * element);
}

/* Passes over memory: of the values that are summed, a read and a read and a write. */
static void touch(walk *w, int block, double elements, double passes) {
    double seconds =
        elements * passes * (double)sizeof(float) / (w->hardware->copy_gb_per_second.value * 1e9);
    run(w, SAGO_QUEUE_COMPUTE, SAGO_EVENT_ADD, block, 0, seconds);
    w->time.compute += seconds;
}

/* A slot's gradients have arrived, and are added to what the step has so far. */
static void land(walk *w, slot *from) {
    if (from->travelling == NONE) return;
    wait_until(w, from->summed_at);
    touch(w, from->travelling, (double)w->shares->blocks[from->travelling].held, 3);
    from->travelling = NONE;
}

static void clear(walk *w, int block) {
    touch(w, block, (double)w->shares->blocks[block].elements, 1);
}

/* sago_fsdp_enter */
static void enter(walk *w, int block, bool backward) {
    if (!is_sharded(w) || (w->entered == block && w->backward == backward)) return;
    bool turning = backward && !w->backward;
    int next = backward ? block - 1 : block + 1;
    w->entered = block, w->backward = backward;
    gather(w, block);
    wait_until(w, slot_of(w, block)->there_at);
    if (next > 0 && next < w->shares->n_blocks) gather(w, next);
    if (!backward || w->layout->sharing == SAGO_SHARDED_KEEP) return;
    if (turning) {
        land(w, slot_of(w, 0));
        clear(w, 0);
    }
    land(w, slot_of(w, block));
    clear(w, block);
}

static void begin_step(walk *w) {
    w->slots = sago_alloc_zero((size_t)w->shares->n_blocks, sizeof *w->slots);
    w->entered = NONE;
    for (int b = 0; b < w->shares->n_blocks; b++) {
        w->slots[b].block = w->slots[b].travelling = NONE;
        if (w->layout->sharing == SAGO_SHARDED_KEEP) clear(w, b);
    }
}

static void finish_step(walk *w) {
    for (int b = 0; b < w->shares->n_blocks; b++) land(w, &w->slots[b]);
    wait_until(w, w->free_at[SAGO_QUEUE_DATA]);
    free(w->slots);
}

static void send_bucket(walk *w, int block) {
    double bytes = w->bucket * (double)sizeof(float);
    double seconds = 2 * collective_seconds(&w->data, bytes);
    transfer(w, SAGO_EVENT_SUM, block, seconds);
    w->time.data_bytes += 2 * sent_bytes(&w->data, bytes);
    w->bucket = 0;
}

/* A block's gradients of this micro-batch are there. */
static void reduce(walk *w, int block, bool last_micro_batch) {
    double elements = (double)w->shares->blocks[block].elements;
    if (w->layout->data == 1) return;
    if (w->layout->sharing != SAGO_SHARDED_DROP && !last_micro_batch) return;
    if (is_sharded(w)) {
        slot *from = slot_of(w, block);
        from->travelling = block;
        from->summed_at =
            transfer(w, SAGO_EVENT_SCATTER, block, block_seconds(w, block, (double)sizeof(float)));
        w->time.data_bytes += sent_bytes(&w->data, elements * (double)sizeof(float));
        return;
    }
    w->bucket += elements;
    if (block == 0 || w->bucket * (double)sizeof(float) >= (double)w->work->config->mesh.bucket_bytes)
        send_bucket(w, block);
}

/* --- visits of blocks
 * -------------------------------------------------------------------------------------------- */

typedef struct visit {
    int block;    /* to enter; NONE: the embedding's way back, which reads no values */
    int finishes; /* whose gradients of this micro-batch are final after it, or NONE */
    sago_visit_kind kind;
    bool backward;
} visit;

static void visit_block(walk *w, const visit *v, const sago_block_cost costs[], bool last_micro) {
    const sago_block_cost *cost = &costs[v->kind];
    int block = v->block == NONE ? 0 : v->block;
    /* An untied output matrix is gathered forward and, in the same visit, used backward. */
    if (v->kind == SAGO_VISIT_HEAD && v->finishes != NONE) enter(w, block, false);
    if (v->block != NONE) enter(w, block, v->backward);
    if (v->kind == SAGO_VISIT_HEAD) {
        compute(w, &cost->forward, SAGO_EVENT_LOSS, block);
    } else if (v->backward) {
        if (w->layout->recompute && v->block != NONE) compute(w, &cost->again, SAGO_EVENT_AGAIN, block);
        compute(w, &cost->backward, SAGO_EVENT_BACKWARD, block);
    } else {
        compute(w, &cost->forward, SAGO_EVENT_FORWARD, block);
    }
    if (v->finishes != NONE) reduce(w, v->finishes, last_micro);
}

/* Forward order of the registry's blocks, the loss, and back. The loss enters the last block backward, tied
 * or not. */
static int list_visits(const sago_workload *work, visit *out) {
    int encoder = (int)work->shape.encoder_layers, layers = encoder + (int)work->shape.decoder_layers, n = 0;
    bool tied = work->shape.tied_embeddings;
    sago_visit_kind decoder = work->inputs > 0 ? SAGO_VISIT_DECODER : SAGO_VISIT_PARALLEL;
    out[n++] = (visit){0, NONE, SAGO_VISIT_EMBEDDING, false};
    for (int b = 1; b <= layers; b++)
        out[n++] = (visit){b, NONE, b <= encoder ? SAGO_VISIT_ENCODER : decoder, false};
    out[n++] = (visit){tied ? layers : layers + 1, tied ? NONE : layers + 1, SAGO_VISIT_HEAD, true};
    for (int b = layers; b >= 1; b--)
        out[n++] = (visit){b, b, b <= encoder ? SAGO_VISIT_ENCODER : decoder, true};
    out[n++] = (visit){NONE, 0, SAGO_VISIT_EMBEDDING, true};
    return n;
}

static void walk_micro_batch(walk *w, const visit *visits, int n, int64_t rows, bool last) {
    sago_block_cost costs[SAGO_VISIT_KINDS];
    for (int kind = 0; kind < SAGO_VISIT_KINDS; kind++)
        costs[kind] = sago_block_cost_of(w->work, w->layout, w->hardware, (sago_visit_kind)kind, rows);
    for (int i = 0; i < n; i++) visit_block(w, &visits[i], costs, last);
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
              .hardware = hardware,
              .shares = shares,
              .model = link_of(hardware, layout->model, 1),
              .data = link_of(hardware, layout->data, layout->model),
              .timeline = timeline};
    int64_t layers = work->shape.encoder_layers + work->shape.decoder_layers;
    visit *visits = sago_alloc((size_t)(2 * layers + 3) * sizeof *visits);
    int n = list_visits(work, visits);
    begin_step(&w);
    for (; rows > 0; rows -= layout->micro_batch, w.micro_batch++)
        walk_micro_batch(&w, visits, n, rows < layout->micro_batch ? rows : layout->micro_batch,
                         rows <= layout->micro_batch);
    free(visits);
    finish_step(&w);
    sum_over_model_axis(&w);
    /* Norm and Adafactor's sums go over both axes, a few numbers a row and column each. */
    double sums = 2 * ((layout->model > 1 ? w.model.latency : 0) + (layout->data > 1 ? w.data.latency : 0));
    w.time.optimizer = sago_optimizer_seconds(work, hardware, shares->held_elements) + sums;
    w.time.seconds = run(&w, SAGO_QUEUE_COMPUTE, SAGO_EVENT_OPTIMIZER, NONE, 0, w.time.optimizer);
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
