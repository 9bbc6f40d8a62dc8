// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "share_out.h"

#include <string.h>

enum { N = 6, MOST = 64 };

static const int64_t shapes[N][2] = {{7, 3}, {5, 1}, {2, 4}, {1, 1}, {3, 2}, {1, 9}};
static const int dims[N] = {2, 1, 2, 1, 2, 2};

/* Every element belongs to exactly one rank, and the data of a piece is where its offset says. */
static void test_shares_cover_all_once(void **state) {
    (void)state;
    float data[N][MOST];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < MOST; j++) data[i][j] = (float)(100 * i + j);
    for (int ranks = 1; ranks <= 8; ranks++) {
        int seen[N][MOST] = {0}, pieces_of_any = 0;
        for (int rank = 0; rank < ranks; rank++) {
            const sago_mesh mesh = {.axis_rank = {rank, 0, rank}, .axis_size = {ranks, 1, ranks}};
            sago_piece pieces[N];
            for (int i = 0; i < N; i++)
                pieces[i] = (sago_piece){.name = "x",
                                         .dtype = SAGO_F32,
                                         .n_dims = dims[i],
                                         .global_shape = {shapes[i][0], shapes[i][1]},
                                         .shape = {shapes[i][0], shapes[i][1]},
                                         .data = data[i]};
            int n = sago_share_out(pieces, N, &mesh);
            pieces_of_any += n;
            for (int k = 0; k < n; k++) {
                const sago_piece *p = &pieces[k];
                const float *values = p->data;
                int which = (int)values[0] / 100;
                int64_t columns = p->n_dims == 2 ? p->shape[1] : 1;
                assert_int_equal(p->global_shape[0], shapes[which][0]);
                assert_true(p->shape[0] > 0 && p->offset[0] + p->shape[0] <= p->global_shape[0]);
                for (int64_t e = 0; e < p->shape[0] * columns; e++) {
                    int64_t at = p->offset[0] * columns + e;
                    assert_true(values[e] == (float)(100 * which + at));
                    seen[which][at]++;
                }
            }
        }
        for (int i = 0; i < N; i++)
            for (int64_t e = 0; e < MOST; e++) assert_int_equal(seen[i][e], e < shapes[i][0] * shapes[i][1]);
        if (ranks == 3) assert_int_equal(pieces_of_any, 3 + 1 + 1 + 1 + 3 + 1);
    }
}

enum { ROWS = 6, COLUMNS = 4, HALF = COLUMNS / 2, VECTOR = 3 };

static void see(const sago_piece *p, int matrix[ROWS][COLUMNS], int vector[VECTOR]) {
    for (int64_t i = 0; i < p->shape[0]; i++)
        for (int64_t j = 0; j < p->shape[1]; j++) {
            if (p->n_dims == 2)
                matrix[p->offset[0] + i][p->offset[1] + j]++;
            else
                vector[p->offset[0] + i]++;
        }
}

static void each_once(int matrix[ROWS][COLUMNS], const int vector[VECTOR]) {
    for (int i = 0; i < ROWS * COLUMNS; i++) assert_int_equal(matrix[i / COLUMNS][i % COLUMNS], 1);
    for (int i = 0; i < VECTOR; i++) assert_int_equal(vector[i], 1);
}

/* A matrix of 6 x 4 that two ranks of the model axis hold by columns and a vector that they both hold, on 2
   data ranks: each element once. */
static void test_parts_are_shared_among_those_that_hold_them(void **state) {
    (void)state;
    float part[ROWS * HALF], vector[3];
    int matrix_seen[ROWS][COLUMNS] = {0}, vector_seen[3] = {0};
    for (int rank = 0; rank < 4; rank++) {
        const sago_mesh mesh = {.axis_rank = {rank / 2, rank % 2, rank}, .axis_size = {2, 2, 4}};
        sago_piece pieces[] = {{.name = "m",
                                .dtype = SAGO_F32,
                                .n_dims = 2,
                                .global_shape = {ROWS, COLUMNS},
                                .offset = {0, HALF * (rank % 2)},
                                .shape = {ROWS, HALF},
                                .cut_over_model = true,
                                .data = part},
                               {.name = "v",
                                .dtype = SAGO_F32,
                                .n_dims = 1,
                                .global_shape = {3, 1},
                                .shape = {3, 1},
                                .data = vector}};
        int n = sago_share_out(pieces, 2, &mesh);
        for (int k = 0; k < n; k++) {
            const sago_piece *p = &pieces[k];
            if (p->n_dims == 2) assert_ptr_equal(p->data, part + p->offset[0] * HALF);
            see(p, matrix_seen, vector_seen);
        }
    }
    each_once(matrix_seen, vector_seen);
}

/* The same where the data axis is fully sharded: rows and halves of the matrix are one rank's each, and the
   halves of the vector belong to the two ranks of a model axis. */
static void test_what_one_rank_has_it_writes(void **state) {
    (void)state;
    float part[ROWS * COLUMNS], vector[VECTOR];
    int matrix_seen[ROWS][COLUMNS] = {0}, vector_seen[VECTOR] = {0};
    for (int rank = 0; rank < 4; rank++) {
        int data = rank / 2, model = rank % 2;
        const sago_mesh mesh = {.axis_rank = {data, model, rank}, .axis_size = {2, 2, 4}};
        sago_piece pieces[] = {{.name = "m",
                                .dtype = SAGO_F32,
                                .n_dims = 2,
                                .global_shape = {6, 4},
                                .offset = {3 * data, 2 * model},
                                .shape = {3, 2},
                                .cut_over_data = true,
                                .cut_over_model = true,
                                .data = part},
                               {.name = "v",
                                .dtype = SAGO_F32,
                                .n_dims = 1,
                                .global_shape = {3, 1},
                                .offset = {data, 0},
                                .shape = {1 + data, 1},
                                .cut_over_data = true,
                                .data = vector}};
        int n = sago_share_out(pieces, 2, &mesh);
        for (int k = 0; k < n; k++) see(&pieces[k], matrix_seen, vector_seen);
    }
    each_once(matrix_seen, vector_seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares_cover_all_once),
                                       cmocka_unit_test(test_parts_are_shared_among_those_that_hold_them),
                                       cmocka_unit_test(test_what_one_rank_has_it_writes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
