// SPDX-License-Identifier: Apache-2.0
/* Denoisers against what the papers say of them: sizes, distributions, and that nothing of the text is lost.
 */
#include "objective.h"
#include "rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FIRST_SENTINEL = 32099, MOST = 4096 }; /* T5's: 32,000 pieces and 100 sentinels */

static sago_objective objective_of(const char *name) {
    char text[32];
    snprintf(text, sizeof text, "%s", name);
    const sago_config_member member = {
        .name = text, .objective = text, .noise_density = 0.15, .mean_span = 3};
    sago_objective out;
    assert_int_equal(sago_objective_of(&member, &out), SAGO_OK);
    return out;
}

static const int32_t *raw_ids(void) {
    static int32_t ids[MOST];
    for (int i = 0; i < MOST; i++) ids[i] = 1000 + i;
    return ids;
}

/* The T5 code's figure for rows of 512: 568 ids of text, which leave 512 inputs and 114 targets with their
 * EOS. */
static void figure_of_t5(void **state) {
    (void)state;
    sago_objective t5 = objective_of("span-corruption");
    const sago_denoise_room rooms[] = {{512, 114, false, 0}, {512, 512, false, 0}};
    for (int r = 0; r < 2; r++) assert_int_equal(sago_denoise_length(&t5.denoisers[0], &rooms[r]), 568);
    sago_ids inputs = {0}, targets = {0};
    for (uint64_t key = 0; key < 50; key++) {
        sago_ids_clear(&inputs), sago_ids_clear(&targets);
        sago_denoise(&t5.denoisers[0], sago_mix(7, key), raw_ids(), 568, FIRST_SENTINEL, &inputs, &targets);
        assert_int_equal(inputs.length + 1, 512);
        assert_int_equal(targets.length + 1, 114);
    }
    const sago_denoise_room narrow = {512, 113, false, 0};
    assert_true(sago_denoise_length(&t5.denoisers[0], &narrow) < 568);
    sago_ids_free(&inputs), sago_ids_free(&targets);
}

/* Puts the text together again: each sentinel of the inputs stands for what follows it in the targets. */
static int64_t rebuild(const sago_ids *inputs, const sago_ids *targets, int32_t *out, int64_t *spans) {
    int64_t n = 0, at = 0;
    int32_t sentinel = FIRST_SENTINEL;
    *spans = 0;
    for (int64_t i = 0; i < inputs->length; i++) {
        if (inputs->data[i] > FIRST_SENTINEL - SAGO_SENTINELS) {
            assert_int_equal(inputs->data[i], sentinel);
            assert_int_equal(targets->data[at++], sentinel--);
            int64_t begin = at;
            while (at < targets->length && targets->data[at] <= FIRST_SENTINEL - SAGO_SENTINELS)
                out[n++] = targets->data[at++];
            assert_true(at > begin);
            (*spans)++;
        } else {
            out[n++] = inputs->data[i];
        }
    }
    while (at < targets->length) out[n++] = targets->data[at++]; /* no sentinels: the cut-off rest */
    return n;
}

static const char *const all_names[] = {"causal-lm", "prefix-lm", "span-corruption", "ul2", "ul2r"};

