// SPDX-License-Identifier: Apache-2.0
/**
 * Objective: how a piece of plain text becomes inputs and targets. Each is one or several denoisers, which
 * share the draws by weight; a denoiser is a pure function of (key, ids).
 *
 *     causal-lm        the whole piece is predicted (decoder-only: PaLM, cont-PaLM)
 *     prefix-lm        the piece is cut in two, at a place uniform in [1, L - 1]; the second part is
 * predicted (Lester et al. 2021, LM adaptation of T5) span-corruption  spans give way to sentinels in the
 * inputs, and stand behind them in the targets (Raffel et al. 2020, section 3.1.4): rate .15, mean span 3, or
 * as the keys say ul2              seven denoisers (Tay et al. 2022a), with mode tokens ul2r             S
 * 1/2, R 1/4, X 1/4 (Tay et al. 2022b, "Transcending scaling laws with 0.1% extra compute")
 *
 * Spans: of L ids, N = round(L rate) are noise in S = round(N / mean) spans, at least one. Kept text and
 * noise alternate, the kept text first: inputs k_0 s_0 k_1 s_1 ..., targets s_0 n_0 s_1 n_1 ..., where s_i is
 * sentinel i of the tokenizer, and each of the two cuts into S parts of at least one id is uniform among all
 * such. Everything is followed by EOS as examples of text are: targets, and the inputs of encoder-decoder
 * models.
 */
#ifndef SAGO_OBJECTIVE_H
#define SAGO_OBJECTIVE_H

#include "config.h"
#include "status.h"
#include "tokenizer.h"

enum { SAGO_DENOISERS = 7 };

typedef enum sago_denoiser_kind {
    SAGO_DENOISE_CAUSAL,
    SAGO_DENOISE_PREFIX, /* uniform cut */
    SAGO_DENOISE_SUFFIX, /* the predicted part is uniform in [1, 2 round(L rate) - 1]: L rate on average */
    SAGO_DENOISE_SPANS
} sago_denoiser_kind;

typedef struct sago_denoiser {
    const char *name; /* of its task: "spans-3-15" for mean 3, 15 % */
    sago_denoiser_kind kind;
    double mean_span, rate;
    const char *mode; /* text before the inputs: "[NLU]"; "": none */
    int weight;       /* share of the objective's draws, relative to the others */
} sago_denoiser;

typedef struct sago_objective {
    sago_denoiser denoisers[SAGO_DENOISERS];
    int n_denoisers;
} sago_objective;

/** The objective that a member names. */
sago_status sago_objective_of(const sago_config_member *member, sago_objective *out) SAGO_MUST_CHECK;

/** What an example may be. */
typedef struct sago_denoise_room {
    int64_t input_length, target_length;
    bool decoder_only;
    int64_t mode_tokens;
} sago_denoise_room;

/**
 * Ids of the longest piece whose example fits, whatever the draw: inputs into input_length and targets into
 * target_length, or what a decoder-only model reads in order (causal, prefix, suffix) into their sum. At most
 * SAGO_SENTINELS spans. 0: there is none of 2 ids (causal: 1).
 */
int64_t sago_denoise_length(const sago_denoiser *denoiser, const sago_denoise_room *room);

/**
 * Appends the example of a piece of n >= 2 ids to inputs and targets, without mode token and EOS.
 * first_sentinel: sago_tokenizer_sentinel(tokenizer, 0); they descend from there.
 */
void sago_denoise(const sago_denoiser *denoiser, uint64_t key, const int32_t ids[], int64_t n,
                  int32_t first_sentinel, sago_ids *inputs, sago_ids *targets);

#endif
