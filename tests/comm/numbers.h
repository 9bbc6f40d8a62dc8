// SPDX-License-Identifier: Apache-2.0
/* What the programs of this folder share: numbers that any rank can compute for any other. */
#ifndef SAGO_TEST_COMM_NUMBERS_H
#define SAGO_TEST_COMM_NUMBERS_H

#include "mesh.h"
#include "rng.h"
#include "str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static sago_mesh *mesh;

#define assert_status_ok(expression)                                                                         \
    do {                                                                                                     \
        sago_status status_ = (expression);                                                                  \
        if (status_ != SAGO_OK) fail_msg("%s: %s", #expression, sago_message());                             \
    } while (0)

/* A number that any rank can compute for any other, with bits enough that the order of additions shows. */
static inline float value_of(int rank, int64_t i, uint64_t salt) {
    return (float)((sago_unit(sago_mix(sago_mix(salt, (uint64_t)rank), (uint64_t)i)) - .5) *
                   (double)(1 << (i % 20)));
}

static inline int world_rank(sago_mesh_axis axis, int member) {
    int m = mesh->axis_size[SAGO_MODEL_AXIS];
    if (axis == SAGO_DATA_AXIS) return member * m + mesh->rank % m;
    if (axis == SAGO_MODEL_AXIS) return mesh->rank / m * m + member;
    return member;
}

static inline float rank_order_sum(sago_mesh_axis axis, int64_t i, uint64_t salt) {
    float sum = value_of(world_rank(axis, 0), i, salt);
    for (int m = 1; m < mesh->axis_size[axis]; m++) {
        volatile float next = sum + value_of(world_rank(axis, m), i, salt);
        sum = next;
    }
    return sum;
}

/* Ranks come to collectives at different times: the result may not depend on it. */
static inline void dawdle(uint64_t salt) {
    uint64_t ns = sago_below(sago_mix(salt, (uint64_t)mesh->rank), 3000000);
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

#endif
