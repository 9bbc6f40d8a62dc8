// SPDX-License-Identifier: Apache-2.0
/**
 * NCCL behind the calls of cuda_library.h. Its library is opened when several GPUs are used and not before,
 * so that a machine with one GPU needs none.
 */
#ifndef SAGO_CUDA_COLLECTIVE_H
#define SAGO_CUDA_COLLECTIVE_H

#include "cuda_library.h"

void sago_cuda_nccl_version(char text[32]);
sago_status sago_cuda_gpu_address(sago_device *device, char address[SAGO_GPU_ADDRESS_BYTES]);
sago_status sago_cuda_nccl_id(char id[SAGO_NCCL_ID_BYTES]);
sago_status sago_cuda_nccl_open(sago_device *device, const char id[SAGO_NCCL_ID_BYTES], int rank, int size,
                                double timeout_seconds, sago_nccl **out);
void sago_cuda_nccl_close(sago_nccl *nccl);
sago_status sago_cuda_nccl_sum(sago_nccl *nccl, void *buffer, int64_t count, bool doubles, uint64_t *ticket);
sago_status sago_cuda_nccl_reduce_scatter(sago_nccl *nccl, const float *in, float *out,
                                          const int64_t counts[], uint64_t *ticket);
sago_status sago_cuda_nccl_all_gather(sago_nccl *nccl, const void *in, void *out, const int64_t bytes[],
                                      uint64_t *ticket);
sago_status sago_cuda_nccl_join(sago_nccl *nccl, uint64_t ticket);
sago_status sago_cuda_nccl_poll(sago_nccl *nccl);
void sago_cuda_nccl_abort(sago_nccl *nccl);
double sago_cuda_nccl_exposed_seconds(sago_nccl *nccl);

#endif
