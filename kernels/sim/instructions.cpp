// SPDX-License-Identifier: Apache-2.0
/*
 * What the lanes of a mask do when all have come: shfl.sync, vote.sync, ldmatrix and mma.sync of the PTX ISA.
 * The last lane to come does it for all.
 */
#include "engine.h"

namespace sago_sim {

void shuffle(void *slots[32], uint32_t mask) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        shuffle_slot *slot = static_cast<shuffle_slot *>(slots[lane]);
        if (!(mask >> slot->from & 1))
            fail(slot->where, "a shuffle of mask %08x in which lane %d reads lane %d", mask, lane,
                 slot->from);
        slot->out = static_cast<shuffle_slot *>(slots[slot->from])->value;
    }
}

void ballot(void *slots[32], uint32_t mask) {
    uint32_t votes = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
        if (static_cast<ballot_slot *>(slots[__builtin_ctz(rest)])->vote) votes |= rest & -rest;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
        static_cast<ballot_slot *>(slots[__builtin_ctz(rest)])->out = votes;
}

void ldmatrix(void *slots[32], uint32_t mask) {
    (void)mask; /* all lanes: ldmatrix_x4 says so */
    uint16_t matrices[4][8][8];
    for (int lane = 0; lane < 32; lane++) {
        const ldmatrix_slot *slot = static_cast<const ldmatrix_slot *>(slots[lane]);
        if (reinterpret_cast<uintptr_t>(slot->row) % 16)
            fail(slot->where, "ldmatrix: the address of lane %d is not 16-byte aligned", lane);
        if (!in_shared(slot->row, 16))
            fail(slot->where, "ldmatrix: the address of lane %d is not in the launch's shared memory", lane);
        std::memcpy(matrices[lane / 8][lane % 8], slot->row, 16);
    }
    for (int lane = 0; lane < 32; lane++) {
        const ldmatrix_slot *slot = static_cast<const ldmatrix_slot *>(slots[lane]);
        int row = lane / 4, column = 2 * (lane % 4);
        for (int m = 0; m < 4; m++) {
            uint32_t low = slot->transposed ? matrices[m][column][row] : matrices[m][row][column];
            uint32_t high = slot->transposed ? matrices[m][column + 1][row] : matrices[m][row][column + 1];
            slot->out[m] = low | high << 16;
        }
    }
}

void mma(void *slots[32], uint32_t mask) {
    (void)mask;
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const mma_slot *slot = static_cast<const mma_slot *>(slots[lane]);
        int group = lane / 4, pair = 2 * (lane % 4);
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++)
                a[group + 8 * (r & 1)][pair + half + 8 * (r >> 1)] =
                    bits_float(slot->a[r] >> (16 * half) << 16);
            for (int r = 0; r < 2; r++)
                b[pair + half + 8 * r][group] = bits_float(slot->b[r] >> (16 * half) << 16);
            for (int r = 0; r < 2; r++) d[group + 8 * r][pair + half] = slot->d[2 * r + half];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; lane++) {
        const mma_slot *slot = static_cast<const mma_slot *>(slots[lane]);
        int group = lane / 4, pair = 2 * (lane % 4);
        for (int r = 0; r < 4; r++) slot->d[r] = d[group + 8 * (r >> 1)][pair + (r & 1)];
    }
}

} // namespace sago_sim
