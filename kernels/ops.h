// SPDX-License-Identifier: Apache-2.0
/**
 * THE table: every operation that a device implements, once.
 *
 * Conventions. Outputs come first, inputs after them; sizes come from the tensors. Tensors are contiguous, row-major
 * and live on the device. "+=" marks outputs that are added to, "=" outputs that are overwritten. Outputs do not
 * overlap inputs unless the text says so. Single letters: B rows of the batch, S tokens of a row (Sq queries, Sk keys),
 * N tokens in all (B*S flattened), D model width, H query heads, G key/value heads, E head width, F MLP width,
 * V vocabulary. Every reduction runs in an order that depends on shapes alone: results are bitwise repeatable, and on
 * the cpu device the same for any number of threads (matrix products: for a given number). A shape that does not fit is
 * SAGO_E_SHAPE, and the message names operation and shapes.
 *
 * Dtypes. Everything is f32 unless said. On a device that stores bf16 (device.h), the activations, their gradients and
 * the parameters of a call may all be bf16 instead; sums and statistics (mean, rstd, lse, stats), gradients of parameters
 * (d_scale, d_bias, the d_table of a parameter) and weights of tokens stay f32, and the arithmetic inside is fp32.
 * matmul: a and b of one dtype, c of that dtype or f32. embedding_backward: d_table f32, or of d_y's dtype.
 *
 * Order. An asynchronous device (device.h) works through operations in the order in which they were handed over; a
 * call returns before that. Only download, await, fetch, synchronize and sample wait. What an operation takes through
 * a pointer to a struct or an array of the host is copied before the call returns; pointers inside that are said to be
 * device memory are read when the operation runs. All calls on a device come from one thread, apart from await, fetch
 * and put.
 */
#ifndef SAGO_OPS_H
#define SAGO_OPS_H

#include "device.h"
#include "status.h"
#include "tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Dropout without stored masks: element (row, token, column) of a tensor [rows, tokens, width] is kept when word
 * (i mod 4) of Philox4x32-10(key, counter i / 4) >= rate * 2^32, with
 *     i = first + ((first_row + row) * row_tokens + token) * pitch + column
 * and kept values are divided by (1 - rate). first_row is the row's index in the global batch and row_tokens the
 * configured length of a row, so that the masks are the same on every mesh and for every micro-batch. rate 0: identity.
 *
 * The tensor may be a slice of each row of a wider one, [row_tokens, pitch]: first is the index in the row of the
 * slice's first element. Columns [c, c + width) of F have first c and pitch F; tokens from t on have first t * pitch.
 */
typedef struct sago_dropout {
    float rate;
    uint64_t key; /* a hash of seed, step and the place in the model */
    int64_t first_row;
    int64_t row_tokens;
    int64_t first;
    int64_t pitch; /* columns of a whole token; 0: the tensor's own width */
} sago_dropout;

/** Matrix product: C = alpha * op(A) op(B) + beta * C, fp32 or with bf16 inputs rounded inside and fp32 sums. */
typedef struct sago_matmul_args {
    bool transpose_a; /* A is stored [k, m] */
    bool transpose_b; /* B is stored [n, k] */
    float alpha, beta;
    bool bf16; /* round A and B to bf16 before multiplying */
} sago_matmul_args;

/** Which elements of a head are a pair: 2i and 2i + 1 (GPT-J, Cohere), or i and i + E / 2 (GPT-NeoX, Llama). */
typedef enum sago_rope_style { SAGO_ROPE_INTERLEAVED, SAGO_ROPE_HALVES } sago_rope_style;

typedef struct sago_rope_args {
    double theta; /* the base, at least 1 */
    sago_rope_style style;
    bool inverse; /* turn back: the backward pass */
} sago_rope_args;

typedef enum sago_attention_mode {
    SAGO_ATTEND_FULL,   /* every key of the query's segment: encoders, cross-attention */
    SAGO_ATTEND_CAUSAL, /* keys of the segment up to the query's own position */
    SAGO_ATTEND_PREFIX, /* causal, and all keys of the segment's inputs */
} sago_attention_mode;

