// SPDX-License-Identifier: Apache-2.0
/**
 * What all layers share: the pass, and the linear product.
 *
 * A layer is two structs and four functions. The layer struct says which rows of the registry it reads; the
 * saved struct lists exactly what its backward needs. declare    adds rows to the registry plan reserves what
 * forward saves (sago_plan, once to measure and once for addresses) forward    reads values, writes its
 * output and the saved struct backward   reads the saved struct, adds to gradients Sizes of one pass come
 * from the tensors: buffers are planned for the most tokens, and a smaller micro-batch or shorter rows use
 * the first part of them.
 */
#ifndef SAGO_LAYER_H
#define SAGO_LAYER_H

#include "arena.h"
#include "device.h"
#include "fsdp.h"
#include "mesh.h"
#include "model.h"
#include "ops.h"
#include "registry.h"
#include "status.h"

/** One forward, or forward and backward, of one micro-batch. */
typedef struct sago_pass {
    sago_device *device;
    const sago_registry *registry;
    sago_dtype dtype; /* of activations, their gradients and values */
    const void *values; /* flat, of the whole registry ... */
    float *gradients;   /* ... likewise; NULL where there is no backward */
    sago_fsdp *fsdp;    /* has both instead, a block at a time; NULL: they are flat */
    bool bf16;          /* matrix products of f32 round their inputs to it */
    float dropout_rate; /* 0: no dropout anywhere */
    uint64_t dropout_key;
    int64_t first_row; /* of the micro-batch, in the global batch */
    void *product;     /* room for the output of a sub-layer before it joins the residual: tokens x d_model */
    /* Ranks that share the model (parallel.h); the rest is unset where there is one. */
    sago_mesh *mesh;
    int model_rank, model_size;
    bool cut_tokens;   /* the residual stream holds this rank's tokens alone */
    void *gathered[2]; /* tokens x d_model each: what a sub-layer reads forward; its gradient's way in
                          backward */
    void *narrow;      /* own tokens x d_model; where activations are not f32 */
} sago_pass;

/**
 * Dropout sites. Each place in the model has a number, and its masks the key mix(dropout_key, number), so
 * that they depend on neither the mesh nor the order of computation.
 */
enum {
    SAGO_SITE_PROBABILITIES,
    SAGO_SITE_OUTPUT,
    SAGO_SITE_CROSS_PROBABILITIES,
    SAGO_SITE_CROSS_OUTPUT,
    SAGO_SITE_MLP_INNER,
    SAGO_SITE_MLP_OUTPUT,
    SAGO_SITES_PER_BLOCK = 8,
    /* Block 0 is the embedding; its sites are those at the two ends of the stacks. */
    SAGO_SITE_ENCODER_INPUT = 0,
    SAGO_SITE_ENCODER_FINAL,
    SAGO_SITE_DECODER_INPUT,
    SAGO_SITE_DECODER_FINAL,
};

/** The masks of a site over a tensor of row_tokens tokens a row. */
sago_dropout sago_pass_dropout(const sago_pass *pass, int site, int64_t row_tokens);

/** The pass comes to a block: its values are wanted and, backward, its gradients (fsdp.h). */
sago_status sago_pass_enter(const sago_pass *pass, int block, sago_direction direction) SAGO_MUST_CHECK;

/** A parameter's value or gradient, by its row of the registry. */
sago_tensor sago_pass_value(const sago_pass *pass, int param);
sago_tensor sago_pass_gradient(const sago_pass *pass, int param);

/** y[N, out] = x[N, in] W[out, in]^T + beta * y. 2 N in out FLOPs. */
sago_status sago_linear_forward(const sago_pass *pass, sago_tensor y, sago_tensor x, int weight,
                                float beta) SAGO_MUST_CHECK;

/** d_x = d_y W + beta * d_x; dW += d_y^T x. 4 N in out FLOPs. */
sago_status sago_linear_backward(const sago_pass *pass, sago_tensor d_x, float beta, sago_tensor d_y,
                                 sago_tensor x, int weight) SAGO_MUST_CHECK;

/** Where a layer declares its rows, and this rank's place among those that share the model. */
typedef struct sago_declaration {
    sago_registry *registry;
    const sago_model_shape *shape;
    int block;
    int model_rank, model_size;
} sago_declaration;

/** A row of the registry called PREFIX.NAME; its index. */
sago_status sago_layer_declare(sago_registry *registry, int block, const char *prefix, const char *name,
                               int n_dims, const int64_t shape[], const sago_axis axes[], sago_init_kind init,
                               double deviation, int *index) SAGO_MUST_CHECK;

/** Where plans take their memory, what activations are made of, and over how many ranks tokens are cut. */
typedef struct sago_plan {
    sago_arena *arena;
    sago_dtype dtype;
    int model_size;  /* ranks that share the model; 0 is 1 */
    bool cut_tokens; /* parallel.h */
} sago_plan;

/** The most that this rank holds of so many tokens of the residual stream. */
int64_t sago_plan_own(const sago_plan *plan, int64_t tokens);
/** count elements of a partial sum over ranks (parallel.h). */
void *sago_plan_partial(const sago_plan *plan, int64_t count);
/** count elements: activations of the plan's dtype, floats, int32. */
void *sago_plan_take(const sago_plan *plan, int64_t count);
float *sago_plan_floats(const sago_plan *plan, int64_t count);
int32_t *sago_plan_ints(const sago_plan *plan, int64_t count);

/**
 * Rooms that are never in use at the same time share their memory:
 *     sago_overlap o = sago_overlap_begin(arena);
 *     plan_a(arena); sago_overlap_next(&o, arena);
 *     plan_b(arena); sago_overlap_end(&o, arena);
 */
typedef struct sago_overlap {
    size_t start, end;
} sago_overlap;
sago_overlap sago_overlap_begin(const sago_arena *arena);
void sago_overlap_next(sago_overlap *overlap, sago_arena *arena);
void sago_overlap_end(sago_overlap *overlap, sago_arena *arena);

/** Activations [rows, tokens, width] over a buffer. */
static inline sago_tensor sago_tokens(const sago_pass *pass, void *data, int64_t rows, int64_t tokens,
                                      int64_t width) {
    return sago_tensor_3d(data, pass->dtype, rows, tokens, width);
}

#endif
