// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const sago_axis vocab_embed[] = {SAGO_AXIS_VOCAB, SAGO_AXIS_EMBED};
static const sago_axis heads_embed[] = {SAGO_AXIS_HEADS, SAGO_AXIS_EMBED};
static const sago_axis embed_heads[] = {SAGO_AXIS_EMBED, SAGO_AXIS_HEADS};
static const sago_axis mlp_embed[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED};

static void declare_all(sago_registry *r) {
    *r = (sago_registry){0};
    assert_int_equal(
        sago_registry_declare(r, 0, "table", 2, (int64_t[]){30, 12}, vocab_embed, SAGO_INIT_NORMAL, 1), 0);
    assert_int_equal(sago_registry_declare(r, 1, "norm", 1, (int64_t[]){12}, (sago_axis[]){SAGO_AXIS_EMBED},
                                           SAGO_INIT_ONE, 0),
                     1);
    assert_int_equal(
        sago_registry_declare(r, 1, "query", 2, (int64_t[]){8, 12}, heads_embed, SAGO_INIT_NORMAL, .5f), 2);
    assert_int_equal(
        sago_registry_declare(r, 1, "output", 2, (int64_t[]){12, 8}, embed_heads, SAGO_INIT_NORMAL, .25f), 3);
    assert_int_equal(
        sago_registry_declare(r, 2, "up", 2, (int64_t[]){20, 12}, mlp_embed, SAGO_INIT_NORMAL, .1f), 4);
}

static void offsets_are_aligned_and_in_order(void **state) {
    (void)state;
    sago_registry r;
    declare_all(&r);
    assert_int_equal(sago_registry_shard(&r, NULL, 0, 0, 1), SAGO_OK);
    int64_t end = 0;
    for (int p = 0; p < r.n_params; p++) {
        assert_int_equal(r.params[p].offset % 16, 0);
        assert_true(r.params[p].offset >= end && r.params[p].offset < end + 16);
        end = r.params[p].offset + r.params[p].local_shape[0] * r.params[p].local_shape[1];
    }
    assert_true(r.n_elements >= end && r.n_elements < end + 16);
    assert_int_equal(r.n_global_elements, 30 * 12 + 12 + 8 * 12 + 12 * 8 + 20 * 12);
    assert_int_equal(r.n_blocks, 3);
    int64_t at = 0;
    for (int block = 0; block < r.n_blocks; block++) {
        int64_t first, last;
        sago_registry_block_range(&r, block, &first, &last);
        assert_int_equal(first, at);
        assert_true(last > first);
        at = last;
    }
    assert_int_equal(at, r.n_elements);
    assert_ptr_equal(sago_registry_find(&r, "output"), &r.params[3]);
    assert_null(sago_registry_find(&r, "outputs"));
    float *flat = calloc((size_t)r.n_elements, sizeof *flat);
    sago_tensor query = sago_param_tensor(&r.params[2], SAGO_F32, flat);
    assert_ptr_equal(query.data, flat + r.params[2].offset);
    assert_int_equal(query.n_dims, 2);
    assert_int_equal(query.shape[0], 8);
    assert_int_equal(query.shape[1], 12);
    free(flat);
    sago_registry_free(&r);
}

static void rules_cut_one_dim(void **state) {
    (void)state;
    sago_registry r;
    declare_all(&r);
    const char *const rules[] = {"heads: model", " mlp :model ", "vocab: none", "vocab: model"};
    assert_int_equal(sago_registry_shard(&r, rules, 4, 1, 2), SAGO_OK);
    const sago_param *table = &r.params[0], *norm = &r.params[1], *query = &r.params[2],
                     *output = &r.params[3], *up = &r.params[4];
    assert_int_equal(query->local_shape[0], 4);
    assert_int_equal(query->local_shape[1], 12);
    assert_int_equal(query->global_offset[0], 4);
    assert_int_equal(query->replicated_over, 1);
    assert_int_equal(output->local_shape[0], 12);
    assert_int_equal(output->local_shape[1], 4);
    assert_int_equal(output->global_offset[0], 0);
    assert_int_equal(output->global_offset[1], 4);
    assert_int_equal(up->local_shape[0], 10);
    assert_int_equal(table->local_shape[0], 30); /* the first rule about an axis wins */
    assert_int_equal(table->replicated_over, 2);
    assert_int_equal(norm->replicated_over, 2);
    assert_int_equal(r.n_global_elements, 30 * 12 + 12 + 8 * 12 + 12 * 8 + 20 * 12);
    /* Two dims that may both be cut: the earlier rule's is, and sharding again starts from the global shape.
     */
    const char *const both[] = {"embed: model", "heads: model"};
    assert_int_equal(sago_registry_shard(&r, both, 2, 0, 4), SAGO_OK);
    assert_int_equal(query->local_shape[0], 8);
    assert_int_equal(query->local_shape[1], 3);
    assert_int_equal(norm->local_shape[0], 3);
    assert_int_equal(norm->replicated_over, 1);
    sago_registry_free(&r);
}

