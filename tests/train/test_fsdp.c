// SPDX-License-Identifier: Apache-2.0
/*
 * Parameters, gradients and sums of squares of a fully sharded data axis over all ranks that mpirun gives,
 * beside the same model whole on each rank, which sees the rows of all: every rank's rows of every summed
 * gradient, in both ways of keeping what was gathered, with micro-batches of which some ranks have fewer, or
 * none. And all values gathered again.
 */
#include "fsdp.h"
#include "mesh.h"
#include "gradient_sums.h"
#include "str.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "small_models.h"

static sago_mesh *mesh;
static int rank, n_ranks;
static sago_device *device;

static float *zeroed(const sago_registry *registry) {
    return sago_alloc_zero((size_t)registry->n_elements, sizeof(float));
}

static sago_status block_done(void *fsdp, int block) {
    return sago_fsdp_block_done(fsdp, block);
}

typedef struct subject {
    sago_registry whole, held;
    sago_model *model;
    float *values, *own_values;       /* of the whole, and of what is held */
    float *gradients, *own_gradients; /* likewise */
} subject;

static void open_subject(subject *s, const sago_model_shape *shape, bool recompute) {
    *s = (subject){0};
    must(sago_model_declare(shape, &s->whole));
    must(sago_model_shard(shape, &s->whole, NULL, 0, 0, 1));
    sago_registry_cut_rows(&s->whole, rank, n_ranks, &s->held);
    s->values = zeroed(&s->whole), s->gradients = zeroed(&s->whole);
    s->own_values = zeroed(&s->held), s->own_gradients = zeroed(&s->held);
    sago_registry_initialise(&s->whole, 5, s->values);
    sago_registry_initialise(&s->held, 5, s->own_values);
    const sago_model_options options = {.max_rows = ROWS,
                                        .input_length = INPUTS,
                                        .target_length = TARGETS,
                                        .training = true,
                                        .recompute = recompute,
                                        .loss_chunk_tokens = 7};
    must(sago_model_open(shape, &s->whole, device, NULL, &options, &s->model));
}

static void close_subject(subject *s) {
    sago_model_close(s->model);
    sago_registry_free(&s->whole);
    sago_registry_free(&s->held);
    free(s->values), free(s->own_values), free(s->gradients), free(s->own_gradients);
}

/* Steps over the rank's rows, one a micro-batch; as many as the rank that has most. */
static void run_shared(subject *s, sago_fsdp *fsdp, const sago_batch *batch, bool keep,
                       sago_loss_sums *sums) {
    int64_t first = ROWS * rank / n_ranks, end = ROWS * (rank + 1) / n_ranks,
            most = (ROWS + n_ranks - 1) / n_ranks;
    sago_loss_args args = {
        .dropout = 0.2f, .dropout_key = 31, .z_loss = 0.02f, .scale = 0.05, .context = fsdp, .fsdp = fsdp};
    memset(s->own_gradients, 0, (size_t)s->held.n_elements * sizeof(float));
    must(sago_fsdp_begin(fsdp, s->own_values, s->own_gradients));
    for (int64_t i = 0; i < most; i++) {
        args.block_done = !keep || i == most - 1 ? block_done : NULL;
        int64_t row = first + i < end ? first + i : end;
        must(sago_model_loss(s->model, NULL, NULL, batch, row, first + i < end ? 1 : 0, &args, sums));
    }
    must(sago_fsdp_finish(fsdp));
}

static void compare(const subject *s) {
    int64_t compared = 0;
    for (int i = 0; i < s->whole.n_params; i++) {
        const sago_param *w = &s->whole.params[i], *h = &s->held.params[i];
        int64_t columns = w->local_shape[1], first = h->global_offset[0] * columns;
        double most = 0, off = 0;
        for (int64_t e = 0; e < w->local_shape[0] * columns; e++)
            most = fmax(most, fabs((double)s->gradients[w->offset + e]));
        assert_true(most > 0);
        for (int64_t e = 0; e < h->local_shape[0] * columns; e++, compared++)
            off = fmax(off, fabs((double)s->own_gradients[h->offset + e] -
                                 (double)s->gradients[w->offset + first + e]));
        if (off > 3e-5 * most) fail_msg("%s: gradients differ by %.3g of the largest", w->name, off / most);
    }
    must(sago_all_reduce_i64(mesh, SAGO_DATA_AXIS, &compared, 1));
    assert_int_equal(compared, s->whole.n_global_elements);
}

