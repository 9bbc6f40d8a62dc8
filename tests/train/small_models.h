// SPDX-License-Identifier: Apache-2.0
/**
 * Models that take no time, and a batch of packed rows for them, for tests of what ranks make of one model
 * together. Included after cmocka.h.
 */
#ifndef SAGO_TESTS_SMALL_MODELS_H
#define SAGO_TESTS_SMALL_MODELS_H

#include "batch.h"
#include "model.h"
#include "rng.h"

#include <string.h>

enum { ROWS = 3, INPUTS = 11, TARGETS = 8, BOTH = INPUTS + TARGETS, VOCABULARY = 48, NEW = 6 };

static inline void must(sago_status status) {
    if (status != SAGO_OK) fail_msg("%s", sago_message());
}

static inline sago_model_shape t5_shape(void) {
    sago_model_shape shape = {.family = "t5",
                              .vocab_size = VOCABULARY,
                              .d_model = 20,
                              .n_heads = 4,
                              .head_dim = 6,
                              .d_ff = 24,
                              .encoder_layers = 2,
                              .decoder_layers = 2,
                              .activation = SAGO_GATED_GELU,
                              .relative_buckets = 8,
                              .relative_max_distance = 12,
                              .norm_epsilon = 1e-6f};
    sago_model_shape_complete(&shape);
    return shape;
}

static inline sago_model_shape palm_shape(int64_t kv_heads) {
    sago_model_shape shape = {.family = "palm",
                              .vocab_size = VOCABULARY,
                              .d_model = 20,
                              .n_heads = 8,
                              .kv_heads = kv_heads,
                              .head_dim = 6,
                              .d_ff = 24,
                              .decoder_layers = 3,
                              .activation = SAGO_SWIGLU,
                              .tied_embeddings = true,
                              .rope_interleaved = true,
                              .norm_epsilon = 1e-6f};
    sago_model_shape_complete(&shape);
    return shape;
}

static inline int32_t some_id(uint64_t i) {
    return 2 + (int32_t)sago_below(sago_mix(77, i), VOCABULARY - 2);
}

/* Two examples a row, the last row has one; the second is shorter. */
typedef struct rows {
    sago_batch batch;
    int32_t inputs[ROWS * INPUTS], input_segments[ROWS * INPUTS];
    int32_t targets[ROWS * BOTH], decoder_inputs[ROWS * BOTH], target_segments[ROWS * BOTH],
        prefix[ROWS * BOTH];
    float weights[ROWS * BOTH];
} rows;

static inline void fill_rows(rows *r, bool one) {
    memset(r, 0, sizeof *r);
    int length = one ? BOTH : TARGETS;
    for (int row = 0; row < ROWS; row++) {
        int in = 0, out = 0;
        for (int k = 0; k < (row == ROWS - 1 ? 1 : 2); k++) {
            int n = k ? 3 : 6, m = k ? 2 : 4;
            for (int i = 0; i < n; i++) {
                int32_t id = some_id((uint64_t)(row * 100 + k * 50 + i));
                if (one) {
                    int at = row * length + out;
                    r->decoder_inputs[at] = id, r->target_segments[at] = k + 1, r->prefix[at] = 1;
                    if (i == n - 1)
                        r->targets[at] = some_id((uint64_t)(row * 100 + k * 50 + 20)), r->weights[at] = 1;
                    out++;
                } else {
                    r->inputs[row * INPUTS + in] = id, r->input_segments[row * INPUTS + in++] = k + 1;
                }
            }
            for (int i = 0; i < m; i++, out++) {
                int at = row * length + out;
                int32_t id = some_id((uint64_t)(row * 100 + k * 50 + 20 + i));
                r->target_segments[at] = k + 1;
                r->decoder_inputs[at] = one ? id : i ? r->targets[at - 1] : 0;
                if (!one) r->targets[at] = id, r->weights[at] = 1;
                if (one && i + 1 < m)
                    r->targets[at] = some_id((uint64_t)(row * 100 + k * 50 + 21 + i)), r->weights[at] = 1;
            }
        }
    }
    r->batch = (sago_batch){.n_rows = ROWS,
                            .global_rows = ROWS,
                            .first_row = 4,
                            .input_length = one ? 0 : INPUTS,
                            .target_length = length,
                            .inputs = r->inputs,
                            .input_segments = r->input_segments,
                            .targets = r->targets,
                            .decoder_inputs = r->decoder_inputs,
                            .target_segments = r->target_segments,
                            .weights = r->weights,
                            .prefix = one ? r->prefix : NULL};
}

#endif
