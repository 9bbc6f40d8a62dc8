// SPDX-License-Identifier: Apache-2.0
/**
 * The names of ops.h's table, for what must go through all of them: the check that a device lacks none, and the tables
 * of devices. A name that is missing here stops the build (device.c).
 */
#ifndef SAGO_OPS_LIST_H
#define SAGO_OPS_LIST_H

#define SAGO_EACH_OP(X)                                                                                      \
    X(allocate)                                                                                              \
    X(release)                                                                                               \
    X(allocate_host)                                                                                         \
    X(release_host)                                                                                          \
    X(upload)                                                                                                \
    X(download)                                                                                              \
    X(upload_async)                                                                                          \
    X(download_async)                                                                                        \
    X(synchronize)                                                                                           \
    X(mark)                                                                                                  \
    X(await)                                                                                                 \
    X(fetch)                                                                                                 \
    X(put)                                                                                                   \
    X(fill)                                                                                                  \
    X(copy)                                                                                                  \
    X(add_scaled)                                                                                            \
    X(scale)                                                                                                 \
    X(sum_squares)                                                                                           \
    X(dropout)                                                                                               \
    X(residual)                                                                                              \
    X(matmul)                                                                                                \
    X(rmsnorm_forward)                                                                                       \
    X(rmsnorm_backward)                                                                                      \
    X(layernorm_forward)                                                                                     \
    X(layernorm_backward)                                                                                    \
    X(relu_forward)                                                                                          \
    X(relu_backward)                                                                                         \
    X(geglu_forward)                                                                                         \
    X(geglu_backward)                                                                                        \
    X(swiglu_forward)                                                                                        \
    X(swiglu_backward)                                                                                       \
    X(embedding_forward)                                                                                     \
    X(embedding_backward)                                                                                    \
    X(rope)                                                                                                  \
    X(attention_ranges)                                                                                      \
    X(attention_forward)                                                                                     \
    X(attention_backward)                                                                                    \
    X(cache_append)                                                                                          \
    X(cross_entropy_forward)                                                                                 \
    X(cross_entropy_combine)                                                                                 \
    X(loss_finish)                                                                                           \
    X(cross_entropy_backward)                                                                                \
    X(step_control)                                                                                          \
    X(carry_nonfinite)                                                                                       \
    X(adafactor_statistics)                                                                                  \
    X(adafactor_moments)                                                                                     \
    X(adafactor_apply)                                                                                       \
    X(sample)

#endif