static void text_comes_back(void **state) {
    (void)state;
    int32_t *out = calloc(2 * MOST, sizeof *out);
    sago_ids inputs = {0}, targets = {0};
    for (size_t o = 0; o < sizeof all_names / sizeof *all_names; o++) {
        sago_objective objective = objective_of(all_names[o]);
        for (int d = 0; d < objective.n_denoisers; d++) {
            const sago_denoiser *denoiser = &objective.denoisers[d];
            for (uint64_t k = 0; k < 200; k++) {
                uint64_t key = sago_mix(sago_mix(o, (uint64_t)d), k);
                int64_t n = 2 + (int64_t)sago_below(sago_mix(key, 9), k < 20 ? 5 : 590), spans;
                sago_ids_clear(&inputs), sago_ids_clear(&targets);
                sago_denoise(denoiser, key, raw_ids(), n, FIRST_SENTINEL, &inputs, &targets);
                assert_int_equal(rebuild(&inputs, &targets, out, &spans), n);
                assert_memory_equal(out, raw_ids(), (size_t)n * sizeof *out);
                if (denoiser->kind == SAGO_DENOISE_CAUSAL) {
                    assert_int_equal(inputs.length, 0);
                    continue;
                }
                assert_int_equal(inputs.data[0], raw_ids()[0]); /* begins with kept text */
                assert_true(targets.length > 0);
                if (denoiser->kind != SAGO_DENOISE_SPANS) {
                    assert_int_equal(spans, 0);
                    continue;
                }
                /* Rate and mean span to the rounding, where n is not too small to hold them. */
                double noise = (double)(targets.length - spans);
                if (n > 10) assert_true(fabs(noise - (double)n * denoiser->rate) <= 0.5);
                if (spans > 1) assert_true(fabs((double)spans - noise / denoiser->mean_span) <= 0.5);
                assert_int_equal(inputs.length, n - (int64_t)noise + spans);
                assert_true(inputs.data[inputs.length - 1] == FIRST_SENTINEL - spans + 1);
            }
        }
    }
    sago_ids_free(&inputs), sago_ids_free(&targets);
    free(out);
}

/* Lengths of spans: of all ways to cut N ids into S parts equally many have any given one, so a part is of
 * length l with probability C(N - l - 1, S - 2) / C(N - 1, S - 1). */
static void spans_are_uniform_cuts(void **state) {
    (void)state;
    enum { N = 85, S = 28, DRAWS = 20000, LONGEST = 12 };
    sago_objective t5 = objective_of("span-corruption");
    static const int looked_at[] = {0, 1, 13, 26, 27};
    double counts[5][LONGEST + 2] = {{0}}, kept_sum = 0, noise_sum = 0;
    sago_ids inputs = {0}, targets = {0};
    for (uint64_t k = 0; k < DRAWS; k++) {
        sago_ids_clear(&inputs), sago_ids_clear(&targets);
        sago_denoise(&t5.denoisers[0], sago_mix(31, k), raw_ids(), 568, FIRST_SENTINEL, &inputs, &targets);
        int span = -1, lengths[S] = {0};
        for (int64_t i = 0; i < targets.length; i++)
            targets.data[i] > FIRST_SENTINEL - SAGO_SENTINELS ? span++ : lengths[span]++;
        assert_int_equal(span, S - 1);
        for (int p = 0; p < 5; p++) {
            int l = lengths[looked_at[p]];
            counts[p][l <= LONGEST ? l : LONGEST + 1]++;
        }
        noise_sum += lengths[13];
        for (int64_t i = 0; inputs.data[i] != FIRST_SENTINEL; i++) kept_sum++;
    }
    double expected[LONGEST + 2] = {0}, rest = 1;
    for (int l = 1; l <= LONGEST; l++) {
        expected[l] = exp(lgamma(N - l) - lgamma(S - 1) - lgamma(N - l - S + 2) -
                          (lgamma(N) - lgamma(S) - lgamma(N - S + 1)));
        rest -= expected[l];
    }
    expected[LONGEST + 1] = rest;
    for (int p = 0; p < 5; p++) {
        double chi = 0;
        for (int l = 1; l <= LONGEST + 1; l++)
            chi += pow(counts[p][l] - DRAWS * expected[l], 2) / (DRAWS * expected[l]);
        assert_true(chi < 33); /* 12 degrees of freedom: one in a thousand above; the keys are fixed */
    }
    assert_true(fabs(noise_sum / DRAWS - 85.0 / 28) < 0.06);
    assert_true(fabs(kept_sum / DRAWS - 483.0 / 28) < 0.5);

    /* Small enough to list: 10 ids at rate .5 and mean 1.7 have 5 noise in 3 spans: 6 ways to cut the kept, 6
     * the noise. */
    const sago_denoiser small = {"small", SAGO_DENOISE_SPANS, 1.7, 0.5, "", 1};
    double ways[36] = {0};
    for (uint64_t k = 0; k < 36000; k++) {
        sago_ids_clear(&inputs), sago_ids_clear(&targets);
        sago_denoise(&small, sago_mix(5, k), raw_ids(), 10, FIRST_SENTINEL, &inputs, &targets);
        int cuts[2][2] = {{0}};
        const sago_ids *sides[2] = {&inputs, &targets};
        for (int s = 0; s < 2; s++)
            for (int64_t i = 0, seen = 0; i < sides[s]->length; i++) {
                bool text = sides[s]->data[i] <= FIRST_SENTINEL - SAGO_SENTINELS;
                int32_t number = FIRST_SENTINEL - sides[s]->data[i];
                if (!text && s == 0 && number < 2) cuts[s][number] = (int)seen;
                if (!text && s == 1 && number > 0) cuts[s][number - 1] = (int)seen;
                seen += text;
            }
        int number[2];
        for (int s = 0; s < 2; s++) {
            int a = cuts[s][0], b = cuts[s][1]; /* 1 <= a < b <= 4 */
            assert_true(a >= 1 && a < b && b <= 4);
            number[s] = a == 1 ? b - 2 : a == 2 ? b : 5;
        }
        ways[6 * number[0] + number[1]]++;
    }
    double chi = 0;
    for (int i = 0; i < 36; i++) chi += pow(ways[i] - 1000, 2) / 1000;
    assert_true(chi < 67); /* 35 degrees of freedom */
    sago_ids_free(&inputs), sago_ids_free(&targets);
}

