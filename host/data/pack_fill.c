// SPDX-License-Identifier: Apache-2.0
#include "pack_fill.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    int64_t index, hardness;
} candidate;

struct sago_fill {
    int64_t input_length, target_length;
    candidate *candidates;
    /* After the first i candidates: least[s] = fewest targets of a subset whose inputs add up to s, and
       taken[i][s] says that candidate i is in it. */
    int32_t *least;
    unsigned char *taken; /* [room_taken, input_length + 1]: grows with the candidates that were needed */
    int64_t room_candidates, room_taken;
};

sago_fill *sago_fill_open(int64_t input_length, int64_t target_length) {
    sago_fill *fill = sago_alloc_zero(1, sizeof *fill);
    fill->input_length = input_length;
    fill->target_length = target_length;
    fill->least = sago_alloc((size_t)(input_length + 1) * sizeof *fill->least);
    return fill;
}

void sago_fill_close(sago_fill *fill) {
    if (!fill) return;
    free(fill->candidates);
    free(fill->least);
    free(fill->taken);
    free(fill);
}

/* max(inputs / input_length, targets / target_length), both over the common denominator. */
static int64_t hardness(const sago_fill *fill, sago_fill_item item) {
    int64_t a = item.inputs * fill->target_length, b = item.targets * fill->input_length;
    return a > b ? a : b;
}

static int by_hardness(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->hardness != y->hardness) return x->hardness > y->hardness ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Adds one item to the table: from the largest sum down, so that it is used once. */
static void add_item(int32_t *least, unsigned char *taken, int64_t room, sago_fill_item item) {
    memset(taken, 0, (size_t)item.inputs);
    for (int64_t s = room; s >= item.inputs; s--) {
        int32_t with = least[s - item.inputs] + item.targets;
        bool better = with < least[s];
        taken[s] = better;
        least[s] = better ? with : least[s];
    }
}

int64_t sago_fill_row(sago_fill *fill, const sago_fill_item items[], int64_t n, int64_t chosen[]) {
    int64_t n_chosen = 0, n_candidates = 0, used = 0;
    chosen[n_chosen++] = 0;
    if (n > fill->room_candidates) {
        fill->candidates = sago_realloc(fill->candidates, (size_t)n * sizeof *fill->candidates);
        fill->room_candidates = n;
    }
    int64_t room = fill->input_length - items[0].inputs, target_room = fill->target_length - items[0].targets;
    for (int64_t i = 1; i < n; i++)
        if (items[i].inputs <= room && items[i].targets <= target_room)
            fill->candidates[n_candidates++] = (candidate){i, hardness(fill, items[i])};
    qsort(fill->candidates, (size_t)n_candidates, sizeof *fill->candidates, by_hardness);

    enum { IMPOSSIBLE = INT32_MAX / 2 };
    fill->least[0] = 0;
    for (int64_t s = 1; s <= room; s++) fill->least[s] = IMPOSSIBLE;
    int64_t row_bytes = fill->input_length + 1;
    for (; used < n_candidates && fill->least[room] > target_room; used++) {
        if (used == fill->room_taken) {
            fill->room_taken = used ? 2 * used : 64;
            fill->taken = sago_realloc(fill->taken, (size_t)(fill->room_taken * row_bytes));
        }
        add_item(fill->least, fill->taken + used * row_bytes, room, items[fill->candidates[used].index]);
    }

    int64_t sum = room;
    while (fill->least[sum] > target_room) sum--;
    for (int64_t i = used - 1; i >= 0; i--) {
        if (!fill->taken[i * row_bytes + sum]) continue;
        chosen[n_chosen++] = fill->candidates[i].index;
        sum -= items[fill->candidates[i].index].inputs;
    }
    qsort(chosen, (size_t)n_chosen, sizeof *chosen, by_value);
    return n_chosen;
}
