// SPDX-License-Identifier: Apache-2.0
/**
 * Configuration: one YAML file and --set key=value, checked against the schema in config_schema.c.
 *
 * The struct holds every key with its default filled in. Strings are never NULL ("" where unset) and belong
 * to the config. Paths are absolute after loading: relative ones of a file count from that file's folder,
 * those of the command line from the current directory. What each key means, its range and default:
 * docs/config.md, which is generated from the schema.
 */
#ifndef SAGO_CONFIG_H
#define SAGO_CONFIG_H

#include "status.h"
#include "str.h"

#include <stdbool.h>
#include <stdint.h>

enum { SAGO_CONFIG_MOST_KEYS = 256 };

typedef struct sago_string_list {
    char **items;
    int count;
} sago_string_list;

/** One member of the mixture. */
typedef struct sago_config_member {
    char *name;
    char *format;    /* niv2 | jsonl | cot | table | ids | text */
    char *path;      /* file or folder */
    char *template_; /* key "template": template set for formats that need one; "" is the format's default */
    double share;    /* relative weight of this member in the mixture */
    int64_t cap;     /* examples a task counts for at most; 0: no cap */
    sago_string_list include, exclude; /* task name patterns; empty include: all */
    char *objective; /* of format text: causal-lm | prefix-lm | span-corruption | ul2 | ul2r; else "none" */
    double noise_density, mean_span; /* of span-corruption */
    char *document;                  /* of format text, in .txt: line | file */
} sago_config_member;

/** A learning-rate group: parameters whose name matches pattern. First match wins. */
typedef struct sago_config_group {
    char *pattern;
    double multiplier; /* of the learning rate; 0 freezes */
} sago_config_group;

typedef struct sago_config {
    char *file;      /* the file it was read from, absolute; "" when none */
    char *device;    /* auto | cpu | sim | cuda */
    int64_t threads; /* host threads a rank; 0: cores of the node / ranks on it */
    bool graphs;     /* of devices that have them */

    struct {
        char *dir;
        int64_t steps;
        int64_t seed;
    } run;

    struct {
        char *init;   /* checkpoint to start from; "": random weights */
        char *family; /* t5 | palm */
        /* sizes of new weights; 0: as in the checkpoint of init, and the keys below are then its own too */
        int64_t vocab_size, d_model, n_heads, kv_heads, head_dim, d_ff, encoder_layers, decoder_layers;
        char *activation; /* gated-gelu | relu | swiglu */
        bool tied_embeddings;
        int64_t relative_buckets, relative_max_distance;
        char *rope; /* interleaved | half */
        double rope_theta, norm_epsilon, logit_scale;
        char *attention; /* causal | prefix: decoder-only models */
    } model;

    struct {
        char *tokenizer; /* SentencePiece model file, or "bytes"; "": the one of model.init */
        sago_config_member *mixture;
        int n_mixture;
        sago_string_list holdout; /* task or category patterns kept out of training */
        bool leak_check;
        char *order; /* sampled | sequential */
        bool packing;
        int64_t pack_window; /* examples looked ahead to fill rows */
        int64_t input_length, target_length;
        double few_shot,
            cot; /* proportions of prompts with exemplars; of chain-of-thought targets where a chain exists */
        int64_t max_exemplars;
        double
            eval_fraction; /* share of each task's examples kept for evaluation (by hash), never trained on */
        char *templates;   /* folder of template files; "": the built-in ones */
        char *cache_dir;   /* index cache; "": $XDG_CACHE_HOME/sago */
        int64_t prefetch;  /* batches kept ready */
    } data;

    struct {
        int64_t global_batch, micro_batch; /* rows; micro_batch 0: all rows of the rank at once */
        double dropout, z_loss, label_smoothing;
        bool recompute;
        char *precision;     /* auto | fp32 | bf16; a run's own: what it came to */
        int64_t loss_chunk;  /* tokens whose logits exist at once */
        char *non_finite;    /* skip | stop */
        int64_t max_skipped; /* consecutive skipped steps before the run stops */
        double peak_tflops;  /* of a rank's device, for the MFU in the metrics; 0: by its name, or measured */
        int64_t straggler_every; /* steps between reports of the slowest rank; 0: none */
        struct {
            double threshold; /* a loss above threshold x its running median is a spike; 0: off */
            int64_t rewind_steps, skip_batches;
        } spike;
    } train;

    struct {
        char *name; /* adafactor */
        double learning_rate;
        char *schedule; /* constant | rsqrt | cosine | linear */
        int64_t warmup_steps, schedule_steps;
        double final_learning_rate;
        double decay_exponent, clip_threshold, minimum_scale, momentum, weight_decay, weight_decay_power, clip_norm;
        bool factored, parameter_scale, weight_decay_by_rate;
        int64_t min_factored_dim;
        char *second_moments; /* keep | reset: of the checkpoint named by model.init */
        int64_t step_offset;
        sago_config_group *groups;
        int n_groups;
    } optimizer;

    struct {
        int64_t data, model; /* 0: from the number of ranks */
        char *data_axis;     /* replicated | sharded: what a rank of the data axis holds */
        char *gathered;      /* drop | keep: of a sharded data axis, between micro-batches */
        int64_t timeout_seconds;
        int64_t bucket_bytes;
        sago_string_list rules;
    } mesh;

    struct {
        bool check; /* compares collectives across ranks */
    } comm;

    struct {
        int64_t every, keep, keep_every; /* keep_every: steps whose multiples stay for good; 0: none */
        bool background;
    } checkpoint;

    struct {
        sago_string_list tasks; /* task or category patterns */
        int64_t examples_per_task, batch, max_new_tokens, samples;
        double temperature, top_p;
        int64_t top_k;
        bool length_normalised;
        int64_t bootstrap; /* resamples of the confidence intervals */
        int64_t few_shot;  /* exemplars a prompt */
        bool cot;
        int64_t every; /* steps between evaluations during training; 0: never */
    } eval;
    bool given[SAGO_CONFIG_MOST_KEYS]; /* by the number of sago_config_key */
} sago_config;

/** Loads path ("" or NULL: defaults alone), applies n_sets "a.b=c" texts in order, checks types and ranges.
 */
sago_status sago_config_load(const char *path, char *const sets[], int n_sets,
                             sago_config **out) SAGO_MUST_CHECK;
void sago_config_free(sago_config *config);

/** The whole resolved configuration as YAML that sago_config_load reads back to the same values. */
void sago_config_write(const sago_config *config, sago_str *out);

/** Was this key stated, in the file or by --set? A default was not. */
bool sago_config_given(const sago_config *config, const char *key);

/** The i-th key's path, "run.steps"; NULL past the last. */
const char *sago_config_key(int i);

/** docs/config.md from the schema. */
void sago_config_document(sago_str *out);

/**
 * Compares what may not change when a run continues: all but run.dir, run.steps, optimizer.*, mesh.*, device,
 * threads, checkpoint.*, eval.*, data.prefetch, data.cache_dir, train.micro_batch, recompute, loss_chunk,
 * non_finite, max_skipped, peak_tflops, straggler_every and train.spike.*. Errors: SAGO_E_CONFIG naming the
 * key and both values.
 */
sago_status sago_config_check_resume(const sago_config *before, const sago_config *now) SAGO_MUST_CHECK;

#endif