/* Ranks of a fully sharded data axis have whole rows of what the model axis left, each element once; some have none. */
static void rows_are_cut_once_more(void **state) {
    (void)state;
    enum { RANKS = 9 };
    sago_registry r, held;
    declare_all(&r);
    const char *const embed = "embed: model";
    assert_int_equal(sago_registry_shard(&r, &embed, 1, 1, 2), SAGO_OK);
    int64_t next[5] = {0}, none = 0;
    for (int rank = 0; rank < RANKS; rank++) {
        sago_registry_cut_rows(&r, rank, RANKS, &held);
        assert_int_equal(held.n_global_elements, r.n_global_elements);
        int64_t end = 0;
        for (int p = 0; p < held.n_params; p++) {
            const sago_param *whole = &r.params[p], *own = &held.params[p];
            assert_true(own->rows_are_cut && !whole->rows_are_cut);
            assert_int_equal(own->block, whole->block);
            assert_int_equal(own->local_shape[1], whole->local_shape[1]);
            assert_int_equal(own->global_offset[1], whole->global_offset[1]);
            assert_int_equal(own->global_offset[0], whole->global_offset[0] + next[p]);
            assert_int_equal(sago_first_row(whole->local_shape[0], rank, RANKS), next[p]);
            assert_true(own->offset % 16 == 0 && own->offset >= end);
            end = own->offset + own->local_shape[0] * own->local_shape[1];
            next[p] += own->local_shape[0];
            none += own->local_shape[0] == 0;
        }
        assert_true(held.n_elements >= end);
        sago_registry_free(&held);
    }
    for (int p = 0; p < r.n_params; p++) assert_int_equal(next[p], r.params[p].local_shape[0]);
    assert_true(none > 0);
    sago_registry_cut_rows(&r, 0, 1, &held); /* one rank has all, and nothing is cut */
    assert_int_equal(held.n_elements, r.n_elements);
    assert_false(held.params[0].rows_are_cut);
    sago_registry_free(&held);
    sago_registry_free(&r);
}

static void wrong_rules_are_named(void **state) {
    (void)state;
    sago_registry r;
    declare_all(&r);
    const char *const wrong[] = {"heads model", "head: model", "heads: data", "heads: model x", "", ":"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(sago_registry_shard(&r, &wrong[i], 1, 0, 2), SAGO_E_CONFIG);
        assert_non_null(strstr(sago_message(), wrong[i]));
        assert_non_null(strstr(sago_message(), "mesh.rules"));
    }
    const char *const vocab = "vocab: model";
    assert_int_equal(sago_registry_shard(&r, &vocab, 1, 0, 4), SAGO_E_SHAPE);
    assert_non_null(strstr(sago_message(), "table"));
    assert_non_null(strstr(sago_message(), "30"));
    assert_non_null(strstr(sago_message(), "model=4"));
    sago_registry_free(&r);
}

