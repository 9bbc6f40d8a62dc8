// SPDX-License-Identifier: Apache-2.0
/**
 * Model: an array of blocks over the registry. T5 1.0 and v1.1 (Raffel et al. 2020; Shazeer 2020 for the
 * gated MLP), encoder and decoder; PaLM (Chowdhery et al. 2022, section 2), a decoder alone.
 *
 * Life of a model: shape -> declare (rows of the registry) -> shard -> open (plans and takes its memory) ->
 * loss, score or generate, any number of times, without allocation. Values (of options.dtype) and gradients
 * (f32) are flat device buffers that the caller owns, laid out by the registry.
 */
#ifndef SAGO_MODEL_H
#define SAGO_MODEL_H

#include "batch.h"
#include "config.h"
#include "device.h"
#include "json.h"
#include "mesh.h"
#include "ops.h"
#include "registry.h"
#include "status.h"

typedef enum sago_activation {
    SAGO_RELU,       /* T5 1.0 */
    SAGO_GATED_GELU, /* T5 v1.1: gelu(x Wg^T) * x Wl^T, tanh form */
    SAGO_SWIGLU,     /* PaLM, UL2: silu(x Wg^T) * x Wl^T */
} sago_activation;

typedef struct sago_model_shape {
    char family[16]; /* "t5", "palm" */
    int64_t vocab_size, d_model, n_heads, head_dim, d_ff;
    int64_t kv_heads;                       /* T5: n_heads; PaLM: 1 (multi-query) up to n_heads */
    int64_t encoder_layers, decoder_layers; /* PaLM: 0 and its layers */
    sago_activation activation;
    bool tied_embeddings; /* one matrix for embedding and output */
    float logit_scale;    /* logits = logit_scale * h W^T: T5 v1.1 1, T5 1.0 and PaLM d_model^-1/2 */
    float norm_epsilon;
    int64_t relative_buckets, relative_max_distance; /* T5; 0 for PaLM */
    double rope_theta;                               /* PaLM; 0 for T5 */
    bool rope_interleaved;                           /* pairs (2i, 2i + 1), else (i, i + head_dim / 2) */
} sago_model_shape;

/** "relu", "gated-gelu", "swiglu". */
const char *sago_activation_name(sago_activation activation);
/** False when it is no name of an activation. */
bool sago_activation_parse(const char *name, sago_activation *out);

/** True for models without an encoder: rows hold inputs and then targets (batch.h). */
bool sago_model_decoder_only(const sago_model_shape *shape);

/** As JSON, in the keys of the configuration's model section; what a checkpoint's meta holds under "model".
 */
json_t *sago_model_shape_to_json(const sago_model_shape *shape);
sago_status sago_model_shape_from_json(const json_t *json, sago_model_shape *out) SAGO_MUST_CHECK;

/** Fills in what follows from the rest where it is 0: kv_heads (T5 n_heads, PaLM 1), rope_theta (PaLM 10000),
 * logit_scale (d_model^-1/2 where embeddings are tied, else 1). */
void sago_model_shape_complete(sago_model_shape *shape);

/** shape_config.c: the shape that the model section states, completed; not checked. */
sago_status sago_model_shape_from_config(const sago_config *config, sago_model_shape *out) SAGO_MUST_CHECK;
/** The model section takes over the shape of a checkpoint (from: its path, for messages). SAGO_E_CONFIG names
 * a key that was stated otherwise. */
sago_status sago_model_shape_into_config(const sago_model_shape *shape, const char *from,
                                         sago_config *config) SAGO_MUST_CHECK;

/** Checks that the sizes make a model: positive, heads that divide by the model axis, ... */
sago_status sago_model_shape_check(const sago_model_shape *shape, int model_axis) SAGO_MUST_CHECK;

/** Declares all parameters. Names, shapes, formulas: docs/model.md. */
sago_status sago_model_declare(const sago_model_shape *shape, sago_registry *registry) SAGO_MUST_CHECK;

/** Cuts the declared rows over the ranks that share the model, as the layers need it: heads, kv, mlp and
 * vocab. rules (mesh.rules; n_rules 0: none) may say so, and SAGO_E_CONFIG names a parameter that they would
 * cut otherwise. */
sago_status sago_model_shard(const sago_model_shape *shape, sago_registry *registry,
                             const char *const rules[], int n_rules, int model_rank,
                             int model_size) SAGO_MUST_CHECK;

