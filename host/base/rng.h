// SPDX-License-Identifier: Apache-2.0
/**
 * Random numbers without state: every draw is a function of a key and a counter, so that the number of ranks,
 * threads or micro-batches, or a resume, never changes what is drawn.
 *
 * Bits: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), the generator that
 * cuRAND offers too, so that host and device draw the same.
 */
#ifndef SAGO_RNG_H
#define SAGO_RNG_H

#include <stddef.h>
#include <stdint.h>

/** out[0..3] = Philox4x32-10 of the 64-bit key and the 128-bit counter (low, high). */
static inline void sago_philox(uint64_t key, uint64_t low, uint64_t high, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/** A well-mixed 64-bit hash of two words (SplitMix64's finaliser over both); chain it to hash more. */
static inline uint64_t sago_mix(uint64_t a, uint64_t b) {
    uint64_t x = a + 0x9E3779B97F4A7C15ull * (b + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

/** Hash of bytes (XXH3, 64 bits). */
uint64_t sago_hash_bytes(const void *data, size_t bytes);

/** Uniform in [0, 1), 53 bits of a hash. */
static inline double sago_unit(uint64_t hash) {
    return (double)(hash >> 11) * 0x1p-53;
}

/** Uniform in [0, n), without modulo bias for every n that fits in memory. */
static inline uint64_t sago_below(uint64_t hash, uint64_t n) {
    return (uint64_t)(((unsigned __int128)hash * n) >> 64);
}

/** out[i] = standard normal of (key, first + i), i < count: Box-Muller over Philox words. */
void sago_normal_fill(float *out, int64_t first, int64_t count, uint64_t key);

/** Index i of a permutation of [0, n) that (key) names; i < n. Computed alone, in O(1) memory: a shuffle
 * of up to 256 values, a Feistel walk over more. */
uint64_t sago_permute(uint64_t i, uint64_t n, uint64_t key);

#endif
