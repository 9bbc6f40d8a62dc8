// SPDX-License-Identifier: Apache-2.0
#include "timed_device.h"

#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 64 };

static struct {
    sago_device *real, wrapper;
    sago_ops ops;
    int64_t vocabulary;
    int n_parts;
    struct {
        const char *name;
        int64_t ns, calls;
    } parts[MAX_PARTS];
} timed;

static void add(const char *name, int64_t ns) {
    int i = 0;
    while (i < timed.n_parts && strcmp(timed.parts[i].name, name) != 0) i++;
    if (i == timed.n_parts && timed.n_parts++ == MAX_PARTS) abort();
    timed.parts[i].name = name;
    timed.parts[i].ns += ns;
    timed.parts[i].calls++;
}

#define TIMED(OPERATION, NAME, PARAMETERS, ...)                                                              \
    static sago_status timed_##OPERATION PARAMETERS {                                                        \
        (void)device;                                                                                        \
        int64_t since = bench_now_ns();                                                                      \
        sago_status status = timed.real->ops->OPERATION(timed.real, __VA_ARGS__);                            \
        add(NAME, bench_now_ns() - since);                                                                   \
        return status;                                                                                       \
    }

/* Which product of a linear layer this is. */
static const char *product_name(sago_tensor c, sago_tensor b, const sago_matmul_args *args) {
    bool logits = b.shape[0] == timed.vocabulary || c.shape[0] == timed.vocabulary;
    if (args->transpose_a) return logits ? "product: logits' weights" : "product: weight gradients";
    if (args->transpose_b) return logits ? "product: logits" : "product: forward";
    return logits ? "product: logits' inputs" : "product: input gradients";
}

typedef sago_device device_t;
typedef sago_tensor tensor_t;

TIMED(allocate, "allocate", (device_t * device, void **out, size_t bytes), out, bytes)
TIMED(upload, "copies", (device_t * device, void *to, const void *from, size_t bytes), to, from, bytes)
TIMED(download, "copies", (device_t * device, void *to, const void *from, size_t bytes), to, from, bytes)
TIMED(fill, "fill", (device_t * device, tensor_t out, float value), out, value)
TIMED(copy, "copies", (device_t * device, tensor_t out, tensor_t in), out, in)
TIMED(add_scaled, "add", (device_t * device, tensor_t out, tensor_t in, float f), out, in, f)
TIMED(scale, "scale", (device_t * device, tensor_t out, float f), out, f)
TIMED(sum_squares, "gradient norm", (device_t * device, double *out, const tensor_t in[], int n), out, in, n)
TIMED(dropout, "dropout", (device_t * device, tensor_t out, tensor_t in, const sago_dropout *d), out, in, d)
TIMED(residual, "residual", (device_t * device, tensor_t out, tensor_t x, tensor_t in, const sago_dropout *d),
      out, x, in, d)
TIMED(matmul, product_name(c, b, args),
      (device_t * device, tensor_t c, tensor_t a, tensor_t b, const sago_matmul_args *args), c, a, b, args)
TIMED(rmsnorm_forward, "norm forward",
      (device_t * device, tensor_t y, tensor_t rstd, tensor_t x, tensor_t scale, float epsilon), y, rstd, x,
      scale, epsilon)
TIMED(rmsnorm_backward, "norm backward",
      (device_t * device, tensor_t d_x, tensor_t d_scale, tensor_t d_y, tensor_t x, tensor_t scale,
       tensor_t rstd),
      d_x, d_scale, d_y, x, scale, rstd)
TIMED(layernorm_forward, "norm forward",
      (device_t * device, tensor_t y, tensor_t mean, tensor_t rstd, tensor_t x, tensor_t scale,
       float epsilon),
      y, mean, rstd, x, scale, epsilon)
TIMED(layernorm_backward, "norm backward",
      (device_t * device, tensor_t d_x, tensor_t d_scale, tensor_t d_y, tensor_t x, tensor_t scale,
       tensor_t mean, tensor_t rstd),
      d_x, d_scale, d_y, x, scale, mean, rstd)
TIMED(relu_forward, "activation forward", (device_t * device, tensor_t y, tensor_t x, const sago_dropout *d),
      y, x, d)
