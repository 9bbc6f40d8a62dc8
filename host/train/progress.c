// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "ceiling.h"
#include "log.h"
#include "run_dir.h"
#include "str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *number_or_null(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

/*
 * MFU is a share of what the config says, of the data sheet of a GPU that is known, or of the matrix-product
 * speed that this machine was measured to have. Measuring takes most of a second, so it waits until a run has
 * shown that it is no short one. What sim takes says nothing.
 */
static void measure_ceiling(sago_trainer *t) {
    if (t->gemm_gflops == 0 && t->config->train.peak_tflops > 0)
        t->gemm_gflops = 1e3 * t->config->train.peak_tflops;
    else if (t->gemm_gflops == 0 && t->device->peak_flops > 0)
        t->gemm_gflops = 1e-9 * t->device->peak_flops;
    else if (t->gemm_gflops == 0 && strcmp(t->device->name, "sim") == 0)
        t->gemm_gflops = NAN;
    if (t->gemm_gflops != 0 || (sago_now_ns() - t->started_ns) < 10000000000) return;
    if (sago_device_measure_gemm(t->device, &t->gemm_gflops) != SAGO_OK || !(t->gemm_gflops > 0))
        t->gemm_gflops = NAN;
}

static sago_status write_step(sago_trainer *t, const sago_step_record *record, const sago_step_sums *sums,
                              double seconds) {
    measure_ceiling(t);
    double tokens = sums->target_tokens > 0 ? sums->target_tokens : 1;
    double speed = (sums->input_tokens + sums->target_tokens) / seconds;
    double mfu = sums->matmul_flops / seconds / (t->gemm_gflops * 1e9 * t->mesh->size);
    json_t *rows = json_array();
    for (int i = 0; i < t->mesh->axis_size[SAGO_DATA_AXIS]; i++)
        json_array_append_new(rows, json_integer((json_int_t)sums->rows_by_rank[i]));
    json_t *line = json_pack(
        "{s:I, s:o, s:o, s:o, s:f, s:I, s:f, s:I, s:I, s:o, s:f, s:f, s:f, s:f, s:I}", "step",
        (json_int_t)record->number, "loss", number_or_null(sums->nll / tokens), "z_loss",
        number_or_null(sums->z / tokens), "gradient_norm", number_or_null(sums->gradient_norm),
        "learning_rate", sums->finite ? record->learning_rate : 0.0, "target_tokens",
        (json_int_t)sums->target_tokens, "accuracy", sums->correct / tokens, "input_tokens",
        (json_int_t)sums->input_tokens, "examples", (json_int_t)sums->examples, "rows_by_data_rank", rows,
        "step_seconds", seconds, "tokens_per_second", speed, "data_wait", sums->data_wait_seconds,
        "comm_wait", sums->comm_wait_seconds, "time", (json_int_t)time(NULL));
    if (t->gemm_gflops > 0) json_object_set_new(line, "mfu", number_or_null(mfu));
    if (t->device->most_allocated_bytes > 0) {
        json_object_set_new(line, "device_memory_gb",
                            json_real(1e-9 * (double)t->device->most_allocated_bytes));
        json_object_set_new(line, "device_waits", json_integer(record->device_waits));
    }
    if (!sums->finite) json_object_set_new(line, "skipped", json_true());
    sago_status status = sago_metrics_append(t->metrics, line);
    json_decref(line);
    char share[32] = "";
    if (t->gemm_gflops > 0) snprintf(share, sizeof share, "  mfu %.0f%%", 100 * mfu);
    sago_progress("train", (double)record->number / (double)t->config->run.steps,
                  "step %lld/%lld  loss %.4f  %.0f tokens/s%s", (long long)record->number,
                  (long long)t->config->run.steps, sums->nll / tokens, speed, share);
    return status;
}

/* Which shares of a step a rank may be behind by before it is called a straggler. */
static const double straggler_share = 0.1;

/* v, of each rank in turn: seconds a step of the parts, then of waiting for others, then how many waited for
 * it. */
enum { COMM_WAIT = SAGO_N_PARTS, N_WAITED, N_COLUMNS };

