// SPDX-License-Identifier: Apache-2.0
#include "onednn.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PRIMITIVES = 64 };

typedef struct entry {
    sago_gemm gemm;
    int n_threads; /* oneDNN plans for a number of threads */
    uint64_t last_use;
    dnnl_primitive_t primitive; /* NULL: there is none for this processor */
    dnnl_memory_t a, b, c;
} entry;

struct sago_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t uses;
    int n_entries;
    entry entries[MAX_PRIMITIVES];
};

/* oneDNN takes the calling thread's OpenMP setting; it is put back for whoever else relies on it. */
static int set_threads(int n_threads) {
    int before = omp_get_max_threads();
    if (before != n_threads) omp_set_num_threads(n_threads);
    return before;
}

static sago_status failure(const sago_gemm *g, dnnl_status_t code) {
    return sago_fail(SAGO_E_DEVICE, "matmul: oneDNN fails with status %d on m %lld, n %lld, k %lld",
                     (int)code, (long long)g->m, (long long)g->n, (long long)g->k);
}

sago_status sago_onednn_f32(const sago_gemm *g, float *c, const float *a, const float *b, int n_threads) {
    int before = set_threads(n_threads);
    dnnl_status_t code =
        dnnl_sgemm(g->transpose_a ? 'T' : 'N', g->transpose_b ? 'T' : 'N', g->m, g->n, g->k, g->alpha, a,
                   g->transpose_a ? g->m : g->k, b, g->transpose_b ? g->k : g->n, g->beta, c, g->n);
    if (before != n_threads) omp_set_num_threads(before);
    return code == dnnl_success ? SAGO_OK : failure(g, code);
}

sago_status sago_onednn_open(sago_onednn **out) {
    sago_onednn *onednn = calloc(1, sizeof *onednn);
    if (!onednn) return sago_fail(SAGO_E_MEMORY, "cpu: no memory for oneDNN's state");
    dnnl_status_t code = dnnl_engine_create(&onednn->engine, dnnl_cpu, 0);
    if (code == dnnl_success)
        code = dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags);
    if (code != dnnl_success) {
        sago_onednn_close(onednn);
        return sago_fail(SAGO_E_DEVICE, "cpu: oneDNN does not start (status %d)", (int)code);
    }
    *out = onednn;
    return SAGO_OK;
}

static void drop(entry *e) {
    if (e->a) dnnl_memory_destroy(e->a);
    if (e->b) dnnl_memory_destroy(e->b);
    if (e->c) dnnl_memory_destroy(e->c);
    if (e->primitive) dnnl_primitive_destroy(e->primitive);
    memset(e, 0, sizeof *e);
}

void sago_onednn_close(sago_onednn *onednn) {
    if (!onednn) return;
    for (int i = 0; i < onednn->n_entries; i++) drop(&onednn->entries[i]);
    if (onednn->stream) dnnl_stream_destroy(onednn->stream);
    if (onednn->engine) dnnl_engine_destroy(onednn->engine);
    free(onednn);
}

/* --- what versions 2 and 3 spell differently
 * ----------------------------------------------------------------- */

/* A matrix [rows, columns], whose transpose is what lies in memory when transposed. */
typedef struct matrix {
    dnnl_data_type_t type;
    int64_t rows, columns;
    bool transposed;
} matrix;

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
static dnnl_status_t layout_make(layout *out, matrix m) {
    dnnl_dims_t dims = {m.rows, m.columns};
    dnnl_dims_t strides = {m.transposed ? 1 : m.columns, m.transposed ? m.rows : 1};
    return dnnl_memory_desc_create_with_strides(out, 2, dims, m.type, strides);
}
static void layout_free(layout *l) {
    if (*l) dnnl_memory_desc_destroy(*l);
}
static dnnl_status_t memory_make(dnnl_memory_t *out, layout *l, dnnl_engine_t engine) {
    return dnnl_memory_create(out, *l, engine, DNNL_MEMORY_NONE);
}
static dnnl_status_t add_scale(dnnl_post_ops_t ops, float factor) {
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, factor, 0.0f);
}
static dnnl_status_t add_sum(dnnl_post_ops_t ops, float factor) {
    return dnnl_post_ops_append_sum(ops, factor, 0, dnnl_data_type_undef);
}
static dnnl_status_t plan(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attributes,
                          layout *a, layout *b, layout *c) {
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attributes);
}
#else
typedef dnnl_memory_desc_t layout;
static dnnl_status_t layout_make(layout *out, matrix m) {
    dnnl_dims_t dims = {m.rows, m.columns};
    dnnl_dims_t strides = {m.transposed ? 1 : m.columns, m.transposed ? m.rows : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, m.type, strides);
}
static void layout_free(layout *l) {
    (void)l;
}
static dnnl_status_t memory_make(dnnl_memory_t *out, layout *l, dnnl_engine_t engine) {
    return dnnl_memory_create(out, l, engine, DNNL_MEMORY_NONE);
}
static dnnl_status_t add_scale(dnnl_post_ops_t ops, float factor) {
    return dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_linear, factor, 0.0f);
}
static dnnl_status_t add_sum(dnnl_post_ops_t ops, float factor) {
    return dnnl_post_ops_append_sum(ops, factor);
}
static dnnl_status_t plan(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_primitive_attr_t attributes,
                          layout *a, layout *b, layout *c) {
    dnnl_matmul_desc_t description;
    dnnl_status_t code = dnnl_matmul_desc_init(&description, a, b, NULL, c);
    if (code == dnnl_success) code = dnnl_primitive_desc_create(out, &description, attributes, engine, NULL);
    return code;
}
#endif

