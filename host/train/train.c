// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "environment.h"
#include "file.h"
#include "lock.h"
#include "log.h"
#include "run_dir.h"
#include "schedule.h"
#include "signals.h"
#include "steps.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REWINDS = 20 };

/* A save that fails (disk full, folder gone read-only) costs no trained step: the run goes on and tries
 * again. */
static sago_status save(sago_trainer *t) {
    sago_status status = sago_trainer_save(t);
    if (status == SAGO_OK && t->mesh->rank == 0) {
        status = sago_run_write_json(t->config->run.dir, "mixture.json", sago_data_drawn(t->data));
        if (status == SAGO_E_IO) sago_warn("%s", sago_message()); /* only the report reads it */
        return status == SAGO_E_IO ? SAGO_OK : status;
    }
    if (status == SAGO_E_IO) {
        if (t->mesh->rank == 0)
            sago_warn("checkpoint of step %lld not saved: %s", (long long)t->step, sago_message());
        return sago_trainer_log_event(t, "save_failed", json_pack("{s:s}", "message", sago_message()));
    }
    return status;
}

/* The last step must be on disk when the run says it is done: here a failure is the run's. */
static sago_status save_last(sago_trainer *t) {
    SAGO_TRY(sago_trainer_save(t));
    if (t->mesh->rank != 0) return SAGO_OK;
    return sago_run_write_json(t->config->run.dir, "mixture.json", sago_data_drawn(t->data));
}

/* The newest step on disk at or before `at`, else the oldest there is; -1 when there is none. Rank 0 looks.
 */
static sago_status find_rewind_step(sago_trainer *t, int64_t at, int64_t *step) {
    int64_t *steps = NULL;
    int n_steps = 0;
    sago_status status = SAGO_OK;
    *step = -1;
    if (t->mesh->rank == 0 && sago_is_dir(t->checkpoints))
        status = sago_steps_list(t->checkpoints, &steps, &n_steps);
    for (int i = 0; i < n_steps && (i == 0 || steps[i] <= at); i++) *step = steps[i];
    free(steps);
    SAGO_TRY(sago_agree(t->mesh, status));
    return sago_broadcast(t->mesh, SAGO_WORLD_AXIS, step, sizeof *step, 0);
}

static sago_status remove_newer(const char *checkpoints, int64_t target) {
    int64_t *steps;
    int n_steps;
    SAGO_TRY(sago_steps_list(checkpoints, &steps, &n_steps));
    sago_status status = SAGO_OK;
    for (int i = 0; i < n_steps && status == SAGO_OK; i++)
        if (steps[i] > target) status = sago_step_remove(checkpoints, steps[i]);
    free(steps);
    return status;
}

/* Goes back to before the spike and past the batches around it. Newer checkpoints lead to the same spike:
 * they go. */
static sago_status rewind_run(sago_trainer *t, int64_t spiked, double loss, bool *rewound) {
    int64_t target, committed;
    *rewound = false;
    SAGO_TRY(sago_ckpt_writer_wait(t->writer, &committed));
    SAGO_TRY(find_rewind_step(t, spiked - 1 - t->config->train.spike.rewind_steps, &target));
    if (target < 0) {
        if (t->mesh->rank == 0)
            sago_warn(
                "loss spike at step %lld (%.4f), and no checkpoint to go back to; lower checkpoint.every",
                (long long)spiked, loss);
        sago_spike_accept(&t->spikes, loss);
        return SAGO_OK;
    }
    if (++t->rewinds > MOST_REWINDS)
        return sago_fail(SAGO_E_NONFINITE,
                         "the loss has spiked %d times; lower optimizer.learning_rate, or look at the "
                         "data around step %lld",
                         MOST_REWINDS, (long long)spiked);
    *rewound = true;
    t->pending = (sago_step_record){0}; /* what came after the spike goes with it */
    char *dir = sago_step_path(t->checkpoints, target);
    sago_ckpt *ckpt = NULL;
    sago_status status = sago_ckpt_open(dir, false, &ckpt);
    if (status == SAGO_OK) status = sago_trainer_load(t, ckpt);
    sago_ckpt_close(ckpt);
    free(dir);
    SAGO_TRY(sago_agree(t->mesh, status));
    for (int64_t i = 0; i < t->config->train.spike.skip_batches; i++) {
        const sago_batch *batch;
        SAGO_TRY(sago_agree(t->mesh, sago_data_next(t->data, &batch)));
        if (!batch) break;
    }
    status = SAGO_OK;
    if (t->mesh->rank == 0) {
        status = remove_newer(t->checkpoints, target);
        fclose(t->metrics);
        t->metrics = NULL;
        if (status == SAGO_OK) status = sago_metrics_open(t->config->run.dir, target, &t->metrics);
    }
    SAGO_TRY(sago_agree(t->mesh, status));
    sago_info("loss spike at step %lld (%.4f): back to step %lld, skipping %lld batches", (long long)spiked,
              loss, (long long)target, (long long)t->config->train.spike.skip_batches);
    return sago_trainer_log_event(t, "spike",
                                  json_pack("{s:I, s:f}", "at_step", (json_int_t)spiked, "loss", loss));
}

