// SPDX-License-Identifier: Apache-2.0
/**
 * Matrix products by cuBLASLt: bf16 or fp32 operands, fp32 sums (true fp32: no TF32), beta accumulates.
 *
 * cuBLASLt counts in columns. A row-major matrix [r, c] is the column-major matrix c x r with leading
 * dimension c, so c = op(a) op(b) is asked for as c' = op(b)' op(a)': the operands change places and keep
 * their transpositions.
 *
 * The same bits every time: the algorithm is chosen by shape, dtype and alignment alone and kept; sums that
 * are cut along k are added from a workspace in fp32, never in place. cuBLASLt promises the same bits for the
 * same algorithm on the same model of GPU when one stream uses a workspace, which is how it is used here.
 */
#include "matmul.h"

#include "gpu_ops.h"
#include "str.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH_BYTES = 32 << 20, /* what NVIDIA names for Hopper */
    PLANS = 1024,             /* a step has some dozens of shapes */
    PROBES = 4,               /* places that a plan may have */
    MOST_ALIGNMENT = 256,
};

/* What an algorithm is chosen by; compared as bytes, so it is zeroed before it is filled. */
typedef struct key {
    int64_t m, n, k;
    int32_t transpose_a, transpose_b, in, out;
    uint32_t align_a, align_b, align_c;
    int32_t accumulate;
} key;

typedef struct plan {
    bool ready;
    key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} plan;

typedef struct products {
    cublasLtHandle_t handle;
    void *scratch;
    plan plans[PLANS];
} products;

static sago_status check(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) return SAGO_OK;
    return sago_fail(SAGO_E_DEVICE, "cuda: matmul: %s: %s", what, cublasLtGetStatusString(status));
}

static uint32_t alignment(const void *at) {
    uintptr_t lowest = (uintptr_t)at & -(uintptr_t)at;
    return lowest > MOST_ALIGNMENT ? MOST_ALIGNMENT : (uint32_t)lowest;
}

static void forget(plan *p) {
    if (p->operation) cublasLtMatmulDescDestroy(p->operation);
    if (p->a) cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) cublasLtMatrixLayoutDestroy(p->c);
    *p = (plan){0};
}

/* The row-major matrix that is stored as [rows, columns]. */
static sago_status layout(cublasLtMatrixLayout_t *out, int32_t dtype, int64_t rows, int64_t columns) {
    return check(cublasLtMatrixLayoutCreate(out, dtype == SAGO_BF16 ? CUDA_R_16BF : CUDA_R_32F,
                                            (uint64_t)columns, (uint64_t)rows, columns),
                 "describing a matrix");
}

static sago_status set_transpose(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t which,
                                 bool transpose) {
    cublasOperation_t value = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    return check(cublasLtMatmulDescSetAttribute(operation, which, &value, sizeof value),
                 "describing the product");
}

static sago_status prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t which,
                          const void *value, size_t bytes) {
    return check(cublasLtMatmulPreferenceSetAttribute(preference, which, value, bytes),
                 "stating a preference");
}

static sago_status choose(products *p, plan *made) {
    const key *k = &made->key;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found = {0};
    int n_found = 0;
    size_t scratch_bytes = SCRATCH_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    sago_status status;
    SAGO_TRY(check(cublasLtMatmulPreferenceCreate(&preference), "stating a preference"));
    SAGO_TRY_TO(done, prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &scratch_bytes,
                             sizeof scratch_bytes));
    SAGO_TRY_TO(
        done, prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
    /* The operands have changed places. */
    SAGO_TRY_TO(
        done, prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &k->align_b, sizeof k->align_b));
    SAGO_TRY_TO(
        done, prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &k->align_a, sizeof k->align_a));
    SAGO_TRY_TO(
        done, prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &k->align_c, sizeof k->align_c));
    SAGO_TRY_TO(
        done, prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &k->align_c, sizeof k->align_c));
    SAGO_TRY_TO(done, check(cublasLtMatmulAlgoGetHeuristic(p->handle, made->operation, made->b, made->a,
                                                           made->c, made->c, preference, 1, &found, &n_found),
                            "choosing an algorithm"));
    if (n_found == 0 || found.state != CUBLAS_STATUS_SUCCESS)
        SAGO_TRY_TO(done,
                    sago_fail(SAGO_E_DEVICE,
                              "cuda: matmul: cuBLASLt has no algorithm for m %lld, n %lld, k %lld in %s",
                              (long long)k->m, (long long)k->n, (long long)k->k,
                              sago_dtype_name((sago_dtype)k->in)));
    made->algorithm = found.algo;
done:
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