TIMED(relu_backward, "activation backward",
      (device_t * device, tensor_t d_x, tensor_t d_y, tensor_t x, const sago_dropout *d), d_x, d_y, x, d)
TIMED(geglu_forward, "activation forward",
      (device_t * device, tensor_t y, tensor_t gate, tensor_t linear, const sago_dropout *d), y, gate, linear,
      d)
TIMED(swiglu_forward, "activation forward",
      (device_t * device, tensor_t y, tensor_t gate, tensor_t linear, const sago_dropout *d), y, gate, linear,
      d)
TIMED(swiglu_backward, "activation backward",
      (device_t * device, tensor_t d_gate, tensor_t d_linear, tensor_t d_y, tensor_t gate, tensor_t linear,
       const sago_dropout *d),
      d_gate, d_linear, d_y, gate, linear, d)
TIMED(rope, "rotations",
      (device_t * device, tensor_t out, tensor_t x, tensor_t positions, const sago_rope_args *args), out, x,
      positions, args)
TIMED(geglu_backward, "activation backward",
      (device_t * device, tensor_t d_gate, tensor_t d_linear, tensor_t d_y, tensor_t gate, tensor_t linear,
       const sago_dropout *d),
      d_gate, d_linear, d_y, gate, linear, d)
TIMED(embedding_forward, "embedding", (device_t * device, tensor_t y, tensor_t table, tensor_t ids, float f),
      y, table, ids, f)
TIMED(embedding_backward, "embedding",
      (device_t * device, tensor_t d_table, tensor_t d_y, tensor_t ids, float f), d_table, d_y, ids, f)
TIMED(attention_ranges, "attention ranges",
      (device_t * device, tensor_t lo, tensor_t hi, tensor_t q, tensor_t k, tensor_t prefix,
       sago_attention_mode mode),
      lo, hi, q, k, prefix, mode)
TIMED(attention_forward, "attention forward",
      (device_t * device, tensor_t o, tensor_t lse, tensor_t q, tensor_t k, tensor_t v,
       const sago_attention_args *args),
      o, lse, q, k, v, args)
TIMED(attention_backward, "attention backward",
      (device_t * device, tensor_t d_q, tensor_t d_k, tensor_t d_v, tensor_t d_bias, tensor_t d_o, tensor_t o,
       tensor_t lse, tensor_t q, tensor_t k, tensor_t v, const sago_attention_args *args),
      d_q, d_k, d_v, d_bias, d_o, o, lse, q, k, v, args)
TIMED(cache_append, "cache", (device_t * device, tensor_t cache, tensor_t in, tensor_t position), cache, in,
      position)
TIMED(cross_entropy_forward, "cross-entropy",
      (device_t * device, tensor_t stats, tensor_t logits, tensor_t targets,
       const sago_cross_entropy_args *args),
      stats, logits, targets, args)
TIMED(cross_entropy_combine, "cross-entropy", (device_t * device, tensor_t stats, tensor_t parts), stats,
      parts)
TIMED(cross_entropy_backward, "cross-entropy",
      (device_t * device, tensor_t d_logits, tensor_t logits, tensor_t lse, tensor_t targets,
       tensor_t weights, const sago_cross_entropy_args *args),
      d_logits, logits, lse, targets, weights, args)
TIMED(loss_finish, "cross-entropy",
      (device_t * device, tensor_t lse, sago_loss_sums *sums, tensor_t stats, tensor_t weights,
       const sago_cross_entropy_args *args),
      lse, sums, stats, weights, args)
TIMED(step_control, "gradient norm",
      (device_t * device, sago_step_control *control, const double *squares, const sago_loss_sums *sums,
       double clip_norm),
      control, squares, sums, clip_norm)
TIMED(adafactor_statistics, "adafactor",
      (device_t * device, sago_adafactor_slot slots[], int n, const sago_adafactor_args *args), slots, n,
      args)
TIMED(adafactor_moments, "adafactor",
      (device_t * device, sago_adafactor_slot slots[], int n, const sago_adafactor_args *args), slots, n,
      args)
TIMED(adafactor_apply, "adafactor",
      (device_t * device, sago_adafactor_slot slots[], int n, const sago_adafactor_args *args), slots, n,
      args)