/**
 * Attention: for query i of row b and head h, keys j in [lo[b,i], hi[b,i]):
 *     s_j = scale * q_i . k_j + bias(j - i - query_offset, h);  p = softmax(s);  o_i = sum_j dropout(p)_j v_j
 * An empty range gives o = 0 and lse = -inf. Grouped heads: query head h reads key/value head h / (H / G).
 * bias: T5's relative position table [n_buckets, H] (Raffel et al. 2020, section 2.1; bucket formula in
 * docs/kernels/attention.md); its data is NULL when there is none.
 * The dropout element of (b, h, i, j) is row b, token h * Sq + i, column j of a tensor [B, H * Sq, Sk].
 * Heads [f, f + H) of more are a slice of it: row_tokens is Sq times all heads, and first is f * Sq * Sk.
 */
typedef struct sago_attention_args {
    float scale;
    sago_tensor lo, hi;     /* i32[B, Sq] */
    sago_tensor bias;       /* f32[n_buckets, H], or data == NULL */
    bool bias_bidirectional;
    int bias_max_distance;
    int64_t query_offset;   /* position of query 0 among the keys: > 0 while decoding */
    sago_tensor position;   /* i32[1], added to query_offset when the operation runs; data NULL: 0. Sq 1, forward alone */
    sago_dropout dropout;
} sago_attention_args;

/** What cross_entropy_forward leaves of each token's logits; slices of a vocabulary combine by these. */
enum { SAGO_CE_MAX, SAGO_CE_SUM_EXP, SAGO_CE_TARGET, SAGO_CE_SUM, SAGO_CE_STATS };

typedef struct sago_cross_entropy_args {
    int64_t first_id;      /* vocabulary id of column 0 of this slice */
    int64_t vocabulary;    /* ids in all slices */
    float z_loss;          /* c of c * lse^2 */
    float label_smoothing; /* share of the target's mass spread evenly over the vocabulary */
    float scale;           /* multiplies the gradient: 1 / target tokens of the global step */
} sago_cross_entropy_args;

/** What a step adds up over its tokens; lives on the device. */
typedef struct sago_loss_sums {
    double nll, z;    /* weight * (lse - target); weight * z_loss * lse^2 */
    double objective; /* what the gradient is taken of, before scale: NLL with label smoothing, and z */
    double correct;   /* targets whose logit was the largest */
    double tokens;    /* targets with weight */
} sago_loss_sums;

/** What becomes of a step, decided on the device so that the host need not wait for its norm. */
typedef struct sago_step_control {
    double gradient_squares; /* squared L2 norm of the summed gradient */
    double gradient_scale;   /* the global clip */
    int32_t apply;           /* 0: something was not finite, and the step leaves no trace */
    int32_t pad;
} sago_step_control;

/**
 * One parameter as Adafactor (Shazeer and Stern 2018, as in t5x) sees it. value and gradient are the local piece, a
 * matrix [rows, columns] or a vector [n]; factored ones hold row[rows] and column[columns], others moment[like value].
 * The step is cut where partial sums of a sharded parameter must be added over ranks. All pointers are device memory.
 *
 * A bf16 value comes with a remainder, and the two make up the fp32 parameter exactly:
 *     bits(parameter) = (bits(value) << 16) + remainder;  value = (bits + 0x8000) >> 16, that is rounded half up
 * A NaN is split as 0x7fc00000, whatever its bits: rounded up, 0x7fffffff would give a value of -0.
 */
