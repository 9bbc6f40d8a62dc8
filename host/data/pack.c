// SPDX-License-Identifier: Apache-2.0
#include "pack.h"

#include "batch_rows.h"
#include "log.h"
#include "pack_fill.h"

#include <stdlib.h>
#include <string.h>

/* The window grows with the first rows, so that a run's first batch does not wait for all of it. */
enum { FIRST_WINDOW = 64, WINDOW_GROWTH = 8 };

typedef struct slot {
    sago_example example;
    uint64_t draw;
    int64_t since;
} slot;

struct sago_packer {
    sago_pack_options options;
    sago_pack_source source;
    uint64_t next_draw;
    int64_t n_rows;
    bool ended;
    slot **unused, **waiting,
        **row; /* each slot is in one of them. waiting: in the order of the draws; row: the last */
    int64_t n_unused, n_waiting, n_row;
    int64_t n_slots, room; /* all lists, and those below, have room for all slots */
    const sago_example **row_examples;
    sago_fill_item *items; /* of the waiting ones */
    int64_t *chosen;
    sago_fill *fill;
};

sago_pack_options sago_pack_options_of(const sago_config *config, bool decoder_only) {
    return (sago_pack_options){
        .packing = config->data.packing,
        .sequential = strcmp(config->data.order, "sequential") == 0,
        .window = config->data.pack_window,
        .input_length = config->data.input_length,
        .target_length = config->data.target_length,
        .decoder_only = decoder_only,
    };
}

static sago_status draw_from_mixture(const void *mixture, uint64_t number, sago_example *out, bool *end) {
    *end = false;
    return sago_mixture_draw(mixture, number, out, end);
}

sago_pack_source sago_pack_source_of(const sago_mixture *mixture) {
    return (sago_pack_source){draw_from_mixture, mixture};
}

static bool is_windowed(const sago_packer *packer) {
    return packer->options.packing && !packer->options.sequential;
}

sago_status sago_packer_open(const sago_pack_options *options, sago_pack_source source, sago_packer **out) {
    *out = NULL;
    if (options->input_length < 1 || options->target_length < 1 || options->window < 1)
        return sago_fail(SAGO_E_CONFIG, "packing: rows of %lld + %lld tokens and a window of %lld examples",
                         (long long)options->input_length, (long long)options->target_length,
                         (long long)options->window);
    sago_packer *packer = sago_alloc_zero(1, sizeof *packer);
    packer->options = *options;
    packer->source = source;
    /* Decoder-only rows have one length to fill: all tokens are inputs to it, and targets bound nothing. */
    int64_t length = options->input_length + options->target_length;
    if (is_windowed(packer))
        packer->fill = options->decoder_only ? sago_fill_open(length, 1)
                                             : sago_fill_open(options->input_length, options->target_length);
    *out = packer;
    return SAGO_OK;
}

static void give_back_row(sago_packer *packer) {
    while (packer->n_row > 0) packer->unused[packer->n_unused++] = packer->row[--packer->n_row];
}

static void give_back_all(sago_packer *packer) {
    give_back_row(packer);
    while (packer->n_waiting > 0) packer->unused[packer->n_unused++] = packer->waiting[--packer->n_waiting];
}

/* The slot to draw into; it stays unused until it is taken out. */
static slot *next_unused(sago_packer *packer) {
    if (packer->n_unused == 0) {
        if (packer->n_slots == packer->room) {
            packer->room = packer->room ? 2 * packer->room : 64;
            size_t n = (size_t)packer->room;
            packer->unused = sago_realloc(packer->unused, n * sizeof *packer->unused);
            packer->waiting = sago_realloc(packer->waiting, n * sizeof *packer->waiting);
            packer->row = sago_realloc(packer->row, n * sizeof *packer->row);
            packer->row_examples = sago_realloc(packer->row_examples, n * sizeof *packer->row_examples);
            packer->items = sago_realloc(packer->items, n * sizeof *packer->items);
            packer->chosen = sago_realloc(packer->chosen, n * sizeof *packer->chosen);
        }
        packer->unused[packer->n_unused++] = sago_alloc_zero(1, sizeof(slot));
        packer->n_slots++;
    }
    return packer->unused[packer->n_unused - 1];
}

void sago_packer_close(sago_packer *packer) {
    if (!packer) return;
    give_back_all(packer);
    for (int64_t i = 0; i < packer->n_unused; i++) {
        sago_example_free(&packer->unused[i]->example);
        free(packer->unused[i]);
    }
    sago_fill_close(packer->fill);
    free(packer->unused);
    free(packer->waiting);
    free(packer->row);
    free(packer->row_examples);
    free(packer->items);
    free(packer->chosen);
    free(packer);
}

static bool fits(const sago_pack_options *options, int64_t inputs, int64_t targets) {
    if (options->decoder_only) return inputs + targets <= options->input_length + options->target_length;
    return inputs <= options->input_length && targets <= options->target_length;
}

