// SPDX-License-Identifier: Apache-2.0
#include "build.h"
#include "cli.h"
#include "device.h"
#include "file.h"
#include "gpu_checks.h"
#include "log.h"
#include "machine_checks.h"
#include "rank_checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMALL_ROUNDS = 200, LARGE_ROUNDS = 5, LARGE_COUNT = 4 << 20 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

/* Sums over all ranks, checked: the latency of a small one and the bandwidth of a large one. */
static sago_status check_sums(sago_mesh *mesh, json_t *findings) {
    double seconds[SMALL_ROUNDS], small, large;
    bool right = true;
    float *x = sago_alloc(LARGE_COUNT * sizeof *x);
    sago_status status = SAGO_OK;
    for (int i = 0; i < SMALL_ROUNDS; i++) {
        double value = mesh->rank + i;
        int64_t at = sago_now_ns();
        SAGO_TRY_TO(done, sago_all_reduce_f64(mesh, SAGO_WORLD_AXIS, &value, 1));
        seconds[i] = (double)(sago_now_ns() - at) * 1e-9;
        right &= value == (double)mesh->size * (mesh->size - 1) / 2 + (double)i * mesh->size;
    }
    small = median(seconds, SMALL_ROUNDS);
    for (int i = 0; i < LARGE_ROUNDS; i++) {
        sago_collective *reduction;
        for (int64_t j = 0; j < LARGE_COUNT; j++) x[j] = (float)(j % 1000 + mesh->rank);
        SAGO_TRY_TO(done, sago_barrier(mesh, SAGO_WORLD_AXIS));
        int64_t at = sago_now_ns();
        SAGO_TRY_TO(done, sago_all_reduce_start(mesh, SAGO_WORLD_AXIS, x, LARGE_COUNT, &reduction));
        SAGO_TRY_TO(done, sago_collective_wait(mesh, reduction));
        seconds[i] = (double)(sago_now_ns() - at) * 1e-9;
        int64_t ranks = (int64_t)mesh->size * (mesh->size - 1) / 2;
        for (int64_t j = 0; j < LARGE_COUNT; j++) right &= x[j] == (float)(j % 1000 * mesh->size + ranks);
    }
    large = median(seconds, LARGE_ROUNDS);
    double rate = LARGE_COUNT * sizeof *x / large;
    const char *state = !right ? "fail" : small > 2e-3 || rate < 1e8 ? "warn" : "ok";
    sago_finding_add(findings, "sums", state,
                     right ? "slow for training: look at docs/distributed.md on networks and binding"
                           : "WRONG: this MPI or its network corrupts data",
                     "%s; one number in %.0f us, %d MiB at %.2f GB/s", right ? "right" : "wrong", small * 1e6,
                     (int)(LARGE_COUNT * sizeof *x >> 20), rate * 1e-9);
done:
    free(x);
    return status;
}

static void check_program(json_t *findings) {
    sago_str text = {0};
    sago_str_printf(&text, "sago %s", sago_build_version());
    if (sago_build_commit()[0]) sago_str_printf(&text, " (%s)", sago_build_commit());
    sago_str_printf(&text, ", %s", sago_build_compiler());
    for (const sago_build_part *part = sago_build_libraries(); part->name; part++)
        sago_str_printf(&text, ", %s %s", part->name, part->version);
    sago_finding_add(findings, "program", "ok", "", "%s", sago_str_text(&text));
    sago_str_free(&text);
}

/* What this rank finds on its node. */
static json_t *check_here(const sago_mesh *mesh, const sago_config *config) {
    json_t *findings = json_array();
    int cores = config->threads > 0 ? (int)config->threads : sago_mesh_cores(mesh);
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    check_program(findings);
    sago_device *device = NULL;
    bool opened = sago_device_open_local(config->device, cores, mesh->local_rank, &device) == SAGO_OK;
    sago_machine_check(findings, cores, mesh->local_size, opened ? device->description : NULL);
    sago_device_close(device);
    sago_gpu_check(findings, cores, mesh->local_rank, strcmp(config->device, "cuda") == 0);
    return json_pack("{s:i, s:i, s:i, s:s, s:o}", "rank", mesh->rank, "local_rank", mesh->local_rank, "ranks",
                     mesh->local_size, "host", host, "findings", findings);
}