typedef struct sago_adafactor_slot {
    sago_tensor value, gradient;     /* gradient: f32 */
    int16_t *remainder;              /* [like value] where value is bf16, else NULL */
    bool factored;
    float *row, *column;             /* second moments, factored: mean over columns, mean over rows */
    float *moment;                   /* second moments, whole */
    float *momentum;                 /* first moment of the scaled update, or NULL */
    int64_t global_rows, global_columns; /* of the whole parameter */
    float learning_rate;             /* schedule times the group's multiplier; 0 freezes the values */
    /* Partial sums of this piece; the caller may add them over ranks between the calls. Double, so that their order
       matters less than fp32 rounding does. */
    double *row_sum, *column_sum;    /* [rows], [columns]: sums of g^2 + 1e-30; only for factored ones */
    double *value_square;            /* [1]: sum of value^2 */
    double *kept_square;             /* [1], or NULL: the same sum, of this piece alone, as its values now stand; 0: not known.
                                        statistics takes value_square from here and reads no values, or computes it and
                                        leaves it here; apply leaves the sum over the new values, the bits that statistics
                                        would compute. Whoever else writes values makes it 0. It is not added over ranks */
    double *update_square;           /* [1]: sum of y^2 before clipping */
    double *mean_parts;              /* [2]: sum of g^2 + 1e-30, and of the row moments before this step. Only for a factored
                                        piece that has neither whole rows nor whole columns: the mean of the row moments is
                                        then (beta2 [1] / row_copies + (1 - beta2) [0] / global_columns) / global_rows.
                                        NULL: whichever moments are whole have it */
    int row_copies;                  /* pieces that hold the same rows, and whose [1] are added up too */
} sago_adafactor_slot;

typedef struct sago_adafactor_args {
    double beta2;            /* 1 - t^-decay_exponent */
    const sago_step_control *control; /* device memory; gradient_scale multiplies g where it is read, and with apply 0
                                         no call changes any state. NULL: 1, and apply */
    double clip_threshold;   /* y <- y / max(1, RMS(y) / threshold) */
    bool parameter_scale;    /* multiply by max(RMS(p), minimum_scale) */
    double minimum_scale;
    double momentum;         /* 0: none */
    double weight_decay;     /* p <- (1 - weight_decay) p, the caller multiplies by lr if asked to */
} sago_adafactor_args;

/** Choice of the next token. temperature 0: argmax (lowest id among equals). */
typedef struct sago_sample_args {
    float temperature;
    int top_k;   /* 0: all */
    float top_p; /* 1: all; the smallest set whose probability reaches top_p, after top_k */
    uint64_t key;
} sago_sample_args;

/** A point in the order of a device's work; 0 has always passed. */
typedef uint64_t sago_mark;