/* Draws into an unused slot; NULL where the source has ended. */
static sago_status draw(sago_packer *packer, uint64_t number, int64_t since, slot **out) {
    *out = NULL;
    slot *s = next_unused(packer);
    bool end = false;
    SAGO_TRY(packer->source.draw(packer->source.context, number, &s->example, &end));
    if (end) {
        packer->ended = true;
        return SAGO_OK;
    }
    const sago_example *e = &s->example;
    if (!fits(&packer->options, e->inputs.length, e->targets.length))
        return sago_fail(
            SAGO_E_SHAPE, "draw %llu has %lld input and %lld target ids: rows hold %lld and %lld%s",
            (unsigned long long)number, (long long)e->inputs.length, (long long)e->targets.length,
            (long long)packer->options.input_length, (long long)packer->options.target_length,
            packer->options.decoder_only ? ", together" : "");
    s->draw = number;
    s->since = since;
    packer->n_unused--;
    *out = s;
    return SAGO_OK;
}

static sago_status draw_next(sago_packer *packer, bool *got) {
    *got = false;
    if (packer->ended) return SAGO_OK;
    slot *s;
    SAGO_TRY(draw(packer, packer->next_draw, packer->n_rows, &s));
    if (!s) return SAGO_OK;
    packer->next_draw++;
    packer->waiting[packer->n_waiting++] = s;
    *got = true;
    return SAGO_OK;
}

/* In file order: what is waiting is the one example that did not fit into the row before. */
static sago_status fill_in_order(sago_packer *packer) {
    /* Examples without a token take no place: the bound ends a row of such. */
    int64_t inputs = 0, targets = 0,
            most = packer->options.packing ? packer->options.input_length + packer->options.target_length : 1;
    while (packer->n_row < most) {
        bool got = packer->n_waiting > 0;
        if (!got) SAGO_TRY(draw_next(packer, &got));
        if (!got) break;
        slot *s = packer->waiting[0];
        inputs += s->example.inputs.length;
        targets += s->example.targets.length;
        if (!fits(&packer->options, inputs, targets)) break;
        packer->row[packer->n_row++] = s;
        packer->n_waiting = 0;
    }
    return SAGO_OK;
}

static sago_status fill_from_window(sago_packer *packer) {
    int64_t window = FIRST_WINDOW + WINDOW_GROWTH * packer->n_rows;
    if (window > packer->options.window) window = packer->options.window;
    for (bool got = true; got && packer->n_waiting < window;) SAGO_TRY(draw_next(packer, &got));
    if (packer->n_waiting == 0) return SAGO_OK;
    for (int64_t i = 0; i < packer->n_waiting; i++) {
        const sago_example *e = &packer->waiting[i]->example;
        int32_t inputs = (int32_t)e->inputs.length, targets = (int32_t)e->targets.length;
        packer->items[i] = packer->options.decoder_only ? (sago_fill_item){inputs + targets, 0}
                                                        : (sago_fill_item){inputs, targets};
    }
    packer->n_row = sago_fill_row(packer->fill, packer->items, packer->n_waiting, packer->chosen);
    int64_t kept = 0, taken = 0;
    for (int64_t i = 0; i < packer->n_waiting; i++) {
        if (taken < packer->n_row && packer->chosen[taken] == i)
            packer->row[taken++] = packer->waiting[i];
        else
            packer->waiting[kept++] = packer->waiting[i];
    }
    packer->n_waiting = kept;
    return SAGO_OK;
}

sago_status sago_packer_next(sago_packer *packer, sago_packed_row *row, bool *more) {
    *row = (sago_packed_row){0};
    *more = false;
    give_back_row(packer);
    SAGO_TRY(is_windowed(packer) ? fill_from_window(packer) : fill_in_order(packer));
    if (packer->n_row == 0) return SAGO_OK;
    for (int64_t i = 0; i < packer->n_row; i++) {
        const slot *s = packer->row[i];
        packer->row_examples[i] = &s->example;
        const sago_ids *inputs = &s->example.inputs, *targets = &s->example.targets;
        int64_t given = sago_batch_given(packer->options.decoder_only, inputs, targets);
        row->n_input_tokens += given;
        row->n_target_tokens += inputs->length + targets->length - given;
        if (packer->n_rows - s->since > row->longest_wait) row->longest_wait = packer->n_rows - s->since;
    }
    row->examples = packer->row_examples;
    row->n_examples = packer->n_row;
    packer->n_rows++;
    *more = true;
    return SAGO_OK;
}

void sago_pack_cursor_free(sago_pack_cursor *cursor) {
    free(cursor->waiting);
    *cursor = (sago_pack_cursor){0};
}

static void cursor_reserve(sago_pack_cursor *cursor, int64_t n) {
    if (n > cursor->capacity) {
        cursor->waiting = sago_realloc(cursor->waiting, (size_t)n * sizeof *cursor->waiting);
        cursor->capacity = n;
    }
    cursor->n_waiting = n;
}

