// SPDX-License-Identifier: Apache-2.0
/* Decoding with the KV cache against the whole decoder in float64, run again for every token. */
#include "small_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 6, TOKENS = SMALL_GENERATE_TOKENS };

/* The next token by float64 over all tokens so far, and its log-probability; *margin to the second best. */
static int32_t best_next(const reference *r, const int32_t *inputs, int n_inputs, const int32_t *so_far,
                         int n, double *logprob, double *margin) {
    sago_batch batch = small_batch(&r->shape, 1, (int[]){1}, &n_inputs, (int[]){n + 1}, 1);
    bool palm = batch.prefix != NULL;
    /* Where the inputs stand, the tokens so far, and what they predict. */
    int32_t *first = palm ? batch.decoder_inputs : batch.inputs;
    int32_t *second = batch.decoder_inputs + (palm ? n_inputs : 1);
    int64_t v = r->shape.vocab_size, last_place = palm ? n_inputs - 1 + n : n;
    memcpy(first, inputs, (size_t)n_inputs * sizeof *inputs);
    for (int i = 0; i < n; i++) second[i] = so_far[i];
    double *all = malloc(sizeof(double) * (size_t)(batch.target_length * v)), *last = all + last_place * v;
    reference_logprobs(r, &batch, 0, all);
    int32_t best = 0;
    for (int32_t i = 1; i < v; i++)
        if (last[i] > last[best]) best = i;
    *logprob = last[best];
    *margin = INFINITY;
    for (int32_t i = 0; i < v; i++)
        if (i != best) *margin = fmin(*margin, last[best] - last[i]);
    free(all);
    small_batch_free(&batch);
    return best;
}

static const int input_lengths[ROWS] = {21, 5, 13, 1, 9, 16};

static void fill_inputs(int32_t *inputs) {
    memset(inputs, 0, ROWS * SMALL_INPUTS * sizeof *inputs);
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < input_lengths[row]; i++)
            inputs[row * SMALL_INPUTS + i] = 2 + (row * 31 + i * 17) % 50;
}

/* A token that at least half of the rows make, and that another row does not make within two steps after
 * them. */
static int32_t early_end(const int32_t *out) {
    for (int32_t id = 0; id < SMALL_VOCABULARY; id++) {
        int at[ROWS], early = 0, late = 0, half = TOKENS;
        for (int row = 0; row < ROWS; row++)
            for (at[row] = 0; at[row] < TOKENS && out[row * TOKENS + at[row]] != id;) at[row]++;
        for (int end = 0; end < TOKENS && half == TOKENS; end++) {
            early = 0;
            for (int row = 0; row < ROWS; row++) early += at[row] <= end;
            if (2 * early >= ROWS && early < ROWS) half = end;
        }
        for (int row = 0; row < ROWS; row++) late += at[row] > half + 2;
        if (half < TOKENS && late > 0) return id;
    }
    return -1;
}

static void greedy_equals_the_decoder_without_a_cache(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        int32_t inputs[ROWS * SMALL_INPUTS], out[ROWS * TOKENS], lengths[ROWS];
        double logprobs[ROWS];
        fill_inputs(inputs);
        sago_generate_args args = {.max_new_tokens = TOKENS, .eos_id = -1, .sample = {.top_p = 1}};
        /* Weights whose rows end at different steps, so that live rows close ranks. Inputs are read one row
           at a time, so that the caches are filled in pieces. */
        for (int seed = 1; args.eos_id < 0; seed++) {
            assert_true(seed < 100);
            if (seed > 1) small_close(&small);
            small_open(&small, kind, (small_options){.inference = true, .max_rows = 1, .seed = seed});
            assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                                 out, lengths, logprobs),
                             SAGO_OK);
            args.eos_id = early_end(out);
        }
        assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                             out, lengths, logprobs),
                         SAGO_OK);
        reference r = small_reference(&small);
        int ended = 0;
        for (int row = 0; row < ROWS; row++) {
            const int32_t *mine = out + row * TOKENS;
            double sum = 0;
            for (int n = 0; n < lengths[row]; n++) {
                double logprob, margin;
                int32_t best = best_next(&r, inputs + row * SMALL_INPUTS, input_lengths[row], mine, n,
                                         &logprob, &margin);
                assert_true(margin > 1e-5); /* else the case says nothing */
                assert_int_equal(mine[n], best);
                sum += logprob;
            }
            assert_true(fabs(logprobs[row] - sum) < 1e-4);
            bool eos = mine[lengths[row] - 1] == args.eos_id;
            ended += eos && lengths[row] < TOKENS;
            assert_true(eos || lengths[row] == TOKENS);
            for (int n = lengths[row]; n < TOKENS; n++) assert_int_equal(mine[n], 0);
        }
        assert_true(ended >= ROWS / 2);
        free(r.values);
        small_close(&small);
    }
}

