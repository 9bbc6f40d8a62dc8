// SPDX-License-Identifier: Apache-2.0
/**
 * Hugging Face: T5 models (1.0, v1.1 and their descendants: Flan-T5, LM-adapted T5, mT5, ByT5) and models of PaLM's
 * shape (Cohere) in and out.
 *
 * A folder holds config.json, model.safetensors (or its parts with model.safetensors.index.json) and perhaps
 * spiece.model. Matrices lie as [out, in] on both sides, so weights are copied byte by byte.
 */
#ifndef SAGO_HF_H
#define SAGO_HF_H

#include "json.h"
#include "model.h"
#include "registry.h"
#include "status.h"

enum { SAGO_HF_MOST_FILES = 4096 };            /* of a model's weights */
#define SAGO_HF_PART_BYTES INT64_C(5000000000) /* as in transformers */

/**
 * Reads the model in model_dir and writes it as step 0 of the checkpoint folder ckpt_dir, whose meta holds
 * "model" (the shape), "source", "hf_config" (config.json as it was) and "hf_names" (second names of shared
 * matrices). F16 and BF16 become fp32. Tensors go from file to file in windows of 4 MiB, so that a model may
 * be larger than the memory, and each of its tensors too. Errors: SAGO_E_INPUT names file and key or tensor,
 * and the element that is not finite; SAGO_E_SHAPE names tensor, its shape and the one that config.json asks
 * for; SAGO_E_BUSY when ckpt_dir holds the steps of a run. A failure leaves ckpt_dir as it was.
 */
sago_status sago_hf_import(const char *model_dir, const char *ckpt_dir) SAGO_MUST_CHECK;

/**
 * Writes the newest checkpoint of path that verifies as config.json, generation_config.json,
 * model.safetensors (fp32), and spiece.model with tokenizer_config.json where it holds a SentencePiece model, which
 * transformers' AutoTokenizer then loads: as T5Tokenizer, or of a decoder alone as a class that adds nothing.
 * They get their names after all were written. SAGO_E_BUSY where out_dir holds a file of such a name with
 * other contents, or weights of another export, unless `replace`; SAGO_E_INPUT for a model that the format
 * cannot say, PaLM with rotary halves. Weights of more than SAGO_HF_PART_BYTES go into several files. Memory:
 * 68 MiB (or a row, if that is more), whatever the size of model and tensors.
 */
sago_status sago_hf_export(const char *path, const char *out_dir, bool replace) SAGO_MUST_CHECK;

/**
 * The same with weights of more than part_bytes (> 0) as model-00001-of-0000N.safetensors ... and
 * model.safetensors.index.json: each part holds no more than that, or a single larger tensor. SAGO_E_USAGE
 * when that would be more than SAGO_HF_MOST_FILES.
 */
sago_status sago_hf_export_parts(const char *path, const char *out_dir, int64_t part_bytes,
                                 bool replace) SAGO_MUST_CHECK;

/** Copies "source", "hf_config" and "hf_names" from one checkpoint's meta to another's, so that a finetuned
 * model is exported as the model that it came from. */
void sago_hf_carry_meta(const json_t *from, json_t *to);

/* --- parts, a file each
 * -------------------------------------------------------------------------------------------- */

enum { SAGO_HF_NAME_BYTES = 160 };

/** hf_names.c: T5's "encoder.0.mlp.gate" -> "encoder.block.0.layer.1.DenseReluDense.wi_0.weight". */
sago_status sago_hf_name(const sago_model_shape *shape, const char *param,
                         char out[SAGO_HF_NAME_BYTES]) SAGO_MUST_CHECK;

/** Names that some files have for a matrix that stands elsewhere already: T5's "encoder.embed_tokens.weight" is
 *  "shared.embedding", and "lm_head.weight" too when tied. NULL when name is no such name. */
const char *sago_hf_second_name_of(const sago_model_shape *shape, const char *name);

/** Tensors that old T5 1.0 files hold although no T5 reads them. */
bool sago_hf_is_unread(const char *name);

/** hf_config.c: config.json to a shape, checked; path is for messages. */
sago_status sago_hf_read_config(const json_t *config, const char *path,
                                sago_model_shape *out) SAGO_MUST_CHECK;

/** A shape as config.json that transformers' T5ForConditionalGeneration or CohereForCausalLM loads; before: the
 * imported one, or NULL. */
json_t *sago_hf_write_config(const sago_model_shape *shape, const json_t *before);

#endif