static void bad_declarations_fail(void **state) {
    (void)state;
    sago_registry r;
    declare_all(&r);
    assert_int_equal(
        sago_registry_declare(&r, 2, "empty", 2, (int64_t[]){4, 0}, vocab_embed, SAGO_INIT_ONE, 0), -1);
    assert_non_null(strstr(sago_message(), "empty"));
    assert_int_equal(sago_registry_declare(&r, 2, "up", 2, (int64_t[]){4, 4}, vocab_embed, SAGO_INIT_ONE, 0),
                     -1);
    assert_int_equal(
        sago_registry_declare(&r, 1, "late", 2, (int64_t[]){4, 4}, vocab_embed, SAGO_INIT_ONE, 0), -1);
    assert_int_equal(r.n_params, 5);
    sago_registry_free(&r);
}

/* Every element of every piece, on any mesh, is that of the whole parameter. */
static void layouts_never_change_the_weights(void **state) {
    (void)state;
    sago_registry whole;
    declare_all(&whole);
    assert_int_equal(sago_registry_shard(&whole, NULL, 0, 0, 1), SAGO_OK);
    float *all = malloc((size_t)whole.n_elements * sizeof *all);
    sago_registry_initialise(&whole, 5, all);
    const char *const rules[][2] = {{"heads: model", "mlp: model"}, {"embed: model", "mlp: model"}};
    for (int set = 0; set < 2; set++) {
        for (int rank = 0; rank < 4; rank++) {
            sago_registry r;
            declare_all(&r);
            assert_int_equal(sago_registry_shard(&r, rules[set], 2, rank, 4), SAGO_OK);
            float *mine = malloc((size_t)r.n_elements * sizeof *mine);
            sago_registry_initialise(&r, 5, mine);
            for (int p = 0; p < r.n_params; p++) {
                const sago_param *param = &r.params[p];
                for (int64_t i = 0; i < param->local_shape[0]; i++)
                    for (int64_t j = 0; j < param->local_shape[1]; j++) {
                        int64_t at = (param->global_offset[0] + i) * param->global_shape[1] +
                                     param->global_offset[1] + j;
                        assert_true(mine[param->offset + i * param->local_shape[1] + j] ==
                                    all[whole.params[p].offset + at]);
                    }
            }
            free(mine);
            sago_registry_free(&r);
        }
    }
    free(all);
    sago_registry_free(&whole);
}

static void weights_have_their_deviation(void **state) {
    (void)state;
    sago_registry r = {0};
    const char *const names[] = {"a", "b"};
    for (int i = 0; i < 2; i++)
        assert_int_equal(sago_registry_declare(&r, 0, names[i], 2, (int64_t[]){300, 200}, vocab_embed,
                                               SAGO_INIT_NORMAL, .3f),
                         i);
    assert_int_equal(sago_registry_shard(&r, NULL, 0, 0, 1), SAGO_OK);
    float *flat = malloc((size_t)r.n_elements * sizeof *flat),
          *again = malloc((size_t)r.n_elements * sizeof *again);
    sago_registry_initialise(&r, 1, flat);
    double mean[2] = {0}, square[2] = {0}, product = 0;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < 60000; i++) {
            double x = (double)flat[r.params[p].offset + i];
            mean[p] += x / 60000, square[p] += x * x / 60000;
            product += p == 0 ? x * (double)flat[r.params[1].offset + i] / 60000 : 0;
        }
    for (int p = 0; p < 2; p++) {
        assert_true(fabs(mean[p]) < 5 * .3 / sqrt(60000));
        assert_true(fabs(sqrt(square[p]) / .3 - 1) < .02);
    }
    assert_true(fabs(product) < 5 * .09 / sqrt(60000)); /* two names, two independent draws */
    sago_registry_initialise(&r, 2, again);
    assert_true(memcmp(flat, again, (size_t)r.n_elements * sizeof *flat) != 0);
    sago_registry_initialise(&r, 1, again);
    assert_memory_equal(flat, again, (size_t)r.n_elements * sizeof *flat);
    free(flat);
    free(again);
    sago_registry_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_are_aligned_and_in_order),
        cmocka_unit_test(rules_cut_one_dim),
        cmocka_unit_test(rows_are_cut_once_more), cmocka_unit_test(wrong_rules_are_named),
        cmocka_unit_test(bad_declarations_fail),
        cmocka_unit_test(layouts_never_change_the_weights),
        cmocka_unit_test(weights_have_their_deviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
