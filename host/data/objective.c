// SPDX-License-Identifier: Apache-2.0
#include "objective.h"

#include "rng.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    sago_objective objective;
} objectives[] = {
    {"causal-lm", {{{"causal", SAGO_DENOISE_CAUSAL, 0, 1, "", 1}}, 1}},
    {"prefix-lm", {{{"prefix", SAGO_DENOISE_PREFIX, 0, 0.5, "", 1}}, 1}},
    {"span-corruption", {{{"spans", SAGO_DENOISE_SPANS, 3, 0.15, "", 1}}, 1}},
    {"ul2",
     {{{"spans-3-15", SAGO_DENOISE_SPANS, 3, 0.15, "[NLU]", 1},
       {"spans-8-15", SAGO_DENOISE_SPANS, 8, 0.15, "[NLU]", 1},
       {"spans-3-50", SAGO_DENOISE_SPANS, 3, 0.5, "[NLG]", 1},
       {"spans-8-50", SAGO_DENOISE_SPANS, 8, 0.5, "[NLG]", 1},
       {"spans-64-15", SAGO_DENOISE_SPANS, 64, 0.15, "[NLG]", 1},
       {"spans-64-50", SAGO_DENOISE_SPANS, 64, 0.5, "[NLG]", 1},
       {"suffix-25", SAGO_DENOISE_SUFFIX, 0, 0.25, "[S2S]", 1}},
      7}},
    /* Extreme is a long span or a high rate; each has half of the X. */
    {"ul2r",
     {{{"prefix", SAGO_DENOISE_PREFIX, 0, 0.5, "[S2S]", 4},
       {"spans-3-15", SAGO_DENOISE_SPANS, 3, 0.15, "[NLU]", 2},
       {"spans-32-15", SAGO_DENOISE_SPANS, 32, 0.15, "[NLG]", 1},
       {"spans-3-50", SAGO_DENOISE_SPANS, 3, 0.5, "[NLG]", 1}},
      4}},
};

sago_status sago_objective_of(const sago_config_member *member, sago_objective *out) {
    for (size_t i = 0; i < sizeof objectives / sizeof *objectives; i++) {
        if (strcmp(objectives[i].name, member->objective) != 0) continue;
        *out = objectives[i].objective;
        if (strcmp(member->objective, "span-corruption") == 0) {
            out->denoisers[0].rate = member->noise_density;
            out->denoisers[0].mean_span = member->mean_span;
        }
        return SAGO_OK;
    }
    return sago_fail(SAGO_E_CONFIG, "member \"%s\": objective \"%s\" is not known", member->name,
                     member->objective);
}

/* Halves go to the even number, as in the code that published models were trained with. */
static int64_t rounded(double x) {
    return (int64_t)rint(x);
}

static int64_t clamped(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
}

typedef struct span_counts {
    int64_t noise, spans;
} span_counts;

static span_counts count_spans(const sago_denoiser *denoiser, int64_t n) {
    int64_t noise = clamped(rounded((double)n * denoiser->rate), 1, n - 1);
    int64_t most = noise < n - noise ? noise : n - noise;
    return (span_counts){noise, clamped(rounded((double)noise / denoiser->mean_span), 1, most)};
}

static int64_t longest_suffix(const sago_denoiser *denoiser, int64_t n) {
    return clamped(2 * rounded((double)n * denoiser->rate) - 1, 1, n - 1);
}

/* Whether every example of n ids fits. */
static bool fits(const sago_denoiser *denoiser, const sago_denoise_room *room, int64_t n) {
    int64_t inputs = room->mode_tokens + (room->decoder_only ? 0 : 1), targets = 1;
    if (denoiser->kind == SAGO_DENOISE_SPANS) {
        span_counts of = count_spans(denoiser, n);
        inputs += n - of.noise + of.spans;
        targets += of.noise + of.spans;
        return of.spans <= SAGO_SENTINELS && inputs <= room->input_length && targets <= room->target_length;
    }
    if (room->decoder_only)
        return inputs + n + (denoiser->kind == SAGO_DENOISE_CAUSAL ? 0 : 1) <=
               room->input_length + room->target_length;
    int64_t suffix = denoiser->kind == SAGO_DENOISE_PREFIX ? n - 1 : longest_suffix(denoiser, n);
    return inputs + n - 1 <= room->input_length && targets + suffix <= room->target_length;
}

int64_t sago_denoise_length(const sago_denoiser *denoiser, const sago_denoise_room *room) {
    int64_t low = denoiser->kind == SAGO_DENOISE_CAUSAL ? 1 : 2,
            high = room->input_length + room->target_length;
    if (denoiser->kind == SAGO_DENOISE_CAUSAL && !room->decoder_only) return 0;
    if (low > high || !fits(denoiser, room, low)) return 0;
    while (low < high) { /* each count grows with n */
        int64_t middle = low + (high - low + 1) / 2;
        if (fits(denoiser, room, middle))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void add(sago_ids *to, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++) sago_ids_add(to, ids[i]);
}

/* Cuts n things into parts of at least one, uniformly: of the n - 1 places between them, parts - 1 are
 * chosen. */
static void cut(int64_t n, int64_t parts, uint64_t key, int64_t lengths[]) {
    int64_t part = 0, start = 0, wanted = parts - 1;
    for (int64_t place = 1; place < n && wanted > 0; place++) {
        if ((int64_t)sago_below(sago_mix(key, (uint64_t)place), (uint64_t)(n - place)) >= wanted) continue;
        lengths[part++] = place - start;
        start = place;
        wanted--;
    }
    lengths[part] = n - start;
}

static void denoise_spans(const sago_denoiser *denoiser, uint64_t key, const int32_t ids[], int64_t n,
                          int32_t first_sentinel, sago_ids *inputs, sago_ids *targets) {
    int64_t kept[SAGO_SENTINELS], noise[SAGO_SENTINELS];
    span_counts of = count_spans(denoiser, n);
    if (of.spans > SAGO_SENTINELS) of.spans = SAGO_SENTINELS;
    cut(n - of.noise, of.spans, sago_mix(key, 1), kept);
    cut(of.noise, of.spans, sago_mix(key, 2), noise);
    for (int64_t i = 0, at = 0; i < of.spans; i++) {
        int32_t sentinel = first_sentinel - (int32_t)i;
        add(inputs, ids + at, kept[i]);
        sago_ids_add(inputs, sentinel);
        at += kept[i];
        sago_ids_add(targets, sentinel);
        add(targets, ids + at, noise[i]);
        at += noise[i];
    }
}

void sago_denoise(const sago_denoiser *denoiser, uint64_t key, const int32_t ids[], int64_t n,
                  int32_t first_sentinel, sago_ids *inputs, sago_ids *targets) {
    int64_t split = 0;
    switch (denoiser->kind) {
    case SAGO_DENOISE_SPANS:
        denoise_spans(denoiser, key, ids, n, first_sentinel, inputs, targets);
        return;
    case SAGO_DENOISE_PREFIX:
        split = 1 + (int64_t)sago_below(key, (uint64_t)(n - 1));
        break;
    case SAGO_DENOISE_SUFFIX:
        split = n - 1 - (int64_t)sago_below(key, (uint64_t)longest_suffix(denoiser, n));
        break;
    case SAGO_DENOISE_CAUSAL:
        break;
    }
    add(inputs, ids, split);
    add(targets, ids + split, n - split);
}