static void check_rows_alone(small_kind kind) {
    small_model small;
    small_open(&small, kind, (small_options){.inference = true});
    int32_t inputs[ROWS * SMALL_INPUTS], out[ROWS * TOKENS], lengths[ROWS], one[TOKENS], length;
    fill_inputs(inputs);
    uint64_t keys[ROWS] = {11, 12, 13, 14, 15, 16};
    const sago_sample_args samples[] = {{.top_p = 1}, {.temperature = 0.9f, .top_p = 1, .key = 4}};
    for (int s = 0; s < 2; s++) {
        sago_generate_args args = {
            .max_new_tokens = TOKENS, .eos_id = 1, .sample = samples[s], .row_keys = keys};
        assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                             out, lengths, NULL),
                         SAGO_OK);
        for (int row = 0; row < ROWS; row++) {
            args.row_keys = keys + row;
            assert_int_equal(sago_model_generate(small.model, small.values, inputs + row * SMALL_INPUTS, 1,
                                                 SMALL_INPUTS, &args, one, &length, NULL),
                             SAGO_OK);
            assert_int_equal(length, lengths[row]);
            assert_memory_equal(one, out + row * TOKENS, sizeof one);
        }
    }
    small_close(&small);
}

static void a_row_alone_or_among_others_is_the_same(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) check_rows_alone(kind);
}

/* Who does not ask for log-probabilities lets the device look for the best token alone. Weights are drawn
   until rows end at different steps; sums of eight rows or fewer are the same. */
static void tokens_alone_are_those_with_their_logprobs(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++)
        for (int seed = 1; seed <= 10; seed++) {
            small_model small;
            small_open(&small, kind, (small_options){.inference = true, .seed = seed});
            int32_t inputs[ROWS * SMALL_INPUTS], out[2][ROWS * TOKENS], lengths[2][ROWS];
            double logprobs[ROWS];
            fill_inputs(inputs);
            for (int eos = -1; eos < SMALL_VOCABULARY; eos += 9) {
                const sago_generate_args args = {
                    .max_new_tokens = TOKENS, .eos_id = eos, .sample = {.top_p = 1}};
                for (int i = 0; i < 2; i++)
                    assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS,
                                                         SMALL_INPUTS, &args, out[i], lengths[i],
                                                         i ? logprobs : NULL),
                                     SAGO_OK);
                assert_memory_equal(out[0], out[1], sizeof out[0]);
                assert_memory_equal(lengths[0], lengths[1], sizeof lengths[0]);
            }
            small_close(&small);
        }
}

static void samples_follow_their_seed(void **state) {
    (void)state;
    small_model small;
    small_open(&small, SMALL_T5_1_0, (small_options){.inference = true});
    int32_t inputs[ROWS * SMALL_INPUTS], a[ROWS * TOKENS], b[ROWS * TOKENS], lengths[ROWS];
    fill_inputs(inputs);
    sago_generate_args args = {.max_new_tokens = TOKENS,
                               .eos_id = 1,
                               .sample = {.temperature = 1, .top_k = 20, .top_p = 0.95f, .key = 1}};
    for (int again = 0; again < 2; again++)
        assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                             again ? b : a, lengths, NULL),
                         SAGO_OK);
    assert_memory_equal(a, b, sizeof a);
    args.sample.key = 2;
    assert_int_equal(
        sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args, b, lengths, NULL),
        SAGO_OK);
    assert_true(memcmp(a, b, sizeof a) != 0);
    small_close(&small);
}

static void limits_are_checked(void **state) {
    (void)state;
    small_model small;
    small_open(&small, SMALL_T5_1_1, (small_options){.inference = true});
    int32_t inputs[ROWS * SMALL_INPUTS], out[ROWS * TOKENS], lengths[ROWS];
    fill_inputs(inputs);
    sago_generate_args args = {.max_new_tokens = TOKENS + 1, .eos_id = 1};
    assert_int_equal(
        sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args, out, lengths, NULL),
        SAGO_E_SHAPE);
    args.max_new_tokens = 1;
    assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS + 1, SMALL_INPUTS, &args,
                                         out, lengths, NULL),
                     SAGO_E_SHAPE);
    inputs[2] = SMALL_VOCABULARY;
    assert_int_equal(
        sago_model_generate(small.model, small.values, inputs, 1, SMALL_INPUTS, &args, out, lengths, NULL),
        SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "53"));
    assert_int_equal(
        sago_model_generate(small.model, small.values, inputs, 0, SMALL_INPUTS, &args, out, lengths, NULL),
        SAGO_OK);
    small_close(&small);
}

