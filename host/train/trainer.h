// SPDX-License-Identifier: Apache-2.0
/**
 * Trainer: everything that one rank of a training run holds, and the loop over its steps.
 *
 * On an asynchronous device the host runs ahead: it hands step k over before it looks at the numbers of step
 * k - 1, so that the device never waits for it. What may not be finite is decided on the device, and never
 * reaches the weights; what the host decides (to stop, to go back before a spike) comes a step later there.
 * Before a save, an evaluation and the end the host has looked at everything.
 *
 *     sago_train(config, mesh, hooks)
 *         open     device, model (fresh, from model.init, or from the run's newest checkpoint), data,
 * optimizer a step   batch -> micro-batches (loss, backward, buckets summed on the way) -> checks ->
 * Adafactor save     every checkpoint.every steps, and the last
 *
 * The objective is (sum of NLL + z_loss * sum of lse^2) / target tokens of the whole step: the same for every
 * number of ranks, micro-batch and packing.
 */
#ifndef SAGO_TRAINER_H
#define SAGO_TRAINER_H

#include "ckpt.h"
#include "config.h"
#include "data.h"
#include "device.h"
#include "fsdp.h"
#include "mesh.h"
#include "model.h"
#include "gradient_sums.h"
#include "optimizer.h"
#include "reduce.h"
#include "spike.h"
#include "straggler.h"
#include "weights.h"

#include <stdio.h>

/** What a step leaves on the device. */
typedef struct sago_step_state {
    sago_loss_sums sums; /* of this rank */
    double squares;      /* of the summed gradient */
    sago_step_control control;
} sago_step_state;

/** A step that was handed to the device, and what the host knew of it then. */
typedef struct sago_step_record {
    int64_t number;         /* counts from 1 */
    sago_step_state *state; /* on the host, there once `done` has passed */
    sago_mark done;
    int64_t started_ns;
    double learning_rate;
    double input_tokens, examples, matmul_flops, rows; /* of this rank */
    int64_t device_waits; /* times that the host stood waiting for the device while it handed the step over */
    double data_wait_seconds, comm_wait_seconds;
} sago_step_record;

typedef struct sago_trainer {
    sago_config *config; /* the caller's */
    sago_mesh *mesh;     /* the caller's */
    sago_mesh *model_mesh; /* its view for the model */
    sago_device *device;
    sago_registry registry; /* what the model computes with */
    sago_registry held;     /* what this rank keeps of it: all, or its rows where the data axis is fully sharded */
    sago_model_shape shape;
    sago_model *model;
    sago_tokenizer *tokenizer; /* NULL when every source gives ids */
    sago_data *data;
    sago_optimizer *optimizer;
    sago_reducer *reducer; /* sums gradients over the data axis ... */
    sago_fsdp *fsdp;       /* ... and this one scatters them, where it is fully sharded; else NULL */
    sago_gradient_sums *gradient_sums;
    sago_ckpt_writer *writer;
    sago_weights weights;
    float *gradients;             /* flat like the weights, on the device */
    sago_step_state *device_step; /* on the device */
    sago_step_state *host_steps;  /* [2]: where the numbers of this step and the one before arrive */
    sago_step_record pending;     /* handed over, its numbers not looked at yet; number 0: none */
    int64_t concluded_ns;         /* when the step before was; 0: something else came between */
    FILE *metrics;                /* rank 0 */
    char *checkpoints;            /* RUN/checkpoints */
    json_t *origin;               /* what a checkpoint's meta says of the imported model it came from */
    int64_t step;                 /* steps done */
    int64_t moment_age_offset;    /* t = step - offset: age of the second moments */
    int64_t micro_rows;           /* rows of a micro-batch */
    int64_t micro_batches;        /* of a step on the rank that has most */
    int64_t skipped_in_a_row, rewinds;
    int64_t saved_step; /* last step handed to the writer */
    sago_spike_detector spikes;
    sago_rank_times times; /* of this rank, since the last report of the slowest one */
    double gemm_gflops;    /* what MFU is a share of, a rank; 0: not known yet, NAN: not known */
    int64_t started_ns;
} sago_trainer;

/** What the floors above add to a run; any may be NULL. */
typedef struct sago_train_hooks {
    /** After the steps that eval.every names: writes scores of the present weights. All ranks call it, and
     * all get the same outcome; a failure is told and training goes on. */
    sago_status (*evaluate)(void *context, sago_trainer *trainer);
    void *context;
} sago_train_hooks;

/**
 * Trains to run.steps, continuing the run in run.dir if there is one. Returns SAGO_E_INTERRUPTED after
 * SIGTERM or SIGINT, with everything saved. Collective over the mesh.
 */
sago_status sago_train(sago_config *config, sago_mesh *mesh, const sago_train_hooks *hooks) SAGO_MUST_CHECK;

/* --- parts of it, a file each
 * -------------------------------------------------------------------------------------- */

/** open.c: fills trainer from its config and mesh. */
sago_status sago_trainer_open(sago_trainer *trainer) SAGO_MUST_CHECK;
void sago_trainer_close(sago_trainer *trainer);

/** The weights as an evaluation reads them: the trainer's own or, where the data axis is fully sharded, gathered into
 * memory that sago_trainer_release_weights gives back. Collective; the same outcome on every rank. */
sago_status sago_trainer_whole_weights(sago_trainer *trainer, sago_weights *whole) SAGO_MUST_CHECK;
void sago_trainer_release_weights(sago_trainer *trainer, sago_weights *whole);

/** state.c: what a checkpoint of a run holds. */
sago_status sago_trainer_save(sago_trainer *trainer) SAGO_MUST_CHECK;
sago_status sago_trainer_load(sago_trainer *trainer, sago_ckpt *ckpt) SAGO_MUST_CHECK;
/** Loads "param/..." alone, and the second moments if keep_moments. */
sago_status sago_trainer_load_weights(sago_trainer *trainer, sago_ckpt *ckpt,
                                      bool keep_moments) SAGO_MUST_CHECK;

/** What one step computed, summed over all ranks. */
typedef struct sago_step_sums {
    double nll, z;
    double correct, target_tokens, input_tokens, examples;
    double matmul_flops;
    double stop_requested; /* ranks that were asked to stop by a signal */
    double gradient_norm;
    double *rows_by_rank;                        /* [data axis size] */
    double data_wait_seconds, comm_wait_seconds; /* the largest of any rank */
    bool finite;
} sago_step_sums;

/**
 * step.c: hands one forward, backward, reduction and the device's decision about the step over; weights
 * unchanged. *ended: the data has no more batches.
 */
sago_status sago_trainer_gradients(sago_trainer *trainer, sago_step_record *record,
                                   bool *ended) SAGO_MUST_CHECK;

/** Waits for a step's numbers and adds them up over the ranks; the device may work on the next step
 * meanwhile. */
sago_status sago_trainer_collect(sago_trainer *trainer, const sago_step_record *record,
                                 sago_step_sums *sums) SAGO_MUST_CHECK;

/** A step's line in the metrics, from rank 0, and the slowest rank where that is due. All ranks call it;
 * seconds: what the step took on this one. */
sago_status sago_trainer_log_step(sago_trainer *trainer, const sago_step_record *record,
                                  const sago_step_sums *sums, double seconds) SAGO_MUST_CHECK;
sago_status sago_trainer_log_event(sago_trainer *trainer, const char *event, json_t *details) SAGO_MUST_CHECK;

#endif
