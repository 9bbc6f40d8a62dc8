// SPDX-License-Identifier: Apache-2.0
#include "rng.h"

#include <math.h>
#include <xxhash.h>

enum { FEW = 256 };

uint64_t sago_hash_bytes(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

void sago_normal_fill(float *out, int64_t first, int64_t count, uint64_t key) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t word[4];
        uint64_t index = (uint64_t)(first + i);
        sago_philox(key, index >> 1, 0, word);
        /* Two normals a counter; (word + .5) / 2^32 is never 0, so the logarithm is finite. */
        double u = ((double)word[0] + 0.5) * 0x1p-32, v = ((double)word[1] + 0.5) * 0x1p-32;
        double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586476925 * v;
        out[i] = (float)(radius * (index & 1 ? sin(angle) : cos(angle)));
    }
}

/* Fisher and Yates's shuffle: exactly even, which a Feistel network over so few values is not. */
static uint64_t permute_few(uint64_t i, uint64_t n, uint64_t key) {
    uint16_t order[FEW];
    for (uint64_t j = 0; j < n; j++) {
        uint64_t k = sago_below(sago_mix(key, j), j + 1);
        order[j] = order[k];
        order[k] = (uint16_t)j;
    }
    return order[i];
}

uint64_t sago_permute(uint64_t i, uint64_t n, uint64_t key) {
    if (n < 2) return 0;
    if (n <= FEW) return permute_few(i, n, key);
    unsigned half = 1;
    while (half < 32 && (1ull << (2 * half)) < n) half++;
    uint64_t mask = (1ull << half) - 1;
    /* A balanced Feistel network permutes [0, 4^half); walking on until the value falls below n permutes [0,
     * n). */
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (sago_mix(sago_mix(key, round), right) & mask);
            left = right, right = next;
        }
        i = (left << half) | right;
    } while (i >= n);
    return i;
}
