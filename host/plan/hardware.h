// SPDX-License-Identifier: Apache-2.0
/**
 * Hardware: what a plan knows of the machines, read from configs/hardware/NAME.yaml (built into the program)
 * or from a file of the user's. Keys, units and where the figures come from: docs/plan.md.
 */
#ifndef SAGO_HARDWARE_H
#define SAGO_HARDWARE_H

#include "device.h"
#include "status.h"
#include "str.h"

#include <stdbool.h>
#include <stdint.h>

/** Where a figure comes from; the first that is there counts. */
typedef enum sago_basis { SAGO_MEASURED, SAGO_ASSUMED, SAGO_DATASHEET, SAGO_BASES } sago_basis;
const char *sago_basis_name(sago_basis basis);

typedef struct sago_figure {
    double value;     /* that plans reckon with */
    double datasheet; /* 0: the file has none */
    sago_basis basis; /* of value */
} sago_figure;

typedef struct sago_hardware {
    char name[96];
    double memory_gib, reserved_gib; /* of a device; what of it the program's own buffers never get */
    int64_t devices_per_node;
    bool stores_bf16;    /* else bf16 products round tensors of fp32 */
    bool memory_is_host; /* the processor: copies on the host count too */
    sago_figure bf16_tflops, fp32_tflops;
    sago_figure copy_gb_per_second; /* read and written */
    sago_figure product_share;      /* of that rate: the products of a step */
    sago_figure product_half_size;  /* smallest size of a product that reaches half of it */
    sago_figure attention_forward_share, attention_backward_share; /* of that rate */
    sago_figure operation_microseconds;
    sago_figure node_gb_per_second, node_microseconds;       /* a device, one direction */
    sago_figure network_gb_per_second, network_microseconds; /* a node, one direction */
    sago_figure link_compute_share; /* of a transfer's time: what it takes away from computing beside it */
} sago_hardware;

/** name: one of the built-in ones, or a file that ends with .yaml. Errors: SAGO_E_USAGE lists the names,
 * SAGO_E_CONFIG has file and line. */
sago_status sago_hardware_load(const char *name, sago_hardware *out) SAGO_MUST_CHECK;

/** Replaces the rates of products and copies by what this device is measured to do; takes seconds. */
sago_status sago_hardware_measure(sago_hardware *hardware, sago_device *device) SAGO_MUST_CHECK;

/** The figures as they stand, i from 0: key, and NULL past the last. */
const char *sago_hardware_figure(const sago_hardware *hardware, int i, const sago_figure **out);

/** Built at build time from configs/hardware; ends with a name of NULL. */
typedef struct sago_embedded_hardware {
    const char *name; /* "h100-80.yaml" */
    const unsigned char *bytes;
    size_t length;
} sago_embedded_hardware;
extern const sago_embedded_hardware sago_embedded_hardware_files[];

#endif
