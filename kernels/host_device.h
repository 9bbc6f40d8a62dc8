// SPDX-License-Identifier: Apache-2.0
/** For functions that the host's loops and the GPU's kernels share: one formula for both. */
#ifndef SAGO_HOST_DEVICE_H
#define SAGO_HOST_DEVICE_H

#ifdef __CUDACC__
#define SAGO_HOST_DEVICE __host__ __device__
#else
#define SAGO_HOST_DEVICE
#endif

#endif