/* The objects of all ranks, in the order of ranks, on rank 0; of each node's first rank alone where
 * `of_nodes`. */
static sago_status gather(sago_mesh *mesh, json_t *here, bool of_nodes, json_t *all_of_them) {
    char *mine = json_dumps(here, JSON_COMPACT), *all = NULL;
    size_t *sizes = sago_alloc_zero((size_t)mesh->size, sizeof *sizes), at = 0;
    sago_status status =
        sago_gather_bytes(mesh, SAGO_WORLD_AXIS, mine, mine ? strlen(mine) : 0, 0, &all, sizes);
    for (int r = 0; status == SAGO_OK && mesh->rank == 0 && r < mesh->size; at += sizes[r++]) {
        json_t *theirs = NULL;
        status = sago_json_parse(all + at, sizes[r], "findings", 0, &theirs);
        if (status == SAGO_OK &&
            (!of_nodes || json_integer_value(json_object_get(theirs, "local_rank")) == 0))
            json_array_append(all_of_them, theirs);
        json_decref(theirs);
    }
    free(mine);
    free(all);
    free(sizes);
    return sago_agree(mesh, status);
}

static void print_findings(const json_t *findings, bool differ_only, const json_t *first, int *n_warnings) {
    size_t i;
    json_t *finding;
    json_array_foreach((json_t *)findings, i, finding) {
        const char *state = json_string_value(json_object_get(finding, "status"));
        const char *remedy = json_string_value(json_object_get(finding, "remedy"));
        if (differ_only && json_equal(finding, json_array_get(first, i))) continue;
        *n_warnings += strcmp(state, "warn") == 0 || strcmp(state, "fail") == 0;
        printf("%-5s %-14s %s\n", state, json_string_value(json_object_get(finding, "name")),
               json_string_value(json_object_get(finding, "text")));
        if (remedy[0]) printf("%-5s %-14s -> %s\n", "", "", remedy);
    }
}

static void print(const json_t *nodes, const json_t *together) {
    int n_warnings = 0;
    const json_t *first = json_object_get(json_array_get(nodes, 0), "findings");
    size_t i;
    json_t *node;
    json_array_foreach((json_t *)nodes, i, node) {
        if (json_array_size(nodes) > 1)
            printf("%s%s, %lld rank%s%s\n", i ? "\n" : "", json_string_value(json_object_get(node, "host")),
                   (long long)json_integer_value(json_object_get(node, "ranks")),
                   json_integer_value(json_object_get(node, "ranks")) == 1 ? "" : "s",
                   i ? " (where it differs from the first node)" : "");
        print_findings(json_object_get(node, "findings"), i > 0, first, &n_warnings);
    }
    if (json_array_size(nodes) > 1) printf("\nall nodes\n");
    print_findings(together, false, NULL, &n_warnings);
    if (n_warnings)
        printf("%d thing%s to look at\n", n_warnings, n_warnings == 1 ? "" : "s");
    else
        printf("all well\n");
}

/* A failed finding is an error of the command too, so that scripts see it. */
static sago_status judge(const json_t *nodes, const json_t *together) {
    for (size_t n = 0; n <= json_array_size(nodes); n++) {
        const json_t *node = json_array_get(nodes, n);
        const json_t *findings = node ? json_object_get(node, "findings") : together;
        size_t i;
        json_t *finding;
        json_array_foreach((json_t *)findings, i, finding) {
            if (strcmp(json_string_value(json_object_get(finding, "status")), "fail") != 0) continue;
            return sago_fail(SAGO_E_DEVICE, "%s: %s", json_string_value(json_object_get(finding, "name")),
                             json_string_value(json_object_get(finding, "text")));
        }
    }
    return SAGO_OK;
}

/* The folder that a run's files would go to, or what there is of the way to it. */
static char *folder_of(const sago_arguments *arguments, const sago_config *config) {
    const char *named = sago_argument(arguments, "--dir");
    if (named) return sago_strdup(named);
    char *dir = sago_path_absolute(config->run.dir[0] ? config->run.dir : ".");
    while (!sago_is_dir(dir) && strcmp(dir, "/") != 0) {
        char *above = sago_path_dir(dir);
        free(dir);
        dir = above;
    }
    return dir;
}

