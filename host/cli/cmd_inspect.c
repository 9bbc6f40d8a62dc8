// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include "ckpt.h"
#include "flight.h"
#include "json.h"
#include "tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_AT_ONCE_BYTES = 64 << 20 };

/* L2 norm in float64, reading some rows at a time; only for what holds numbers that norms are made of. */
static sago_status norm_of(sago_ckpt *ckpt, const sago_ckpt_tensor *t, double *out) {
    int64_t cols = t->n_dims == 2 ? t->shape[1] : 1, row_bytes = cols * (int64_t)sizeof(float);
    int64_t rows = ROWS_AT_ONCE_BYTES / row_bytes;
    if (rows < 1) rows = 1;
    if (rows > t->shape[0]) rows = t->shape[0];
    float *values = sago_alloc((size_t)(rows * row_bytes));
    double sum = 0;
    sago_status status = SAGO_OK;
    for (int64_t first = 0; first < t->shape[0] && status == SAGO_OK; first += rows) {
        int64_t count = t->shape[0] - first < rows ? t->shape[0] - first : rows;
        sago_piece piece = {.name = t->name,
                            .dtype = SAGO_F32,
                            .n_dims = t->n_dims,
                            .global_shape = {t->shape[0], cols},
                            .offset = {first, 0},
                            .shape = {count, cols},
                            .data = values};
        status = sago_ckpt_load(ckpt, &piece, 1);
        for (int64_t i = 0; i < count * cols && status == SAGO_OK; i++)
            sum += (double)values[i] * (double)values[i];
    }
    free(values);
    *out = sqrt(sum);
    return status;
}

static int by_number_then_name(const void *a, const void *b) {
    return strverscmp(((const sago_ckpt_tensor *)a)->name, ((const sago_ckpt_tensor *)b)->name);
}

static json_t *describe(const sago_ckpt_tensor *t, double norm) {
    json_t *shape = json_array();
    for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    json_t *entry = json_pack("{s:s, s:s, s:o, s:i}", "name", t->name, "dtype", sago_dtype_name(t->dtype),
                              "shape", shape, "pieces", t->n_pieces);
    if (t->dtype == SAGO_F32)
        json_object_set_new(entry, "l2_norm", isfinite(norm) ? json_real(norm) : json_null());
    return entry;
}

static void print_tensor(const sago_ckpt_tensor *t, double norm) {
    char shape[64];
    const sago_tensor whole = {
        NULL, t->dtype, t->n_dims, {t->shape[0], t->n_dims == 2 ? t->shape[1] : 1, 1, 1}};
    printf("%-52s %-22s %4d piece%s", t->name, sago_tensor_text(whole, shape, sizeof shape), t->n_pieces,
           t->n_pieces == 1 ? " " : "s");
    if (t->dtype == SAGO_F32) printf("  norm %.6g", norm);
    printf("\n");
}

static void print_head(const sago_ckpt *ckpt) {
    const char *key;
    json_t *value;
    printf("%s\nstep %" PRId64 "\n", sago_ckpt_dir(ckpt), sago_ckpt_step(ckpt));
    json_object_foreach(json_object_get(sago_ckpt_meta(ckpt), "model"), key, value) {
        sago_str text = {0};
        sago_json_add(&text, value, 9);
        printf("model.%s %s\n", key, sago_str_text(&text));
        sago_str_free(&text);
    }
}

static sago_status list(sago_ckpt *ckpt, sago_ckpt_tensor *tensors, int n, json_t *into) {
    int64_t n_params = 0, bytes = 0;
    for (int i = 0; i < n; i++) {
        double norm = 0;
        int64_t count = tensors[i].shape[0] * (tensors[i].n_dims == 2 ? tensors[i].shape[1] : 1);
        if (tensors[i].dtype == SAGO_F32) SAGO_TRY(norm_of(ckpt, &tensors[i], &norm));
        if (into)
            json_array_append_new(into, describe(&tensors[i], norm));
        else
            print_tensor(&tensors[i], norm);
        if (sago_starts_with(tensors[i].name, "param/")) n_params += count;
        bytes += count * (int64_t)sago_dtype_bytes(tensors[i].dtype);
    }
    if (!into) printf("%d tensors, %" PRId64 " bytes, %" PRId64 " parameters\n", n, bytes, n_params);
    return SAGO_OK;
}

static sago_status run(const sago_arguments *arguments) {
    sago_ckpt *ckpt;
    const char *flight = sago_argument(arguments, "--flight");
    if (!flight == !arguments->n_positional)
        return sago_fail(SAGO_E_USAGE, "inspect: needs either a checkpoint or --flight DIR");
    if (flight) return sago_flight_print(flight, sago_argument_switch(arguments, "--json"));
    SAGO_TRY(sago_ckpt_open(arguments->positional[0], false, &ckpt));
    int n = sago_ckpt_count(ckpt);
    sago_ckpt_tensor *tensors = sago_alloc((size_t)n * sizeof *tensors);
    for (int i = 0; i < n; i++) tensors[i] = sago_ckpt_at(ckpt, i);
    qsort(tensors, (size_t)n, sizeof *tensors, by_number_then_name);
    bool as_json = sago_argument_switch(arguments, "--json");
    json_t *entries = as_json ? json_array() : NULL;
    if (!as_json) print_head(ckpt);
    sago_status status = list(ckpt, tensors, n, entries);
    if (as_json && status == SAGO_OK) {
        json_t *root =
            json_pack("{s:s, s:I, s:O, s:O}", "path", sago_ckpt_dir(ckpt), "step",
                      (json_int_t)sago_ckpt_step(ckpt), "meta", sago_ckpt_meta(ckpt), "tensors", entries);
        sago_str text = {0};
        sago_json_add(&text, root, 9);
        printf("%s\n", sago_str_text(&text));
        sago_str_free(&text);
        json_decref(root);
    }
    json_decref(entries);
    free(tensors);
    sago_ckpt_close(ckpt);
    return status;
}

static const sago_option options[] = {
    {"--json", NULL, "print one JSON object, with the meta of the checkpoint", false},
    {"--flight", "DIR", "read the flight records of a run (RUN/flight): which rank missed which collective", false},
    {0},
};

const sago_command sago_command_inspect = {
    .name = "inspect",
    .summary = "list the tensors of a checkpoint, or say what its ranks were doing when a run failed",
    .usage = "sago inspect STEP_DIR|RUN|CKPT [--json] | sago inspect --flight DIR [--json]",
    .details = "Prints step, model shape and every tensor: name, dtype, shape, pieces, L2 norm (which reads "
               "and so checks "
               "its bytes). A run stands for its newest checkpoint whose MANIFEST holds. With --flight, reads "
               "what the ranks "
               "of a run on several ranks wrote when it failed (or on SIGUSR2), and prints which rank missed "
               "which "
               "collective, which entered another one, and where each rank was.",
    .example = "sago inspect runs/first --json",
    .options = options,
    .min_positional = 0,
    .max_positional = 1,
    .run = run,
};