static void cuts_of_language_models(void **state) {
    (void)state;
    enum { L = 41, DRAWS = 40000 };
    sago_objective prefix = objective_of("prefix-lm"), ul2 = objective_of("ul2");
    const sago_denoiser *denoisers[2] = {&prefix.denoisers[0], &ul2.denoisers[6]};
    /* Prefix: targets of 1 to L - 1 ids. Suffix: 1 to 2 round(L / 4) - 1 = 19, 10 on average. */
    const int longest[2] = {L - 1, 19};
    sago_ids inputs = {0}, targets = {0};
    for (int d = 0; d < 2; d++) {
        double counts[L + 1] = {0}, chi = 0;
        for (uint64_t k = 0; k < DRAWS; k++) {
            sago_ids_clear(&inputs), sago_ids_clear(&targets);
            sago_denoise(denoisers[d], sago_mix(77, k), raw_ids(), L, FIRST_SENTINEL, &inputs, &targets);
            assert_in_range(targets.length, 1, longest[d]);
            counts[targets.length]++;
        }
        double each = (double)DRAWS / longest[d];
        for (int i = 1; i <= longest[d]; i++) chi += pow(counts[i] - each, 2) / each;
        assert_true(chi < longest[d] - 1 + 3.5 * sqrt(2.0 * (longest[d] - 1)));
    }
    sago_ids_free(&inputs), sago_ids_free(&targets);
}

/* Tables of the two papers: mean span, rate, mode. */
static void mixtures_of_ul2(void **state) {
    (void)state;
    static const struct {
        double mean, rate;
        const char *mode;
    } seven[7] = {{3, .15, "[NLU]"},  {8, .15, "[NLU]"}, {3, .5, "[NLG]"}, {8, .5, "[NLG]"},
                  {64, .15, "[NLG]"}, {64, .5, "[NLG]"}, {0, .25, "[S2S]"}};
    sago_objective ul2 = objective_of("ul2");
    assert_int_equal(ul2.n_denoisers, 7);
    for (int i = 0; i < 7; i++) {
        assert_true(ul2.denoisers[i].mean_span == seven[i].mean && ul2.denoisers[i].rate == seven[i].rate);
        assert_string_equal(ul2.denoisers[i].mode, seven[i].mode);
        assert_int_equal(ul2.denoisers[i].weight, ul2.denoisers[0].weight);
    }
    sago_objective ul2r = objective_of("ul2r");
    double sum = 0, share[3] = {0};
    static const char *const modes[3] = {"[S2S]", "[NLU]", "[NLG]"};
    for (int i = 0; i < ul2r.n_denoisers; i++) {
        const sago_denoiser *d = &ul2r.denoisers[i];
        sum += d->weight;
        for (int m = 0; m < 3; m++)
            if (strcmp(d->mode, modes[m]) == 0) share[m] += d->weight;
        if (strcmp(d->mode, "[S2S]") == 0) assert_int_equal(d->kind, SAGO_DENOISE_PREFIX);
        if (strcmp(d->mode, "[NLU]") == 0) assert_true(d->mean_span == 3 && d->rate == .15);
        if (strcmp(d->mode, "[NLG]") == 0) assert_true(d->mean_span >= 32 || d->rate >= .5);
    }
    assert_true(share[0] / sum == .5 && share[1] / sum == .25 && share[2] / sum == .25);
}