/* What is not finite never reaches the weights: the device saw to it. */
static sago_status judge_non_finite(sago_trainer *t, int64_t step, const sago_step_sums *sums) {
    const char *what = isfinite(sums->nll) ? "gradient" : "loss";
    if (strcmp(t->config->train.non_finite, "stop") == 0)
        return sago_fail(SAGO_E_NONFINITE,
                         "step %lld: the %s is not finite; the weights are those of the step before "
                         "(train.non_finite: skip goes on)",
                         (long long)step, what);
    if (++t->skipped_in_a_row > t->config->train.max_skipped)
        return sago_fail(SAGO_E_NONFINITE,
                         "step %lld: the %s is not finite, %lld steps in a row (train.max_skipped)",
                         (long long)step, what, (long long)t->skipped_in_a_row);
    if (t->mesh->rank == 0) sago_warn("step %lld skipped: the %s is not finite", (long long)step, what);
    return SAGO_OK;
}

/* Looks at a step's numbers: is it one to go on from? */
static sago_status judge(sago_trainer *t, const sago_step_record *record, sago_step_sums *sums,
                         bool *rewound) {
    *rewound = false;
    SAGO_TRY(sago_trainer_collect(t, record, sums));
    if (!sums->finite) return sago_agree(t->mesh, judge_non_finite(t, record->number, sums));
    double loss = sums->nll / fmax(sums->target_tokens, 1);
    if (sago_spike_check(&t->spikes, loss, t->config->train.spike.threshold))
        SAGO_TRY(rewind_run(t, record->number, loss, rewound));
    if (!*rewound) t->skipped_in_a_row = 0;
    return SAGO_OK;
}

static sago_status apply(sago_trainer *t, sago_step_record *record) {
    int64_t age = record->number - t->moment_age_offset;
    record->learning_rate = sago_schedule_rate(t->config, record->number);
    SAGO_TRY(sago_optimizer_step(t->optimizer, &t->weights, t->gradients, age, record->learning_rate,
                                 &t->device_step->control));
    record->device_waits += t->device->host_waits;
    t->step = record->number;
    return SAGO_OK;
}

/* Judges and reports the step that was handed over last, if it was not yet. Unless another follows at once,
 * the device has nothing to do meanwhile. */
static sago_status look_at_pending(sago_trainer *t, sago_step_sums *sums, bool *rewound) {
    const sago_step_record record = t->pending;
    *rewound = false;
    if (record.number == 0) return SAGO_OK;
    t->pending = (sago_step_record){0};
    SAGO_TRY(judge(t, &record, sums, rewound));
    int64_t now = sago_now_ns(),
            since = t->concluded_ns > record.started_ns ? t->concluded_ns : record.started_ns;
    t->concluded_ns = now;
    return *rewound ? SAGO_OK : sago_trainer_log_step(t, &record, sums, (double)(now - since) * 1e-9);
}

/* One step on a device that is done when it says so: its numbers are judged before they reach the weights. */
static sago_status step_at_once(sago_trainer *t, sago_step_record *record, sago_step_sums *sums,
                                bool *rewound) {
    SAGO_TRY(judge(t, record, sums, rewound));
    if (*rewound) return SAGO_OK;
    SAGO_TRY(apply(t, record));
    return sago_trainer_log_step(t, record, sums, (double)(sago_now_ns() - record->started_ns) * 1e-9);
}

/* One step on a device that runs behind: the step before is judged while the device works on this one. */
static sago_status step_ahead(sago_trainer *t, sago_step_record *record, sago_step_sums *sums,
                              bool *rewound) {
    SAGO_TRY(apply(t, record));
    SAGO_TRY(look_at_pending(t, sums, rewound));
    if (!*rewound) t->pending = *record;
    return SAGO_OK;
}

static bool is_due(int64_t every, int64_t step) {
    return every > 0 && step % every == 0;
}

/* What follows a step: a save and an evaluation, where they are due, of weights whose steps have all been
 * judged. */
static sago_status after_step(sago_trainer *t, const sago_train_hooks *hooks, sago_step_sums *sums,
                              bool *rewound) {
    const sago_config *config = t->config;
    bool saves = is_due(config->checkpoint.every, t->step);
    bool evaluates = hooks && hooks->evaluate && is_due(config->eval.every, t->step);
    if (!saves && !evaluates && sums->stop_requested == 0) return SAGO_OK;
    SAGO_TRY(look_at_pending(t, sums, rewound));
    if (!*rewound && sums->stop_requested == 0) {
        if (saves) SAGO_TRY(save(t));
        /* Scores can be made later, from a checkpoint: what is in their way costs no training. */
        sago_status status = evaluates ? hooks->evaluate(hooks->context, t) : SAGO_OK;
        if (status != SAGO_OK && t->mesh->rank == 0)
            sago_warn("not evaluated after step %lld: %s", (long long)t->step, sago_message());
        (void)sago_mesh_exposed_seconds(t->mesh); /* waits of a save or an evaluation are no step's */
        return SAGO_OK;
    }
    if (sums->stop_requested == 0) return SAGO_OK;
    if (t->saved_step != t->step) SAGO_TRY(save(t));
    return SAGO_E_INTERRUPTED;
}

