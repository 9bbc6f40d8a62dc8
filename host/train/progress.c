// SPDX-License-Identifier: Apache-2.0
#include "trainer.h"

#include "ceiling.h"
#include "log.h"
#include "run_dir.h"

#include <math.h>
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

sago_status sago_trainer_log_step(sago_trainer *t, const sago_step_record *record, const sago_step_sums *sums,
                                  double seconds) {
    if (t->mesh->rank != 0) return SAGO_OK;
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
    if (t->device->most_allocated_bytes > 0)
        json_object_set_new(line, "device_memory_gb",
                            json_real(1e-9 * (double)t->device->most_allocated_bytes));
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

sago_status sago_trainer_log_event(sago_trainer *t, const char *event, json_t *details) {
    sago_status status = SAGO_OK;
    if (t->mesh->rank == 0) {
        json_object_set_new(details, "event", json_string(event));
        json_object_set_new(details, "step", json_integer((json_int_t)t->step));
        json_object_set_new(details, "time", json_integer((json_int_t)time(NULL)));
        status = sago_metrics_append(t->metrics, details);
    }
    json_decref(details);
    return status;
}
