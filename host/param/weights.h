// SPDX-License-Identifier: Apache-2.0
/**
 * Weights: the values of all parameters on a device, in one flat buffer that the registry lays out.
 *
 * f32, or bf16 with or without a remainder. With it the two hold every parameter as an fp32 number exactly
 * (sago_adafactor_slot in ops.h): products read bf16, the optimizer and checkpoints see fp32. Without it the
 * values are rounded, which is enough to read a model. The host reaches them by read and write, in fp32, a
 * bounded piece at a time, or where its memory is the device's by reach. Both ways to write forget what is
 * known of the values: squares may be trusted as long as nobody takes a third.
 */
#ifndef SAGO_WEIGHTS_H
#define SAGO_WEIGHTS_H

#include "device.h"
#include "registry.h"

typedef struct sago_weights {
    sago_device *device;
    const sago_registry *registry;
    sago_dtype dtype;   /* of values: f32 or bf16 */
    void *values;       /* [registry->n_elements], on the device */
    int16_t *remainder; /* likewise; NULL for f32 and for rounded weights */
    /* [registry->n_params], on the device, shared by all copies of this struct: sums of the squares of each
     * parameter's values, which the optimizer leaves here (kept_square in ops.h); 0: not known. NULL unless
     * exact. */
    double *squares;
} sago_weights;

/** Takes zeroed memory. exact: as training needs them; bf16 keeps a remainder. Errors: SAGO_E_MEMORY. */
sago_status sago_weights_open(const sago_registry *registry, sago_device *device, sago_dtype dtype,
                              bool exact, sago_weights *out) SAGO_MUST_CHECK;
void sago_weights_close(sago_weights *weights);
size_t sago_weights_bytes(const sago_weights *weights);

/** Fills them from the seed by global index: the same weights on every mesh and for every dtype, but for
 * rounding. */
sago_status sago_weights_initialise(sago_weights *weights, uint64_t seed) SAGO_MUST_CHECK;

/** Elements [first, first + count) of the flat buffer to and from fp32 on the host. */
sago_status sago_weights_read(const sago_weights *weights, float *to_host, int64_t first,
                              int64_t count) SAGO_MUST_CHECK;
sago_status sago_weights_write(sago_weights *weights, int64_t first, const float *from_host,
                               int64_t count) SAGO_MUST_CHECK;
/** A parameter's f32 values for the host to read and to write until the next step; only where the device's
 * memory is the host's. */
float *sago_weights_reach(sago_weights *weights, const sago_param *param);

/** fp32 bits as bf16, rounded to nearest (halves away from zero), and what is then missing; and back,
 * exactly. Every NaN becomes 0x7fc00000: rounded up, some of them would have a zero for a value, or an
 * infinity. */
static inline void sago_weight_split(uint32_t bits, uint16_t *value, int16_t *remainder) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
    uint32_t high = (bits + 0x8000u) >> 16;
    *value = (uint16_t)high;
    *remainder = (int16_t)(uint16_t)(bits - (high << 16));
}

static inline uint32_t sago_weight_join(uint16_t value, int16_t remainder) {
    return ((uint32_t)value << 16) + (uint32_t)(int32_t)remainder;
}

#endif