typedef struct sago_ops {
    /* --- memory ------------------------------------------------------------------------------------------------ */
    sago_status (*allocate)(sago_device *, void **out, size_t bytes); /* device memory: zeroed, 64-byte aligned */
    void (*release)(sago_device *, void *memory);
    /** Zeroed host memory that copies to and from the device without waiting (pinned), 64-byte aligned. */
    sago_status (*allocate_host)(sago_device *, void **out, size_t bytes);
    void (*release_host)(sago_device *, void *memory);
    /** In the order of the work handed over; `from_host` may be reused on return. */
    sago_status (*upload)(sago_device *, void *to_device, const void *from_host, size_t bytes);
    /** Of what the work handed over so far leaves; waits for it. */
    sago_status (*download)(sago_device *, void *to_host, const void *from_device, size_t bytes);
    /** The same without waiting. The host's side is memory of allocate_host, left alone until a later mark has passed. */
    sago_status (*upload_async)(sago_device *, void *to_device, const void *from_host, size_t bytes);
    sago_status (*download_async)(sago_device *, void *to_host, const void *from_device, size_t bytes);
    sago_status (*synchronize)(sago_device *); /* waits for all work; reports what failed meanwhile */
    /** A point: all work handed over so far. Marks cost next to nothing and need no release. */
    sago_status (*mark)(sago_device *, sago_mark *out);
    /** The host waits until that point has passed, and hears what failed before it. Any thread. */
    sago_status (*await)(sago_device *, sago_mark);
    /** From any thread, beside the work handed over: waits for the mark, copies, and returns when done. */
    sago_status (*fetch)(sago_device *, void *to_host, const void *from_device, size_t bytes, sago_mark after);
    /** Likewise to the device, without waiting for work: the caller sees to it that none uses that memory meanwhile. */
    sago_status (*put)(sago_device *, void *to_device, const void *from_host, size_t bytes);

    /* --- elementwise ------------------------------------------------------------------------------------------- */
    /** out = value */
    sago_status (*fill)(sago_device *, sago_tensor out, float value);
    /** out = in, cast between f32 and bf16 (round to nearest even) where the dtypes differ */
    sago_status (*copy)(sago_device *, sago_tensor out, sago_tensor in);
    /** out += factor * in */
    sago_status (*add_scaled)(sago_device *, sago_tensor out, sago_tensor in, float factor);
    /** out *= factor */
    sago_status (*scale)(sago_device *, sago_tensor out, float factor);
    /** *out (device memory) = sum of in^2 over all n tensors, in double; not finite when an element is not. */
    sago_status (*sum_squares)(sago_device *, double *out, const sago_tensor in[], int n);
    /** out = dropout(in), [B, S, D]; out may be in. Its own backward: d_in = dropout(d_out). */
    sago_status (*dropout)(sago_device *, sago_tensor out, sago_tensor in, const sago_dropout *);
    /** out = residual + dropout(in), [B, S, D]; out may be residual. Backward: d_in = dropout(d_out). */
    sago_status (*residual)(sago_device *, sago_tensor out, sago_tensor residual, sago_tensor in,
                            const sago_dropout *);

    /* --- matrix product ---------------------------------------------------------------------------------------- */
    /** c[m, n] = alpha * op(a)[m, k] op(b)[k, n] + beta * c. Leading dims are flattened: [B, S, D] is [B*S, D]. */
    sago_status (*matmul)(sago_device *, sago_tensor c, sago_tensor a, sago_tensor b, const sago_matmul_args *);

    /* --- RMSNorm (Zhang and Sennrich 2019): y = x * rstd * scale, rstd = 1 / sqrt(mean(x^2) + epsilon) ------------ */
    /** y = , rstd[N] = ; x[N, D], scale[D] */
    sago_status (*rmsnorm_forward)(sago_device *, sago_tensor y, sago_tensor rstd, sago_tensor x, sago_tensor scale,
                                   float epsilon);
    /** d_x += , d_scale += ; d_y[N, D], x[N, D], scale[D], rstd[N] of the forward pass */
    sago_status (*rmsnorm_backward)(sago_device *, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                                    sago_tensor x, sago_tensor scale, sago_tensor rstd);

    /* --- LayerNorm (Ba et al. 2016) without an offset, as PaLM has it: y = (x - mean) * rstd * scale,
           rstd = 1 / sqrt(mean((x - mean)^2) + epsilon) --------------------------------------------------------- */
    /** y = , mean[N] = , rstd[N] = ; x[N, D], scale[D] */
    sago_status (*layernorm_forward)(sago_device *, sago_tensor y, sago_tensor mean, sago_tensor rstd, sago_tensor x,
                                     sago_tensor scale, float epsilon);
    /** d_x += , d_scale += ; d_y[N, D], x[N, D], scale[D], mean[N] and rstd[N] of the forward pass */
    sago_status (*layernorm_backward)(sago_device *, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                                      sago_tensor x, sago_tensor scale, sago_tensor mean, sago_tensor rstd);

    /* --- MLP activations --------------------------------------------------------------------------------------- */
    /** y = dropout(relu(x)), [B, S, F] */
    sago_status (*relu_forward)(sago_device *, sago_tensor y, sago_tensor x, const sago_dropout *);
    /** d_x = ; may be d_y */
    sago_status (*relu_backward)(sago_device *, sago_tensor d_x, sago_tensor d_y, sago_tensor x,
                                 const sago_dropout *);
    /** y = dropout(gelu(gate) * linear), gelu in its tanh form (Shazeer 2020, GEGLU) */
    sago_status (*geglu_forward)(sago_device *, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                 const sago_dropout *);
    /** d_gate = , d_linear = ; either may be d_y */
    sago_status (*geglu_backward)(sago_device *, sago_tensor d_gate, sago_tensor d_linear, sago_tensor d_y,
                                  sago_tensor gate, sago_tensor linear, const sago_dropout *);
    /** y = dropout(silu(gate) * linear), silu(x) = x / (1 + e^-x) (Shazeer 2020, SwiGLU) */
    sago_status (*swiglu_forward)(sago_device *, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                  const sago_dropout *);
    /** d_gate = , d_linear = ; either may be d_y */
    sago_status (*swiglu_backward)(sago_device *, sago_tensor d_gate, sago_tensor d_linear, sago_tensor d_y,
                                   sago_tensor gate, sago_tensor linear, const sago_dropout *);

    /* --- embedding --------------------------------------------------------------------------------------------- */
    /** y[N, D] = table[ids] * factor; id < 0 gives zeros. ids: i32[N] */
    sago_status (*embedding_forward)(sago_device *, sago_tensor y, sago_tensor table, sago_tensor ids, float factor);
    /** d_table[ids] += d_y * factor, rows of equal id added in the order of their tokens */
    sago_status (*embedding_backward)(sago_device *, sago_tensor d_table, sago_tensor d_y, sago_tensor ids,
                                      float factor);

    /* --- rotary position embedding (Su et al. 2021) ------------------------------------------------------------- */
    /**
     * out = x[B, S, H, E] with each pair i of a head, (a, b), turned by the angle position * theta^(-2 i / E):
     * (a cos - b sin, a sin + b cos), inverse by minus that angle. positions: i32[B, S]; below 0 (padding) the token
     * stays as it is. out may be x. E even, at most 512. Angles are reduced exactly, and a position of a million is
     * as good as the first (rope.h).
     */
    sago_status (*rope)(sago_device *, sago_tensor out, sago_tensor x, sago_tensor positions,
                        const sago_rope_args *);

    /* --- attention --------------------------------------------------------------------------------------------- */
    /**
     * Ranges of allowed keys: lo, hi = i32[B, Sq] from segment ids (0 is padding; ids of a row do not decrease but
     * for trailing padding). prefix: i32[B, Sk], nonzero where a key belongs to its segment's inputs; only for
     * SAGO_ATTEND_PREFIX. Padding queries get an empty range.
     */
    sago_status (*attention_ranges)(sago_device *, sago_tensor lo, sago_tensor hi, sago_tensor query_segments,
                                    sago_tensor key_segments, sago_tensor prefix, sago_attention_mode);
    /** o[B, Sq, H, E] = , lse[B, H, Sq] = ; q[B, Sq, H, E], k and v[B, Sk, G, E] */
    sago_status (*attention_forward)(sago_device *, sago_tensor o, sago_tensor lse, sago_tensor q, sago_tensor k,
                                     sago_tensor v, const sago_attention_args *);
    /** d_q = , d_k = , d_v = , d_bias += (when there is a bias); d_o, o, lse, q, k, v of the forward pass */
    sago_status (*attention_backward)(sago_device *, sago_tensor d_q, sago_tensor d_k, sago_tensor d_v,
                                      sago_tensor d_bias, sago_tensor d_o, sago_tensor o, sago_tensor lse,
                                      sago_tensor q, sago_tensor k, sago_tensor v, const sago_attention_args *);
    /** cache[B, S, G, E]: row b, position[b] = in[b, 0]; in: [B, 1, G, E]. position: i32[B] */
    sago_status (*cache_append)(sago_device *, sago_tensor cache, sago_tensor in, sago_tensor position);

    /* --- loss -------------------------------------------------------------------------------------------------- */
    /** stats[n, SAGO_CE_STATS] = of logits[n, V]; targets i32[n]: TARGET is 0 where the id is not in this slice */
    sago_status (*cross_entropy_forward)(sago_device *, sago_tensor stats, sago_tensor logits, sago_tensor targets,
                                         const sago_cross_entropy_args *);
    /**
     * stats[n, SAGO_CE_STATS] = those of a vocabulary cut into M slices, from parts[M, n, SAGO_CE_STATS] of the slices:
     *     max = max of max_m;  sum_exp = sum of sum_exp_m e^(max_m - max);  target = sum of target_m;  sum = sum of sum_m
     * in double, in the order of m, rounded once: every rank that has the parts gets the same bits.
     */
    sago_status (*cross_entropy_combine)(sago_device *, sago_tensor stats, sago_tensor parts);
    /**
     * lse[n] = max + log(sum_exp) of stats[n, 4], and *sums (device memory) += over the tokens of weights[n] != 0, in their
     * order and in double, with mean = SUM / vocabulary, s the label smoothing and z = z_loss * lse^2:
     *     nll += w (lse - target);  z += w z;  objective += w (lse - (1 - s) target - s mean + z)
     *     correct += target >= max;  tokens += 1
     * The sums take lse in double; lse[n] is that, rounded. stats are those of the whole vocabulary.
     */
    sago_status (*loss_finish)(sago_device *, sago_tensor lse, sago_loss_sums *sums, sago_tensor stats,
                               sago_tensor weights, const sago_cross_entropy_args *);
    /**
     * d_logits[n, V] = weight * scale * (softmax * (1 + 2 c lse) - target distribution); 0 where the weight is 0.
     * logits[n, V] f32, lse[n], weights[n], targets i32[n]. d_logits is f32 or bf16, and may be logits if f32.
     * Source: PaLM (Chowdhery et al. 2022) section 5 for the z-loss.
     */
    sago_status (*cross_entropy_backward)(sago_device *, sago_tensor d_logits, sago_tensor logits, sago_tensor lse,
                                          sago_tensor targets, sago_tensor weights, const sago_cross_entropy_args *);

    /* --- the step's decision: pointers are device memory ----------------------------------------------------------- */
    /**
     * The gradient's element 0 becomes NaN when sums->nll or sums->z is not finite, else stays: so the sum of gradients
     * over ranks tells every rank.
     */
    sago_status (*carry_nonfinite)(sago_device *, sago_tensor gradient, const sago_loss_sums *sums);
    /**
     * control: gradient_squares = *squares; apply = *squares, sums->nll and sums->z are finite; norm = sqrt(*squares);
     * gradient_scale = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1
     */
    sago_status (*step_control)(sago_device *, sago_step_control *control, const double *squares,
                                const sago_loss_sums *sums, double clip_norm);

    /* --- Adafactor: statistics, [ranks add row_sum, column_sum, value_square], moments, [update_square], apply ---- */
    /** row_sum = , column_sum = , value_square = (from kept_square where that is known) */
    sago_status (*adafactor_statistics)(sago_device *, sago_adafactor_slot slots[], int n,
                                        const sago_adafactor_args *);
    /** updates the second moments; update_square = sum of y^2 */
    sago_status (*adafactor_moments)(sago_device *, sago_adafactor_slot slots[], int n, const sago_adafactor_args *);
    /** value = (1 - wd) value - lr * scale(value) * y / max(1, RMS(y) / threshold), or its momentum's; kept_square = */
    sago_status (*adafactor_apply)(sago_device *, sago_adafactor_slot slots[], int n, const sago_adafactor_args *);

    /* --- generation -------------------------------------------------------------------------------------------- */
    /**
     * ids i32[n] = , logprobs f32[n] = log-probability of the chosen id under softmax(logits), before temperature and
     * cuts. Row r draws from (key, draws[r]); draws: host pointer to n counters.
     */
    sago_status (*sample)(sago_device *, sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                          const uint64_t draws[], const sago_sample_args *);
} sago_ops;

/**
 * Graphs: operations recorded once and handed over again as one, where device->graphs is not NULL. A launch costs the
 * host some microseconds; steps of many small operations, such as generation's, are bound by that.
 *
 * From begin to end, operations are recorded and not run. What they take by value (shapes, factors, keys) is the same in
 * every launch; what they read from the device's memory or from memory of allocate_host is read anew in each. Whatever
 * waits may not be recorded, nor marks, nor copies of other host memory. Every operation has run once before with the
 * same shapes: what it allocates or chooses is then there.
 */
typedef struct sago_graph sago_graph;
typedef struct sago_graph_ops {
    sago_status (*begin)(sago_device *);
    /** To be called also after an operation in between has failed; *out is NULL then, and where recording failed. */
    sago_status (*end)(sago_device *, sago_graph **out);
    sago_status (*launch)(sago_device *, const sago_graph *);
    void (*close)(sago_device *, sago_graph *); /* NULL is fine; waits for the device */
} sago_graph_ops;

#endif
