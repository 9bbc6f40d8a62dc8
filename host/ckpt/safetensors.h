// SPDX-License-Identifier: Apache-2.0
/**
 * safetensors: the file format of Hugging Face's models. Eight bytes of header length (little-endian), a JSON
 * header of name -> {dtype, shape, data_offsets}, then the tensors' bytes one after another, without gaps.
 * Source: https://huggingface.co/docs/safetensors
 *
 * The reader trusts nothing: header length and offsets are bounded by the file, sizes follow from dtype and
 * shape without overflow, tensors neither overlap nor leave gaps, no name comes twice.
 */
#ifndef SAGO_SAFETENSORS_H
#define SAGO_SAFETENSORS_H

#include "json.h"
#include "status.h"

#include <stdint.h>

enum { SAGO_SAFETENSORS_MAX_DIMS = 8 };

typedef struct sago_safetensor {
    const char *name;
    const char *dtype; /* "F32", "F16", "BF16", "I64", ... */
    int n_dims;
    int64_t shape[SAGO_SAFETENSORS_MAX_DIMS];
    const char *data; /* in the mapped file; not aligned */
    size_t bytes;
} sago_safetensor;

typedef struct sago_safetensors sago_safetensors;

/** Maps a file. SAGO_E_INPUT names the file, the tensor and what is wrong with it. */
sago_status sago_safetensors_open(const char *path, sago_safetensors **out) SAGO_MUST_CHECK;

/** The same over bytes that stay the caller's; name is for messages. */
sago_status sago_safetensors_parse(const char *name, const void *bytes, size_t size,
                                   sago_safetensors **out) SAGO_MUST_CHECK;
void sago_safetensors_close(sago_safetensors *file);

const char *sago_safetensors_path(const sago_safetensors *file);
int sago_safetensors_count(const sago_safetensors *file);
const sago_safetensor *sago_safetensors_at(const sago_safetensors *file,
                                           int index); /* in the order of their bytes */
const sago_safetensor *sago_safetensors_find(const sago_safetensors *file, const char *name); /* NULL: none */

/** out[i] = element i as fp32. dtype F32, F16 or BF16; SAGO_E_INPUT otherwise. count is the tensor's. */
sago_status sago_safetensors_to_f32(const sago_safetensors *file, const sago_safetensor *tensor,
                                    float *out) SAGO_MUST_CHECK;

/** "F32[4, 128]" into text; returns text. */
const char *sago_safetensor_text(const sago_safetensor *tensor, char *text, size_t bytes);

/** One tensor to be written: fp32, its bytes given piece by piece afterwards, in this order. */
typedef struct sago_safetensor_entry {
    const char *name;
    int n_dims;
    int64_t shape[2];
} sago_safetensor_entry;

/** Appends header length and header for F32 tensors, padded so that the data starts at a multiple of 64
 * bytes. */
void sago_safetensors_header(const sago_safetensor_entry entries[], int n, sago_str *out);

#endif
