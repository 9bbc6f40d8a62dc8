// SPDX-License-Identifier: Apache-2.0
/**
 * Predict: many prompts through a loaded model in batches of like length, results in the order of the prompts.
 */
#ifndef SAGO_PREDICT_H
#define SAGO_PREDICT_H

#include "loaded_model.h"

/** Ids of one prompt, EOS included where the model wants one; target: what to score. Memory is the caller's. */
typedef struct sago_prompt {
    const int32_t *inputs, *targets;
    int64_t n_inputs, n_targets;
} sago_prompt;

/** What was produced or scored. Free with sago_predictions_free. */
typedef struct sago_prediction {
    int32_t *ids; /* generated, EOS included when it was produced */
    int32_t n_ids;
    double logprob;   /* sum over the generated, or the given, target ids; 0 where nobody asked */
    float *logprobs;  /* of each given target id; NULL after generation */
    int64_t n_targets; /* how many those are */
} sago_prediction;
void sago_predictions_free(sago_prediction *predictions, int64_t n);

typedef struct sago_predict_args {
    int64_t batch;          /* rows at once */
    int max_new_tokens;
    int samples;            /* outputs a prompt; prediction p * samples + s is sample s of prompt p */
    sago_sample_args sample;
    int64_t first_prompt;   /* number of prompt 0 among all prompts: what its random draws count from */
    int64_t prompt_stride;  /* and how far apart the numbers of its neighbours are; 0: one */
    bool ids_alone;         /* generate: no log-probabilities, which makes a greedy step cheaper on some devices */
    const char *stage;      /* name of the progress line; NULL: none */
} sago_predict_args;

/** Generates n x samples outputs; *out: new array. Takes the room it needs in the model. */
sago_status sago_predict_generate(sago_loaded_model *loaded, const sago_prompt prompts[], int64_t n,
                                  const sago_predict_args *args, sago_prediction **out) SAGO_MUST_CHECK;

/** Log-probabilities of each prompt's targets; *out: new array of n. */
sago_status sago_predict_score(sago_loaded_model *loaded, const sago_prompt prompts[], int64_t n,
                               const sago_predict_args *args, sago_prediction **out) SAGO_MUST_CHECK;

#endif
