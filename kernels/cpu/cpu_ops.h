// SPDX-License-Identifier: Apache-2.0
/**
 * The cpu device, inside: its state, what its loops share, and the prototype of every operation as one
 * instruction set's copy has it (isa.h). Names are those of the table in ops.h.
 *
 * Threads. A loop is cut into chunks whose number and borders follow from shapes alone; a chunk's partial
 * sums go to its own place in scratch memory and are added in the order of the chunks. So the bits don't
 * depend on the number of threads. Every parallel region says num_threads(device->n_threads): the setting of
 * the calling thread is not ours.
 */
#ifndef SAGO_CPU_OPS_H
#define SAGO_CPU_OPS_H

#include "isa.h"
#include "ops.h"

typedef struct sago_cpu {
    const char *isa; /* "base", "v3", "v4" */
    void *scratch;   /* grows, 64-byte aligned; one operation's at a time */
    size_t scratch_bytes;
    struct sago_onednn *onednn;
    const struct sago_cpu_greedy *greedy;
} sago_cpu;

/** Scratch of at least bytes, 64-byte aligned, not zeroed, valid until the next operation of this device. */
sago_status sago_cpu_scratch(sago_device *device, size_t bytes, void **out) SAGO_MUST_CHECK;

/** Chunks that cover count elements with at least grain of them each, at most 256. From sizes alone. */
static inline int64_t sago_cpu_chunks(int64_t count, int64_t grain) {
    int64_t n = (count + grain - 1) / grain;
    return n > 256 ? 256 : n;
}

/** First element of chunk c of n over count elements; borders are multiples of 64 elements but for the end.
 */
static inline int64_t sago_cpu_chunk_start(int64_t count, int64_t n, int64_t c) {
    if (c >= n) return count;
    int64_t blocks = (count + 63) / 64, first = blocks * c / n * 64;
    return first < count ? first : count;
}

/* The tables of the copies, and what only exists once. */
extern const sago_ops sago_cpu_table_base;
#if defined(__x86_64__)
extern const sago_ops sago_cpu_table_v3, sago_cpu_table_v4;
#endif
/** variant: "" for the best instruction set of this processor, or base, v3, v4. */
sago_status sago_cpu_open(const char *variant, int n_threads, sago_device **out);
void sago_cpu_close(sago_device *device);
sago_status sago_cpu_allocate(sago_device *, void **out, size_t bytes);
void sago_cpu_release(sago_device *, void *memory);
sago_status sago_cpu_upload(sago_device *, void *to_device, const void *from_host, size_t bytes);
sago_status sago_cpu_download(sago_device *, void *to_host, const void *from_device, size_t bytes);
sago_status sago_cpu_synchronize(sago_device *);
sago_status sago_cpu_mark(sago_device *, sago_mark *out);
sago_status sago_cpu_await(sago_device *, sago_mark mark);
sago_status sago_cpu_fetch(sago_device *, void *to_host, const void *from_device, size_t bytes,
                           sago_mark after);

#ifdef SAGO_ISA
sago_status SAGO_CPU(fill)(sago_device *, sago_tensor out, float value);
sago_status SAGO_CPU(copy)(sago_device *, sago_tensor out, sago_tensor in);
sago_status SAGO_CPU(add_scaled)(sago_device *, sago_tensor out, sago_tensor in, float factor);
sago_status SAGO_CPU(scale)(sago_device *, sago_tensor out, float factor);
sago_status SAGO_CPU(sum_squares)(sago_device *, double *out, const sago_tensor in[], int n);
sago_status SAGO_CPU(dropout)(sago_device *, sago_tensor out, sago_tensor in, const sago_dropout *);
sago_status SAGO_CPU(residual)(sago_device *, sago_tensor out, sago_tensor residual, sago_tensor in,
                               const sago_dropout *);
sago_status SAGO_CPU(matmul)(sago_device *, sago_tensor c, sago_tensor a, sago_tensor b,
                             const sago_matmul_args *);
sago_status SAGO_CPU(rmsnorm_forward)(sago_device *, sago_tensor y, sago_tensor rstd, sago_tensor x,
                                      sago_tensor scale, float epsilon);
sago_status SAGO_CPU(rmsnorm_backward)(sago_device *, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                                       sago_tensor x, sago_tensor scale, sago_tensor rstd);
sago_status SAGO_CPU(layernorm_forward)(sago_device *, sago_tensor y, sago_tensor mean, sago_tensor rstd,
                                        sago_tensor x, sago_tensor scale, float epsilon);
