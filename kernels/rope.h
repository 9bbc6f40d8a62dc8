// SPDX-License-Identifier: Apache-2.0
/**
 * The angles of rotary position embeddings (Su et al. 2021): one formula for the host's loops and the GPU's
 * kernels.
 *
 * An angle counts turns in units of 2^-64 of one: whole turns are what overflows, so that position times
 * frequency is reduced exactly, in one integer product. What is left of error is that of the frequency, 3e-16
 * of it in double: 3e-10 radians at position 1e6, a two-hundredth of fp32's rounding.
 */
#ifndef SAGO_ROPE_H
#define SAGO_ROPE_H

#include "host_device.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SAGO_ROPE_PAIRS = 256 /* of a head at most */ };

/** Of each pair i of a head: theta^(-i / pairs) radians, as turns times 2^64. */
typedef struct sago_rope_table {
    uint64_t turns[SAGO_ROPE_PAIRS];
} sago_rope_table;

void sago_rope_table_fill(sago_rope_table *out, int64_t pairs, double theta);

typedef struct sago_rotation {
    float cos, sin;
} sago_rotation;

/**
 * Cosine and sine of position * turns, both within 1 ulp of fp32 at 1. The angle's quarter turn and what is
 * left of it, at most pi / 4 either way; there Taylor's polynomials of degrees 9 and 10 (remainders 2e-9,
 * 2e-10).
 */
SAGO_HOST_DEVICE static inline sago_rotation sago_rope_rotation(uint64_t turns, int32_t position) {
    uint64_t turn = turns * (uint64_t)(int64_t)position;
    uint64_t quarter = (turn + ((uint64_t)1 << 61)) >> 62;
    float rest = (float)(int64_t)(turn - (quarter << 62)) * 3.40612158e-19f; /* 2 pi / 2^64 */
    float square = rest * rest;
    float sine = 2.75573192e-6f;
    sine = sine * square - 1.98412698e-4f;
    sine = sine * square + 8.33333333e-3f;
    sine = sine * square - 1.66666667e-1f;
    sine = sine * square * rest + rest;
    float cosine = -2.75573192e-7f;
    cosine = cosine * square + 2.48015873e-5f;
    cosine = cosine * square - 1.38888889e-3f;
    cosine = cosine * square + 4.16666667e-2f;
    cosine = cosine * square - 0.5f;
    cosine = cosine * square + 1.0f;
    int odd = (int)(quarter & 1), second_half = (int)(quarter >> 1 & 1);
    sago_rotation out;
    out.cos = odd ? sine : cosine;
    out.sin = odd ? cosine : sine;
    out.cos = odd != second_half ? -out.cos : out.cos;
    out.sin = second_half ? -out.sin : out.sin;
    return out;
}

#ifdef __cplusplus
}
#endif
#endif
