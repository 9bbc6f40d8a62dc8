// SPDX-License-Identifier: Apache-2.0
/**
 * Packing: several examples share one row of a batch, so that few of its tokens are padding (Raffel et
 * al. 2020, section 3.1.2). An example lies in one row, whole; inputs and targets each take their place, or
 * in rows of decoder-only models one behind the other out of input_length + target_length.
 *
 * - Unpacked: a row is one example, in the order of the draws.
 * - Sequential: rows are filled in the order of the draws; a row ends where the next example does not fit.
 * - Windowed: a window of W examples waits (64 before the first row, 8 more with each row up to W). A row
 *   begins with the oldest of them, and takes with it the subset of the others that fills the inputs best
 *   while the targets fit (decoder-only: that fills the row best): an exact subset sum by dynamic
 *   programming, where among equal fills the items that are hard to place win. So an example waits for W - 1
 *   rows at most, and what is left unfilled is what no choice could fill.
 *
 * The state is a cursor: the number of the next draw, and which draws are waiting since when. Restoring
 * draws those again, and everything after is the same bit for bit. Cost a row: O(W * input_length)
 * additions at most; mostly far fewer, since it stops at the first subset that fills the row.
 */
#ifndef SAGO_PACK_H
#define SAGO_PACK_H

#include "config.h"
#include "data.h"
#include "json.h"
#include "mixture.h"
#include "status.h"

typedef struct sago_pack_options {
    bool packing;    /* false: unpacked */
    bool sequential; /* with packing: file order; else windowed */
    int64_t window;  /* W */
    int64_t input_length, target_length;
    bool decoder_only; /* an example takes inputs + targets out of both lengths together */
} sago_pack_options;

/** The options that a configuration asks for, in rows of a kind of model. */
sago_pack_options sago_pack_options_of(const sago_config *config, bool decoder_only);

/** Where examples come from: example number n from 0, a pure function of n; *end past the last one. */
typedef struct sago_pack_source {
    sago_status (*draw)(const void *context, uint64_t number, sago_example *out, bool *end);
    const void *context;
} sago_pack_source;
sago_pack_source sago_pack_source_of(const sago_mixture *mixture);

typedef struct sago_packer sago_packer;
sago_status sago_packer_open(const sago_pack_options *options, sago_pack_source source,
                             sago_packer **out) SAGO_MUST_CHECK;
void sago_packer_close(sago_packer *packer);

/** One row: its examples, in the order of their draws. Valid until the packer's next call. */
typedef struct sago_packed_row {
    const sago_example *const *examples;
    int64_t n_examples, n_input_tokens, n_target_tokens; /* as a batch counts them: sago_batch_given */
    int64_t longest_wait; /* rows that the oldest of them has waited for */
} sago_packed_row;

/** The next row; *more is false, and the row empty, when the source has ended and nothing waits. */
sago_status sago_packer_next(sago_packer *packer, sago_packed_row *row, bool *more) SAGO_MUST_CHECK;

/** The state between two rows, plain data. */
typedef struct sago_pack_cursor {
    uint64_t next_draw;
    int64_t n_rows; /* rows given so far */
    struct sago_pack_waiting {
        uint64_t draw;
        int64_t since; /* the row before which it came */
    } * waiting;
    int64_t n_waiting, capacity;
} sago_pack_cursor;
void sago_pack_cursor_free(sago_pack_cursor *cursor);
void sago_pack_cursor_copy(sago_pack_cursor *to, const sago_pack_cursor *from); /* reuses the memory of *to */
void sago_packer_save(const sago_packer *packer, sago_pack_cursor *out);
sago_status sago_packer_restore(sago_packer *packer, const sago_pack_cursor *cursor) SAGO_MUST_CHECK;
json_t *sago_pack_cursor_to_json(const sago_pack_cursor *cursor);
sago_status sago_pack_cursor_from_json(const json_t *json, sago_pack_cursor *out) SAGO_MUST_CHECK;

/** What `sago data pack` reports about the next n_rows rows. */
typedef struct sago_pack_statistics {
    int64_t rows, examples, truncated, input_tokens, target_tokens;
    double input_fill, target_fill; /* share of the rows' places that hold a token; 0 for decoder-only rows */
    double fill;                    /* the same of all places */
    int64_t longest_wait;           /* rows */
    double seconds;
} sago_pack_statistics;
sago_status sago_packer_measure(sago_packer *packer, int64_t n_rows,
                                sago_pack_statistics *out) SAGO_MUST_CHECK;

#endif