sago_status SAGO_CPU(layernorm_backward)(sago_device *, sago_tensor d_x, sago_tensor d_scale, sago_tensor d_y,
                                         sago_tensor x, sago_tensor scale, sago_tensor mean,
                                         sago_tensor rstd);
sago_status SAGO_CPU(relu_forward)(sago_device *, sago_tensor y, sago_tensor x, const sago_dropout *);
sago_status SAGO_CPU(relu_backward)(sago_device *, sago_tensor d_x, sago_tensor d_y, sago_tensor x,
                                    const sago_dropout *);
sago_status SAGO_CPU(geglu_forward)(sago_device *, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                    const sago_dropout *);
sago_status SAGO_CPU(geglu_backward)(sago_device *, sago_tensor d_gate, sago_tensor d_linear, sago_tensor d_y,
                                     sago_tensor gate, sago_tensor linear, const sago_dropout *);
sago_status SAGO_CPU(swiglu_forward)(sago_device *, sago_tensor y, sago_tensor gate, sago_tensor linear,
                                     const sago_dropout *);
sago_status SAGO_CPU(swiglu_backward)(sago_device *, sago_tensor d_gate, sago_tensor d_linear,
                                      sago_tensor d_y, sago_tensor gate, sago_tensor linear,
                                      const sago_dropout *);
sago_status SAGO_CPU(embedding_forward)(sago_device *, sago_tensor y, sago_tensor table, sago_tensor ids,
                                        float factor);
sago_status SAGO_CPU(embedding_backward)(sago_device *, sago_tensor d_table, sago_tensor d_y, sago_tensor ids,
                                         float factor);
sago_status SAGO_CPU(rope)(sago_device *, sago_tensor out, sago_tensor x, sago_tensor positions,
                           const sago_rope_args *);
sago_status SAGO_CPU(attention_ranges)(sago_device *, sago_tensor lo, sago_tensor hi,
                                       sago_tensor query_segments, sago_tensor key_segments,
                                       sago_tensor prefix, sago_attention_mode);
sago_status SAGO_CPU(attention_forward)(sago_device *, sago_tensor o, sago_tensor lse, sago_tensor q,
                                        sago_tensor k, sago_tensor v, const sago_attention_args *);
sago_status SAGO_CPU(attention_backward)(sago_device *, sago_tensor d_q, sago_tensor d_k, sago_tensor d_v,
                                         sago_tensor d_bias, sago_tensor d_o, sago_tensor o, sago_tensor lse,
                                         sago_tensor q, sago_tensor k, sago_tensor v,
                                         const sago_attention_args *);
sago_status SAGO_CPU(cache_append)(sago_device *, sago_tensor cache, sago_tensor in, sago_tensor position);
sago_status SAGO_CPU(cross_entropy_forward)(sago_device *, sago_tensor stats, sago_tensor logits,
                                            sago_tensor targets, const sago_cross_entropy_args *);
sago_status SAGO_CPU(cross_entropy_combine)(sago_device *, sago_tensor stats, sago_tensor parts);
sago_status SAGO_CPU(loss_finish)(sago_device *, sago_tensor lse, sago_loss_sums *sums, sago_tensor stats,
                                  sago_tensor weights, const sago_cross_entropy_args *);
sago_status SAGO_CPU(cross_entropy_backward)(sago_device *, sago_tensor d_logits, sago_tensor logits,
                                             sago_tensor lse, sago_tensor targets, sago_tensor weights,
                                             const sago_cross_entropy_args *);
sago_status SAGO_CPU(carry_nonfinite)(sago_device *, sago_tensor gradient, const sago_loss_sums *sums);
sago_status SAGO_CPU(step_control)(sago_device *, sago_step_control *control, const double *squares,
                                   const sago_loss_sums *sums, double clip_norm);
sago_status SAGO_CPU(adafactor_statistics)(sago_device *, sago_adafactor_slot slots[], int n,
                                           const sago_adafactor_args *);
sago_status SAGO_CPU(adafactor_moments)(sago_device *, sago_adafactor_slot slots[], int n,
                                        const sago_adafactor_args *);
sago_status SAGO_CPU(adafactor_apply)(sago_device *, sago_adafactor_slot slots[], int n,
                                      const sago_adafactor_args *);
sago_status SAGO_CPU(sample)(sago_device *, sago_tensor ids, sago_tensor logprobs, sago_tensor logits,
                             const uint64_t draws[], const sago_sample_args *);
#endif

#endif