/* T5's decoder starts from id 0 whatever its encoder read; a decoder alone needs a token to go on from. */
static void inputs_may_be_missing_for_t5_alone(void **state) {
    (void)state;
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        small_open(&small, kind, (small_options){.inference = true});
        int32_t inputs[ROWS * SMALL_INPUTS], out[ROWS * TOKENS], lengths[ROWS];
        fill_inputs(inputs);
        memset(inputs + 2 * SMALL_INPUTS, 0, SMALL_INPUTS * sizeof *inputs);
        sago_generate_args args = {.max_new_tokens = TOKENS, .eos_id = 1, .sample = {.top_p = 1}};
        sago_status status = sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                                 out, lengths, NULL);
        bool palm = sago_model_decoder_only(&small.shape);
        assert_int_equal(status, palm ? SAGO_E_INPUT : SAGO_OK);
        if (palm) assert_non_null(strstr(sago_message(), "row 2 has no inputs"));
        /* Id 0 is an input like any other where lengths say so. */
        const int32_t given[ROWS] = {21, 5, 1, 1, 9, 16};
        args.input_lengths = given;
        assert_int_equal(sago_model_generate(small.model, small.values, inputs, ROWS, SMALL_INPUTS, &args,
                                             out, lengths, NULL),
                         SAGO_OK);
        small_close(&small);
    }
}

/* Sim's graphs, and how often one was launched. */
static const sago_graph_ops *real_graphs;
static int64_t count_launches;

static sago_status counted_launch(sago_device *device, const sago_graph *graph) {
    count_launches++;
    return real_graphs->launch(device, graph);
}

/* On sim, whose graphs keep what a step was told by value: launched steps equal steps operation by operation. */
static void a_graph_of_steps_changes_nothing(void **state) {
    (void)state;
    static const sago_sample_args samples[] = {{.top_p = 1}, {.temperature = 0.9f, .top_p = 1, .key = 4}};
    for (small_kind kind = 0; kind < SMALL_KINDS; kind++) {
        small_model small;
        small_open(&small, kind, (small_options){.inference = true});
        sago_device *sim;
        assert_int_equal(sago_device_open("sim", 1, &sim), SAGO_OK);
        real_graphs = sim->graphs;
        sago_graph_ops counted_graphs = *real_graphs;
        counted_graphs.launch = counted_launch;
        const sago_model_options options = {.max_rows = 4,
                                            .input_length = SMALL_INPUTS,
                                            .target_length = SMALL_TARGETS,
                                            .prefix = small.prefix,
                                            .loss_chunk_tokens = 7,
                                            .generate_rows = SMALL_GENERATE_ROWS,
                                            .generate_inputs = SMALL_INPUTS,
                                            .generate_tokens = SMALL_GENERATE_TOKENS};
        size_t bytes = (size_t)small.registry.n_elements * sizeof(float);
        sago_model *model;
        void *values;
        assert_int_equal(sago_model_open(&small.shape, &small.registry, sim, NULL, &options, &model), SAGO_OK);
        assert_int_equal(sim->ops->allocate(sim, &values, bytes), SAGO_OK);
        assert_int_equal(sim->ops->upload(sim, values, small.values, bytes), SAGO_OK);
        int32_t inputs[ROWS * SMALL_INPUTS], out[2][ROWS * TOKENS], lengths[2][ROWS];
        double logprobs[2][ROWS];
        fill_inputs(inputs);
        for (int s = 0; s < 2; s++) {
            sago_generate_args args = {.max_new_tokens = TOKENS, .eos_id = -1, .sample = samples[s]};
            /* Of all tokens, then with rows that end early. */
            for (int round = 0; round < 2 - s; round++) {
                int64_t before = count_launches;
                for (int with = 0; with < 2; with++) {
                    sim->graphs = with ? &counted_graphs : NULL;
                    assert_int_equal(sago_model_generate(model, values, inputs, ROWS, SMALL_INPUTS, &args,
                                                         out[with], lengths[with], logprobs[with]),
                                     SAGO_OK);
                }
                assert_true(round > 0 || count_launches - before >= TOKENS - 3);
                assert_memory_equal(out[0], out[1], sizeof out[0]);
                assert_memory_equal(lengths[0], lengths[1], sizeof lengths[0]);
                assert_memory_equal(logprobs[0], logprobs[1], sizeof logprobs[0]);
                args.eos_id = out[0][TOKENS / 2];
            }
        }
        sim->ops->release(sim, values);
        sago_model_close(model);
        sago_device_close(sim);
        small_close(&small);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_equals_the_decoder_without_a_cache),
        cmocka_unit_test(a_row_alone_or_among_others_is_the_same),
        cmocka_unit_test(tokens_alone_are_those_with_their_logprobs),
        cmocka_unit_test(samples_follow_their_seed),
        cmocka_unit_test(limits_are_checked),
        cmocka_unit_test(inputs_may_be_missing_for_t5_alone),
        cmocka_unit_test(a_graph_of_steps_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
