// SPDX-License-Identifier: Apache-2.0
#include "attention.h"
#include "cpu_ops.h"

#include <string.h>

sago_status SAGO_CPU(cache_append)(sago_device *device, sago_tensor cache, sago_tensor in,
                                   sago_tensor position) {
    SAGO_TRY(sago_cache_append_check(device, cache, in, position));
    int64_t capacity = cache.shape[1], width = cache.shape[2] * cache.shape[3];
    const int32_t *positions = position.data;
    for (int64_t b = 0; b < cache.shape[0]; b++)
        if (positions[b] < 0 || positions[b] >= capacity)
            return sago_fail(SAGO_E_SHAPE,
                             "cache_append: position %d of row %lld is outside the cache's %lld tokens",
                             positions[b], (long long)b, (long long)capacity);
    for (int64_t b = 0; b < cache.shape[0]; b++)
        memcpy((float *)cache.data + (b * capacity + positions[b]) * width,
               (const float *)in.data + b * width, (size_t)width * sizeof(float));
    return SAGO_OK;
}
