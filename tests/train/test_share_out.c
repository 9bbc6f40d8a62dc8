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
            sago_piece pieces[N];
            for (int i = 0; i < N; i++)
                pieces[i] = (sago_piece){.name = "x",
                                         .dtype = SAGO_F32,
                                         .n_dims = dims[i],
                                         .global_shape = {shapes[i][0], shapes[i][1]},
                                         .shape = {shapes[i][0], shapes[i][1]},
                                         .data = data[i]};
            int n = sago_share_out(pieces, N, rank, ranks);
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares_cover_all_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