TIMED(sample, "sample",
      (device_t * device, tensor_t ids, tensor_t logprobs, tensor_t logits, const uint64_t draws[],
       const sago_sample_args *args),
      ids, logprobs, logits, draws, args)

static sago_status timed_synchronize(sago_device *device) {
    (void)device;
    return timed.real->ops->synchronize(timed.real);
}

static void timed_release(sago_device *device, void *memory) {
    (void)device;
    timed.real->ops->release(timed.real, memory);
}

sago_device *timed_device_open(sago_device *device, int64_t vocabulary) {
    timed.real = device;
    timed.vocabulary = vocabulary;
    timed.ops = *device->ops; /* the rest moves memory or marks points: it is not timed */
    timed.ops.allocate = timed_allocate;
    timed.ops.release = timed_release;
    timed.ops.upload = timed_upload;
    timed.ops.download = timed_download;
    timed.ops.synchronize = timed_synchronize;
    timed.ops.fill = timed_fill;
    timed.ops.copy = timed_copy;
    timed.ops.add_scaled = timed_add_scaled;
    timed.ops.scale = timed_scale;
    timed.ops.sum_squares = timed_sum_squares;
    timed.ops.dropout = timed_dropout;
    timed.ops.residual = timed_residual;
    timed.ops.matmul = timed_matmul;
    timed.ops.rmsnorm_forward = timed_rmsnorm_forward;
    timed.ops.rmsnorm_backward = timed_rmsnorm_backward;
    timed.ops.layernorm_forward = timed_layernorm_forward;
    timed.ops.layernorm_backward = timed_layernorm_backward;
    timed.ops.relu_forward = timed_relu_forward;
    timed.ops.relu_backward = timed_relu_backward;
    timed.ops.geglu_forward = timed_geglu_forward;
    timed.ops.geglu_backward = timed_geglu_backward;
    timed.ops.swiglu_forward = timed_swiglu_forward;
    timed.ops.swiglu_backward = timed_swiglu_backward;
    timed.ops.rope = timed_rope;
    timed.ops.embedding_forward = timed_embedding_forward;
    timed.ops.embedding_backward = timed_embedding_backward;
    timed.ops.attention_ranges = timed_attention_ranges;
    timed.ops.attention_forward = timed_attention_forward;
    timed.ops.attention_backward = timed_attention_backward;
    timed.ops.cache_append = timed_cache_append;
    timed.ops.cross_entropy_forward = timed_cross_entropy_forward;
    timed.ops.cross_entropy_combine = timed_cross_entropy_combine;
    timed.ops.loss_finish = timed_loss_finish;
    timed.ops.cross_entropy_backward = timed_cross_entropy_backward;
    timed.ops.step_control = timed_step_control;
    timed.ops.adafactor_statistics = timed_adafactor_statistics;
    timed.ops.adafactor_moments = timed_adafactor_moments;
    timed.ops.adafactor_apply = timed_adafactor_apply;
    timed.ops.sample = timed_sample;
    timed.wrapper = *device;
    timed.wrapper.ops = &timed.ops;
    return &timed.wrapper;
}

void timed_device_reset(void) {
    timed.n_parts = 0, memset(timed.parts, 0, sizeof timed.parts);
}

static int longest_first(const void *a, const void *b) {
    int64_t x = timed.parts[*(const int *)a].ns, y = timed.parts[*(const int *)b].ns;
    return (x < y) - (x > y);
}

json_t *timed_device_parts(double steps, double *total) {
    int order[MAX_PARTS];
    *total = 0;
    for (int i = 0; i < timed.n_parts; i++) order[i] = i;
    qsort(order, (size_t)timed.n_parts, sizeof *order, longest_first);
    json_t *parts = json_object();
    for (int i = 0; i < timed.n_parts; i++) {
        double seconds = (double)timed.parts[order[i]].ns * 1e-9 / steps;
        *total += seconds;
        json_object_set_new(parts, timed.parts[order[i]].name,
                            json_pack("{s:f, s:f}", "seconds", seconds, "calls",
                                      (double)timed.parts[order[i]].calls / steps));
    }
    return parts;
}
