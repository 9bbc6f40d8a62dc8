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

/**
 * The keys of the ten rounds. As a kernel's argument they lie in constant memory, where instructions take
 * them from for nothing; worked out by every thread, they are a quarter of the generator's instructions.
 */
typedef struct philox_keys {
    uint32_t even[10], odd[10];
} philox_keys;

static inline philox_keys philox_keys_make(uint64_t key) {
    philox_keys keys;
    uint32_t even = (uint32_t)key, odd = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        keys.even[round] = even, keys.odd[round] = odd;
        even += 0x9E3779B9u, odd += 0xBB67AE85u;
    }
    return keys;
}

static __device__ __forceinline__ void philox_round(uint32_t c[4], uint32_t even, uint32_t odd) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ even, c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ odd;
    c[1] = (uint32_t)p1, c[3] = (uint32_t)p0;
}

/** The four words of a counter: elements 4 * counter to 4 * counter + 3. */
static __device__ __forceinline__ philox4 philox_words(const philox_keys &keys, uint64_t counter) {
    philox4 words = {{(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}};
#pragma unroll
    for (int round = 0; round < 10; round++) philox_round(words.word, keys.even[round], keys.odd[round]);
    return words;
}

/** The same from the key alone. */
static __device__ __forceinline__ philox4 philox_words(uint64_t key, uint64_t counter) {
    philox4 words = {{(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}};
    uint32_t even = (uint32_t)key, odd = (uint32_t)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        philox_round(words.word, even, odd);
        even += 0x9E3779B9u, odd += 0xBB67AE85u;
    }
    return words;
}

/** The word of element `index` of the global batch. */
static __device__ __forceinline__ uint32_t philox_word(uint64_t key, uint64_t index) {
    philox4 words = philox_words(key, index >> 2);
    uint32_t low = index & 1 ? words.word[1] : words.word[0],
             high = index & 1 ? words.word[3] : words.word[2];
    return index & 2 ? high : low;
}

/** Index in the global batch of element `flat` of the tensor whose lines these are. */
static __device__ __forceinline__ uint64_t mask_index(const sago_mask &mask, const sago_mask_lines &lines,
                                                      int64_t flat) {
    /* Divisions are dear: a tensor of one line, as most are, needs none, lines of one row need one. */
    if (flat < lines.count) return (uint64_t)(mask.first + flat);
    int64_t line = flat / lines.count, column = flat - line * lines.count, row = 0;
    if (line >= lines.per_row) row = line / lines.per_row, line -= row * lines.per_row;
    return (uint64_t)(mask.first + row * mask.row_stride + line * lines.stride + column);
}

#endif
