// SPDX-License-Identifier: Apache-2.0
/**
 * safetensors: the file format of Hugging Face's models. Eight bytes of header length (little-endian), a JSON
 * header of name -> {dtype, shape, data_offsets}, then the tensors' bytes one after another, without gaps.
 * Source: https://huggingface.co/docs/safetensors
 *
 * The reader trusts nothing: header length and offsets are bounded by the file, sizes follow from dtype and
 * shape without overflow, tensors neither overlap nor leave gaps, no name comes twice. Only the header is
 * held in memory: elements are read where they are asked for, so that a file may be larger than it.
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
    int64_t at; /* of its first byte in the file */
    size_t bytes;
} sago_safetensor;

typedef struct sago_safetensors sago_safetensors;

/** Reads a file's header. SAGO_E_INPUT names the file, the tensor and what is wrong with it. */
sago_status sago_safetensors_open(const char *path, sago_safetensors **out) SAGO_MUST_CHECK;

/** The same over bytes that stay the caller's; name is for messages. */
sago_status sago_safetensors_parse(const char *name, const void *bytes, size_t size,
                                   sago_safetensors **out) SAGO_MUST_CHECK;
void sago_safetensors_close(sago_safetensors *file);

/** Gives the file's descriptor back until the next read, for models of more files than a process may have
 * open. */
void sago_safetensors_rest(sago_safetensors *file);

const char *sago_safetensors_path(const sago_safetensors *file);
int sago_safetensors_count(const sago_safetensors *file);
const sago_safetensor *sago_safetensors_at(const sago_safetensors *file,
                                           int index); /* in the order of their bytes */
const sago_safetensor *sago_safetensors_find(const sago_safetensors *file, const char *name); /* NULL: none */

/** Bytes [first, first + count) of a tensor as they lie in the file. SAGO_E_IO when they cannot be read;
 * SAGO_E_INPUT when the file is no longer what was opened. */
sago_status sago_safetensors_read(sago_safetensors *file, const sago_safetensor *tensor, int64_t first,
                                  size_t count, void *out) SAGO_MUST_CHECK;

/** SAGO_E_INPUT for a tensor of another dtype than F32, F16 and BF16. */
sago_status sago_safetensors_check_float(const sago_safetensors *file,
                                         const sago_safetensor *tensor) SAGO_MUST_CHECK;

/** out[i] = element first + i as fp32, exactly, i < count; errors of both above. Memory: out alone. */
sago_status sago_safetensors_read_f32(sago_safetensors *file, const sago_safetensor *tensor, int64_t first,
                                      int64_t count, float *out) SAGO_MUST_CHECK;

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
