// SPDX-License-Identifier: Apache-2.0
/**
 * Answers: taking the answer out of an output, and comparing it with the references. All scores lie in [0, 1]; with
 * several references the best one counts.
 *
 *     exact match   equal after trimming and folding white space; letter case and punctuation count
 *     token F1      SQuAD's (Rajpurkar et al. 2016): lower case, punctuation and the articles a, an, the dropped,
 *                   F1 of the bags of words; 1 when both are empty
 *     ROUGE-L       F-measure of the longest common subsequence (Lin 2004) over lower-case runs of letters and digits,
 *                   without stemming; bytes of UTF-8 sequences count as letters
 */
#ifndef SAGO_ANSWER_H
#define SAGO_ANSWER_H

#include "str.h"

/**
 * The answer of an output: what follows the last marker ("the answer is", letter case ignored), trimmed, one trailing "."
 * dropped; the whole output trimmed when marker is "" or does not occur. Replaces *out.
 */
void sago_answer_extract(const char *output, const char *marker, sago_str *out);

double sago_exact_match(const char *answer, char *const references[], int n_references);
double sago_token_f1(const char *answer, char *const references[], int n_references);
double sago_rouge_l(const char *answer, char *const references[], int n_references);

#endif