void sago_pack_cursor_copy(sago_pack_cursor *to, const sago_pack_cursor *from) {
    to->next_draw = from->next_draw;
    to->n_rows = from->n_rows;
    cursor_reserve(to, from->n_waiting);
    for (int64_t i = 0; i < from->n_waiting; i++) to->waiting[i] = from->waiting[i];
}

void sago_packer_save(const sago_packer *packer, sago_pack_cursor *out) {
    out->next_draw = packer->next_draw;
    out->n_rows = packer->n_rows;
    cursor_reserve(out, packer->n_waiting);
    for (int64_t i = 0; i < packer->n_waiting; i++) {
        out->waiting[i].draw = packer->waiting[i]->draw;
        out->waiting[i].since = packer->waiting[i]->since;
    }
}

sago_status sago_packer_restore(sago_packer *packer, const sago_pack_cursor *cursor) {
    give_back_all(packer);
    if (cursor->n_waiting > (is_windowed(packer) ? packer->options.window : 1))
        return sago_fail(SAGO_E_CONFIG,
                         "data cursor: %lld examples are waiting, more than data.pack_window holds",
                         (long long)cursor->n_waiting);
    packer->ended = false;
    packer->next_draw = cursor->next_draw;
    packer->n_rows = cursor->n_rows;
    for (int64_t i = 0; i < cursor->n_waiting; i++) {
        slot *s;
        SAGO_TRY(draw(packer, cursor->waiting[i].draw, cursor->waiting[i].since, &s));
        if (!s)
            return sago_fail(SAGO_E_INPUT,
                             "data cursor: example %llu is gone: the data has changed since the save",
                             (unsigned long long)cursor->waiting[i].draw);
        packer->waiting[packer->n_waiting++] = s;
    }
    return SAGO_OK;
}

json_t *sago_pack_cursor_to_json(const sago_pack_cursor *cursor) {
    json_t *waiting = json_array();
    for (int64_t i = 0; i < cursor->n_waiting; i++)
        json_array_append_new(waiting, json_pack("[I,I]", (json_int_t)cursor->waiting[i].draw,
                                                 (json_int_t)cursor->waiting[i].since));
    return json_pack("{s:I,s:I,s:o}", "next_draw", (json_int_t)cursor->next_draw, "rows",
                     (json_int_t)cursor->n_rows, "waiting", waiting);
}

sago_status sago_pack_cursor_from_json(const json_t *json, sago_pack_cursor *out) {
    json_int_t next_draw, n_rows;
    json_t *waiting;
    if (json_unpack((json_t *)json, "{s:I,s:I,s:o}", "next_draw", &next_draw, "rows", &n_rows, "waiting",
                    &waiting) != 0 ||
        !json_is_array(waiting) || next_draw < 0 || n_rows < 0)
        return sago_fail(SAGO_E_CORRUPT, "data cursor: next_draw, rows and waiting are needed");
    cursor_reserve(out, (int64_t)json_array_size(waiting));
    out->next_draw = (uint64_t)next_draw;
    out->n_rows = n_rows;
    for (int64_t i = 0; i < out->n_waiting; i++) {
        json_int_t draw_number, since;
        if (json_unpack(json_array_get(waiting, (size_t)i), "[I,I]", &draw_number, &since) != 0 ||
            draw_number < 0 || draw_number >= next_draw || since < 0 || since > n_rows)
            return sago_fail(SAGO_E_CORRUPT, "data cursor: entry %lld of waiting is wrong", (long long)i);
        out->waiting[i].draw = (uint64_t)draw_number;
        out->waiting[i].since = since;
    }
    return SAGO_OK;
}

sago_status sago_packer_measure(sago_packer *packer, int64_t n_rows, sago_pack_statistics *out) {
    *out = (sago_pack_statistics){0};
    int64_t start = sago_now_ns();
    for (bool more = true; out->rows < n_rows;) {
        sago_packed_row row;
        SAGO_TRY(sago_packer_next(packer, &row, &more));
        if (!more) break;
        out->rows++;
        out->examples += row.n_examples;
        out->input_tokens += row.n_input_tokens;
        out->target_tokens += row.n_target_tokens;
        if (row.longest_wait > out->longest_wait) out->longest_wait = row.longest_wait;
        for (int64_t i = 0; i < row.n_examples; i++) out->truncated += row.examples[i]->truncated;
    }
    out->seconds = (double)(sago_now_ns() - start) * 1e-9;
    const sago_pack_options *options = &packer->options;
    if (out->rows > 0) {
        double rows = (double)out->rows, tokens = (double)(out->input_tokens + out->target_tokens);
        out->fill = tokens / (rows * (double)(options->input_length + options->target_length));
        if (!options->decoder_only) {
            out->input_fill = (double)out->input_tokens / (rows * (double)options->input_length);
            out->target_fill = (double)out->target_tokens / (rows * (double)options->target_length);
        }
    }
    return SAGO_OK;
}