static sago_status exchange_times(sago_trainer *t, double v[]) {
    int n = t->mesh->size, rank = t->mesh->rank;
    double steps = (double)t->times.steps;
    double *late = v + (size_t)SAGO_PART_MESSAGES * (size_t)n;
    sago_mesh_late_seconds(t->mesh, late);
    for (int r = 0; r < n; r++) {
        v[N_WAITED * n + r] = late[r] > 0;
        late[r] /= steps;
    }
    v[SAGO_PART_COMPUTE * n + rank] = sago_rank_times_compute(&t->times) / steps;
    v[SAGO_PART_DATA * n + rank] = t->times.data_wait_seconds / steps;
    v[COMM_WAIT * n + rank] = t->times.comm_wait_seconds / steps;
    SAGO_TRY(sago_all_reduce_f64(t->mesh, SAGO_WORLD_AXIS, v, (int64_t)N_COLUMNS * n));
    for (int r = 0; r < n; r++) late[r] /= fmax(1, v[N_WAITED * n + r]);
    return SAGO_OK;
}

static json_t *column(const double v[], int n) {
    json_t *values = json_array();
    for (int r = 0; r < n; r++) json_array_append_new(values, json_real(v[r]));
    return values;
}

static sago_status tell_straggler(sago_trainer *t, int64_t step, const double v[]) {
    int n = t->mesh->size;
    sago_straggler slowest;
    sago_straggler_find(v, n, &slowest);
    double step_seconds = t->times.step_seconds / (double)t->times.steps;
    bool stands_out = slowest.excess >= straggler_share * step_seconds;
    const char *host = sago_mesh_host(slowest.rank), *part = sago_straggler_part_name(slowest.part);
    if (stands_out)
        sago_warn("straggler: rank %d (host %s), %s: %.3g s a step, the median is %.3g s; of the %.3g s of a "
                  "step all "
                  "ranks wait %.3g s for it",
                  slowest.rank, host, part, slowest.seconds, slowest.median, step_seconds, slowest.excess);
    else
        sago_info(
            "no straggler up to step %lld: the slowest is rank %d (host %s), %s, by %.2g s of %.3g s a step",
            (long long)step, slowest.rank, host, part, fmax(0, slowest.excess), step_seconds);
    return sago_trainer_log_event(
        t, "straggler",
        json_pack("{s:I, s:I, s:i, s:s, s:s, s:b, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "step",
                  (json_int_t)step, "steps", (json_int_t)t->times.steps, "rank", slowest.rank, "host", host,
                  "part", part, "stands_out", stands_out, "seconds", slowest.seconds, "median",
                  slowest.median, "excess", slowest.excess, "step_seconds", step_seconds, "compute",
                  column(v + SAGO_PART_COMPUTE * n, n), "data_wait", column(v + SAGO_PART_DATA * n, n),
                  "waited_for", column(v + SAGO_PART_MESSAGES * n, n), "comm_wait",
                  column(v + COMM_WAIT * n, n)));
}

/* Once in train.straggler_every steps: one small sum over all ranks, and nothing before it. */
static sago_status report_straggler(sago_trainer *t, int64_t step) {
    double *v = sago_alloc_zero((size_t)t->mesh->size, N_COLUMNS * sizeof *v);
    sago_status status = exchange_times(t, v);
    if (status == SAGO_OK && t->mesh->rank == 0) status = tell_straggler(t, step, v);
    free(v);
    t->times = (sago_rank_times){0};
    return status;
}

sago_status sago_trainer_log_step(sago_trainer *t, const sago_step_record *record, const sago_step_sums *sums,
                                  double seconds) {
    if (t->mesh->rank == 0) SAGO_TRY(write_step(t, record, sums, seconds));
    int64_t every = t->config->train.straggler_every;
    if (t->mesh->size == 1 || every == 0) return SAGO_OK;
    sago_rank_times_add(&t->times, seconds, record->data_wait_seconds, record->comm_wait_seconds);
    return record->number % every == 0 ? report_straggler(t, record->number) : SAGO_OK;
}

sago_status sago_trainer_log_event(sago_trainer *t, const char *event, json_t *details) {
    sago_status status = SAGO_OK;
    if (t->mesh->rank == 0) {
        json_object_set_new(details, "event", json_string(event));
        if (!json_object_get(details, "step"))
            json_object_set_new(details, "step", json_integer((json_int_t)t->step));
        json_object_set_new(details, "time", json_integer((json_int_t)time(NULL)));
        status = sago_metrics_append(t->metrics, details);
    }
    json_decref(details);
    return status;
}