static sago_status check_ranks(sago_mesh *mesh, const sago_arguments *arguments, const sago_config *config,
                               json_t *records, json_t *together) {
    json_t *mine = NULL;
    char *dir = folder_of(arguments, config);
    sago_status status = sago_rank_measure(mesh, config, dir, &mine);
    if (status == SAGO_OK) status = gather(mesh, mine, false, records);
    if (status == SAGO_OK && mesh->rank == 0) sago_ranks_judge(records, together);
    json_decref(mine);
    free(dir);
    return status;
}

static sago_status run(const sago_arguments *arguments) {
    sago_config *config = NULL;
    sago_mesh *mesh = NULL;
    json_t *nodes = json_array(), *together = json_array(), *records = json_array(), *here = NULL;
    sago_status status;
    char text[256];
    SAGO_TRY_TO(done, sago_argument_config(arguments, arguments->positional[0], &config));
    SAGO_TRY_TO(done, sago_mesh_open(config->mesh.data, config->mesh.model,
                                     (double)config->mesh.timeout_seconds, &mesh));
    here = check_here(mesh, config);
    SAGO_TRY_TO(done, gather(mesh, here, true, nodes));
    sago_mesh_describe(mesh, text);
    sago_finding_add(together, "mpi", "ok", "", "%s; data %d x model %d", text,
                     mesh->axis_size[SAGO_DATA_AXIS], mesh->axis_size[SAGO_MODEL_AXIS]);
    if (mesh->size > 1) SAGO_TRY_TO(done, check_sums(mesh, together));
    if (sago_argument_switch(arguments, "--all-ranks"))
        SAGO_TRY_TO(done, check_ranks(mesh, arguments, config, records, together));
    if (mesh->rank == 0 && sago_argument_switch(arguments, "--json")) {
        json_t *all = json_pack("{s:O, s:O, s:O}", "nodes", nodes, "together", together, "ranks", records);
        sago_str line = {0};
        sago_json_add(&line, all, 9);
        printf("%s\n", sago_str_text(&line));
        sago_str_free(&line);
        json_decref(all);
    } else if (mesh->rank == 0) {
        print(nodes, together);
    }
    status = sago_agree(mesh, mesh->rank == 0 ? judge(nodes, together) : SAGO_OK);
done:
    json_decref(nodes);
    json_decref(together);
    json_decref(records);
    json_decref(here);
    sago_mesh_close(mesh);
    sago_config_free(config);
    return status;
}

static const sago_option options[] = {
    {"--all-ranks", NULL,
     "the pre-flight of a run: every rank measures products, sums, disk and clocks, and all are laid side by "
     "side",
     false},
    {"--dir", "DIR", "with --all-ranks: the folder whose speed is measured; default: that of run.dir", false},
    {"--json", NULL,
     "prints one JSON object: nodes, each with its findings, those of all together, and the figures of ranks",
     false},
    {0},
};

const sago_command sago_command_doctor = {
    .name = "doctor",
    .summary = "what this machine and this MPI can do, and what stands in the way",
    .usage = "sago doctor [CONFIG.yaml] [--all-ranks] [--dir DIR] [--json] [--set KEY=VALUE ...]",
    .details =
        "One line a finding: ok, info, warn or fail, with a remedy where one is known: program and "
        "libraries, "
        "processor, memory, threads, disk of the current folder, device, NVIDIA driver, GPUs with their "
        "memory and links, CUDA, cuBLASLt and NCCL; started with mpirun, each node, "
        "and how fast ranks sum. With --all-ranks (docs/launch.md) also every rank beside the others: "
        "versions that differ are "
        "a fail, ranks more than 20 % slower than the median a warn with their figures. A CONFIG gives "
        "device, mesh and "
        "run.dir. Exits with 1 when a finding is a fail.",
    .example = "mpirun -n 2 sago doctor --all-ranks --dir runs",
    .options = options,
    .max_positional = 1,
    .uses_mesh = true,
    .run = run,
};
