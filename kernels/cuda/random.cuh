// SPDX-License-Identifier: Apache-2.0
/**
 * Philox4x32-10 (Salmon et al. 2011) on the device: the words that ops.h names for dropout, the same bits as
 * rng.h's.
 *
 * An element's index i in the global batch belongs to word i % 4 of counter i / 4. Loops that handle four
 * neighbours take a counter's words at once (philox_words), others pay a whole counter for one word
 * (philox_word). A word below mask.threshold (mask.h) drops its element; what is kept is multiplied by
 * mask.factor.
 */
#ifndef SAGO_RANDOM_CUH
#define SAGO_RANDOM_CUH

#include "dialect.cuh"

#include "mask.h"

typedef struct philox4 {
    uint32_t word[4];
} philox4;

/** The four words of a counter: elements 4 * counter to 4 * counter + 3. */
static __device__ __forceinline__ philox4 philox_words(uint64_t key, uint64_t counter) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    philox4 words;
    words.word[0] = c0, words.word[1] = c1, words.word[2] = c2, words.word[3] = c3;
    return words;
}

/** The word of element `index` of the global batch. */
static __device__ __forceinline__ uint32_t philox_word(uint64_t key, uint64_t index) {
    philox4 words = philox_words(key, index >> 2);
    uint32_t low = index & 1 ? words.word[1] : words.word[0],
             high = index & 1 ? words.word[3] : words.word[2];
    return index & 2 ? high : low;
}

/** Index in the global batch of element `flat` of the mask's tensor. */
static __device__ __forceinline__ uint64_t mask_index(const sago_mask &mask, int64_t flat) {
    /* The division is dear, and the first row needs none: rows that follow on each other are one
     * (elementwise.cuh). */
    if (flat < mask.row_count) return (uint64_t)(mask.first + flat);
    return (uint64_t)(mask.first + flat / mask.row_count * mask.row_stride + flat % mask.row_count);
}

/** 0 for a dropped element, else 1 / (1 - rate). */
static __device__ __forceinline__ float mask_factor(const sago_mask &mask, uint32_t word) {
    return word >= mask.threshold ? mask.factor : 0.0f;
}

#endif
