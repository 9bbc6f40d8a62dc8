// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "check_sample.h"
#include "cpu_ops.h"
#include "rng.h"
#include "vector_math.h"

#include <math.h>

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

static inline bool better(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Of the candidates at the places low..high, moves all better than one of them before it. Returns where they
   meet: what stands before *left is not worse than what stands after *right, and between them are only
   equals. */
static void partition(candidate *list, int64_t low, int64_t high, int64_t *left, int64_t *right) {
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
    *left = i, *right = j;
}

/* The k-th best of n (from 1), by Hoare's selection; the k best stand at the front then, in any order. */
static candidate select_rank(candidate *list, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        int64_t left, right;
        partition(list, low, high, &left, &right);
        if (k - 1 <= right)
            high = right;
        else if (k - 1 >= left)
            low = left;
        else
            break;
    }
    return list[k - 1];
}

static inline double probability(const float *share, candidate c) {
    return (double)share[c.id];
}

/* The last candidate of the smallest set of best ones whose probabilities sum up to mass: selection by
 * weight. */
static candidate select_mass(candidate *list, int64_t n, const float *share, double mass) {
    int64_t low = 0, high = n - 1;
    double before = 0; /* of all better ones than those at low..high */
    while (low < high) {
        int64_t left, right;
        partition(list, low, high, &left, &right);
        double upper = before, middle;
        for (int64_t i = low; i <= right; i++) upper += probability(share, list[i]);
        middle = upper;
        for (int64_t i = right + 1; i < left; i++) middle += probability(share, list[i]);
        if (upper >= mass && right >= low) {
            high = right;
        } else if (middle >= mass || left > high) {
            return list[left - 1]; /* one candidate stands between the two parts */
        } else {
            before = middle;
            low = left;
        }
    }
    return list[low];
}

/*
 * share[i] becomes the probability of id i over that of the best one. The cuts are told by the worst
 * candidate that stays: then ids can be looked through in their own order.
 */
static candidate worst_kept(candidate *list, float *share, const float *x, int64_t width, float max,
                            const sago_sample_args *args) {
    float inverse = 1.0f / args->temperature;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) share[i] = sago_exp((x[i] - max) * inverse);
    candidate worst = {-INFINITY, INT32_MAX};
    bool k_cuts = args->top_k > 0 && args->top_k < width, p_cuts = args->top_p < 1.0f;
    int64_t n = 0;
    if (k_cuts) {
        for (int64_t i = 0; i < width; i++) list[n++] = (candidate){x[i], (int32_t)i};
        worst = select_rank(list, n, args->top_k);
        n = args->top_k;
    }
    if (!p_cuts) return worst;
    double sum = 0;
    if (k_cuts) {
        for (int64_t i = 0; i < n; i++) sum += probability(share, list[i]);
    } else {
        for (int64_t i = 0; i < width; i++) sum += (double)share[i];
        /* Ids of probability below (1 - p) / V hold less than 1 - p together, so that the set ends before
         * them. */
        float least = (float)(sum * (1.0 - (double)args->top_p) / (double)width * 0.999);
        for (int64_t i = 0; i < width; i++)
            if (share[i] >= least) list[n++] = (candidate){x[i], (int32_t)i};
    }
    return select_mass(list, n, share, (double)args->top_p * sum);
}

/* The first id, in the order of ids, at which the sum of what stays passes a uniform share of it all. */
static int32_t draw(candidate *list, float *share, const float *x, int64_t width, float max, uint64_t counter,
                    const sago_sample_args *args) {
    candidate worst = worst_kept(list, share, x, width, max, args);
    double total = 0, sum = 0;
    for (int64_t i = 0; i < width; i++) {
        if (better(worst, (candidate){x[i], (int32_t)i})) share[i] = 0;
        total += (double)share[i];
    }
    uint32_t word[4];
    sago_philox(args->key, counter, 0, word);
    double aim = sago_unit((uint64_t)word[0] << 32 | word[1]) * total;
    int32_t last = 0;
    for (int64_t i = 0; i < width; i++) {
        if (share[i] == 0.0f) continue;
        sum += (double)share[i];
        last = (int32_t)i;
        if (sum > aim) break;
    }
    return last;
}

sago_status SAGO_CPU(sample)(sago_device *device, sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                             const uint64_t draws[], const sago_sample_args *args) {
    int64_t rows = sago_rows(logits), width = sago_width(logits);
    SAGO_TRY(sago_check_sample(ids, logprobs, logits, args));
    void *scratch;
    size_t row_bytes = ((size_t)width * (sizeof(candidate) + sizeof(float)) + 63) / 64 * 64;
    SAGO_TRY(sago_cpu_scratch(device, args->temperature > 0.0f ? (size_t)rows * row_bytes : 0, &scratch));
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
            candidate *list = (candidate *)(void *)((char *)scratch + (size_t)row * row_bytes);
            id = draw(list, (float *)(list + width), x, width, max, draws[row], args);
        } else {
            while (x[id] != max) id++;
        }
        ((int32_t *)ids.data)[row] = id;
        ((float *)logprobs.data)[row] = x[id] - max - logf(sum);
    }
    return bad_row >= 0 ? sago_sample_nonfinite(bad_row) : SAGO_OK;
}