/* --- bf16
 * ---------------------------------------------------------------------------------------------------- */

static dnnl_status_t fill_entry(entry *e, dnnl_engine_t engine, const sago_gemm *g) {
    layout a = {0}, b = {0}, c = {0};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t planned = NULL;
    dnnl_status_t code = layout_make(&a, (matrix){dnnl_bf16, g->m, g->k, g->transpose_a});
    if (code == dnnl_success) code = layout_make(&b, (matrix){dnnl_bf16, g->k, g->n, g->transpose_b});
    if (code == dnnl_success) code = layout_make(&c, (matrix){dnnl_f32, g->m, g->n, false});
    if (code == dnnl_success) code = dnnl_primitive_attr_create(&attributes);
    if (code == dnnl_success) code = dnnl_post_ops_create(&ops);
    if (code == dnnl_success && g->alpha != 1.0f) code = add_scale(ops, g->alpha);
    if (code == dnnl_success && g->beta != 0.0f) code = add_sum(ops, g->beta);
    if (code == dnnl_success) code = dnnl_primitive_attr_set_post_ops(attributes, ops);
    if (code == dnnl_success) code = plan(&planned, engine, attributes, &a, &b, &c);
    if (code == dnnl_success) code = dnnl_primitive_create(&e->primitive, planned);
    if (code == dnnl_success) code = memory_make(&e->a, &a, engine);
    if (code == dnnl_success) code = memory_make(&e->b, &b, engine);
    if (code == dnnl_success) code = memory_make(&e->c, &c, engine);
    if (planned) dnnl_primitive_desc_destroy(planned);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    layout_free(&a), layout_free(&b), layout_free(&c);
    return code;
}

static bool same(const sago_gemm *x, const sago_gemm *y) {
    return x->m == y->m && x->n == y->n && x->k == y->k && x->transpose_a == y->transpose_a &&
           x->transpose_b == y->transpose_b && x->alpha == y->alpha && x->beta == y->beta;
}

static sago_status find(sago_onednn *onednn, const sago_gemm *g, int n_threads, entry **out) {
    entry *oldest = &onednn->entries[0];
    for (int i = 0; i < onednn->n_entries; i++) {
        entry *e = &onednn->entries[i];
        if (e->n_threads == n_threads && same(&e->gemm, g)) {
            *out = e;
            return SAGO_OK;
        }
        if (e->last_use < oldest->last_use) oldest = e;
    }
    if (onednn->n_entries < MAX_PRIMITIVES)
        oldest = &onednn->entries[onednn->n_entries++];
    else
        drop(oldest);
    oldest->gemm = *g;
    oldest->n_threads = n_threads;
    dnnl_status_t code = fill_entry(oldest, onednn->engine, g);
    if (code == dnnl_unimplemented) {
        drop(oldest);
        oldest->gemm = *g;
        oldest->n_threads = n_threads;
    } else if (code != dnnl_success) {
        drop(oldest);
        return failure(g, code);
    }
    *out = oldest;
    return SAGO_OK;
}

sago_status sago_onednn_bf16(sago_onednn *onednn, const sago_gemm *g, float *c, const uint16_t *a,
                             const uint16_t *b, int n_threads, bool *supported) {
    int before = set_threads(n_threads);
    entry *e = NULL;
    sago_status status = find(onednn, g, n_threads, &e);
    *supported = status == SAGO_OK && e->primitive;
    if (*supported) {
        e->last_use = ++onednn->uses;
        dnnl_status_t code = dnnl_memory_set_data_handle(e->a, (void *)(uintptr_t)a);
        if (code == dnnl_success) code = dnnl_memory_set_data_handle(e->b, (void *)(uintptr_t)b);
        if (code == dnnl_success) code = dnnl_memory_set_data_handle(e->c, c);
        dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}};
        if (code == dnnl_success) code = dnnl_primitive_execute(e->primitive, onednn->stream, 3, arguments);
        if (code == dnnl_success) code = dnnl_stream_wait(onednn->stream);
        if (code != dnnl_success) status = failure(g, code);
    }
    if (before != n_threads) omp_set_num_threads(before);
    return status;
}