static void compare_squares(subject *s) {
    double squares, of_whole = 0;
    sago_gradient_sums *axis;
    must(sago_gradient_sums_open(&s->held, mesh, device, &axis));
    must(sago_gradient_sums_squares(axis, s->own_gradients, &squares));
    sago_gradient_sums_close(axis);
    for (int64_t i = 0; i < s->whole.n_elements; i++)
        of_whole += (double)s->gradients[i] * (double)s->gradients[i];
    assert_true(fabs(squares - of_whole) <= 1e-4 * of_whole);
}

static void check(const sago_model_shape *shape, bool keep, bool recompute) {
    subject s;
    rows r;
    open_subject(&s, shape, recompute);
    fill_rows(&r, sago_model_decoder_only(shape));
    const sago_loss_args args = {.dropout = 0.2f, .dropout_key = 31, .z_loss = 0.02f, .scale = 0.05};
    sago_loss_sums expected = {0}, got = {0};
    must(sago_model_loss(s.model, s.values, s.gradients, &r.batch, 0, ROWS, &args, &expected));
    sago_fsdp *fsdp;
    must(sago_fsdp_open(&s.whole, &s.held, mesh, device, SAGO_F32, keep, &fsdp));
    run_shared(&s, fsdp, &r.batch, keep, &got);
    must(sago_all_reduce_f64(mesh, SAGO_DATA_AXIS, &got.objective, 1));
    assert_true(fabs(got.objective - expected.objective) <= 3e-6 * fabs(expected.objective));
    compare(&s);
    compare_squares(&s);
    /* Nothing of the step before is left in the next one: the same bits again. */
    float *before = s.own_gradients;
    s.own_gradients = zeroed(&s.held);
    run_shared(&s, fsdp, &r.batch, keep, &got);
    assert_memory_equal(before, s.own_gradients, (size_t)s.held.n_elements * sizeof(float));
    free(before);
    float *gathered = zeroed(&s.whole);
    must(sago_fsdp_gather_all(fsdp, s.own_values, gathered));
    assert_memory_equal(gathered, s.values, (size_t)s.whole.n_elements * sizeof(float));
    free(gathered);
    sago_fsdp_close(fsdp);
    close_subject(&s);
}

static void t5_with_an_output_matrix(void **state) {
    (void)state;
    const sago_model_shape shape = t5_shape();
    assert_false(shape.tied_embeddings);
    for (int way = 0; way < 4; way++) check(&shape, way & 1, way & 2);
}

static void t5_tied(void **state) {
    (void)state;
    sago_model_shape shape = t5_shape();
    shape.tied_embeddings = true;
    for (int way = 0; way < 2; way++) check(&shape, way & 1, false);
}

static void palm(void **state) {
    (void)state;
    const sago_model_shape shape = palm_shape(1);
    for (int way = 0; way < 4; way++) check(&shape, way & 1, way & 2);
}

/* With one layer there are fewer blocks than slots that take turns. */
static void one_layer(void **state) {
    (void)state;
    sago_model_shape shape = palm_shape(4);
    shape.decoder_layers = 1;
    for (int way = 0; way < 2; way++) check(&shape, way & 1, true);
}

/* What takes turns in two slots takes less than all of it. */
static void room_is_that_of_three_blocks(void **state) {
    (void)state;
    sago_model_shape shape = palm_shape(1);
    shape.decoder_layers = 12;
    subject s;
    sago_fsdp *drop, *keep;
    open_subject(&s, &shape, true);
    must(sago_fsdp_open(&s.whole, &s.held, mesh, device, SAGO_F32, false, &drop));
    must(sago_fsdp_open(&s.whole, &s.held, mesh, device, SAGO_F32, true, &keep));
    int64_t first, end, embedding;
    sago_registry_block_range(&s.whole, 0, &first, &embedding);
    sago_registry_block_range(&s.whole, 12, &first, &end); /* the largest: it has the final norm too */
    assert_int_equal(sago_fsdp_bytes(keep), 8 * s.whole.n_elements);
    assert_true(sago_fsdp_bytes(drop) <= (size_t)(8 * (embedding + 2 * (end - first))));
    sago_fsdp_close(drop);
    sago_fsdp_close(keep);
    close_subject(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t5_with_an_output_matrix),
        cmocka_unit_test(t5_tied),
        cmocka_unit_test(palm),
        cmocka_unit_test(one_layer),
        cmocka_unit_test(room_is_that_of_three_blocks),
    };
    if (sago_mesh_start() != SAGO_OK) return 1;
    n_ranks = sago_mesh_world_size(), rank = sago_mesh_world_rank();
    if (sago_mesh_open(n_ranks, 1, 60, &mesh) != SAGO_OK) return 1;
    if (sago_device_open("cpu", 1, &device) != SAGO_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sago_device_close(device);
    sago_mesh_close(mesh);
    sago_mesh_finish(failed != 0);
    return failed;
}