/* What the longest of many examples of n ids takes, without asking the code for its counts. */
static bool overflows(const sago_denoiser *d, const sago_denoise_room *room, int64_t n) {
    sago_ids inputs = {0}, targets = {0};
    bool over = false;
    for (uint64_t k = 0; k < 3000 && !over; k++) {
        sago_ids_clear(&inputs), sago_ids_clear(&targets);
        sago_denoise(d, sago_mix(3, k), raw_ids(), n, FIRST_SENTINEL, &inputs, &targets);
        int64_t a = inputs.length + room->mode_tokens + (room->decoder_only ? 0 : 1);
        int64_t b = targets.length + (d->kind == SAGO_DENOISE_CAUSAL ? 0 : 1);
        bool joint = room->decoder_only && d->kind != SAGO_DENOISE_SPANS;
        over = joint ? a + b > room->input_length + room->target_length
                     : a > room->input_length || b > room->target_length;
    }
    sago_ids_free(&inputs), sago_ids_free(&targets);
    return over;
}

static void longest_piece_that_fits(void **state) {
    (void)state;
    static const sago_denoise_room rooms[] = {
        {64, 32, false, 0}, {64, 32, true, 0}, {40, 40, false, 5}, {40, 40, true, 1}, {90, 20, false, 3}};
    for (size_t o = 0; o < sizeof all_names / sizeof *all_names; o++) {
        sago_objective objective = objective_of(all_names[o]);
        for (int d = 0; d < objective.n_denoisers; d++) {
            const sago_denoiser *denoiser = &objective.denoisers[d];
            for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
                int64_t n = sago_denoise_length(denoiser, &rooms[r]);
                if (denoiser->kind == SAGO_DENOISE_CAUSAL && !rooms[r].decoder_only) {
                    assert_int_equal(n, 0);
                    continue;
                }
                assert_true(n >= 2);
                assert_false(overflows(denoiser, &rooms[r], n));
                assert_true(overflows(denoiser, &rooms[r], n + 1));
            }
        }
    }
    /* Half of the ids in spans of 3 would need more sentinels than there are. */
    const sago_denoise_room wide = {2048, 2048, false, 0}, none = {1, 1, false, 0};
    sago_objective ul2 = objective_of("ul2");
    int64_t n = sago_denoise_length(&ul2.denoisers[2], &wide);
    sago_ids inputs = {0}, targets = {0};
    sago_denoise(&ul2.denoisers[2], 1, raw_ids(), n, FIRST_SENTINEL, &inputs, &targets);
    int64_t spans;
    int32_t *out = calloc(2 * MOST, sizeof *out);
    rebuild(&inputs, &targets, out, &spans);
    assert_int_equal(spans, SAGO_SENTINELS);
    assert_int_equal(sago_denoise_length(&ul2.denoisers[2], &none), 0);
    free(out);
    sago_ids_free(&inputs), sago_ids_free(&targets);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figure_of_t5),           cmocka_unit_test(text_comes_back),
        cmocka_unit_test(spans_are_uniform_cuts), cmocka_unit_test(cuts_of_language_models),
        cmocka_unit_test(mixtures_of_ul2),        cmocka_unit_test(longest_piece_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
