// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cpu_ops.h"
#include "rng.h"
#include "vector_math.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

/* Best first: the greater logit, among equals the lower id. */
static int compare(const void *left, const void *right) {
    const candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static inline bool better(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Moves the k best of list to its front, in any order (Hoare's selection, pivots from fixed places). */
static void select_best(candidate *list, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        candidate pivot = list[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (better(list[i], pivot)) i++;
            while (better(pivot, list[j])) j--;
            if (i <= j) {
                candidate swap = list[i];
                list[i++] = list[j];
                list[j--] = swap;
            }
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
}

static double probability(const candidate *c, float max, float temperature) {
    return (double)sago_exp((c->logit - max) / temperature);
}

/*
 * The candidates of one row after the cuts, best first when there are any, and the sum of their probabilities
 * over the greatest one. list has room for the whole vocabulary.
 */
static int64_t cut(candidate *list, const float *x, int64_t width, float max, const sago_sample_args *args,
                   double *total) {
    int64_t n = 0;
    bool k_cuts = args->top_k > 0 && args->top_k < width, p_cuts = args->top_p < 1.0f;
    double sum = 0;
    if (p_cuts && !k_cuts) {
        /* Ids of probability below (1 - p) / V hold less than 1 - p together, so that the set ends before
         * them. */
        for (int64_t i = 0; i < width; i++) sum += (double)sago_exp((x[i] - max) / args->temperature);
    }
    double least = p_cuts && !k_cuts ? sum * (1.0 - (double)args->top_p) / (double)width : -1.0;
    for (int64_t i = 0; i < width; i++) {
        candidate one = {x[i], (int32_t)i};
        if (least <= 0.0 || probability(&one, max, args->temperature) >= least) list[n++] = one;
    }
    if (k_cuts) {
        select_best(list, n, args->top_k);
        n = args->top_k;
        for (int64_t i = 0; i < n && p_cuts; i++) sum += probability(&list[i], max, args->temperature);
    }
    if (k_cuts || p_cuts) qsort(list, (size_t)n, sizeof *list, compare);
    double reached = 0;
    int64_t kept = 0;
    while (kept < n) {
        reached += probability(&list[kept++], max, args->temperature);
        if (p_cuts && reached >= (double)args->top_p * sum) break;
    }
    *total = reached;
    return kept;
}

static int32_t draw(candidate *list, const float *x, int64_t width, float max, uint64_t counter,
                    const sago_sample_args *args) {
    double total, sum = 0;
    int64_t n = cut(list, x, width, max, args, &total);
    uint32_t word[4];
    sago_philox(args->key, counter, 0, word);
    double aim = sago_unit((uint64_t)word[0] << 32 | word[1]) * total;
    for (int64_t i = 0; i < n; i++) {
        sum += probability(&list[i], max, args->temperature);
        if (sum > aim) return list[i].id;
    }
    return list[n - 1].id;
}

sago_status SAGO_CPU(sample)(sago_device *device, sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                             const uint64_t draws[], const sago_sample_args *args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    bool fits = sago_all_dtype(SAGO_F32, SAGO_TENSORS(logprobs, logits)) &&
                sago_all_dtype(SAGO_I32, SAGO_TENSORS(ids)) && sago_tensor_count(ids) == rows &&
                sago_tensor_count(logprobs) == rows && width > 0 && width <= INT32_MAX;
    SAGO_TRY(sago_check_shapes(fits, "sample", "i32 ids[n], f32 logprobs[n], logits[n, V]",
                               SAGO_TENSORS(ids, logprobs, logits)));
    if (!(args->temperature >= 0.0f && isfinite(args->temperature)) || args->top_k < 0 ||
        !(args->top_p > 0.0f && args->top_p <= 1.0f))
        return sago_fail(SAGO_E_INTERNAL, "sample: temperature %g, top_k %d, top_p %g are out of range",
                         (double)args->temperature, args->top_k, (double)args->top_p);
    void *scratch;
    size_t list_bytes = (size_t)width * sizeof(candidate);
    SAGO_TRY(sago_cpu_scratch(device, args->temperature > 0.0f ? (size_t)rows * list_bytes : 0, &scratch));
    int64_t bad_row = -1;
#pragma omp parallel for schedule(static) num_threads(device->n_threads) if (rows > 1) reduction(max         \
                                                                                                 : bad_row)
    for (int64_t row = 0; row < rows; row++) {
        const float *x = (const float *)logits.data + row * width;
        float max = -INFINITY, sum = 0;
#pragma omp simd reduction(max : max)
        for (int64_t i = 0; i < width; i++) max = x[i] > max ? x[i] : max;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += sago_exp(x[i] - max);
        int32_t id = 0;
        if (!isfinite(sum) || sum < 1.0f) {
            bad_row = row;
        } else if (args->temperature > 0.0f) {
            id = draw((candidate *)((char *)scratch + (size_t)row * list_bytes), x, width, max, draws[row],
                      args);
        } else {
            while (x[id] != max) id++;
        }
        ((int32_t *)ids.data)[row] = id;
        ((float *)logprobs.data)[row] = x[id] - max - logf(sum);
    }
    if (bad_row >= 0)
        return sago_fail(SAGO_E_NONFINITE, "sample: the logits of row %lld are not finite",
                         (long long)bad_row);
    return SAGO_OK;
}