/* Until run.steps, or the end of the data. */
static sago_status run_until_end(sago_trainer *t, const sago_train_hooks *hooks, sago_step_sums *sums) {
    while (t->step < t->config->run.steps) {
        bool ended, rewound = false;
        sago_step_record record;
        SAGO_TRY(sago_trainer_gradients(t, &record, &ended));
        if (ended) {
            sago_info("the data ended after step %lld of %lld", (long long)t->step,
                      (long long)t->config->run.steps);
            break;
        }
        sums->stop_requested = 0; /* of the step before, which has been looked at */
        SAGO_TRY(t->device->asynchronous ? step_ahead(t, &record, sums, &rewound)
                                         : step_at_once(t, &record, sums, &rewound));
        if (!rewound) SAGO_TRY(after_step(t, hooks, sums, &rewound));
    }
    return SAGO_OK;
}

static sago_status run_steps(sago_trainer *t, const sago_train_hooks *hooks, sago_step_sums *sums) {
    bool rewound;
    do {
        SAGO_TRY(run_until_end(t, hooks, sums));
        SAGO_TRY(look_at_pending(t, sums, &rewound)); /* the last step may turn out a spike */
    } while (rewound);
    return t->saved_step != t->step ? save_last(t) : SAGO_OK;
}

static sago_status train_locked(sago_trainer *t, const sago_train_hooks *hooks) {
    SAGO_TRY(sago_trainer_open(t));
    sago_config *config = t->config;
    if (t->step > 0)
        SAGO_TRY(sago_trainer_log_event(t, "resume", json_pack("{s:i}", "ranks", t->mesh->size)));
    if (t->mesh->rank == 0)
        SAGO_TRY(sago_run_write_json(config->run.dir, "environment.json", sago_environment_describe(t)));
    if (t->step > 0 && t->step >= config->run.steps)
        sago_info("%s: has its %lld steps already; a larger run.steps (now %lld) goes on", config->run.dir,
                  (long long)t->step, (long long)config->run.steps);
    else
        sago_info("%s: %s, %.2fM parameters, steps %lld to %lld, %d rank%s, %s", config->run.dir,
                  t->shape.family, (double)t->registry.n_global_elements * 1e-6,
                  (long long)t->step + (t->step < config->run.steps), (long long)config->run.steps,
                  t->mesh->size, t->mesh->size > 1 ? "s" : "", t->device->description);
    t->started_ns = sago_now_ns();
    (void)sago_mesh_exposed_seconds(t->mesh); /* nor are those of the start any step's */
    sago_step_sums sums = {0};
    sums.rows_by_rank =
        sago_alloc_zero((size_t)t->mesh->axis_size[SAGO_DATA_AXIS], sizeof *sums.rows_by_rank);
    sago_status status = run_steps(t, hooks, &sums);
    free(sums.rows_by_rank);
    int64_t committed = -1;
    if (status == SAGO_OK || status == SAGO_E_INTERRUPTED) {
        sago_status written = sago_ckpt_writer_wait(t->writer, &committed);
        if (written != SAGO_OK) return sago_wrap(written, "last checkpoint");
    }
    sago_progress_end();
    if (status == SAGO_E_INTERRUPTED) {
        /* Not every rank need have got the signal; all say the same. */
        status = sago_fail(status,
                           "stopped by a signal after step %lld, saved; the same command goes on from there",
                           (long long)t->step);
        return sago_agree(t->mesh, status);
    }
    return status;
}

sago_status sago_train(sago_config *config, sago_mesh *mesh, const sago_train_hooks *hooks) {
    if (!config->run.dir[0])
        return sago_fail(SAGO_E_CONFIG, "run.dir: where the run's files go; set it (--set run.dir=FOLDER)");
    sago_run_lock *lock = NULL;
    sago_status status = SAGO_OK;
    if (mesh->rank == 0) {
        status = sago_dir_make(config->run.dir);
        if (status == SAGO_OK) status = sago_run_lock_take(config->run.dir, &lock);
    }
    status = sago_agree(mesh, status);
    if (status == SAGO_OK) {
        sago_trainer trainer = {.config = config, .mesh = mesh};
        sago_signals_watch();
        status = train_locked(&trainer, hooks);
        sago_trainer_close(&trainer);
    }
    sago_run_lock_release(lock);
    return status;
}