typedef struct sago_model_options {
    int64_t max_rows;                    /* rows of a micro-batch */
    int64_t input_length, target_length; /* longest row; a decoder alone: their sum */
    bool prefix;                         /* a decoder alone: inputs of an example attend to one another */
    bool training;                       /* room for backward */
    bool recompute;                      /* blocks keep their input alone and run forward again in backward */
    sago_dtype dtype;          /* of activations and values: f32, or bf16 on a device that stores it */
    bool bf16;                 /* matrix products of f32 round their inputs to bf16 */
    int64_t loss_chunk_tokens; /* logits of so many tokens exist at once */
    int64_t generate_rows, generate_inputs, generate_tokens; /* room for KV caches; 0: no generation */
} sago_model_options;

typedef struct sago_model sago_model;
/**
 * mesh: whose model axis shares the model; NULL: none does. Where it has several ranks it is a view that only
 * the model calls (sago_model_mesh_open), since ranks of another copy may have other numbers of
 * micro-batches.
 */
sago_status sago_model_open(const sago_model_shape *shape, const sago_registry *registry, sago_device *device,
                            sago_mesh *mesh, const sago_model_options *options,
                            sago_model **out) SAGO_MUST_CHECK;
void sago_model_close(sago_model *model);

/** A view of the mesh for models over this device, in whose memory their collectives work. Collective; closed
 * before the device is. */
sago_status sago_model_mesh_open(sago_mesh *mesh, sago_device *device, sago_mesh **out) SAGO_MUST_CHECK;
sago_status sago_model_mesh_close(sago_mesh *mesh) SAGO_MUST_CHECK; /* NULL is fine */
size_t sago_model_bytes(const sago_model *model);                   /* device memory that open took */

typedef struct sago_loss_args {
    float dropout;
    uint64_t dropout_key; /* a hash of seed and step */
    float z_loss, label_smoothing;
    double scale; /* 1 / target tokens of the global step */
    /** Called when the gradients of a block are final for this micro-batch, last block first; may be NULL. */
    sago_status (*block_done)(void *context, int block);
    void *context;
    /** Where the ranks of the data axis share values and gradients (fsdp.h); NULL: none do. */
    struct sago_fsdp *fsdp;
} sago_loss_args;

/**
 * Forward and backward of one micro-batch, rows [first_row, first_row + n_rows): gradients += scale *
 * d(objective), and *sums (device memory) += what its targets add up to. On an asynchronous device this only
 * hands work over; the batch may change on return. With args->fsdp values and gradients are NULL, and every rank
 * calls this equally often, with n_rows 0 where it has no more.
 */
sago_status sago_model_loss(sago_model *model, const void *values, float *gradients, const sago_batch *batch,
                            int64_t first_row, int64_t n_rows, const sago_loss_args *args,
                            sago_loss_sums *sums) SAGO_MUST_CHECK;

/** logprobs[n_rows, St] (host) = log p(target) of every target position with weight, else 0. No gradient, no
 * dropout. */
sago_status sago_model_score(sago_model *model, const void *values, const sago_batch *batch,
                             float *logprobs) SAGO_MUST_CHECK;

typedef struct sago_generate_args {
    int max_new_tokens;
    int32_t eos_id; /* 1 */
    sago_sample_args sample;
    const uint64_t *row_keys; /* [n_rows] a draw of row r, token t uses (key, mix(row_keys[r], t)); NULL: r */
    const int32_t *input_lengths; /* [n_rows] ids of each row; NULL: up to the last one that is not 0 */
} sago_generate_args;

/**
 * Decodes with a KV cache. inputs i32[n_rows, Si] (0-padded), out i32[n_rows, max_new_tokens] (0 after EOS),
 * lengths[n_rows] counts EOS; logprob[n_rows] = sum over produced tokens (may be NULL). All host memory.
 * Where the device has graphs, steps that repeat are launched as one, with the same results.
 * With neither logprobs nor a temperature, a device may find the tokens without computing all logits
 * (kernels/greedy.h); they are the same.
 */
sago_status sago_model_generate(sago_model *model, const void *values, const int32_t *inputs, int64_t n_rows,
                                int64_t input_length, const sago_generate_args *args, int32_t *out,
                                int32_t *lengths, double *logprobs) SAGO_MUST_CHECK;

/** Forward and backward FLOPs of matrix products for a batch of these token counts; for MFU. A decoder alone
 * has decoder_pairs among inputs and targets together, and no others. */
double sago_model_flops(const sago_model_shape *shape, int64_t input_tokens, int64_t target_tokens,
                        double encoder_pairs, double decoder_pairs, double cross_pairs);

#endif