static sago_status make(products *p, plan *made, const key *k) {
    made->key = *k;
    SAGO_TRY(check(cublasLtMatmulDescCreate(&made->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                   "describing the product"));
    SAGO_TRY(set_transpose(made->operation, CUBLASLT_MATMUL_DESC_TRANSA, k->transpose_b));
    SAGO_TRY(set_transpose(made->operation, CUBLASLT_MATMUL_DESC_TRANSB, k->transpose_a));
    SAGO_TRY(layout(&made->a, k->in, k->transpose_a ? k->k : k->m, k->transpose_a ? k->m : k->k));
    SAGO_TRY(layout(&made->b, k->in, k->transpose_b ? k->n : k->k, k->transpose_b ? k->k : k->n));
    SAGO_TRY(layout(&made->c, k->out, k->m, k->n));
    SAGO_TRY(choose(p, made));
    made->ready = true;
    return SAGO_OK;
}

/* The plan of this key: the one kept, or a new one in a free place, or in the last one's that it may have. */
static sago_status find(products *p, const key *k, plan **out) {
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *k; i++) hash = (hash ^ ((const unsigned char *)k)[i]) * 1099511628211u;
    plan *at = NULL;
    for (unsigned probe = 0; probe < PROBES; probe++) {
        at = &p->plans[((hash >> 32) + probe) % PLANS];
        if (!at->ready) break;
        *out = at;
        if (memcmp(&at->key, k, sizeof *k) == 0) return SAGO_OK;
    }
    *out = at;
    forget(at);
    sago_status status = make(p, at, k);
    if (status != SAGO_OK) forget(at);
    return status;
}

/* fp32 operands that shall be rounded to bf16 first: rounded copies in scratch. */
static sago_status round_operands(sago_device *device, sago_tensor *a, sago_tensor *b) {
    size_t a_bytes = ((size_t)sago_tensor_count(*a) * 2 + 255) / 256 * 256;
    size_t b_bytes = (size_t)sago_tensor_count(*b) * 2;
    void *scratch;
    SAGO_TRY(SAGO_GPU(workspace)(sago_gpu_of(device), a_bytes + b_bytes, &scratch));
    sago_tensor a16 = *a, b16 = *b;
    a16.dtype = b16.dtype = SAGO_BF16;
    a16.data = scratch;
    b16.data = (char *)scratch + a_bytes;
    SAGO_TRY(SAGO_GPU(copy)(device, a16, *a));
    SAGO_TRY(SAGO_GPU(copy)(device, b16, *b));
    *a = a16, *b = b16;
    return SAGO_OK;
}

sago_status SAGO_GPU(matmul)(sago_device *device, sago_tensor c, sago_tensor a, sago_tensor b,
                             const sago_matmul_args *args) {
    sago_gpu *gpu = sago_gpu_of(device);
    products *p = gpu->products;
    sago_matmul_sizes sizes;
    plan *found;
    SAGO_TRY(sago_matmul_check(device, c, a, b, args, &sizes));
    if (sizes.m == 0 || sizes.n == 0) return SAGO_OK;
    if (sizes.k == 0)
        return args->beta == 0.0f ? SAGO_GPU(fill)(device, c, 0.0f) : SAGO_GPU(scale)(device, c, args->beta);
    if (args->bf16 && a.dtype == SAGO_F32) SAGO_TRY(round_operands(device, &a, &b));
    key k;
    memset(&k, 0, sizeof k);
    k.m = sizes.m, k.n = sizes.n, k.k = sizes.k;
    k.transpose_a = args->transpose_a, k.transpose_b = args->transpose_b;
    k.in = (int32_t)a.dtype, k.out = (int32_t)c.dtype;
    k.align_a = alignment(a.data), k.align_b = alignment(b.data), k.align_c = alignment(c.data);
    k.accumulate = args->beta != 0.0f;
    SAGO_TRY(find(p, &k, &found));
    return check(cublasLtMatmul(p->handle, found->operation, &args->alpha, b.data, found->b, a.data, found->a,
                                &args->beta, c.data, found->c, c.data, found->c, &found->algorithm,
                                p->scratch, SCRATCH_BYTES, (cudaStream_t)gpu->compute),
                 "the product");
}

sago_status SAGO_GPU(products_open)(sago_gpu *gpu, char description[48]) {
    products *p = sago_alloc_zero(1, sizeof *p);
    gpu->products = p;
    SAGO_TRY(check(cublasLtCreate(&p->handle), "opening cuBLASLt"));
    SAGO_TRY(SAGO_GPU(rt_malloc)(&p->scratch, SCRATCH_BYTES));
    size_t version = cublasLtGetVersion();
    snprintf(description, 48, "cuBLASLt %zu.%zu.%zu", version / 10000, version % 10000 / 100, version % 100);
    return SAGO_OK;
}

void SAGO_GPU(products_close)(sago_gpu *gpu) {
    products *p = gpu->products;
    if (!p) return;
    for (int i = 0; i < PLANS; i++) forget(&p->plans[i]);
    if (p->scratch) SAGO_GPU(rt_free)(p->scratch);
    if (p->handle) cublasLtDestroy(p->handle);
    free(p);
}
